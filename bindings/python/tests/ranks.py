"""Functions run by several processes of one group, on this machine."""

from __future__ import annotations

import faulthandler
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
#: Seconds after which a collective call that is not answered is an error; many, for machines that are busy: two
#: processes under DeepSpeed need 10 seconds on a quiet machine with 2 cores, and took 300 beside four builds.
PATIENCE = 300 if LONG else 150


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ranks", "pytest"])
    return context


def _main(function: Callable[..., Any], rank: int, ranks: int, store: str, backend: str, args: Any, pipe: Any) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks))
    torch.set_num_threads(1)
    # Where it is, before the others give it up.
    stacks = open(_stacks(store, rank), "w")
    faulthandler.dump_traceback_later(2 * PATIENCE - 20, file=stacks)
    try:
        dist.init_process_group(
            backend,
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


def _stacks(store: str, rank: int) -> str:
    return f"{store}.{rank}.stacks"


def _no_answer(store: str, silent: int, ranks: int) -> str:
    parts = [f"rank {silent} of {ranks} did not answer"]
    for rank in range(ranks):
        try:
            with open(_stacks(store, rank)) as stacks:
                parts.append(f"rank {rank} was here:\n{stacks.read() or 'it had ended'}")
        except FileNotFoundError:
            parts.append(f"rank {rank} had not begun")
    return "\n".join(parts)


def run(
    function: Callable[..., Any], ranks: int, *args: Any, ends: int | None = None, backend: str = "gloo"
) -> list[Any]:
    """What ``function(*args)`` returns in each of so many processes, by rank. The one of rank ``ends`` must end
    before it answers: its result is ``None``.
    """
    context = _context()
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "store")
        processes, pipes = [], []
        for rank in range(ranks):
            here, there = context.Pipe(duplex=False)
            arguments = (function, rank, ranks, store, backend, args, there)
            process = context.Process(target=_main, args=arguments, daemon=True)
            process.start()
            there.close()
            processes.append(process)
            pipes.append(here)
        results = []
        deadline = time.monotonic() + 2 * PATIENCE
        for rank, pipe in enumerate(pipes):
            if not pipe.poll(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(_no_answer(store, rank, ranks))
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
