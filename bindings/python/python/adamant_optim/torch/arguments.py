"""Arguments of optimizers: their checks, and how they become settings of the core."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .._checks import check_number, check_numbers

BETAS = ("beta1", "beta2")
BETAS3 = (*BETAS, "beta3")

#: Arguments that are at least 0 in every optimizer that has them.
_AT_LEAST_0 = (
    "alpha",
    "alpha_warmup",
    "beta",
    "beta3_warmup",
    "eps",
    "initial_accumulator_value",
    "l1_regularization_strength",
    "l2_regularization_strength",
    "l2_shrinkage_regularization_strength",
    "lambd",
    "lr_decay",
    "momentum",
    "momentum_decay",
    "weight_decay",
)


def from_group(
    optimizer: str,
    *keys: str,
    variant: tuple[str, str] | None = None,
    fixed: dict[str, Any] | None = None,
    **pairs: tuple[str, ...],
) -> tuple[Any, ...]:
    """How settings of the core come from a group: by the same key, or each of a pair."""
    sources: list[tuple[str, int | None, str]] = [(key, None, key) for key in keys]
    for key, names in pairs.items():
        sources += [(key, position, name) for position, name in enumerate(names)]
    return optimizer, variant, sources, list((fixed or {}).items())


def arguments(variables: dict[str, Any]) -> dict[str, Any]:
    """The optimizer's own arguments: what ``locals()`` is at the beginning of an ``__init__``, less the parameters and
    the options that all optimizers have."""
    return {key: value for key, value in variables.items() if key not in ("self", "params", "options", "__class__")}


def checked(variables: dict[str, Any], betas: int = 2) -> dict[str, Any]:
    """The :func:`arguments`, which become the group's defaults, after the checks that are the same everywhere.

    Args:
        variables: ``locals()`` at the beginning of an ``__init__``.
        betas: how many ``betas`` there must be, if the optimizer has any.

    Raises:
        ValueError: one is out of its range; in PyTorch's words, where PyTorch has the optimizer.
        TypeError: one is not a number.
    """
    settings = arguments(variables)
    for name, value in settings.items():
        if isinstance(value, Tensor) and value.is_meta:
            raise TypeError(f"{name} is on meta, but must be a number")
    lr = settings["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    check_number("lr", lr)
    if not 0.0 <= lr:
        raise ValueError(f"Invalid learning rate: {lr}")
    for name in _AT_LEAST_0:
        if name not in settings:
            continue
        check_number(name, settings[name])
        if not 0.0 <= settings[name]:
            raise ValueError(f"Invalid {'epsilon' if name == 'eps' else name} value: {settings[name]}")
    if "betas" in settings:
        check_numbers("betas", settings["betas"], betas)
        for index, beta in enumerate(settings["betas"]):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Invalid beta parameter at index {index}: {beta}")
    return settings
