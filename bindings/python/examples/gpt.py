"""A character-level GPT, trained on a CPU with PyTorch's AdamW and with adamant's.

    python gpt.py                                  # four runs of some minutes in all, a table and gpt.png
    python gpt.py --optimizer adamant --state q8   # one of them

The text is Python's own language reference, which comes with Python. Each run has a process of its own, since the
peak of memory is known for whole processes only.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import pathlib
import pydoc_data.topics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

STATES = {"f32": torch.float32, "bf16": torch.bfloat16, "q8": "q8"}


class Block(nn.Module):
    """Attention to what came before, then a small network for each position."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width, bias=False)
        self.attended = nn.Linear(width, width, bias=False)
        self.network = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = batch, length, self.heads, width // self.heads
        queries, keys, values = self.attention(self.before_attention(x)).chunk(3, dim=-1)
        heads = (part.view(shape).transpose(1, 2) for part in (queries, keys, values))
        mixed = functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.attended(mixed.transpose(1, 2).reshape(x.shape))
        return x + self.network(x)


class GPT(nn.Module):
    """Characters in, the logits of the next ones out."""

    def __init__(self, characters: int, layers: int, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(characters, width)
        self.positions = nn.Parameter(torch.randn(context, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, characters, bias=False))
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, characters: Tensor) -> Tensor:
        x = self.tokens(characters) + self.positions[: characters.shape[1]]
        return self.out(self.blocks(x))

    def loss(self, text: Tensor) -> Tensor:
        """The mean cross entropy of each character after those before it, in nats."""
        logits = self(text[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())


class Text:
    """A text as numbers; the last tenth is for validation."""

    def __init__(self, text: str, context: int) -> None:
        # Rare characters are one, so that the model's size is nearly the same with every version of Python.
        common = [character for character in sorted(set(text)) if text.count(character) >= 20]
        numbers = {character: number for number, character in enumerate(common)}
        data = torch.tensor([numbers.get(character, len(common)) for character in text])
        self.characters = len(common) + 1
        self.context = context
        self.training, self.validation = data[: -len(data) // 10], data[-len(data) // 10 :]

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Batches of random pieces, without end."""
        offsets = torch.arange(self.context + 1)
        while True:
            starts = torch.randint(len(self.training) - self.context - 1, (size, 1), generator=generator)
            yield self.training[starts + offsets]

    def validation_batch(self, size: int) -> Tensor:
        starts = torch.linspace(0, len(self.validation) - self.context - 1, size).long()[:, None]
        return self.validation[starts + torch.arange(self.context + 1)]


@dataclass
class Result:
    """The result of a run."""

    name: str
    parameters: int
    losses: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    #: Seconds, of all and of the optimizer, a step.
    step: float = 0.0
    optimizer: float = 0.0
    state_bytes: int = 0
    #: The most memory that the process has used, in bytes; 0 where the system does not tell.
    peak_bytes: int = 0


def make_optimizer(
    name: str, state: str, model: nn.Module, lr: float, threads: int | None = None
) -> torch.optim.Optimizer:
    # Weight decay is for matrices.
    matrices = [param for param in model.parameters() if param.dim() >= 2]
    others = [param for param in model.parameters() if param.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    if name == "torch":
        return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), fused=True)
    from adamant_optim import AdamW

    return AdamW(groups, lr=lr, betas=(0.9, 0.99), state_dtype=STATES[state], threads=threads)


def train(options: argparse.Namespace, name: str, state: str) -> Result:
    """Trains a model, and measures."""
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    text = Text("\n".join(pydoc_data.topics.topics.values()), options.context)
    model = GPT(text.characters, options.layers, options.width, options.heads, options.context)
    optimizer = make_optimizer(name, state, model, options.lr, options.threads)
    warm_up = max(1, options.steps // 10)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warm_up, total_iters=warm_up),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, options.steps - warm_up), options.lr / 10),
        ],
        [warm_up],
    )
    result = Result(f"{name} {state}", sum(param.numel() for param in model.parameters()))
    times: list[tuple[float, float]] = []
    batches = text.batches(options.batch, torch.Generator().manual_seed(options.seed))
    with tqdm(range(options.steps), desc=f"{result.name:13}", unit=" steps") as bar:
        for step in bar:
            batch = next(batches)
            begun = time.perf_counter()
            optimizer.zero_grad(set_to_none=False)
            loss = model.loss(batch)
            loss.backward()
            computed = time.perf_counter()
            optimizer.step()
            stepped = time.perf_counter()
            schedule.step()
            times.append((stepped - begun, stepped - computed))
            result.losses.append(loss.item())
            if (step + 1) % max(1, options.steps // 10) == 0:
                result.validation.append((step + 1, validate(model, text)))
                bar.set_postfix(validation=f"{result.validation[-1][1]:.3f}", refresh=False)
    # The first steps make states, threads and caches. Medians, as other work disturbs some steps.
    steady = times[len(times) // 10 :]
    result.step, result.optimizer = (sorted(column)[len(steady) // 2] for column in zip(*steady))
    result.state_bytes = sum(
        value.nbytes for values in optimizer.state.values() for value in values.values() if isinstance(value, Tensor)
    )
    result.peak_bytes = peak_memory()
    return result


@torch.no_grad()
def validate(model: GPT, text: Text) -> float:
    return model.loss(text.validation_batch(32)).item()


def peak_memory() -> int:
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def table(results: list[Result]) -> str:
    header = ("run", "loss", "validation", "ms a step", "optimizer ms", "share", "state bytes/param", "peak MB")
    rows = [header]
    for result in results:
        last = result.losses[-max(1, len(result.losses) // 10) :]
        rows.append(
            (
                result.name,
                f"{sum(last) / len(last):.3f}",
                f"{result.validation[-1][1]:.3f}",
                f"{result.step * 1e3:.1f}",
                f"{result.optimizer * 1e3:.2f}",
                f"{result.optimizer / result.step:.1%}",
                f"{result.state_bytes / result.parameters:.2f}",
                f"{result.peak_bytes / 1e6:.0f}" if result.peak_bytes else "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def plot(results: list[Result], path: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (curves, bars) = pyplot.subplots(1, 2, figsize=(11, 4), width_ratios=(3, 2), layout="constrained")
    for number, result in enumerate(results):
        # The first line is wide, so that it shows beneath another one with the same losses.
        curves.plot(*zip(*result.validation), marker=".", linewidth=1.5 if number else 5, label=result.name)
    curves.set(xlabel="step", ylabel="validation loss, nats a character", title="The loss of a character-level GPT")
    curves.legend()
    names = [result.name for result in results]
    seconds = [result.optimizer * 1e3 for result in results]
    bars.barh(names, seconds, color=[f"C{number}" for number in range(len(names))])
    bars.bar_label(bars.containers[0], fmt="%.2f", padding=3)
    bars.margins(x=0.15)
    bars.invert_yaxis()
    bars.set(xlabel="ms", title="The optimizer's time a step")
    figure.savefig(path, dpi=120)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizer", choices=["torch", "adamant"], help="one of the two; both without")
    parser.add_argument("--state", choices=STATES, help="the type of adamant's moments; all without")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--context", type=int, default=64, help="how many characters the model sees")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, help="of PyTorch and adamant; as many as each likes without")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpt.png"), help="where the picture goes")
    options = parser.parse_args()
    if options.optimizer == "torch" and options.state not in (None, "f32"):
        parser.error("torch's AdamW has moments in f32 only")
    if options.steps < 1:
        parser.error("--steps must be at least 1")
    if options.width % options.heads:
        parser.error(f"--width {options.width} must be a multiple of --heads {options.heads}")
    return options


def main() -> None:
    options = arguments()
    has_matplotlib = importlib.util.find_spec("matplotlib") is not None
    if not has_matplotlib:
        print("matplotlib is not installed: there will be a table, but no picture", flush=True)
    runs = [("torch", "f32")] if options.optimizer != "adamant" and options.state in (None, "f32") else []
    if options.optimizer != "torch":
        runs += [("adamant", state) for state in ([options.state] if options.state else STATES)]
    results = []
    for name, state in runs:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            results.append(process.submit(train, options, name, state).result())
    print(f"\n{results[0].parameters:,} parameters, {options.steps} steps of {options.batch} x {options.context}\n")
    print(table(results))
    if has_matplotlib:
        plot(results, options.out)
        print(f"\nthe picture is {options.out}")


if __name__ == "__main__":
    main()
