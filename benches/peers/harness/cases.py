"""The cases: which tensors a step is taken over, and what else happens in a step."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

KI, MI = 1 << 10, 1 << 20

#: Names, or how names begin, and what such a case is. The first row that fits counts.
NAMES = {
    "dense": "AdamW over one tensor",
    "call": "AdamW over tensors of 16 elements: what a step costs that has next to nothing to do",
    "1000x1024": "AdamW over 1,000 tensors of 1,024 elements",
    "gpt2": "AdamW over the 148 tensors of GPT-2 (124 million parameters)",
    "bf16-f32": "AdamW: parameters and gradients in bf16, moments in f32",
    "f16-f32": "AdamW: parameters and gradients in f16, moments in f32",
    "bf16": "AdamW: everything in bf16",
    "q8": "AdamW: moments of 8 bits, the rest in f32",
    "rows-adam": "lazy Adam on listed rows of a table",
    "rows-adagrad": "AdaGrad on listed rows of a table",
    "tail": "all after a backward pass: loss scaling undone, clipping by the norm, AdamW, gradients zeroed",
}

#: Endings of names, and what they add.
ENDINGS = {
    "-gaps": "; the caller does 5 ms of other work between steps",
    "-after": "; each step comes right after an operation of PyTorch over 4 Mi numbers, as after a backward pass",
}


@dataclass(frozen=True)
class Case:
    """What is measured, as driver and workers tell each other."""

    name: str
    #: The type of parameters.
    dtype: str
    #: The tensors' lengths; of tables, one: all rows.
    lens: tuple[int, ...]
    #: Of tables: numbers in a row.
    width: int = 0
    #: Of tables: rows with a gradient, some of them twice.
    indices: int = 0
    #: Milliseconds of other work between steps.
    gap_ms: float = 0.0
    #: Whether each step comes right after an operation of PyTorch, in processes that have imported it.
    operation: bool = False

    @property
    def kind(self) -> str:
        """The name without its ending."""
        return kind_of(self.name)

    @property
    def has_gaps(self) -> bool:
        """Whether something else is done between steps."""
        return self.gap_ms > 0.0 or self.operation

    @property
    def elements(self) -> int:
        """The elements that a step has to do with: of tables, those of the gradient."""
        return self.indices * self.width if self.width else sum(self.lens)

    @property
    def is_table(self) -> bool:
        """Whether this is about rows of a table."""
        return self.width > 0

    @property
    def bytes(self) -> int:
        """About as much memory as one competitor takes: parameters, gradients and two moments."""
        each = {"f32": 4, "bf16": 2, "f16": 2}[self.dtype]
        moments = {"bf16": 4, "q8": 2}.get(self.kind, 8)
        return sum(self.lens) * (2 * each + moments)

    def with_gaps(self) -> Case:
        """The same, with other work between steps."""
        return replace(self, name=f"{self.name}-gaps", gap_ms=5.0)

    def after_an_operation(self) -> Case:
        """The same, right after an operation of PyTorch."""
        return replace(self, name=f"{self.name}-after", operation=True)

    def small(self) -> Case:
        """The same on little data, whose results are compared."""
        alone = replace(self, gap_ms=0.0, operation=False)
        if self.is_table:
            return replace(alone, lens=(256 * self.width,), indices=96)
        return replace(alone, lens=(8 * KI,) if self.kind == "q8" else (1000, 24))

    def to_json(self) -> dict[str, Any]:
        """A form for pipes."""
        return asdict(self)

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Case:
        """The inverse of :meth:`to_json`."""
        return Case(**{**fields, "lens": tuple(fields["lens"])})


def gpt2() -> tuple[int, ...]:
    """The lengths of the 148 parameter tensors of GPT-2 with 124 million parameters (Radford et al., 2019)."""
    width = 768
    layer = [
        *(width, width),  # first layer norm
        *(width * 3 * width, 3 * width),  # attention in
        *(width * width, width),  # attention out
        *(width, width),  # second layer norm
        *(width * 4 * width, 4 * width),  # perceptron in
        *(4 * width * width, width),  # perceptron out
    ]
    return (50_257 * width, 1024 * width, *(layer * 12), width, width)


def fits(wanted: str, name: str) -> bool:
    """Whether a case goes by this name: ``dense`` is that of ``dense-gaps``, too."""
    return not wanted or name == wanted or name.startswith(f"{wanted}-")


def kind_of(name: str) -> str:
    """A name without its ending."""
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return name


def explain(name: str) -> str:
    """What a case is, by its name."""
    kind = kind_of(name)
    return NAMES[kind] + ENDINGS.get(name.removeprefix(kind), "")


#: Beyond, a step takes much longer than a pool takes to wake, and the caches are cold anyway.
LARGEST_WITH_GAPS = 4 * MI


def all_cases(quick: bool, wanted: str = "") -> list[Case]:
    """The cases whose names fit."""
    powers = [16 * KI, MI, 16 * MI] if quick else [4 * KI << shift for shift in range(0, 16, 2)]
    cases = [Case("dense", "f32", (power,)) for power in powers]
    cases += [Case("call", "f32", (16,)), Case("call", "f32", (16,) * 148)]
    cases.append(Case("1000x1024", "f32", (KI,) * 1000))
    if not quick:
        cases.append(Case("gpt2", "f32", gpt2()))
    for power in [MI] if quick else [64 * KI, MI, 16 * MI]:
        cases += [Case("bf16-f32", "bf16", (power,)), Case("f16-f32", "f16", (power,))]
        cases += [Case("bf16", "bf16", (power,)), Case("q8", "f32", (power,))]
    rows = 128 * KI if quick else MI
    for indices in [4096] if quick else [4096, 65_536]:
        cases += [Case(name, "f32", (rows * 64,), 64, indices) for name in ("rows-adam", "rows-adagrad")]
    cases += [Case("tail", "f32", (power,)) for power in ([MI] if quick else [64 * KI, MI, 16 * MI])]
    with_gaps = []
    for case in cases:
        with_gaps.append(case)
        if sum(case.lens) <= LARGEST_WITH_GAPS and (not quick or case.kind == "dense"):
            with_gaps.append(case.with_gaps())
            if case.kind == "dense":
                with_gaps.append(case.after_an_operation())
    return [case for case in with_gaps if fits(wanted, case.name)]
