"""trainstream, whose optimizer steps on the CPU what lies on a GPU. It cannot be imported without one."""

from __future__ import annotations

from importlib.metadata import version

import trainstream.optimizer  # noqa: F401

from ..cases import Case
from ..competitor import Library, Opened
from ..data import Data


def _open(case: Case, data: Data, opened: Opened, threads: int) -> None:
    opened.left_out["trainstream OffloadAdamW"] = "its parameters lie on a GPU"


LIBRARY = Library("trainstream", version("trainstream"), _open)
