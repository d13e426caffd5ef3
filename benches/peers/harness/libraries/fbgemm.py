"""FBGEMM's tables, which are updated inside the backward pass. On CPUs they have AdaGrad, and no Adam."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)

from ..cases import Case
from ..competitor import Competitor, Library, Opened
from ..data import EPS, LR, Data


def _adagrad(case: Case, data: Data) -> Competitor:
    assert data.rows is not None
    rows = case.lens[0] // case.width
    table = SplitTableBatchedEmbeddingBagsCodegen(
        [(rows, case.width, EmbeddingLocation.HOST, ComputeDevice.CPU)],
        optimizer=EmbOptimType.EXACT_ADAGRAD,
        learning_rate=LR,
        eps=EPS,
        pooling_mode=PoolingMode.SUM,
    )
    [weights] = table.split_embedding_weights()
    weights.copy_(torch.from_numpy(data.params[0].reshape(rows, case.width)))
    indices = torch.from_numpy(data.rows)
    # Each index is a bag of its own.
    offsets = torch.arange(case.indices + 1)
    grad = torch.from_numpy(data.grads[0])
    output: Any = None

    def forward() -> None:
        nonlocal output
        output = table(indices, offsets)

    def values() -> list[np.ndarray]:
        return [weights.detach().float().flatten().numpy()]

    return Competitor("FBGEMM backward with EXACT_ADAGRAD", lambda: output.backward(grad), values, forward)


def _open(case: Case, data: Data, opened: Opened, threads: int) -> None:
    torch.set_num_threads(threads)
    if case.kind == "rows-adagrad":
        opened.add("FBGEMM, AdaGrad", lambda: _adagrad(case, data))


LIBRARY = Library("fbgemm-gpu-cpu", version("fbgemm-gpu-cpu"), _open)
