"""The state of a parameter: how it is made, brought into the form that steps need, and saved."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _core

#: Elements that share a scale.
BLOCK = 256


class Moment(NamedTuple):
    """A moment of an optimizer."""

    name: str
    #: The value of each number before the first step.
    start: float
    #: The format of 8 bits: signed, squares or unsigned.
    format: str


class Form(NamedTuple):
    """The form that the state of a parameter must have."""

    moments: list[Moment]
    #: The type of moments; ``"q8"`` for 8 bits.
    dtype: torch.dtype | str
    counts_steps: bool
    #: ``None``, ``"f32"`` or ``"split"``.
    master: str | None
    #: The other numbers that PyTorch keeps, by name: their usual values after so many steps.
    scalars: Callable[[float], dict[str, float]]


@functools.cache
def moment_names(optimizer: str | None = None) -> frozenset[str]:
    """The moments that an optimizer of the core has with some settings, or that any has."""
    found = _core.optimizers() if optimizer is None else [optimizer]
    return frozenset(moment[0] for one in found for moment in _core.describe(one, {})[1])


def reals(tensor: Tensor) -> Tensor:
    """The tensor, with complex numbers as pairs."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def dtype_of(param: Tensor, state_dtype: torch.dtype | str | None, name: str) -> torch.dtype | str:
    """The type of the moments of a parameter."""
    if param.dtype in (torch.float64, torch.complex128):
        if state_dtype not in (None, torch.float64):
            raise ValueError(
                f"state_dtype is {state_dtype}, but {name} is of {param.dtype}, whose moments are float64: "
                "state_dtype must be None"
            )
        return torch.float64
    if state_dtype == torch.float64:
        raise ValueError(f"state_dtype is {state_dtype}, but {name} is of {param.dtype}")
    return torch.float32 if state_dtype is None else state_dtype


def _empty(param: Tensor, dtype: torch.dtype) -> Tensor:
    """An array of ``dtype`` in the layout of the parameter; complex where PyTorch's states are."""
    if param.is_complex():
        if dtype in (torch.float32, torch.float64):
            return torch.empty_like(param, memory_format=torch.preserve_format)
        param = torch.view_as_real(param)
    return torch.empty_like(param, dtype=dtype, memory_format=torch.preserve_format)


