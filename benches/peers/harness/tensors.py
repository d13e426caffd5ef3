"""What the libraries for PyTorch share: tensors of a case, and steps of an optimizer over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .cases import Case
from .competitor import Competitor
from .data import MAX_NORM, SCALE, Data

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class Tensors:
    """The parameters of one competitor, with their gradients in place."""

    def __init__(self, case: Case, data: Data, dtype: torch.dtype | None = None) -> None:
        """Copies the parameters. Gradients are copied where a step changes them or needs another type."""
        self.case = case
        self.dtype = dtype or DTYPES[case.dtype]
        self.params = [torch.nn.Parameter(self._like(param)) for param in data.params]
        if data.rows is not None:
            self.params[0].data = self.params[0].data.view(-1, case.width)
        self.grads = [self._grad(grad, data.rows) for grad in data.grads]
        for param, grad in zip(self.params, self.grads, strict=True):
            param.grad = grad.clone() if case.kind == "tail" else grad

    def _like(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.dtype, copy=True)

    def _grad(self, array: np.ndarray, rows: np.ndarray | None) -> Tensor:
        if rows is None:
            return torch.from_numpy(array).to(self.dtype)
        indices = torch.from_numpy(rows)[None]
        return torch.sparse_coo_tensor(indices, torch.from_numpy(array), self.params[0].shape, check_invariants=True)

    def refill(self) -> None:
        """Sets gradients to what they were before a step changed them."""
        for param, grad in zip(self.params, self.grads, strict=True):
            assert param.grad is not None
            param.grad.copy_(grad)

    def values(self) -> list[Any]:
        """The parameters as they are now."""
        return [param.detach().float().flatten().numpy() for param in self.params]

    def competitor(self, name: str, step: Callable[[], object]) -> Competitor:
        """A step over these tensors."""
        return Competitor(name, step, self.values, self.refill if self.case.kind == "tail" else None)


def scaler() -> torch.amp.GradScaler:
    """A scaler that is ready to step, and keeps its scale."""
    found = torch.amp.GradScaler("cpu", init_scale=SCALE, growth_interval=10**9)
    found.scale(torch.zeros(()))
    return found


def optimizer_step(name: str, tensors: Tensors, optimizer: torch.optim.Optimizer) -> Competitor:
    """The ``step()`` of an optimizer; in the case ``tail`` with what PyTorch's loops have around it."""
    if tensors.case.kind != "tail":
        return tensors.competitor(name, optimizer.step)
    scaling = scaler()

    def step() -> None:
        scaling.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(tensors.params, MAX_NORM)
        scaling.step(optimizer)
        scaling.update()
        optimizer.zero_grad(set_to_none=False)

    return tensors.competitor(name, step)
