"""The distance of two texts: how many letters must be inserted, removed or replaced."""


def distance(one: str, other: str, limit: int) -> int:
    """Return the Levenshtein distance, or `limit` if it is not less."""
    start = 0
    shortest = min(len(one), len(other))
    while start < shortest and one[start] == other[start]:
        start += 1
    end = 0
    while end < shortest - start and one[-1 - end] == other[-1 - end]:
        end += 1
    one, other = one[start : len(one) - end], other[start : len(other) - end]
    if abs(len(one) - len(other)) >= limit:
        return limit
    # Only cells within `limit` of the diagonal can be less than it.
    before = {column: column for column in range(min(len(other), limit) + 1)}
    for row, letter in enumerate(one, 1):
        first, last = max(0, row - limit), min(len(other), row + limit)
        now: dict[int, int] = {}
        for column in range(first, last + 1):
            if column == 0:
                now[0] = row
                continue
            replaced = before.get(column - 1, limit) + (letter != other[column - 1])
            now[column] = min(replaced, before.get(column, limit) + 1, now.get(column - 1, limit) + 1)
        before = now
        if min(before.values()) >= limit:
            return limit
    return min(before[len(other)], limit)
