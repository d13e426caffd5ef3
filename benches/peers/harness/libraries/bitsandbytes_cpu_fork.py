"""The fork of bitsandbytes for CPUs. It has the same modules, and so it lives in a folder of its own."""

from __future__ import annotations

from importlib.metadata import version

from ..cases import Case
from ..competitor import Library, Opened
from ..data import Data
from .bitsandbytes import LIBRARY as ORIGINAL


def _open(case: Case, data: Data, opened: Opened, threads: int) -> None:
    ORIGINAL.open(case, data, opened, threads)
    for competitor in opened.competitors:
        competitor.name = competitor.name.replace("bitsandbytes", "bitsandbytes-cpu-fork", 1)


LIBRARY = Library("bitsandbytes-cpu-fork", version("bitsandbytes-cpu-fork"), _open)
