"""Measures all competitors of a case in turn, so that all of them see the same moods of the machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO

from .cases import Case
from .libraries import SOURCES
from .process import Process, WorkerError
from .report import Row


@dataclass(frozen=True)
class Plan:
    """How long and how often to measure."""

    rounds: int
    #: Rounds of slow competitors, whose steps take longer than ``most`` together.
    fewest: int
    #: Seconds of one measurement; what takes less is repeated.
    least: float
    #: Seconds that a competitor has for a case.
    most: float

    @staticmethod
    def of(quick: bool) -> Plan:
        """A quick plan, or that of a full run."""
        return Plan(5, 3, 0.002, 0.4) if quick else Plan(15, 3, 0.01, 3.0)


#: Seconds in which no worker runs before one is measured. Linux counts the time of a thread that runs at each tick, and
#: ticks are 10 ms apart at most.
SETTLE = 0.012

#: Seconds after which a measurement begins, whether or not the threads of others sleep.
SETTLE_AT_MOST = 1.0

#: Steps of one measurement with gaps.
STEPS_WITH_GAPS = 3

#: The share of the distance by which results may be off: of a formula that differs, they are off by more. The
#: roundings of 8 and 16 bits take more than those of f32, and most where each operation has one (bf16).
TOLERANCES = {"q8": 0.15, "bf16": 0.25, "bf16-f32": 0.05, "f16-f32": 0.02}
TOLERANCE = 0.005


@dataclass
class Contestant:
    """A competitor, and what has been measured of it."""

    process: Process
    index: int
    name: str
    repetitions: int = 1
    #: Nanoseconds of a step, of each round.
    times: list[float] = field(default_factory=list)
    spent: float = 0.0

    def run(self) -> float:
        """Measures once; returns nanoseconds."""
        start = time.monotonic()
        nanoseconds: float = self.process.order("time", competitor=self.index, repetitions=self.repetitions)["ns"]
        self.spent += time.monotonic() - start
        return nanoseconds

    def wants_more(self, plan: Plan) -> bool:
        """Whether it takes part in another round."""
        return len(self.times) < plan.fewest or self.spent < plan.most


def distance(moved: list[float], expected: list[float]) -> float:
    """How far results lie apart, as a share of the distance that the parameters should have moved."""
    if len(moved) != len(expected):
        return float("inf")
    apart = sum(abs(a - b) for a, b in zip(moved, expected, strict=True))
    # Also where a number is not one.
    return apart / sum(map(abs, expected)) if apart == apart else float("inf")


def free_memory() -> int:
    """The bytes that the system could give to programs."""
    with open("/proc/meminfo") as info:
        fields = dict(line.split(":", 1) for line in info)
    return int(fields["MemAvailable"].split()[0]) * 1024


class Driver:
    """The workers of one number of threads."""

    def __init__(self, environments: Path, threads: int, modules: Iterable[str], plan: Plan, log: IO[bytes]) -> None:
        """Starts the workers."""
        self.threads, self.plan = threads, plan
        #: Libraries and competitors that do not take part, and why.
        self.left_out: dict[str, str] = {}
        self.processes = [Process(source, environments, threads, log) for source in SOURCES if source.module in modules]
        self._checked: dict[tuple[str, str], set[str]] = {}
        for process in list(self.processes):
            try:
                process.hello()
            except WorkerError as error:
                self._drop(process, str(error))

    @property
    def versions(self) -> dict[str, str]:
        """The libraries that take part."""
        return {process.package: process.version for process in self.processes}

    def stop(self) -> None:
        """Ends the workers."""
        for process in self.processes:
            process.stop()

    def measure(self, case: Case) -> list[Row]:
        """Measures all competitors of a case."""
        wrong = self._check(case)
        contestants = [each for each in self._open(case) if each.name not in wrong]
        for contestant in list(contestants):
            self._guarded(contestant, contestants, lambda each: self._calibrate(each, case))
        for _ in range(self.plan.rounds):
            for contestant in list(contestants):
                if contestant.wants_more(self.plan):
                    self._guarded(contestant, contestants, self._round)
        for process in list(self.processes):
            self._ordered(process, "close")
        return [self._row(case, each) for each in contestants if each.times]

    def _open(self, case: Case) -> list[Contestant]:
        contestants = []
        for process in list(self.processes):
            # Up to three competitors, and the numbers that they copy.
            needed, free = 4 * case.bytes, free_memory()
            if needed > free:
                reason = f"may need {needed / 2**30:.1f} GiB of memory, but {free / 2**30:.1f} are free"
                self.left_out[f"{process.package}: {case.name} of {case.elements}"] = reason
                continue
            opened = self._ordered(process, "open", case=case.to_json())
            if opened is None:
                continue
            for name, reason in opened["left_out"].items():
                self.left_out[f"{name}: {case.kind}"] = reason
            contestants += [Contestant(process, index, name) for index, name in enumerate(opened["competitors"])]
        return contestants

    def _check(self, case: Case) -> set[str]:
        """The competitors whose results are not those of the formula, on a small case."""
        key = case.kind, case.dtype
        if key in self._checked:
            return self._checked[key]
        wrong: set[str] = set()
        contestants = self._open(case.small())
        referee = next((each for each in self.processes if each.source.module == "pytorch"), None)
        answer = self._ordered(referee, "reference") if referee else None
        if answer:
            for contestant in contestants:
                found = self._ordered(contestant.process, "moved", competitor=contestant.index)
                apart = distance(found["moved"], answer["moved"]) if found else float("inf")
                if apart > TOLERANCES.get(case.kind, TOLERANCE):
                    wrong.add(contestant.name)
                    reason = f"its results are {100 * apart:.1f} % off: it computes something else"
                    self.left_out[f"{contestant.name}: {case.kind}"] = reason
        self._checked[key] = wrong
        return wrong

    def _calibrate(self, contestant: Contestant, case: Case) -> None:
        """Finds how often a step is repeated in a measurement."""
        if case.has_gaps:
            contestant.repetitions = STEPS_WITH_GAPS
            contestant.run()
            return
        # The first measurement is of cold caches, and the second of few repetitions.
        for _ in range(3):
            step = contestant.run() / contestant.repetitions
            contestant.repetitions = max(1, round(self.plan.least * 1e9 / step))
            if contestant.repetitions == 1:
                break

    def _settle(self) -> None:
        """Waits until the threads of all workers sleep. Those of OpenMP spin for some milliseconds after their work."""
        end = time.monotonic() + SETTLE_AT_MOST
        before = None
        while time.monotonic() < end:
            now = sum(process.cpu_time() for process in self.processes)
            if now == before:
                break
            before = now
            time.sleep(SETTLE)

    def _round(self, contestant: Contestant) -> None:
        self._settle()
        contestant.times.append(contestant.run() / contestant.repetitions)

    def _guarded(
        self, contestant: Contestant, contestants: list[Contestant], run: Callable[[Contestant], None]
    ) -> None:
        """Runs; a competitor that fails takes no part any more."""
        try:
            run(contestant)
        except WorkerError as error:
            self.left_out[contestant.name] = str(error)
            contestants.remove(contestant)

    def _ordered(self, process: Process, do: str, **fields: object) -> dict | None:
        """The answer, or none from a worker that is gone."""
        try:
            return process.order(do, **fields)
        except WorkerError as error:
            self._drop(process, str(error))
            return None

    def _drop(self, process: Process, reason: str) -> None:
        """Does without a worker from now on."""
        process.stop()
        self.left_out[process.package] = reason
        if process in self.processes:
            self.processes.remove(process)
        print(f"left out: {process.package}: {reason}", file=sys.stderr)

    def _row(self, case: Case, contestant: Contestant) -> Row:
        middle, least = median(contestant.times), min(contestant.times)
        row = Row(
            case=case.name,
            dtype=case.dtype,
            elements=case.elements,
            threads=self.threads,
            competitor=contestant.name,
            version=contestant.process.version,
            ns_per_element=middle / case.elements,
            min_ns_per_element=least / case.elements,
        )
        if case.is_table or case.kind == "call":
            row.us_per_step = middle / 1000
        return row
