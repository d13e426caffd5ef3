"""trainstream, whose optimizer steps on the CPU what lies on a GPU."""

from __future__ import annotations

from importlib.metadata import version

import torch
from trainstream.optimizer import OffloadAdamW

from ..cases import Case
from ..data import BETA1, BETA2, DECAY, EPS, LR, Data
from ..library import Competitor, Library, Opened
from ..tensors import Tensors, optimizer_step


def _step(case: Case, data: Data, threads: int) -> Competitor:
    tensors = Tensors(case, data)
    optimizer = OffloadAdamW(tensors.params, lr=LR, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY, threads=threads)
    return optimizer_step("trainstream OffloadAdamW", tensors, optimizer)


def _open(case: Case, data: Data, opened: Opened, threads: int) -> None:
    torch.set_num_threads(threads)
    if case.kind in ("dense", "call", "1000x1024", "gpt2", "tail"):
        opened.add("trainstream OffloadAdamW", lambda: _step(case, data, threads))


LIBRARY = Library("trainstream", version("trainstream"), _open)
