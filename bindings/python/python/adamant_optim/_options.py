"""The options that every optimizer has beyond PyTorch's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

import torch

from ._checks import check_flag

if TYPE_CHECKING:
    StateDType = torch.dtype | Literal["f32", "bf16", "f16", "q8"] | None


class Options(TypedDict, total=False):
    """The keyword options of every optimizer.

    ``state_dtype``, ``master``, ``stochastic_rounding`` and ``dense_equivalent`` may differ from group to group. The
    others are attributes of the optimizer, and may be changed between steps.

    Args:
        state_dtype: the type of the moments: ``torch.float32``, ``torch.bfloat16``, ``torch.float16``, or ``"q8"`` for
            8 bits and a scale for each 256 numbers. ``None`` is ``torch.float32``, and ``torch.float64`` for parameters
            in ``float64``, which have no other. Below 32 bits, moments are rounded up or down at random.
            ``torch.float16`` is for gradients between about 1e-2 and 1e2: it holds no squares of smaller ones, so that
            steps are too short, and none of larger ones. ``torch.bfloat16`` and ``"q8"`` have no such limits.
        master: how parameters of 16 bits keep the bits that they cannot hold:

            - ``"f32"``: the state has a copy in ``float32``, 4 bytes a number. For bfloat16 and float16.
            - ``"split"``: the state has the other half of a ``float32``, 2 bytes a number, for bfloat16:
              ``bits(float32) = (bits(param) << 16) + param_low``, where ``param_low`` is a signed number of 16 bits.
              The parameter is the ``float32`` rounded to nearest, ties away from 0.
            - ``None``: those bits are lost.

            If your program writes the parameter, the next step takes that over into the copy: ``param.copy_()`` under
            ``torch.no_grad()``, ``load_state_dict``, ``param.data = other``; of a DTensor, too. PyTorch does not tell
            of writes in place through ``param.data``, such as ``param.data.fill_(0)``, nor of writes to DTensors by
            ``torch._foreach_mul_`` and its kind, and by ``torch.distributed.checkpoint.load``: the next step undoes
            those. It does tell of ``load_state_dict`` and ``set_model_state_dict`` after such a load. ``"split"`` has
            no copy that could be out of date.
        stochastic_rounding: whether bfloat16 and float16 parameters without ``master`` are rounded up or down at
            random, so that no update is lost on average. Wider ones are rounded to nearest.
        dense_equivalent: for sparse gradients of Adam and AdamW: whether a step has the results of one with a dense
            gradient, but touches only the rows that have a gradient. See :meth:`Optimizer.watch`. ``True`` is
            ``"series"``: rows that were skipped catch up at once, with roundings of their own. ``"replay"``: step by
            step, with the bits of dense steps and their cost. If this or another option of the group changes while rows
            are behind, all rows catch up when one of them is next read; a step before that is refused.
        max_grad_norm: the largest norm of all gradients. Where it is greater, gradients count as if they were scaled
            down to it, as by ``torch.nn.utils.clip_grad_norm_``, but are not written. A step whose norm is not finite
            is left out. ``optimizer.grad_norm`` has the norm.
        skip_nonfinite: whether a step is left out where a gradient is not finite. ``optimizer.skipped`` counts them.
        zero_grad_in_step: whether a step sets gradients to zero as it reads them, so that the next batch can be added
            to them.
        threads: the number of threads. ``None``: as many as affinity and cgroup grant, and with torchrun this process's
            share of the machine's CPUs; or as many as PyTorch uses, where PyTorch's threads are awake and do the work.
        isa: the instruction set: ``"scalar"``, ``"avx2"``, ``"avx512"`` or ``"neon"``. ``None``: the best one that this
            CPU has. All give the same bits.
        seed: the seed of the random bits, which depend on the seed, the step and the element alone.
        grad_norm_group: the processes whose gradients ``max_grad_norm`` and ``skip_nonfinite`` are about, if each has
            other parameters: a group of ``torch.distributed``, or ``"world"``. Needed with ``ZeroRedundancyOptimizer``
            and pipelines. ``None``: those that share DTensors, or this process alone.
    """

    state_dtype: StateDType
    master: Literal["f32", "split"] | None
    stochastic_rounding: bool
    dense_equivalent: bool | Literal["series", "replay"]
    max_grad_norm: float | None
    skip_nonfinite: bool
    zero_grad_in_step: bool
    threads: int | None
    isa: Literal["scalar", "avx2", "avx512", "neon"] | None
    seed: int
    grad_norm_group: Any


DTYPES = {
    "f32": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "f16": torch.float16,
    "float16": torch.float16,
    "f64": torch.float64,
    "float64": torch.float64,
}

_STATES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def state_dtype(value: Any) -> torch.dtype | Literal["q8"] | None:
    """The option ``state_dtype`` in one form."""
    found: Any = DTYPES.get(value, value) if isinstance(value, str) else value
    if found is None or found == "q8" or found in _STATES:
        return found  # type: ignore[no-any-return]
    raise ValueError(f'state_dtype is {value!r}, but must be None, torch.float32, bfloat16, float16 or "q8"')


#: Flags of PyTorch's optimizers that no step here can follow.
REFUSED_FLAGS = ("capturable", "differentiable")


def check_flags(group: dict[str, Any]) -> None:
    """Refuses the flags of PyTorch's optimizers that no step here can follow."""
    for flag in REFUSED_FLAGS:
        if group.get(flag):
            raise ValueError(f"{flag}=True is not supported: steps run on the CPU, outside of autograd")


def check_centered(group: dict[str, Any], dtype: Any) -> None:
    """Refuses moments of 16 or 8 bits for centered RMSprop."""
    if group.get("centered") and dtype in (torch.bfloat16, torch.float16, "q8"):
        raise ValueError(
            f"state_dtype is {dtype}, but centered=True divides by the difference of two moments, which fewer bits "
            "than those of float32 can make 0: state_dtype must be None"
        )


def check_group(group: dict[str, Any]) -> None:
    """Checks the options of a group, and brings them in one form."""
    dtype = state_dtype(group["state_dtype"])
    if any(param.dtype not in (torch.float64, torch.complex128) for param in group["params"]):
        check_centered(group, dtype)
    master = group["master"]
    if master not in (None, "f32", "split"):
        raise ValueError(f'master is {master!r}, but must be None, "f32" or "split"')
    if group["dense_equivalent"] not in (False, True, "series", "replay"):
        raise ValueError(f'dense_equivalent is {group["dense_equivalent"]!r}, but must be a bool, "series" or "replay"')
    check_flag("stochastic_rounding", group["stochastic_rounding"])
    if master is not None and group["stochastic_rounding"]:
        raise ValueError(f"stochastic_rounding has no use beside master={master!r}: choose one")
    # Last: a group that was refused stays as it was.
    group["state_dtype"] = dtype


def check_grad_norm_group(value: Any) -> None:
    """Checks the option ``grad_norm_group``."""
    if value is not None and value != "world" and not hasattr(value, "rank"):
        raise ValueError(f'grad_norm_group is {value!r}, but must be None, "world" or a group of torch.distributed')
