"""The GPT of sharded.py under DeepSpeed's ZeRO with CPU offload, with adamant's AdamW, PyTorch's or DeepSpeedCPUAdam.

    torchrun --nproc-per-node 2 deepspeed_recipe.py --stage 2 adamant deepspeed torch

Trains the same model from the same start with each, and prints the losses and the time of the optimizer's step.
DeepSpeedCPUAdam is compiled when it is first used: that takes ninja and a C++ compiler, on the PATH. Needs deepspeed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pydoc_data.topics import topics
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import adamant_optim
import deepspeed
import torch
import torch.nn.functional as F
from sharded import GPT


def made_optimizer(name: str, params: Any) -> Any:
    if name == "deepspeed":
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam(params, lr=1e-3, weight_decay=0.1, adamw_mode=True)
    cls = adamant_optim.AdamW if name == "adamant" else torch.optim.AdamW
    return cls(params, lr=1e-3, weight_decay=0.1)


def config_of(stage: int, batch: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": batch,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": stage, "offload_optimizer": {"device": "cpu", "pin_memory": False}},
        # The two lines that another optimizer needs.
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": True},
    }


def train(name: str, stage: int, steps: int, width: int, layers: int) -> tuple[list[float], float]:
    """Losses, and the median of the optimizer's seconds in a step."""
    text = "".join(topics[key] for key in sorted(topics))
    letters = sorted(set(text))
    number = {letter: index for index, letter in enumerate(letters)}
    data = torch.tensor([number[letter] for letter in text])
    torch.manual_seed(0)
    model = GPT(len(letters), width, layers, 64)
    engine, optimizer, *_ = deepspeed.initialize(
        model=model, optimizer=made_optimizer(name, model.parameters()), config=config_of(stage, 4)
    )
    spent: list[float] = []
    inner = optimizer.optimizer
    step_inner = inner.step

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = step_inner(*args, **kwargs)
        spent.append(time.perf_counter() - start)
        return result

    inner.step = timed
    losses = []
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    for step in range(steps):
        if step == min(2, steps - 1):
            # The first steps made states and threads.
            spent.clear()
        generator = torch.Generator().manual_seed(step)
        starts = torch.randint(len(data) - 65, (4 * size,), generator=generator).tolist()[rank::size]
        rows = torch.stack([data[start : start + 65] for start in starts])
        loss = F.cross_entropy(engine(rows[:, :-1]).float().flatten(0, 1), rows[:, 1:].flatten())
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    return losses, statistics.median(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("optimizers", nargs="*", default=["adamant", "torch"], help="adamant, deepspeed, torch")
    parser.add_argument("--stage", type=int, choices=[1, 2, 3], default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    arguments = parser.parse_args()
    # gloo does. The other way between processes of one machine is compiled when it is first used, for a minute.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    for name in arguments.optimizers:
        losses, spent = train(name, arguments.stage, arguments.steps, arguments.width, arguments.layers)
        if torch.distributed.get_rank() == 0:
            print(f"{name:<10} loss {losses[0]:.4f} to {losses[-1]:.4f}, optimizer {1e3 * spent:.2f} ms a step")


if __name__ == "__main__":
    main()
