"""Optimizers with settings, and how they are stepped, for several tests."""

from __future__ import annotations

from typing import Any

import adamant_optim
import torch

#: For each optimizer settings that use all of its parts.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "dampening": 0.5}],
    "ASGD": [{}, {"t0": 2, "lambd": 0.1}],
    "Adagrad": [{}, {"lr_decay": 0.1, "initial_accumulator_value": 0.2}],
    "Adadelta": [{}, {"rho": 0.8}],
    "RMSprop": [{}, {"momentum": 0.9}, {"centered": True, "momentum": 0.5}],
    "Rprop": [{}, {"etas": (0.4, 1.5), "step_sizes": (1e-4, 1.0)}],
    "Adam": [{}, {"amsgrad": True}, {"decoupled_weight_decay": True}, {"betas": (0.3, 0.6)}],
    "AdamW": [{}, {"amsgrad": True}],
    "Adamax": [{}],
    "NAdam": [{}, {"decoupled_weight_decay": True}, {"momentum_decay": 0.1}],
    "RAdam": [{}, {"decoupled_weight_decay": True}],
}

#: Those that PyTorch does not have.
OWN = ["Lion", "ADOPT", "AdEMAMix", "Adan", "Yogi", "AdaBelief", "FTRL"]


def configurations() -> list[tuple[str, dict[str, Any]]]:
    """Every optimizer of PyTorch, with each of its settings, decay and direction."""
    found = []
    for name, settings in SETTINGS.items():
        for kwargs in settings:
            found.append((name, kwargs))
            more = {"maximize": True}
            if name != "Rprop":
                more["weight_decay"] = 0.1
            found.append((name, {**kwargs, **more}))
    # Older versions of PyTorch lack some arguments.
    return [(name, kwargs) for name, kwargs in found if is_known(name, kwargs)]


def is_known(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether this version of PyTorch has the arguments."""
    try:
        getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(1))], **kwargs)
    except TypeError:
        return False
    return True


def has_names() -> bool:
    """Whether this version of PyTorch has named parameters."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 6)


def named(name: str, param: Any, position: int = 0) -> tuple[Any, str]:
    """A parameter for the list of an optimizer, with its name where PyTorch has names, and what errors call it."""
    if has_names():
        return (name, param), f"parameter {name!r}"
    return param, f"param_groups[0]['params'][{position}]"


def params(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    """A matrix, a vector and a scalar."""
    shapes = [(7, 5), (3,), ()]
    return [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64).to(dtype)) for shape in shapes]


def copies(params: list[torch.nn.Parameter], dtype: torch.dtype | None = None) -> list[torch.nn.Parameter]:
    """Parameters with the same values."""
    return [torch.nn.Parameter(param.detach().clone().to(dtype or param.dtype)) for param in params]


def set_grads(*lists: list[torch.nn.Parameter]) -> None:
    """Gives parameters new gradients, those of all lists the same ones."""
    for same in zip(*lists):
        grad = torch.randn(same[0].shape, dtype=same[0].dtype)
        for param in same:
            param.grad = grad.detach().clone().to(param.dtype)


def pair(
    name: str, kwargs: dict[str, Any], dtype: torch.dtype = torch.float32
) -> tuple[Any, Any, list[Any], list[Any]]:
    """An optimizer of ours and PyTorch's, and their parameters."""
    ours = params(dtype)
    theirs = copies(ours)
    return getattr(adamant_optim, name)(ours, **kwargs), getattr(torch.optim, name)(theirs, **kwargs), ours, theirs


def assert_close(ours: list[Any], theirs: list[Any], roundings: float = 50) -> None:
    """Both went the same way, but for the roundings of some dozen steps."""
    for one, other in zip(ours, theirs):
        error = (one.detach() - other.detach()).abs().max().item()
        scale = max(1.0, other.detach().abs().max().item())
        assert error <= roundings * torch.finfo(one.dtype).eps * scale, error
