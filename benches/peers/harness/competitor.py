"""What a library offers: competitors, each a step that a worker repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .cases import Case

if TYPE_CHECKING:
    from .data import Data


@dataclass
class Competitor:
    """One way to take a step."""

    name: str
    #: Takes a step.
    step: Callable[[], object]
    #: The parameters as they are now, in ``f32``.
    params: Callable[[], list[Any]]
    #: Runs before each step, off the clock.
    prepare: Callable[[], object] | None = None


@dataclass
class Opened:
    """The competitors of a case, and the reasons why others are left out."""

    competitors: list[Competitor] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, make: Callable[[], Competitor]) -> None:
        """Makes a competitor and takes a first step, or notes why it cannot."""
        with self._noting(name):
            competitor = make()
            if competitor.prepare:
                competitor.prepare()
            competitor.step()
            self.competitors.append(competitor)

    @contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Whatever a library raises is a reason to leave it out.
            self.left_out[name] = sentence(error)


def sentence(error: BaseException) -> str:
    """An error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # A line that announces others says less than the last of them.
    line = lines[-1] if lines[0].endswith(":") else lines[0]
    return f"{type(error).__name__}: {line[:160]}"


@dataclass
class Library:
    """A package with optimizers, in a worker of its own."""

    #: The package in the index.
    package: str
    version: str
    #: Makes the competitors of a case. What a library has nothing for is no competitor, and no fault.
    open: Callable[[Case, Data, Opened, int], None]
