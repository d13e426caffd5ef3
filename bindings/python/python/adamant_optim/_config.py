"""The version, the instruction set and the threads in use."""

from __future__ import annotations

import sys

from . import _core


def show_config() -> None:
    """Prints the version, the instruction set that steps run on, and the number of threads.

    ``ADAMANT_ISA=scalar|avx2|avx512|neon`` in the environment overrides the choice of the instruction set, and
    an optimizer's ``isa`` and ``threads`` override both. ``ADAMANT_OPENMP=0`` keeps steps off PyTorch's threads.
    """
    selected, available = _core.instruction_sets()
    lines = [
        f"adamant_optim {_core.VERSION}",
        f"instruction set: {selected} (this CPU has {', '.join(available)})",
        f"threads: {_core.default_threads()}",
        f"Python: {sys.version.split()[0]}",
    ]
    for name in ("torch", "numpy"):
        # A module that is not imported yet stays so: importing PyTorch takes a second.
        module = sys.modules.get(name)
        lines.append(f"{name}: {module.__version__ if module else 'not imported'}")
    if "torch" in sys.modules:
        library = _core.openmp_library()
        of = f"its threads while they are awake, by {library}" if library else "threads of its own"
        lines.append(f"beside PyTorch: {of}")
    print("\n".join(lines))
