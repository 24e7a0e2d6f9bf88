"""Numbers as people read them: counts of parameters and sizes in bytes."""


def parameter_size(count: int) -> str:
    """Write a count of parameters: "8B", "2.8B", "134.52M", "361K", "12"."""
    if count >= 1_000_000_000:
        return _scaled(count, 1_000_000_000, 1) + "B"
    if count >= 1_000_000:
        return _scaled(count, 1_000_000, 2) + "M"
    if count >= 1_000:
        return f"{count / 1_000:.0f}K"
    return str(count)


def _scaled(count: int, unit: int, decimals: int) -> str:
    value = count / unit
    return f"{value:.0f}" if count % unit == 0 else f"{value:.{decimals}f}"


def byte_size(size: int) -> str:
    """Write a size in powers of 1000: "511 KB", "1.2 KB", "1 GB"."""
    value, unit = float(size), "B"
    for power, name in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "KB")):
        if size >= 1000**power:
            value, unit = size / 1000**power, name
            break
    # Ollama truncates here, as Go's conversion to int does.
    if value >= 10 or value == int(value):
        return f"{int(value)} {unit}"
    return f"{value:.1f} {unit}"
