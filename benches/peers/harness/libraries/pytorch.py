"""PyTorch's own optimizers."""

from __future__ import annotations

import torch

from ..cases import Case
from ..competitor import Competitor, Library, Opened
from ..data import BETA1, BETA2, DECAY, EPS, LR, Data
from ..tensors import Tensors, optimizer_step


def adamw(tensors: Tensors, fused: bool | None = None, foreach: bool | None = None) -> torch.optim.AdamW:
    """AdamW with the settings of all."""
    return torch.optim.AdamW(
        tensors.params, lr=LR, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY, fused=fused, foreach=foreach
    )


def _fused(case: Case, data: Data) -> Competitor:
    tensors = Tensors(case, data)
    return optimizer_step("torch.optim.AdamW(fused=True)", tensors, adamw(tensors, fused=True))


def _foreach(case: Case, data: Data) -> Competitor:
    tensors = Tensors(case, data)
    return optimizer_step("torch.optim.AdamW(foreach=True)", tensors, adamw(tensors, foreach=True))


def _raw(case: Case, data: Data) -> Competitor:
    tensors = Tensors(case, data)
    params = [param.data for param in tensors.params]
    first = [torch.zeros_like(param) for param in params]
    second = [torch.zeros_like(param) for param in params]
    steps = [torch.zeros(()) for _ in params]

    def step() -> None:
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            params,
            tensors.grads,
            first,
            second,
            [],
            steps,
            lr=LR,
            beta1=BETA1,
            beta2=BETA2,
            weight_decay=DECAY,
            eps=EPS,
            amsgrad=False,
            maximize=False,
        )

    return tensors.competitor("torch._fused_adamw_", step)


def _with_copies(case: Case, data: Data) -> Competitor:
    """The parameters of 16 bits are copies of others in f32, which the optimizer steps."""
    tensors = Tensors(case, data)
    masters = Tensors(case, data, torch.float32)
    for master, grad in zip(masters.params, masters.grads, strict=True):
        master.grad = torch.empty_like(grad)
    optimizer = adamw(masters, fused=True)

    @torch.no_grad()
    def step() -> None:
        for master, grad in zip(masters.params, tensors.grads, strict=True):
            assert master.grad is not None
            master.grad.copy_(grad)
        optimizer.step()
        for param, master in zip(tensors.params, masters.params, strict=True):
            param.copy_(master)

    return tensors.competitor("torch.optim.AdamW(fused=True) on copies in f32", step)


def _rows(case: Case, data: Data) -> Competitor:
    tensors = Tensors(case, data)
    if case.kind == "rows-adam":
        sparse = torch.optim.SparseAdam(tensors.params, lr=LR, betas=(BETA1, BETA2), eps=EPS)
        return optimizer_step("torch.optim.SparseAdam", tensors, sparse)
    return optimizer_step("torch.optim.Adagrad", tensors, torch.optim.Adagrad(tensors.params, lr=LR, eps=EPS))


def reference(case: Case, data: Data) -> Competitor:
    """What all results are compared with: PyTorch's simplest loop, in f32."""
    if case.is_table:
        return _rows(case, data)
    tensors = Tensors(case, data, torch.float32)
    return optimizer_step("reference", tensors, adamw(tensors, foreach=False))


def _open(case: Case, data: Data, opened: Opened, threads: int) -> None:
    torch.set_num_threads(threads)
    if case.is_table:
        opened.add("torch, sparse", lambda: _rows(case, data))
    elif case.kind in ("bf16-f32", "f16-f32"):
        opened.add("torch, copies in f32", lambda: _with_copies(case, data))
    elif case.kind != "q8":
        opened.add("torch, fused", lambda: _fused(case, data))
        opened.add("torch, foreach", lambda: _foreach(case, data))
        if case.kind != "tail":
            opened.add("torch, raw", lambda: _raw(case, data))


LIBRARY = Library("torch", torch.__version__, _open)
