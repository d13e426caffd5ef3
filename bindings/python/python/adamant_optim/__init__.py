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
    from .torch import (
        ADOPT as ADOPT,
    )
    from .torch import (
        ASGD as ASGD,
    )
    from .torch import (
        FTRL as FTRL,
    )
    from .torch import (
        SGD as SGD,
    )
    from .torch import (
        AdaBelief as AdaBelief,
    )
    from .torch import (
        Adadelta as Adadelta,
    )
    from .torch import (
        Adagrad as Adagrad,
    )
    from .torch import (
        Adam as Adam,
    )
    from .torch import (
        Adamax as Adamax,
    )
    from .torch import (
        AdamW as AdamW,
    )
    from .torch import (
        Adan as Adan,
    )
    from .torch import (
        AdEMAMix as AdEMAMix,
    )
    from .torch import (
        Lion as Lion,
    )
    from .torch import (
        NAdam as NAdam,
    )
    from .torch import (
        Optimizer as Optimizer,
    )
    from .torch import (
        RAdam as RAdam,
    )
    from .torch import (
        RMSprop as RMSprop,
    )
    from .torch import (
        Rprop as Rprop,
    )
    from .torch import (
        SparseAdam as SparseAdam,
    )
    from .torch import (
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

__all__ = [*_OPTIMIZERS, "__version__", "numpy", "show_config", "torch"]


def __getattr__(name: str) -> Any:
    # PyTorch takes a second to import, and numpy's users have none: it is imported when it is asked for.
    if name in _OPTIMIZERS:
        value = getattr(importlib.import_module(".torch", __name__), name)
    elif name in ("torch", "numpy"):
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
