"""The process that a library runs in. It does what the driver says, a line of JSON for each order and answer.

``python -m harness.worker MODULE THREADS``
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TextIO

import numpy as np

from . import data
from .cases import Case
from .competitor import Competitor, Library, Opened, sentence

#: The work between steps goes through more memory than a core's own caches hold.
_OTHER = np.ones(8 << 20, np.float32)
_CHUNK = 64 << 10


def other_work(milliseconds: float) -> None:
    """Works on other data for a while, on this thread alone."""
    end = time.perf_counter_ns() + int(milliseconds * 1e6)
    place = 0
    while time.perf_counter_ns() < end:
        chunk = _OTHER[place : place + _CHUNK]
        np.add(chunk, 1.0, out=chunk)
        place = (place + _CHUNK) % len(_OTHER)


def operation() -> Callable[[], Any]:
    """An operation of PyTorch on all its threads; nothing in a process that does without PyTorch."""
    torch = sys.modules.get("torch")
    if torch is None:
        return lambda: None
    return torch.ones(4 << 20).neg_


def time_steps(competitor: Competitor, repetitions: int, before: Callable[[], Any] | None = None) -> int:
    """The nanoseconds of so many steps, before each of which something else is done, off the clock."""
    step, prepare = competitor.step, competitor.prepare
    if prepare is None and before is None:
        start = time.perf_counter_ns()
        for _ in range(repetitions):
            step()
        return time.perf_counter_ns() - start
    total = 0
    for _ in range(repetitions):
        if prepare:
            prepare()
        if before:
            before()
        start = time.perf_counter_ns()
        step()
        total += time.perf_counter_ns() - start
    return total


class Worker:
    """One library, and the case that it has open."""

    def __init__(self, module: str, threads: int) -> None:
        """Imports the library."""
        self.module = importlib.import_module(f".libraries.{module}", __package__)
        self.library: Library = self.module.LIBRARY
        self.threads = threads
        self.case: Case | None = None
        self.competitors: list[Competitor] = []

    def hello(self) -> dict[str, Any]:
        """What the library is."""
        return {"package": self.library.package, "version": self.library.version}

    def open(self, case: dict[str, Any]) -> dict[str, Any]:
        """Makes the competitors of a case, each of which takes a step."""
        self.close()
        self.case = Case.from_json(case)
        opened = Opened()
        self.library.open(self.case, data.make(self.case), opened, self.threads)
        self.competitors = opened.competitors
        names = [competitor.name for competitor in self.competitors]
        return {"competitors": names, "left_out": opened.left_out}

    def close(self) -> dict[str, Any]:
        """Forgets the case."""
        self.competitors.clear()
        gc.collect()
        return {}

    def moved(self, competitor: int) -> dict[str, Any]:
        """How far the first parameters have moved after three steps in all."""
        return {"moved": self._moved(self.competitors[competitor])}

    def reference(self) -> dict[str, Any]:
        """How far they move by the formula."""
        assert self.case is not None
        competitor = self.module.reference(self.case, data.make(self.case))
        if competitor.prepare:
            competitor.prepare()
        competitor.step()
        return {"moved": self._moved(competitor)}

    def _moved(self, competitor: Competitor) -> list[float]:
        assert self.case is not None
        for _ in range(2):
            time_steps(competitor, 1)
        starts = data.make(self.case).params
        ends = [np.asarray(values, np.float64) for values in competitor.params()]
        moved = [end - start.ravel() for end, start in zip(ends, starts, strict=True)]
        return [float(number) for number in np.concatenate(moved)]

    def time(self, competitor: int, repetitions: int) -> dict[str, Any]:
        """Warms up with a step, then times some."""
        assert self.case is not None
        chosen = self.competitors[competitor]
        time_steps(chosen, 1)
        before: Callable[[], Any] | None = None
        if self.case.gap_ms:
            before = partial(other_work, self.case.gap_ms)
        elif self.case.operation:
            before = operation()
        return {"ns": time_steps(chosen, repetitions, before)}


def serve(module: str, threads: int, orders: TextIO, answers: TextIO) -> None:
    """Answers orders until there are no more."""

    def answer(fields: dict[str, Any]) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    try:
        worker = Worker(module, threads)
        answer(worker.hello())
    except Exception as error:  # The reason is told; there is no library to go on with.
        answer({"error": sentence(error)})
        return
    gc.disable()
    for line in orders:
        order = json.loads(line)
        try:
            answer(getattr(worker, order.pop("do"))(**order))
        except Exception as error:  # The driver decides what becomes of it.
            answer({"error": sentence(error)})


def main() -> None:
    """Serves the driver; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.argv[1], int(sys.argv[2]), sys.stdin, answers)


if __name__ == "__main__":
    main()
