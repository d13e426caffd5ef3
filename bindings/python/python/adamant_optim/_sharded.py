"""Parameters of which each process has a part: DTensors, as FSDP2 and tensor parallelism make them.

A step updates the local parts. All it needs from the other processes is one number, the norm of all gradients, and
only if the options ask for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ._torch import PLAIN_TYPES, memory_of

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor
    from typing_extensions import TypeIs

#: Entries of a state that are one number. The others have a number for each of the parameter's.
_NOT_LIKE_PARAM = ("step", "eta", "mu", "mu_product")


def is_dtensor(tensor: Any) -> TypeIs[DTensor]:
    """Whether a tensor is a DTensor."""
    if type(tensor) in PLAIN_TYPES or not dist.is_available():
        return False
    return isinstance(tensor, _dtensor())


def has_processes() -> bool:
    """Whether this process is one of several, or may be."""
    return dist.is_available() and dist.is_initialized()


def _dtensor() -> Any:
    try:
        from torch.distributed.tensor import DTensor
    except ImportError:
        # Before PyTorch 2.5.
        from torch.distributed._tensor import DTensor
    return DTensor


# ---- Where the parts lie


def _split(shape: torch.Size, mesh: DeviceMesh, placements: Any, dim: int) -> Tensor:
    """The indices along one dimension that this process has, as ``distribute_tensor`` cuts them."""
    index = torch.arange(shape[dim], device="cpu").reshape([1] * dim + [-1])
    for mesh_dim, placement in enumerate(placements):
        # Shards of every kind.
        if getattr(placement, "dim", None) == dim:
            parts, _ = placement._split_tensor(index, mesh.size(mesh_dim), with_padding=False, contiguous=True)
            index = parts[mesh.get_local_rank(mesh_dim)]
    return index.reshape(-1)


def runs(param: DTensor) -> list[tuple[int, int]]:
    """The part of a DTensor that this process has, as runs of the whole: where each begins, and its length."""
    local = param._local_tensor
    if local.numel() == 0:
        return [(0, 0)]
    shape, placements = param.shape, param.placements
    indices = [_split(shape, param.device_mesh, placements, dim) for dim in range(len(shape))]
    # All of the dimensions after the last one that is cut is here.
    cut = [dim for dim, index in enumerate(indices) if len(index) < shape[dim]]
    if not cut or not local.is_contiguous():
        return [(0, local.numel())]
    inner = math.prod(shape[cut[-1] + 1 :])
    firsts = torch.zeros(1, dtype=torch.int64, device="cpu")
    for dim in range(cut[-1] + 1):
        stride = math.prod(shape[dim + 1 :])
        firsts = (firsts[:, None] + indices[dim] * stride).reshape(-1)
    # Neighbours are one run.
    breaks = torch.nonzero(firsts.diff() != inner).reshape(-1) + 1
    bounds = [0, *breaks.tolist(), len(firsts)]
    starts = firsts[bounds[:-1]].tolist()
    return [(start, (end - begin) * inner) for start, begin, end in zip(starts, bounds, bounds[1:])]


def _has_random_bits(group: dict[str, Any]) -> bool:
    return bool(group["stochastic_rounding"]) or group["state_dtype"] in ("q8", torch.bfloat16, torch.float16)


class Places(NamedTuple):
    """Where the parameters of an optimizer lie."""

    #: The meshes of the parameters that other processes share.
    meshes: list[DeviceMesh]
    #: For each parameter of each group, by number and position: the mesh, and whether this process is the one
    #: that adds its gradient to the norm.
    owners: dict[tuple[int, int], tuple[int | None, bool]]
    #: For each parameter: the runs of the model's numbers that it is. ``None``: one parameter after the other.
    runs: list[list[tuple[int, int]]] | None


def numbers_before(groups: Iterable[Any]) -> dict[Tensor, int]:
    """How many numbers the parameters before each one have, in a list of parameters or of groups of them."""
    firsts, first = {}, 0
    for group in groups:
        for param in group["params"] if isinstance(group, dict) else [group]:
            # Named parameters are pairs.
            param = param[1] if isinstance(param, tuple) else param
            firsts[param] = first
            first += param.numel() * (2 if param.is_complex() else 1)
    return firsts


def find_places(groups: list[dict[str, Any]], firsts: dict[Tensor, int] | None = None) -> Places:
    """Finds out where the parameters of an optimizer lie: one after the other, or where ``firsts`` says."""
    meshes: list[DeviceMesh] = []
    owners: dict[tuple[int, int], tuple[int | None, bool]] = {}
    all_runs = []
    first = 0
    has_dtensors = False
    for number, group in enumerate(groups):
        for position, param in enumerate(group["params"]):
            reals = 2 if param.is_complex() else 1
            len_local, own = param.numel(), [(0, param.numel())]
            mesh = None
            counts = True
            if is_dtensor(param):
                has_dtensors = True
                own = runs(param)
                if not _has_random_bits(group) or group["state_dtype"] == "q8":
                    own = [(own[0][0], param._local_tensor.numel())]
                coordinate = param.device_mesh.get_coordinate()
                counts = coordinate is not None and all(
                    place == 0 for place, placement in zip(coordinate, param.placements) if placement.is_replicate()
                )
                if param.device_mesh.size() > 1:
                    if param.device_mesh not in meshes:
                        meshes.append(param.device_mesh)
                    mesh = meshes.index(param.device_mesh)
            owners[number, position] = mesh, counts
            if firsts is not None:
                first = firsts[param]
            all_runs.append([(first + start * reals, len_run * reals) for start, len_run in own])
            first += len_local * reals
    return Places(meshes, owners, all_runs if has_dtensors or firsts is not None else None)


# ---- Messages between processes


def _device_for(group: Any) -> torch.device:
    """Where a number must lie for a group of processes to add it up."""
    backends = str(dist.get_backend_config(group)) if hasattr(dist, "get_backend_config") else ""
    if "cpu" in backends or not torch.cuda.is_available() or dist.get_backend(group) == "gloo":
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def _reduce(values: list[float], group: Any, op: Any) -> list[float]:
    tensor = torch.tensor(values, dtype=torch.float64, device=_device_for(group))
    dist.all_reduce(tensor, op=op, group=group)
    return tensor.tolist()


def _groups_of(mesh: DeviceMesh) -> Iterable[Any]:
    return (mesh.get_group(dim) for dim in range(mesh.ndim) if mesh.size(dim) > 1)


def group_of(value: Any) -> Any:
    """The option ``grad_norm_group`` as a group of processes."""
    return dist.group.WORLD if value == "world" else value


def sum_of_squares(places: Places, group: Any, which: list[tuple[int, int]], norms: list[float]) -> float:
    """The squared norm of all gradients of all processes, by the norms of those here."""
    squares: dict[int | None, list[float]] = {mesh: [] for mesh in range(len(places.meshes))}
    squares[None] = []
    for place, norm in zip(which, norms):
        mesh, counts = places.owners[place]
        if counts:
            squares[mesh].append(norm * norm)
    if group is not None:
        return _reduce(
            [math.fsum(value for values in squares.values() for value in values)], group_of(group), dist.ReduceOp.SUM
        )[0]
    # Parameters that are whole in every process count once.
    if places.meshes and any(place != 0 for place in places.meshes[0].get_coordinate() or ()):
        squares[None] = []
    total = 0.0
    for number, shared in enumerate(places.meshes):
        own = squares[number] + (squares[None] if number == 0 else [])
        part = math.fsum(own)
        for mesh_group in _groups_of(shared):
            part = _reduce([part], mesh_group, dist.ReduceOp.SUM)[0]
        total += part
    return total


def tell_no_norm(places: Places, group: Any) -> None:
    """Takes part in adding up the norm, with NaN: the step fails here, and is left out elsewhere."""
    groups = [group_of(group)] if group is not None else [g for mesh in places.meshes for g in _groups_of(mesh)]
    for one in groups:
        _reduce([math.nan], one, dist.ReduceOp.SUM)


def is_true_anywhere(places: Places, group: Any, value: bool) -> bool:
    """Whether something holds in a process that shares parameters with this one, or here."""
    groups = [group_of(group)] if group is not None else [g for mesh in places.meshes for g in _groups_of(mesh)]
    for one in groups:
        value = _reduce([float(value)], one, dist.ReduceOp.MAX)[0] != 0
    return value


# ---- States and gradients


def part_of(value: Tensor, param: DTensor, what: str) -> Tensor:
    """This process's part of a tensor that is laid out as a parameter: of a DTensor of any placement, which all
    processes must ask for at once, or of a whole tensor."""
    extra = value.dim() - param.dim()
    if is_dtensor(value):
        if value.device_mesh != param.device_mesh:
            value = value.full_tensor()
        elif value.placements != param.placements:
            value = value.redistribute(placements=param.placements)
    if is_dtensor(value):
        return memory_of(value)
    if extra < 0 or value.shape[: param.dim()] != param.shape:
        shape = list(memory_of(param).shape)
        if list(value.shape) == shape:
            return value
        raise ValueError(
            f"{what} has shape {list(value.shape)}, but the parameter has {list(param.shape)}, "
            f"and its part here {shape}"
        )
    for dim in range(param.dim()):
        index = _split(param.shape, param.device_mesh, param.placements, dim)
        if len(index) < param.shape[dim]:
            value = value.index_select(dim, index)
    return value


def like(local: Tensor, param: DTensor) -> DTensor:
    """A local array as the part of a DTensor that is laid out as a parameter."""
    extra = local.shape[param.dim() :]
    shape = torch.Size([*param.shape, *extra])
    scale = math.prod(extra)
    strides = tuple(stride * scale for stride in param.stride())
    strides += tuple(math.prod(extra[i + 1 :]) for i in range(len(extra)))
    dtensor = _dtensor()
    # Described by an array without memory: others are moved to the mesh's device, though the parts of parameters that
    # are offloaded from a GPU are here.
    described = dtensor.from_local(
        local.to("meta"), param.device_mesh, param.placements, run_check=False, shape=shape, stride=strides
    )
    whole: DTensor = dtensor(local, described._spec, requires_grad=False)
    return whole


def _is_like_param(key: str) -> bool:
    return key not in _NOT_LIKE_PARAM and not key.endswith("_scales")


def local_state(param: DTensor, state: dict[str, Any], name: str) -> dict[str, Any]:
    """The part of a state that is this process's."""
    return {
        key: part_of(value, param, f"{key} of {name}") if isinstance(value, Tensor) and _is_like_param(key) else value
        for key, value in state.items()
    }


def distributed_state(param: DTensor, local: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """A local state as DTensors; those that are there already stay the objects that they are."""
    new = {}
    for key, value in local.items():
        if isinstance(value, Tensor) and _is_like_param(key):
            before = old.get(key)
            is_kept = is_dtensor(before) and before._local_tensor is value and before.placements == param.placements
            value = before if is_kept else like(value, param)
        new[key] = value
    return new
