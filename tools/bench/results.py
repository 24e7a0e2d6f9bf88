"""The measurements of a run of the benchmark, as they are saved and shown."""

import json
import os
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

VECTORS = {
    "AMX": "amx_int8",
    "AVX-512 VNNI": "avx512_vnni",
    "AVX-512 BF16": "avx512_bf16",
    "AVX-VNNI": "avx_vnni",
    "AVX2": "avx2",
    "dot products": "asimddp",
    "I8MM": "i8mm",
    "SVE": "sve",
}
"""Names of vector instructions, by the flags of /proc/cpuinfo."""
LARGE_IS_GOOD = frozenset({"tokens/s", "decoding/s", "of memory", "inputs/s", "requests/s", "prompt/s"})
"""The other figures are better small."""


@dataclass(slots=True)
class Machine:
    """The machine of a run."""

    processor: str
    cores: int
    system: str
    bandwidth: float = 0.0
    """Bytes a second that its cores read together; 0: not measured."""
    vectors: str = ""
    """The widest vector instructions, as far as they matter to the products of matrices."""

    @classmethod
    def this(cls) -> Self:
        """Describe this machine."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        about = _about()
        return cls(processor(about), cores, system, vectors=vectors(about))

    @property
    def folder(self) -> str:
        """The name of the folder for its results: machines of one kind share it."""
        return re.sub("[^a-z0-9]+", "-", f"{self.processor} {self.cores} cores".lower()).strip("-")


@dataclass(slots=True)
class Figure:
    """One figure of one scenario."""

    scenario: str
    name: str
    values: dict[str, list[float | None]]
    """Of each server, one for each round; None where the server did not tell."""

    @property
    def medians(self) -> dict[str, float]:
        """Of each server that told it in some round."""
        told = {name: [each for each in values if each is not None] for name, values in self.values.items()}
        return {name: statistics.median(values) for name, values in told.items() if values}

    def ratios(self, first: str, other: str) -> list[float]:
        """Return a server's ratio to another, round by round, in ascending order."""
        pairs = zip(self.values.get(first, ()), self.values.get(other, ()), strict=False)
        return sorted(a / b for a, b in pairs if a is not None and b)


@dataclass(slots=True)
class Results:
    """All figures of a run."""

    machine: Machine
    rounds: int
    servers: dict[str, str]
    """Name to what the page says of it: command and version. The first is compared with the others."""
    figures: list[Figure] = field(default_factory=list)
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    def add(self, scenario: str, figure: str, values: dict[str, Sequence[float | None]]) -> None:
        """Add a figure."""
        self.figures.append(Figure(scenario, figure, {name: list(each) for name, each in values.items()}))

    def save(self, path: Path) -> None:
        """Write all of it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        machine = Machine(**found.pop("machine"))
        figures = [Figure(**each) for each in found.pop("figures")]
        return cls(machine=machine, figures=figures, **found)


def processor(about: Mapping[str, str]) -> str:
    """Return a processor's name. Virtual machines shorten it, so it is completed by family and model."""
    name = about.get("model name", platform.processor() or platform.machine())
    return f"{name} (family {about['cpu family']}, model {about['model']})" if "cpu family" in about else name


def vectors(about: Mapping[str, str]) -> str:
    """Return the vector instructions of a processor; empty if it tells none of those known."""
    flags = (about.get("flags") or about.get("Features") or "").split()
    return ", ".join(name for name, flag in VECTORS.items() if flag in flags)


def _about() -> dict[str, str]:
    """Return what Linux tells of the first core; nothing elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