def _check_array(value: Any, what: str) -> None:
    """Refuses an entry of a state that has no numbers to copy."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} is {value!r}, but must be a tensor")
    if value.is_meta:
        raise ValueError(f"{what} is on meta, which has no values")
    if value.layout is not torch.strided:
        raise ValueError(f"{what} has layout {value.layout}, but must be dense")


def _copy(value: Tensor, param: Tensor, dtype: torch.dtype, what: str) -> Tensor:
    """The values of a saved array in a new one, in the layout of the parameter."""
    array = _empty(param, dtype)
    _check_array(value, what)
    value = value.detach()
    if value.shape != param.shape and value.shape != array.shape:
        raise ValueError(f"{what} has shape {list(value.shape)}, but the parameter has {list(param.shape)}")
    if value.is_complex() and not array.is_complex():
        value = torch.view_as_real(value.resolve_conj())
    if array.is_complex() and not value.is_complex():
        array = torch.view_as_real(array)
        array.copy_(value)
        return torch.view_as_complex(array)
    return array.copy_(value)


def _scalar(value: Any, what: str) -> float:
    """A number of a saved state."""
    try:
        if isinstance(value, str):
            raise TypeError("text is no number")
        return float(value.item() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{what} is {value!r}, but must be a number") from error


def _number(value: float) -> Tensor:
    """A number of a state, on the CPU whatever ``torch.set_default_device`` says."""
    return torch.tensor(value, dtype=torch.float32, device="cpu")


def _is_kept(value: Any, param: Tensor, dtype: torch.dtype) -> bool:
    """Whether a step can use an array as it is."""
    if not isinstance(value, Tensor) or value.device.type != "cpu" or value.requires_grad:
        return False
    if value.layout is not torch.strided:
        return False
    like = _empty(param.detach(), dtype)
    return (
        value.dtype == like.dtype
        and value.shape == like.shape
        and value.stride() == like.stride()
        and not value.is_neg()
        and not value.is_conj()
    )


def _is_kept_number(value: Any) -> bool:
    """Whether a step can use a number of a state as it is."""
    return isinstance(value, Tensor) and value.dtype == torch.float32 and value.numel() == 1 and value.is_cpu


def conform(param: Tensor, state: dict[str, Any], form: Form, name: str) -> None:
    """Brings the state of a parameter into its form: makes what is missing, and converts the rest.

    Tensors that are in that form already stay the same objects.
    """
    if param.device.type != "cpu":
        raise ValueError(f"{name} is on {param.device}, but must be on the CPU")
    param = param.detach()
    names = [moment.name for moment in form.moments]
    has_moments = any(state.get(key) is not None or f"{key}_codes" in state for key in names)
    if form.counts_steps:
        _conform_step(state, has_moments, bool(names), name)
    for moment in form.moments:
        if form.dtype == "q8":
            _conform_q8(param, state, moment, name)
        else:
            _conform_moment(param, state, moment, form.dtype, name)
    _conform_scalars(state, form.scalars, name)
    if form.master == "f32" and param.dtype in (torch.bfloat16, torch.float16):
        if not _is_kept(state.get("master_param"), param, torch.float32):
            saved = state.get("master_param")
            saved = param if saved is None else saved
            state["master_param"] = _copy(saved, param, torch.float32, f"master_param of {name}")
    if form.master == "split" and param.dtype == torch.bfloat16:
        if not _is_kept(state.get("param_low"), param, torch.int16):
            saved = state.get("param_low")
            saved = torch.zeros_like(param, dtype=torch.int16) if saved is None else saved
            state["param_low"] = _copy(saved, param, torch.int16, f"param_low of {name}")


def _conform_step(state: dict[str, Any], has_moments: bool, uses_moments: bool, name: str) -> None:
    step: Any = state.get("step")
    # PyTorch's SGD does not count: with a momentum, it has taken a step.
    value = float(has_moments) if step is None else _scalar(step, f"step of {name}")
    if not (0 <= value < math.inf and value == math.floor(value)):
        raise ValueError(f"step of {name} is {value}, but must be a whole number of at least 0")
    # SGD's momentum starts anew where it is missing.
    if uses_moments and not has_moments:
        value = 0.0
    if not (_is_kept_number(step) and step.item() == value):
        state["step"] = _number(value)


def _conform_moment(param: Tensor, state: dict[str, Any], moment: Moment, dtype: Any, name: str) -> None:
    value = state.get(moment.name)
    keys = f"{moment.name}_codes", f"{moment.name}_scales"
    if value is None and state.get(keys[0]) is not None:
        value = _decode_saved(param, state, moment, name)
    if value is None:
        array = _empty(param, dtype)
        reals(array).fill_(moment.start)
        state[moment.name] = array
    elif not _is_kept(value, param, dtype):
        state[moment.name] = _copy(value, param, dtype, f"{moment.name} of {name}")
    else:
        state[moment.name] = value
    for key in keys:
        state.pop(key, None)


def _conform_q8(param: Tensor, state: dict[str, Any], moment: Moment, name: str) -> None:
    keys = f"{moment.name}_codes", f"{moment.name}_scales"
    codes: Any = state.get(keys[0])
    scales: Any = state.get(keys[1])
    value = state.get(moment.name)
    is_kept = isinstance(codes, Tensor) and _is_kept(codes, param, torch.uint8) and _are_scales(scales, codes)
    if is_kept and scales.is_contiguous():
        state.pop(moment.name, None)
        return
    if value is None and codes is not None:
        # Codes in another layout: their blocks are of other elements. So they are coded anew.
        value = _decode_saved(param, state, moment, name)
    array = _empty(param, torch.uint8)
    if value is None:
        values = reals(_empty(param, torch.float32)).fill_(moment.start)
    else:
        values = reals(_copy(value, param, torch.float32, f"{moment.name} of {name}"))
    scales = torch.zeros(_blocks(array), dtype=torch.float32, device="cpu")
    if moment.start != 0.0 or value is not None:
        _encode(moment, values, array, scales)
    else:
        array.zero_()
    state[keys[0]], state[keys[1]] = array, scales
    state.pop(moment.name, None)


def _blocks(codes: Tensor) -> int:
    return -(-codes.numel() // BLOCK)


def _are_scales(scales: Any, codes: Tensor) -> bool:
    if not isinstance(scales, Tensor) or scales.is_meta:
        return False
    return scales.dtype == torch.float32 and scales.shape == (_blocks(codes),)


def _decode_saved(param: Tensor, state: dict[str, Any], moment: Moment, name: str) -> Tensor:
    """The numbers of a moment whose codes alone are in the state."""
    keys = f"{moment.name}_codes", f"{moment.name}_scales"
    codes, scales = state[keys[0]], state.get(keys[1])
    _check_array(codes, f"{keys[0]} of {name}")
    if codes.dtype != torch.uint8:
        raise ValueError(f"{keys[0]} of {name} is of {codes.dtype}, but must be of torch.uint8")
    if not isinstance(scales, Tensor) or not _are_scales(scales, codes):
        raise ValueError(f"{keys[1]} of {name} must be {_blocks(codes)} numbers in float32")
    return decode(param, codes, scales, moment)


def drop_foreign_codes(param: Tensor, state: dict[str, Any], moment: Moment) -> None:
    """Takes codes and scales out of a saved state that has the numbers as well, and other ones."""
    value = state.get(moment.name)
    keys = f"{moment.name}_codes", f"{moment.name}_scales"
    codes, scales = (state.get(key) for key in keys)
    if value is None or codes is None:
        return
    if (
        isinstance(codes, Tensor)
        and isinstance(scales, Tensor)
        and codes.dtype == torch.uint8
        and not codes.is_meta
        and _are_scales(scales, codes)
    ):
        try:
            decoded = decode(param, codes, scales, moment)
        except ValueError:
            decoded = None
        if decoded is not None and isinstance(value, Tensor) and decoded.shape == value.shape and not value.is_meta:
            same = (decoded == value) | (decoded.isnan() & value.isnan())
            if bool(same.all()):
                return
    for key in keys:
        state.pop(key, None)


def _encode(moment: Moment, values: Tensor, codes: Tensor, scales: Tensor) -> None:
    """Codes of the values. Values that were decoded get the codes they come from, and scales that decode to the same
    bits: the largest number of a block gives its scale to a rounding or two only, so the neighbours are tried."""
    _core.q8_encode(moment.format, values, codes, scales)

    def blocks_that_differ(scales: Tensor) -> Tensor:
        decoded = torch.empty_like(values, memory_format=torch.preserve_format)
        _core.q8_decode(moment.format, codes, scales, decoded)
        # In the order of memory, which is that of blocks.
        strides = values.stride()
        order = sorted(range(values.dim()), key=lambda dim: (-strides[dim], dim))
        differs = (decoded != values).permute(order).reshape(-1)
        differs = torch.nn.functional.pad(differs, (0, len(scales) * BLOCK - len(differs)))
        return differs.reshape(-1, BLOCK).any(dim=1)

    if values.numel() == 0:
        return
    wrong = blocks_that_differ(scales)
    first = scales.clone()
    for ulps in (1, -1, 2, -2, 3, -3):
        if not wrong.any():
            return
        # The next floats are the next whole numbers.
        tried = torch.where(wrong, (first.view(torch.int32) + ulps).view(torch.float32), scales)
        still_wrong = blocks_that_differ(tried)
        scales.copy_(torch.where(wrong & ~still_wrong, tried, scales))
        wrong &= still_wrong


def decode(param: Tensor, codes: Tensor, scales: Tensor, moment: Moment) -> Tensor:
    """A moment of 8 bits as ``float32``, in the layout of its codes; complex for complex parameters."""
    values = torch.empty_like(codes, dtype=torch.float32, memory_format=torch.preserve_format)
    _core.q8_decode(moment.format, codes, scales, values)
    return torch.view_as_complex(values) if param.is_complex() else values


def _conform_scalars(state: dict[str, Any], scalars: Callable[[float], dict[str, float]], name: str) -> None:
    step = _scalar(state["step"], f"step of {name}") if "step" in state else 0.0
    for key, value in scalars(step).items():
        saved = state.get(key)
        if saved is not None:
            value = _scalar(saved, f"{key} of {name}")
            if not math.isfinite(value):
                raise ValueError(f"{key} of {name} is {value}, but must be finite")
        if not _is_kept_number(saved):
            state[key] = _number(value)
