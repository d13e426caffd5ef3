"""A character-level GPT that several processes train together: DDP, FSDP2 or ZeRO around adamant's AdamW.

    torchrun --nproc-per-node 2 sharded.py --mode fsdp2 --save run     # train on two processes, save
    python sharded.py --load run                                       # go on in one

The text is Python's own documentation of its topics, which is in its standard library. Needs torch and tqdm.

--mode plain    DistributedDataParallel: each process has all parameters and all states
--mode fsdp2    fully_shard with CPUOffloadPolicy: each process has its part of parameters, gradients and states
--mode zero     ZeroRedundancyOptimizer: each process has all parameters, and the states of some

Checkpoints of plain and fsdp2 are folders that any number of processes load, in either mode; those of zero are a
file of torch.save, which any optimizer of one process loads.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pydoc_data.topics import topics
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from adamant_optim import AdamW, checkpoint
from torch import Tensor, nn
from tqdm import tqdm

STATES = {"f32": torch.float32, "bf16": torch.bfloat16, "q8": "q8"}


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self, letters: int, width: int, layers: int, length: int) -> None:
        super().__init__()
        self.letter, self.place = nn.Embedding(letters, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList([Block(width, width // 32) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, letters)

    def forward(self, x: Tensor) -> Tensor:
        x = self.letter(x) + self.place(torch.arange(x.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def wrapped(model: GPT, mode: str) -> nn.Module:
    """The model as its processes share it."""
    if not dist.is_initialized():
        return model
    if mode != "fsdp2":
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, fully_shard

    settings: dict[str, Any] = {
        "mesh": init_device_mesh("cpu", (dist.get_world_size(),)),
        # With GPUs, parameters are there for the forward and the backward pass, and here for the optimizer.
        "offload_policy": CPUOffloadPolicy(pin_memory=False),
    }
    for block in model.blocks:
        fully_shard(block, **settings)
    fully_shard(model, **settings)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # gloo adds up where it should average (pytorch#162338); this divides.
            module.set_force_sum_reduction_for_comms(True)
    return model


def made_optimizer(model: nn.Module, arguments: argparse.Namespace) -> Any:
    settings: dict[str, Any] = {"lr": arguments.lr, "weight_decay": 0.1, "state_dtype": STATES[arguments.state]}
    if not arguments.in_backward:
        settings["max_grad_norm"] = 1.0
    if arguments.mode == "zero" and dist.is_initialized():
        from torch.distributed.optim import ZeroRedundancyOptimizer

        # Each process steps other parameters, but the norm is that of all.
        settings["grad_norm_group"] = "world"
        optimizer = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=AdamW, **settings)
        # Random bits are those of one process.
        optimizer.optim.place_among(optimizer.param_groups)
        return optimizer
    optimizer = AdamW(model.named_parameters(), **settings)
    if arguments.in_backward:
        optimizer.step_in_backward(model)
    return optimizer


def load(path: str, model: nn.Module, optimizer: Any) -> int:
    if os.path.isdir(path) or os.path.isdir(path + ".old"):
        return checkpoint.load(path, model, optimizer, extra={"step": 0})["step"]
    saved = torch.load(path)
    getattr(model, "module", model).load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optim"])
    return saved["step"]


def save(path: str, model: nn.Module, optimizer: Any, step: int) -> None:
    if not hasattr(optimizer, "consolidate_state_dict"):
        checkpoint.save(path, model, optimizer, extra={"step": step})
        return
    optimizer.consolidate_state_dict(to=0)
    if dist.get_rank() == 0:
        whole = {"model": getattr(model, "module", model).state_dict(), "optim": optimizer.state_dict(), "step": step}
        torch.save(whole, path + ".new")
        os.replace(path + ".new", path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=["plain", "fsdp2", "zero"], default="plain")
    parser.add_argument("--state", choices=list(STATES), default="f32", help="what the moments are kept in")
    parser.add_argument("--in-backward", action="store_true", help="step while the backward pass goes on; no clipping")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8, help="sequences a step, of all processes together")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--load", metavar="PATH", help="go on from a checkpoint")
    parser.add_argument("--save", metavar="PATH", help="save a checkpoint at the end")
    arguments = parser.parse_args()
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)

    text = "".join(topics[key] for key in sorted(topics))
    letters = sorted(set(text))
    number = {letter: index for index, letter in enumerate(letters)}
    data = torch.tensor([number[letter] for letter in text])

    torch.manual_seed(0)
    model = wrapped(GPT(len(letters), arguments.width, arguments.layers, arguments.length), arguments.mode)
    optimizer = made_optimizer(model, arguments)
    first = load(arguments.load, model, optimizer) if arguments.load else 0

    seconds = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0}
    losses = []
    bar = tqdm(range(first, first + arguments.steps), disable=rank != 0, desc=arguments.mode)
    for step in bar:
        # The batch depends on the step alone, and each process takes its share of it.
        generator = torch.Generator().manual_seed(step)
        starts = torch.randint(len(data) - arguments.length - 1, (arguments.batch,), generator=generator)
        rows = torch.stack([data[start : start + arguments.length + 1] for start in starts[rank::size].tolist()])
        times = [time.perf_counter()]
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        times.append(time.perf_counter())
        loss.backward()
        times.append(time.perf_counter())
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter())
        for key, start, end in zip(seconds, times, times[1:]):
            seconds[key] += end - start
        losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
    if arguments.save:
        save(arguments.save, model, optimizer, first + arguments.steps)

    if rank == 0:
        params = sum(param.numel() for param in model.parameters())
        own = getattr(optimizer, "optim", optimizer)
        states = sum(
            getattr(value, "_local_tensor", value).nbytes
            for state in own.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        )
        whole = sum(seconds.values())
        processes = "1 process" if size == 1 else f"{size} processes"
        print(f"mode              {arguments.mode}, {processes}, steps {first + 1} to {first + arguments.steps}")
        print(f"parameters        {params:,}, states of this process {states / 2**20:.1f} MiB")
        print(
            f"loss              {sum(losses[:5]) / len(losses[:5]):.3f} at first, "
            f"{sum(losses[-5:]) / len(losses[-5:]):.3f} at last"
        )
        for key, value in seconds.items():
            print(f"{key:<17} {1e3 * value / arguments.steps:.2f} ms a step, {value / whole:.1%}")
        print(f"peak memory       {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
