"""Checkpoints of models and optimizers that several processes share, by ``torch.distributed.checkpoint``.

Any number of processes can load the checkpoints of that module. These two functions add two promises: a save that
fails leaves the previous checkpoint whole, and a load of a damaged or foreign one is an error that names the tensor,
before anything has changed.

The folder is one that ``torch.distributed.checkpoint`` reads as well, with one file more for each process. For a
single file that :func:`torch.load` reads::

    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
    dcp_to_torch_save(path, "checkpoint.pt")
    torch_optimizer.load_state_dict(torch.load("checkpoint.pt")["optim"])
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from ._optimizer import Optimizer

__all__ = ["load", "save"]

#: Bytes that are read at once.
_CHUNK = 1 << 24


def _rank_and_size(group: Any) -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(group), dist.get_world_size(group)
    return 0, 1


def _gather(value: Any, group: Any) -> list[Any]:
    """The values of all processes, in the order of ranks."""
    _, size = _rank_and_size(group)
    if size == 1:
        return [value]
    values = [None] * size
    dist.all_gather_object(values, value, group=group)
    return values


def _agree(problem: str | None, group: Any, kind: type[Exception] = RuntimeError) -> None:
    """Raises the first problem that a process has, in all of them."""
    for rank, other in enumerate(_gather(problem, group)):
        if other is not None:
            raise kind(other if other == problem else f"rank {rank}: {other}")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def save(
    path: str | os.PathLike[str],
    model: torch.nn.Module,
    optimizers: torch.optim.Optimizer | Iterable[torch.optim.Optimizer],
    *,
    extra: dict[str, Any] | None = None,
    process_group: Any = None,
) -> None:
    """Saves a model and its optimizers in a folder, in place of one that is there. All processes call it.

    The folder is written as ``path.new`` and takes its name when every process is done. Whatever fails before, the
    old folder stays as it is; between the two renamings it is ``path.old``, where :func:`load` finds it.

    Args:
        path: the folder, on a file system that all processes share.
        model: the model; under ``fully_shard`` or not.
        optimizers: one, or several.
        extra: other values that belong to the checkpoint, such as the number of the step; the same in all processes.
        process_group: the processes that share the model. All without.

    Raises:
        RuntimeError: a process could not write its part.
    """
    path = Path(path)
    new, old = _beside(path, ".new"), _beside(path, ".old")
    rank, _ = _rank_and_size(process_group)
    problem = None
    if rank == 0:
        try:
            if path.exists() and not path.is_dir():
                raise FileExistsError(f"{path} is a file, but a checkpoint is a folder")
            shutil.rmtree(new, ignore_errors=True)
            new.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"cannot save {path}: {error}"
    _agree(problem, process_group)

    state = {**_state_of(model, optimizers), "extra": extra or {}}
    dcp.save(state, checkpoint_id=new, process_group=process_group)
    try:
        _write_checksums(new, *_rank_and_size(process_group))
    except OSError as error:
        problem = f"cannot save {path}: {error}"
    _agree(problem, process_group)

    if rank == 0:
        try:
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                path.rename(old)
            new.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            problem = f"cannot save {path}: {error}"
    _agree(problem, process_group)


def load(
    path: str | os.PathLike[str],
    model: torch.nn.Module,
    optimizers: torch.optim.Optimizer | Iterable[torch.optim.Optimizer],
    *,
    extra: dict[str, Any] | None = None,
    process_group: Any = None,
    verify: bool = True,
) -> dict[str, Any]:
    """Loads what :func:`save` saved, by any number of processes. All of them call it.

    A parameter that had no gradient before the save has no state after the load.

    Args:
        path: the folder.
        model: the model; under ``fully_shard`` or not.
        optimizers: one, or several.
        extra: entries that :func:`save` was given, of which those here are looked for.
        process_group: the processes that share the model. All without.
        verify: whether to read all files through first, and compare their checksums. The processes share that.

    Returns:
        The entries of ``extra``, with the values of the checkpoint.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it is damaged, or of another model or optimizer. The message names the first such tensor; nothing
            has changed.
    """
    path = Path(path)
    if not path.exists() and _beside(path, ".old").exists():
        path = _beside(path, ".old")
    metadata, problem = None, None
    try:
        metadata = dcp.FileSystemReader(path).read_metadata()
    except (FileNotFoundError, NotADirectoryError):
        problem = f"{path} has no file .metadata, so it is no checkpoint of torch.distributed.checkpoint"
    except Exception as error:
        problem = f"{path / '.metadata'} cannot be read: {type(error).__name__}: {error}"
    _agree(problem, process_group, FileNotFoundError if metadata is None and not path.exists() else ValueError)
    if verify:
        _agree(_find_damage(path, metadata, *_rank_and_size(process_group)), process_group, ValueError)

    own = [optimizers] if isinstance(optimizers, torch.optim.Optimizer) else optimizers
    made = [(one, one._make_missing_states()) for one in own if isinstance(one, Optimizer)]
    try:
        state = {**_state_of(model, optimizers), "extra": dict(extra or {})}
        states: Any = state["optim"]["state"]
        without = _params_without_state(states, metadata)
        for param in without:
            del states[param]
        _agree(_find_difference(state, metadata, path), process_group, ValueError)
        dcp.load(state, checkpoint_id=path, process_group=process_group)
    except BaseException:
        for one, params in made:
            for tensor in params:
                del one.state[tensor]
        raise
    # PyTorch asks for a state of each parameter that requires a gradient.
    states.update({param: {} for param in without})
    set_state_dict(model, optimizers, model_state_dict=state["model"], optim_state_dict=state["optim"])
    found: dict[str, Any] = state["extra"]
    return found


def _state_of(model: torch.nn.Module, optimizers: Any) -> dict[str, Any]:
    model_state, optim_state = get_state_dict(model, optimizers)
    states: Any = optim_state["state"]
    for state in states.values():
        # The codes of 8-bit moments are of this number of processes alone. The numbers beside them fit any.
        for key in [key for key in state if key.endswith(("_codes", "_scales"))]:
            if key.rsplit("_", 1)[0] in state:
                del state[key]
    return {"model": model_state, "optim": optim_state}


# ---- Damage


def _crc(path: Path, offset: int, length: int) -> int:
    crc = 0
    with open(path, "rb") as file:
        file.seek(offset)
        while length > 0:
            chunk = file.read(min(length, _CHUNK))
            if not chunk:
                break
            crc = zlib.crc32(chunk, crc)
            length -= len(chunk)
    return crc


def _items(metadata: Any) -> list[tuple[str, Any]]:
    """The tensors, or parts of them, in the order in which they lie in files."""
    items = [(index.fqn, info) for index, info in metadata.storage_data.items()]
    return sorted(items, key=lambda item: (item[1].relative_path, item[1].offset))


def _share(items: list[tuple[str, Any]], rank: int, size: int) -> list[tuple[str, Any]]:
    """The items of every file that is this process's to read."""
    files = sorted({info.relative_path for _, info in items})
    own = set(files[rank::size])
    return [item for item in items if item[1].relative_path in own]


