"""Checks of the options that optimizers of PyTorch and of numpy arrays share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def check_number(name: str, value: Any) -> None:
    """Checks that a value is a number, or a tensor of one."""
    if not hasattr(value, "__float__"):
        raise TypeError(f"{name} is {value!r}, but must be a number")


def check_numbers(name: str, values: Any, count: int) -> None:
    """Checks that values are so many numbers."""
    if not hasattr(values, "__len__") or len(values) != count:
        raise ValueError(f"{name} must be {count} numbers, but are {values}")
    for index, value in enumerate(values):
        check_number(f"{name}[{index}]", value)


def check_flag(name: str, value: Any) -> None:
    """Checks that a value is ``True`` or ``False``, numpy's included."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise TypeError(f"{name} is {value!r}, but must be True or False")


def _check_whole(name: str, value: Any, least: int, most: int, most_name: str) -> None:
    # numpy's whole numbers, too.
    if not (hasattr(value, "__index__") and least <= value <= most):
        raise ValueError(f"{name} is {value!r}, but must be a whole number from {least} to {most_name}")


def check_steps(optimizer: Any) -> None:
    """Checks the options of a whole optimizer, which may be changed between steps.

    Raises:
        TypeError, ValueError: one has no meaning.
    """
    norm = optimizer.max_grad_norm
    if norm is not None:
        check_number("max_grad_norm", norm)
        if not norm > 0:
            raise ValueError(f"max_grad_norm is {norm}, but must be over 0")
    for key in ("skip_nonfinite", "zero_grad_in_step"):
        check_flag(key, getattr(optimizer, key))
    if optimizer.threads is not None:
        _check_whole("threads", optimizer.threads, 1, 1024, "1024")
    isa = optimizer.isa
    if isa not in (None, "scalar", "avx2", "avx512", "neon"):
        raise ValueError(f'isa is {isa!r}, but must be None, "scalar", "avx2", "avx512" or "neon"')
    _check_whole("seed", optimizer.seed, 0, 2**64 - 1, "2**64 - 1")


def name_bad_option(check: Callable[[], None]) -> None:
    """After an error in a step: raises that of ``check``, if an option was changed to something without a meaning."""
    try:
        check()
    except (TypeError, ValueError) as error:
        raise error from None
