"""The libraries, a module each. A module is imported in its worker alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Where a library comes from, and where it runs."""

    #: The module of this package that has the competitors.
    module: str
    #: The folder of the Python environment that the library is installed in.
    environment: str
    #: A folder of packages that take precedence over those of the environment.
    overlay: str = ""


#: In the order of the rounds.
SOURCES = (
    Source("adamant", "torch"),
    Source("pytorch", "torch"),
    Source("deepspeed", "torch"),
    Source("bitsandbytes", "torch"),
    Source("bitsandbytes_cpu_fork", "torch", overlay="bitsandbytes-cpu-fork"),
    Source("optimi", "torch"),
    Source("trainstream", "torch"),
    Source("tensorflow", "tensorflow"),
    Source("fbgemm", "fbgemm"),
)