def _write_checksums(folder: Path, rank: int, size: int) -> None:
    metadata = dcp.FileSystemReader(folder).read_metadata()
    sums = [
        [info.relative_path, info.offset, info.length, _crc(folder / info.relative_path, info.offset, info.length)]
        for _, info in _share(_items(metadata), rank, size)
    ]
    name = folder / f"checksums-{rank}.json"
    with open(name, "w") as file:
        json.dump({"crc32": sums}, file)
        file.flush()
        os.fsync(file.fileno())


def _find_damage(folder: Path, metadata: Any, rank: int, size: int) -> str | None:
    """The first tensor whose bytes are not those that were saved; a folder without checksums has its sizes checked."""
    sums: dict[tuple[str, int, int], int] = {}
    for name in sorted(folder.glob("checksums-*.json")):
        try:
            sums |= {(path, offset, length): crc for path, offset, length, crc in json.loads(name.read_text())["crc32"]}
        except (ValueError, KeyError, TypeError, OSError) as error:
            return f"{name} cannot be read: {error}"
    for fqn, info in _share(_items(metadata), rank, size):
        path = folder / info.relative_path
        where = f"{fqn} in {path}, bytes {info.offset} to {info.offset + info.length}"
        try:
            if path.stat().st_size < info.offset + info.length:
                return f"{where}: the file ends after {path.stat().st_size} bytes"
            wanted = sums.get((info.relative_path, info.offset, info.length))
            if sums and wanted is None:
                return f"{where}: there is no checksum of it"
            if wanted is not None:
                found = _crc(path, info.offset, info.length)
                if found != wanted:
                    return f"{where}: the checksum is {found:08x}, but was {wanted:08x}"
        except OSError as error:
            return f"{where}: {error}"
    return None


def _params_without_state(states: Any, metadata: Any) -> list[str]:
    """The parameters of which the checkpoint has no state: they had no gradient before it was saved. None, if it has no
    state of any: then it is of another optimizer."""
    saved = metadata.state_dict_metadata
    without = [
        param for param, state in states.items() if not any(f"optim.state.{param}.{key}" in saved for key in state)
    ]
    return without if len(without) < len(states) else []


def _find_difference(state: Any, metadata: Any, folder: Path) -> str | None:
    """The first tensor of the state that the checkpoint does not have, or has in another shape."""
    from torch.distributed.checkpoint._nested_dict import flatten_state_dict

    flat, _ = flatten_state_dict(state)
    saved = metadata.state_dict_metadata
    for key, value in flat.items():
        if key not in saved:
            return f"{key} is not in {folder}: the checkpoint is of another model, optimizer or options"
        if not isinstance(value, torch.Tensor):
            continue
        size = getattr(saved[key], "size", None)
        if size is None:
            return f"{key} in {folder} is no tensor, but must be one of shape {list(value.shape)}"
        if list(size) != list(value.shape):
            return f"{key} in {folder} has shape {list(size)}, but must have {list(value.shape)}"
    return None
