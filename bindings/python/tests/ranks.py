"""Functions run by several processes of one gloo group, on this machine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import adamant_optim.torch  # noqa: F401
import torch
import torch.distributed as dist
import torch.distributed.checkpoint
import torch.distributed.fsdp
import torch.distributed.tensor

#: Whether tests shall be thorough instead of quick: see run_sharded.
LONG = bool(os.environ.get("ADAMANT_LONG"))
#: Seconds after which a collective call that is not answered is an error; many, for machines that are busy.
PATIENCE = 150


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ranks", "pytest"])
    return context


def _main(function: Callable[..., Any], rank: int, ranks: int, store: str, args: Any, pipe: Any) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks))
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{store}",
            rank=rank,
            world_size=ranks,
            timeout=timedelta(seconds=PATIENCE),
        )
        result = function(*args)
        answer = pickle.dumps((True, result))
    except BaseException:
        answer = pickle.dumps((False, traceback.format_exc()))
    pipe.send_bytes(answer)
    # Without the others' consent: one that failed never gives it.
    os._exit(0)


def run(function: Callable[..., Any], ranks: int, *args: Any, ends: int | None = None) -> list[Any]:
    """What ``function(*args)`` returns in each of so many processes, by rank. The one of rank ``ends`` must end
    before it answers: its result is ``None``.
    """
    context = _context()
    with tempfile.TemporaryDirectory() as folder:
        processes, pipes = [], []
        for rank in range(ranks):
            here, there = context.Pipe(duplex=False)
            arguments = (function, rank, ranks, os.path.join(folder, "store"), args, there)
            process = context.Process(target=_main, args=arguments, daemon=True)
            process.start()
            there.close()
            processes.append(process)
            pipes.append(here)
        results = []
        deadline = time.monotonic() + 2 * PATIENCE
        for rank, pipe in enumerate(pipes):
            if not pipe.poll(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"rank {rank} of {ranks} did not answer")
            try:
                is_fine, result = pickle.loads(pipe.recv_bytes())
                is_fine = is_fine and rank != ends
            except EOFError:
                is_fine, result = rank == ends, None
            if not is_fine:
                for process in processes:
                    process.kill()
                raise AssertionError(f"rank {rank} of {ranks}:\n{result}")
            results.append(result)
        for process in processes:
            process.join(PATIENCE)
    return results
