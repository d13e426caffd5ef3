"""adamant: the optimizers for PyTorch, and the call for arrays without an optimizer around it."""

from __future__ import annotations

from typing import Any

import adamant_optim
import adamant_optim.numpy
import torch
from torch import Tensor

from ..cases import Case
from ..competitor import Competitor, Library, Opened
from ..data import BETA1, BETA2, DECAY, EPS, LR, MAX_NORM, SCALE, Data
from ..tensors import Tensors, optimizer_step, scaler


def _adamw(case: Case, data: Data, threads: int, **options: Any) -> Competitor:
    tensors = Tensors(case, data)
    named = "".join(f", {key}={value!r}".replace("torch.", "") for key, value in options.items())
    name = f"adamant AdamW({named[2:]})" if named else "adamant AdamW"
    if case.kind != "tail":
        return optimizer_step(name, tensors, _optimizer(tensors, threads, **options))
    optimizer = _optimizer(tensors, threads, max_grad_norm=MAX_NORM, zero_grad_in_step=True)
    scaling = scaler()

    def step() -> None:
        scaling.step(optimizer)
        scaling.update()

    return tensors.competitor("adamant AdamW(max_grad_norm, zero_grad_in_step)", step)


def _optimizer(tensors: Tensors, threads: int, **options: Any) -> torch.optim.Optimizer:
    return adamant_optim.AdamW(
        tensors.params, lr=LR, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY, threads=threads, **options
    )


def _raw(case: Case, data: Data, threads: int, **options: Any) -> Competitor:
    tensors = Tensors(case, data)
    params = [_lent(param.data) for param in tensors.params]
    grads = [_lent(param.grad) for param in tensors.params]
    tail = case.kind == "tail"
    optimizer = adamant_optim.numpy.Optimizer(
        "adamw",
        lr=LR,
        beta1=BETA1,
        beta2=BETA2,
        eps=EPS,
        weight_decay=DECAY,
        threads=threads,
        max_grad_norm=MAX_NORM if tail else None,
        zero_grad_in_step=tail,
        **options,
    )
    states = optimizer.init(params)
    factor = 1 / SCALE if tail else 1.0
    return tensors.competitor("adamant_optim.numpy", lambda: optimizer.step(params, grads, states, grad_factor=factor))


def _lent(tensor: Tensor | None) -> Any:
    """An array of numpy where it has the type; else the tensor, which lends its memory itself."""
    assert tensor is not None
    return tensor if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _rows(case: Case, data: Data, threads: int) -> Competitor:
    tensors = Tensors(case, data)
    if case.kind == "rows-adam":
        sparse = adamant_optim.SparseAdam(tensors.params, lr=LR, betas=(BETA1, BETA2), eps=EPS, threads=threads)
        return optimizer_step("adamant SparseAdam", tensors, sparse)
    adagrad = adamant_optim.Adagrad(tensors.params, lr=LR, eps=EPS, threads=threads)
    return optimizer_step("adamant Adagrad", tensors, adagrad)


def _open(case: Case, data: Data, opened: Opened, threads: int) -> None:
    torch.set_num_threads(threads)
    if case.is_table:
        opened.add("adamant, rows", lambda: _rows(case, data, threads))
        return
    options: dict[str, Any] = {}
    if case.kind == "q8":
        options = {"state_dtype": "q8"}
    elif case.kind == "bf16":
        options = {"state_dtype": torch.bfloat16, "stochastic_rounding": True}
    opened.add("adamant AdamW", lambda: _adamw(case, data, threads, **options))
    if case.kind == "bf16":
        options["state_dtype"] = "bf16"
    opened.add("adamant, raw", lambda: _raw(case, data, threads, **options))
    master = {"bf16-f32": "split", "f16-f32": "f32"}.get(case.kind)
    if master:
        opened.add(f"adamant, master={master}", lambda: _adamw(case, data, threads, master=master))


LIBRARY = Library("adamant-optim", adamant_optim.__version__, _open)
