"""bitsandbytes: moments of 8 bits, and of 32."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import bitsandbytes
import torch

from ..cases import Case
from ..competitor import Competitor, Library, Opened
from ..data import BETA1, BETA2, DECAY, EPS, LR, Data
from ..tensors import Tensors, optimizer_step


def _optimizer(tensors: Tensors) -> Any:
    optimizers: Any = bitsandbytes.optim
    kind = optimizers.AdamW8bit if tensors.case.kind == "q8" else optimizers.AdamW32bit
    return kind(tensors.params, lr=LR, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY)


def _step(case: Case, data: Data) -> Competitor:
    tensors = Tensors(case, data)
    optimizer = _optimizer(tensors)
    return optimizer_step(f"bitsandbytes {type(optimizer).__name__}", tensors, optimizer)


def _raw(case: Case, data: Data) -> Competitor:
    tensors = Tensors(case, data)
    optimizer = _optimizer(tensors)
    # It makes the state, in the form that the function takes; the first step is repeated below.
    optimizer.step()
    for param, start in zip(tensors.params, Tensors(case, data).params, strict=True):
        param.data.copy_(start.data)
    states = [optimizer.state[param] for param in tensors.params]
    for state in states:
        for key in ("state1", "state2", "absmax1", "absmax2"):
            if key in state and state[key].dtype == torch.float32:
                state[key].zero_()
    params, count = [param.data for param in tensors.params], 0
    eight_bits = states[0]["state1"].dtype == torch.uint8

    def step() -> None:
        nonlocal count
        count += 1
        for param, grad, state in zip(params, tensors.grads, states, strict=True):
            if eight_bits:
                bitsandbytes.functional.optimizer_update_8bit_blockwise(
                    "adam",
                    grad,
                    param,
                    state["state1"],
                    state["state2"],
                    BETA1,
                    BETA2,
                    0.0,
                    0.0,
                    EPS,
                    count,
                    LR,
                    state["qmap1"],
                    state["qmap2"],
                    state["absmax1"],
                    state["absmax2"],
                    DECAY,
                )
            else:
                bitsandbytes.functional.optimizer_update_32bit(
                    "adam",
                    grad,
                    param,
                    state["state1"],
                    BETA1,
                    EPS,
                    count,
                    LR,
                    state["state2"],
                    BETA2,
                    weight_decay=DECAY,
                )

    bits = "8bit_blockwise" if eight_bits else "32bit"
    return tensors.competitor(f"bitsandbytes optimizer_update_{bits}", step)


def _open(case: Case, data: Data, opened: Opened, threads: int) -> None:
    torch.set_num_threads(threads)
    if case.is_table or case.kind == "bf16":
        return
    opened.add("bitsandbytes AdamW", lambda: _step(case, data))
    if case.kind != "tail":
        opened.add("bitsandbytes, raw", lambda: _raw(case, data))


LIBRARY = Library("bitsandbytes", version("bitsandbytes"), _open)
