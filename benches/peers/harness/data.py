"""The numbers that all competitors are given: the same for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .cases import Case

#: The settings of all optimizers.
LR, BETA1, BETA2, EPS, DECAY = 1e-3, 0.9, 0.999, 1e-8, 0.01

#: The norm that gradients are clipped to, below that of every case.
MAX_NORM = 0.1

#: What the loss, and with it the gradients of the case ``tail``, are scaled by.
SCALE = 1024.0


@dataclass
class Data:
    """Parameters and gradients in ``f32``; of tables, the rows that gradients belong to."""

    params: list[np.ndarray]
    grads: list[np.ndarray]
    rows: np.ndarray | None = None


def _normal(random: Any, length: int) -> np.ndarray:
    """Random numbers; from 4 Mi elements on they repeat, since making them takes longer than all steps."""
    period = min(length, 4 << 20)
    return np.resize(random.standard_normal(period, dtype=np.float32), length)


def make(case: Case) -> Data:
    """The numbers of a case."""
    random = np.random.Generator(np.random.PCG64(1))
    params = [_normal(random, length) * np.float32(1e-3) for length in case.lens]
    if not case.is_table:
        grads = [_normal(random, length) * np.float32(0.01) for length in case.lens]
        return Data(params, [grad * np.float32(SCALE) for grad in grads] if case.kind == "tail" else grads)
    rows = case.lens[0] // case.width
    listed = random.integers(0, rows, case.indices)
    # A fifth of the indices is listed twice.
    listed[: case.indices // 5] = listed[-(case.indices // 5) :]
    grads = [_normal(random, case.elements) * np.float32(0.01)]
    return Data(params, [grads[0].reshape(case.indices, case.width)], listed)
