"""The compiled part of the package."""

from collections.abc import Callable, Sequence
from typing import Any, Final, final

VERSION: Final[str]

def optimizers() -> list[str]: ...
def instruction_sets() -> tuple[str, list[str]]: ...
def device_name(array: Any, kind: int, id: int) -> str: ...
def is_host(kind: int) -> bool: ...
def default_threads() -> int: ...
def openmp_calls() -> int: ...
def openmp_library() -> str | None: ...
def nadam_product(beta1: float, momentum_decay: float, t: int) -> float: ...
def describe(
    optimizer: str, settings: dict[str, Any]
) -> tuple[dict[str, float | bool | str], list[tuple[str, float | None, str]]]: ...
def q8_encode(format: str, values: Any, codes: Any, scales: Any) -> None: ...
def q8_decode(format: str, codes: Any, scales: Any, values: Any) -> None: ...
def grad_norm(grads: list[tuple[str, Any]], order: float, threads: int | None, isa: str | None) -> float: ...
def clip_factor(norm: float, max_norm: float) -> float: ...
def step_arrays(
    optimizer: str,
    settings: dict[str, Any],
    names: list[str] | None,
    params: Sequence[Any],
    grads: Sequence[Any],
    states: Sequence[Any],
    moments: list[tuple[str, bool]],
    in_order: Callable[[Any, Any, str], Any],
    stochastic_rounding: bool,
    grad_factor: float,
    max_grad_norm: float | None,
    skip_nonfinite: bool,
    zero_grad: bool,
    threads: int | None,
    isa: str | None,
    seed: int,
) -> tuple[bool, float | None]: ...

@final
class Stepper:
    skipped: int
    def __new__(
        cls,
        torch: Any,
        types: list[type],
        increment_version: Any,
        plan: tuple[str, tuple[str, str] | None, list[tuple[str, int | None, str]], list[tuple[str, Any]]],
        without_exchange_api: bool,
    ) -> Stepper: ...
    def check(self, group: dict[str, Any]) -> None: ...
    def moments(self, group: dict[str, Any]) -> list[tuple[str, float, str]]: ...
    def counts_steps(self, group: dict[str, Any], is_16_bit: bool) -> bool: ...
    def step(
        self,
        owner: Any,
        groups: list[dict[str, Any]],
        states: dict[Any, Any],
        grad_factor: float,
        max_grad_norm: float | None,
        skip_nonfinite: bool,
        zero_grad: bool,
        threads: int | None,
        isa: str | None,
        seed: int,
        listed: list[tuple[int, int, Any]] | None,
    ) -> tuple[bool, float | None]: ...
    def catch_up(
        self,
        owner: Any,
        groups: list[dict[str, Any]],
        states: dict[Any, Any],
        param: Any,
        rows: Any,
        threads: int | None,
    ) -> None: ...
    def has_rows_behind(self) -> bool: ...
    def leave_out(self) -> None: ...
    def reset_rows(self) -> None: ...
    def forget(self) -> None: ...
