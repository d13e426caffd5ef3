"""DeepSpeed's optimizer for ZeRO-Offload, and the C++ function below it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam

from ..cases import Case
from ..competitor import Competitor, Library, Opened
from ..data import BETA1, BETA2, DECAY, EPS, LR, Data
from ..tensors import Tensors, optimizer_step


def _optimizer(tensors: Tensors) -> Any:
    full = tensors.case.kind != "bf16"
    return DeepSpeedCPUAdam(
        tensors.params, lr=LR, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY, fp32_optimizer_states=full
    )


def _step(case: Case, data: Data) -> Competitor:
    tensors = Tensors(case, data)
    return optimizer_step("DeepSpeedCPUAdam", tensors, _optimizer(tensors))


def _raw(case: Case, data: Data) -> Competitor:
    tensors = Tensors(case, data)
    optimizer = _optimizer(tensors)
    dtype = tensors.dtype if case.kind == "bf16" else torch.float32
    arrays = [
        (param.data, grad, torch.zeros_like(param, dtype=dtype), torch.zeros_like(param, dtype=dtype))
        for param, grad in zip((param.detach() for param in tensors.params), tensors.grads, strict=True)
    ]
    update, number, count = optimizer.ds_opt_adam.adam_update, optimizer.opt_id, 0

    def step() -> None:
        nonlocal count
        count += 1
        for each in arrays:
            update(number, count, LR, BETA1, BETA2, EPS, DECAY, True, *each)

    competitor = tensors.competitor("DeepSpeed adam_update", step)
    # The function looks its settings up by the number of an optimizer, which lives as long as this.
    competitor.step.__dict__["optimizer"] = optimizer
    return competitor


def _open(case: Case, data: Data, opened: Opened, threads: int) -> None:
    torch.set_num_threads(threads)
    if case.is_table or case.kind == "q8":
        return
    opened.add("DeepSpeedCPUAdam", lambda: _step(case, data))
    if case.kind != "tail":
        opened.add("DeepSpeed, raw", lambda: _raw(case, data))


LIBRARY = Library("deepspeed", version("deepspeed"), _open)
