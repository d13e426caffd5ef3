"""torch-optimi."""

from __future__ import annotations

from importlib.metadata import version

import optimi
import torch

from ..cases import Case
from ..competitor import Competitor, Library, Opened
from ..data import BETA1, BETA2, DECAY, EPS, LR, Data
from ..tensors import Tensors, optimizer_step


def _step(case: Case, data: Data) -> Competitor:
    tensors = Tensors(case, data)
    optimizer = optimi.AdamW(tensors.params, lr=LR, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY)
    name = "optimi.AdamW(kahan_sum)" if case.kind == "bf16" else "optimi.AdamW"
    return optimizer_step(name, tensors, optimizer)


def _open(case: Case, data: Data, opened: Opened, threads: int) -> None:
    torch.set_num_threads(threads)
    # Moments have the type of the parameters.
    if not case.is_table and case.kind not in ("q8", "bf16-f32", "f16-f32"):
        opened.add("optimi.AdamW", lambda: _step(case, data))


LIBRARY = Library("torch-optimi", version("torch-optimi"), _open)
