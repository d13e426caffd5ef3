"""The optimizers for PyTorch: the elementwise ones of ``torch.optim``, with the same signatures, defaults and
checkpoints, and others.

Every optimizer also has the keyword options that :class:`Options` lists.

In the formulas, ``p`` is a parameter, ``g`` its gradient, ``t`` the number of the step, counted from 1. Products,
roots and quotients are elementwise. Each line that adds a product rounds once.

:class:`Optimizer` says which shapes the entries of a state have.
"""

from __future__ import annotations

from .._optimizer import Optimizer
from .._options import Options
from .adagrad import FTRL, Adadelta, Adagrad, RMSprop
from .adam import Adam, Adamax, AdamW, NAdam, RAdam, SparseAdam
from .descent import ASGD, SGD, Rprop
from .newer import ADOPT, AdaBelief, Adan, AdEMAMix, Lion, Yogi

__all__ = [
    "ADOPT",
    "ASGD",
    "FTRL",
    "SGD",
    "AdEMAMix",
    "AdaBelief",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "Lion",
    "NAdam",
    "Optimizer",
    "Options",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "Yogi",
]
