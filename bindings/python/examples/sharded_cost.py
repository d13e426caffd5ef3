"""The cost of a step when processes share a model: bytes a parameter, time by the memory's speed, and time measured.

    torchrun --nproc-per-node 2 sharded_cost.py
    python sharded_cost.py

Each process has its part of one large parameter and one thread. The memory's speed is that of adding two arrays into
a third in all processes at once, in PyTorch. Prints a table; docs/sharded.md explains it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from adamant_optim import AdamW
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

#: Name, type of parameters and gradients, options, bytes a parameter beside it and its gradient.
CHOICES: list[tuple[str, torch.dtype, dict[str, Any], float]] = [
    ("f32, f32 moments", torch.float32, {}, 8),
    ("f32, bf16 moments", torch.float32, {"state_dtype": "bf16"}, 4),
    ("f32, 8-bit moments", torch.float32, {"state_dtype": "q8"}, 2 + 8 / 256),
    ("bf16, f32 master, f32 moments", torch.bfloat16, {"master": "f32"}, 12),
    ("bf16, split, bf16 moments", torch.bfloat16, {"master": "split", "state_dtype": "bf16"}, 6),
    ("bf16 random, bf16 moments", torch.bfloat16, {"stochastic_rounding": True, "state_dtype": "bf16"}, 4),
    ("bf16 random, 8-bit moments", torch.bfloat16, {"stochastic_rounding": True, "state_dtype": "q8"}, 2 + 8 / 256),
]


def timed(function: Callable[[], Any], repeats: int, quantile: float) -> float:
    """The time of a call, of the slowest process in each; the median or another quantile of so many."""
    times = []
    for _ in range(repeats):
        if dist.is_initialized():
            dist.barrier()
        start = time.perf_counter()
        function()
        spent = torch.tensor([time.perf_counter() - start])
        if dist.is_initialized():
            dist.all_reduce(spent, op=dist.ReduceOp.MAX)
        times.append(spent.item())
    return sorted(times)[int(quantile * (len(times) - 1))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=int, default=1 << 24, help="of the whole model")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quantile", type=float, default=0.5, help="of the times; less where other programs disturb")
    arguments = parser.parse_args()
    if "RANK" in os.environ:
        dist.init_process_group("gloo", timeout=timedelta(minutes=5))
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    torch.set_num_threads(1)
    own = arguments.params // size
    times = arguments.repeats, arguments.quantile

    one, two, three = (torch.ones(own) for _ in range(3))
    bandwidth = 12 * own / timed(lambda: torch.add(one, two, out=three), *times)
    message = torch.zeros(1, dtype=torch.float64)
    latency = timed(lambda: dist.all_reduce(message), 50, arguments.quantile) if size > 1 else 0.0
    if rank == 0:
        processes = "1 process" if size == 1 else f"{size} processes"
        print(f"{processes}, {own:,} parameters each; memory {bandwidth / 1e9:.1f} GB/s a process")
        print(f"an all-reduce of 8 bytes: {1e6 * latency:.0f} us")
        print(f"{'':32}{'bytes kept':>12}{'bytes moved':>12}{'by memory':>12}{'measured':>12}{'clipped':>12}")

    for name, dtype, options, state in CHOICES:
        tensors = [torch.randn(own).to(dtype) for _ in range(2)]
        if size > 1:
            mesh = init_device_mesh("cpu", (size,))
            tensors = [DTensor.from_local(tensor, mesh, [Shard(0)], run_check=False) for tensor in tensors]
        param = torch.nn.Parameter(tensors[0])
        param.grad = tensors[1]
        optimizer = AdamW([param], lr=1e-3, threads=1, **options)
        optimizer.step()
        measured = timed(optimizer.step, *times)
        optimizer.max_grad_norm = 1e9
        clipped = timed(optimizer.step, *times)
        bytes_own = sum(
            getattr(value, "_local_tensor", value).nbytes for value in optimizer.state[param].values() if value.dim()
        )
        kept = 2 * dtype.itemsize + bytes_own / own
        assert abs(kept - 2 * dtype.itemsize - state) < 0.01, (name, kept)
        # The gradient is read, states are read and written, and so is the parameter unless it has a master copy.
        passes = 1 if options.get("master") == "f32" else 2
        moved = dtype.itemsize + passes * dtype.itemsize + 2 * state
        if rank == 0:
            seconds = [moved * own / bandwidth, measured, clipped]
            print(f"{name:<32}{kept:>12.2f}{moved:>12.2f}" + "".join(f"{1e3 * value:>9.2f} ms" for value in seconds))
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
