"""What was measured, as tables and as JSON."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from .cases import KI, MI, explain


@dataclass
class Row:
    """One competitor in one case."""

    case: str
    dtype: str
    elements: int
    threads: int
    competitor: str
    version: str
    #: The median of all rounds.
    ns_per_element: float
    min_ns_per_element: float
    #: Of tables, and of calls that have next to nothing to do.
    us_per_step: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The keys that have a value."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Row:
        """The inverse of :meth:`to_json`."""
        return Row(**fields)


@dataclass
class Header:
    """The machine, and who took part."""

    cpu: str
    cores: int
    caches: list[str]
    system: str
    quick: bool
    versions: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def cpu_name(info: str) -> str:
    """The CPU by the text of ``/proc/cpuinfo``."""
    fields: dict[str, str] = {}
    for line in info.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or fields.get("CPU part") or "unknown CPU"
    if "cpu family" in fields and "model" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name


def _caches() -> list[str]:
    found = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        found.append(f"L{level}{ {'Data': 'd', 'Instruction': 'i'}.get(kind, '') } {size}".replace("  ", " "))
    return found


def cores() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def detect(quick: bool) -> Header:
    """The header of a run on this machine."""
    path = Path("/proc/cpuinfo")
    cpu = cpu_name(path.read_text()) if path.exists() else platform.processor()
    return Header(cpu, cores(), _caches(), f"{platform.machine()}-{platform.system().lower()}", quick)


def to_json(header: Header, rows: list[Row]) -> dict[str, Any]:
    """Everything that a run found out."""
    return {"header": asdict(header), "rows": [row.to_json() for row in rows]}


def count(number: int) -> str:
    """``16 Ki`` for 16,384."""
    for unit, name in ((MI, "Mi"), (KI, "Ki")):
        if number >= unit and number % unit == 0:
            return f"{number // unit} {name}"
    return str(number)


def tables(rows: list[Row]) -> str:
    """A table for each case, type and number of threads: a line for each competitor, a column for each size.

    A star marks the fastest of a column.
    """

    def key(row: Row) -> tuple[str, str, int]:
        return row.case, row.dtype, row.threads

    order = {each: place for place, each in reversed(list(enumerate(map(key, rows))))}
    texts = []
    for (case, dtype, threads), group in groupby(sorted(rows, key=lambda row: order[key(row)]), key=key):
        texts.append(_table(case, dtype, threads, list(group)))
    return "\n\n".join(texts)


def _table(case: str, dtype: str, threads: int, rows: list[Row]) -> str:
    in_us = all(row.us_per_step is not None for row in rows)
    cells = {(row.competitor, row.elements): row.us_per_step if in_us else row.ns_per_element for row in rows}
    sizes = sorted({row.elements for row in rows})
    names = list(dict.fromkeys(row.competitor for row in rows))
    fastest = {size: min(value for (_, at), value in cells.items() if at == size and value) for size in sizes}
    unit = "microseconds a step" if in_us else "ns an element"
    of_threads = "1 thread" if threads == 1 else f"{threads} threads"
    lines = [f"{case} ({dtype}), {of_threads}, {unit}: {explain(case)}"]
    lines.append(f"  {'elements':<48}" + "".join(f"{count(size):>10} " for size in sizes).rstrip())
    for name in names:
        line = f"  {name:<48}"
        for size in sizes:
            value = cells.get((name, size))
            text = "-" if value is None else f"{value:.1f}" if in_us else f"{value:.3f}"
            line += f"{text:>10}{'*' if value is not None and value == fastest[size] else ' '}"
        lines.append(line.rstrip())
    return "\n".join(lines)
