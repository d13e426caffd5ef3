"""The package as type checkers see it: read by mypy, never run."""

from __future__ import annotations

import adamant_optim
import numpy as np
import torch
from adamant_optim import AdamW, Optimizer, show_config
from adamant_optim.numpy import Report, State
from typing_extensions import assert_type

optimizer = AdamW([torch.zeros(3)], lr=1e-3, state_dtype="q8", max_grad_norm=1.0)
base: Optimizer = optimizer
torch_base: torch.optim.Optimizer = optimizer
assert_type(optimizer.grad_norm, float | None)
assert_type(show_config(), None)
assert_type(adamant_optim.__version__, str)
AdamW([], lr="fast")  # type: ignore[arg-type]
AdamW([], state_dtype="f8")  # type: ignore[arg-type]
AdamW([], learning_rate=1.0)  # type: ignore[call-arg]
missing = adamant_optim.AdamX  # type: ignore[attr-defined]

arrays = adamant_optim.numpy.Optimizer("adamw", lr=1e-3)
states = arrays.init(np.zeros(3, np.float32))
assert_type(states, list[State])
assert_type(arrays.step(np.zeros(3, np.float32), np.zeros(3, np.float32), states), Report)
assert_type(adamant_optim.numpy.grad_norm([np.zeros(3)]), float)
adamant_optim.checkpoint.save("run", torch.nn.Linear(1, 1), optimizer, extra={"step": 1})
