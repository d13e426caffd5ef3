"""PyTorch's own tables of optimizers, and runs of what is in them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import adamant_optim
import torch
from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

#: Optimizers of PyTorch that need more of a gradient than each element for itself: no drop-ins exist.
NOT_ELEMENTWISE = {"Adafactor", "LBFGS", "Muon"}

INFOS = [info for info in optim_db if info.name not in NOT_ELEMENTWISE]

#: Each shape with its reason.
SHAPES: list[tuple[int, ...]] = [
    (),  # a scalar
    (1,),
    (0, 3),  # nothing
    (7, 5),
    (3, 2, 2, 2),
    (257,),  # registers, a block of 8 bits, and a tail
]


class Case(NamedTuple):
    """An optimizer with settings, by PyTorch's table."""

    name: str
    kwargs: dict[str, Any]
    is_sparse: bool

    def ours(self, params: Any, **options: Any) -> Any:
        return getattr(adamant_optim, self.name)(params, **self._own_kwargs(), **options)

    def theirs(self, params: Any, **options: Any) -> Any:
        return getattr(torch.optim, self.name)(params, **self._own_kwargs(), **options)

    def exact(self, params: Any) -> Any:
        """PyTorch's optimizer with a learning rate that is a number: with a tensor, SparseAdam computes in float32."""
        kwargs = {key: value.item() if isinstance(value, torch.Tensor) else value for key, value in self.kwargs.items()}
        return getattr(torch.optim, self.name)(params, **kwargs)

    def _own_kwargs(self) -> dict[str, Any]:
        # Tensors are each optimizer's own, as optimizers may write them.
        return {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in self.kwargs.items()}

    def __str__(self) -> str:
        return f"{self.name}-{','.join(f'{key}={value}' for key, value in self.kwargs.items()) or 'default'}"


def cases() -> list[Case]:
    """Every configuration of every optimizer, less those for GPUs."""
    found = []
    for info in INFOS:
        for entry in info.optim_inputs_func(device="cpu"):
            found.append(Case(info.name, dict(entry.kwargs), info.only_supports_sparse_grads))
    return found


def error_cases() -> list[Any]:
    """Every bad argument: name of the optimizer, and PyTorch's row."""
    return [
        (info.name, row)
        for info in INFOS
        for row in info.optim_error_inputs_func(device="cpu", dtype=torch.float32)
        if row.error_on == OptimizerErrorEnum.CONSTRUCTION_ERROR
    ]


def signature(optimizer: type) -> dict[str, inspect.Parameter]:
    """The arguments of an optimizer, less the object itself."""
    arguments = dict(inspect.signature(optimizer.__init__).parameters)
    del arguments["self"]
    return arguments


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Within it, PyTorch makes tensors of ``dtype``: its step sizes and products, too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def make_params(dtype: torch.dtype, shapes: list[tuple[int, ...]] = SHAPES) -> list[torch.nn.Parameter]:
    """Parameters whose values all types of 32 bits and more hold."""
    exact = torch.complex64 if dtype.is_complex else torch.float32
    return [torch.nn.Parameter(torch.randn(shape, dtype=exact).to(dtype)) for shape in shapes]


def make_grads(case: Case, params: list[torch.nn.Parameter], number: int) -> list[torch.Tensor]:
    """Gradients for the step ``number``: of all sizes, a zero, signs that last and signs that change."""
    grads = []
    for param in params:
        exact = torch.complex64 if param.is_complex() else torch.float32
        grad = torch.randn(param.shape, dtype=exact) + 0.5
        grad *= 10.0 ** ((number * 7) % 5 - 3)
        if grad.numel() > 1:
            grad.reshape(-1)[number % grad.numel()] = 0
        grads.append(rows_of(grad) if case.is_sparse else grad)
    return grads


def rows_of(grad: torch.Tensor) -> torch.Tensor:
    """A sparse gradient: some rows of a dense one, in any order, one of them twice."""
    rows = grad.shape[0]
    if not rows:
        return torch.sparse_coo_tensor(torch.zeros(1, 0, dtype=torch.int64), grad, grad.shape, check_invariants=True)
    index = torch.randperm(rows)[: max(1, rows // 2)]
    index = torch.cat([index, index[:1]])
    return torch.sparse_coo_tensor(index[None], grad[index], grad.shape, check_invariants=True)


def run(optimizer: Any, params: list[torch.nn.Parameter], steps: list[list[torch.Tensor]]) -> None:
    """Takes a step with each list of gradients."""
    for grads in steps:
        for param, grad in zip(params, grads):
            param.grad = grad.to(param.dtype)
        optimizer.step()


def copies(params: list[torch.nn.Parameter], dtype: torch.dtype) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(param.detach().to(dtype, copy=True)) for param in params]


def distance(ours: torch.Tensor, exact: torch.Tensor, least: float) -> float:
    """The error of a tensor, in roundings of the largest number in it, or of ``least``."""
    if not ours.numel():
        return 0.0
    error = (ours.detach().to(exact.dtype) - exact.detach()).abs().max().item()
    scale = max(least, exact.detach().abs().max().item())
    return error / (torch.finfo(ours.dtype).eps * scale) if error else 0.0
