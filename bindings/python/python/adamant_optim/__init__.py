"""CPU optimizers: Adam and its family in one pass over memory, with the same bits on every CPU.

For PyTorch, change one line::

    from adamant_optim import AdamW
    optimizer = AdamW(model.parameters(), lr=1e-3)

``adamant_optim.numpy`` does the same for numpy arrays, and needs no PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._config import show_config
from ._core import VERSION as __version__

if TYPE_CHECKING:
    from . import checkpoint as checkpoint, numpy as numpy, torch as torch
    from .torch import (
        ADOPT as ADOPT,
        ASGD as ASGD,
        FTRL as FTRL,
        SGD as SGD,
        AdaBelief as AdaBelief,
        Adadelta as Adadelta,
        Adagrad as Adagrad,
        Adam as Adam,
        Adamax as Adamax,
        AdamW as AdamW,
        Adan as Adan,
        AdEMAMix as AdEMAMix,
        Lion as Lion,
        NAdam as NAdam,
        Optimizer as Optimizer,
        RAdam as RAdam,
        RMSprop as RMSprop,
        Rprop as Rprop,
        SparseAdam as SparseAdam,
        Yogi as Yogi,
    )

_OPTIMIZERS = [
    "ADOPT",
    "ASGD",
    "AdEMAMix",
    "AdaBelief",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "FTRL",
    "Lion",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
    "SparseAdam",
    "Yogi",
]

_MODULES = ["checkpoint", "numpy", "torch"]

# Without the modules: `from adamant_optim import *` would replace the names of the packages numpy and torch.
__all__ = [*_OPTIMIZERS, "__version__", "show_config"]


if not TYPE_CHECKING:
    # Type checkers would take it to have every name.
    def __getattr__(name: str) -> Any:
        # PyTorch takes a second to import, and numpy's users have none: it is imported when it is asked for.
        if name in _OPTIMIZERS:
            value = getattr(importlib.import_module(".torch", __name__), name)
        elif name in _MODULES:
            value = importlib.import_module(f".{name}", __name__)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
