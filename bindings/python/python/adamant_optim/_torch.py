"""The differences between versions of PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Types of tensors that are nothing but memory; the first one is ``torch.Tensor``.
PLAIN_TYPES: list[type] = [torch.Tensor, torch.nn.Parameter]
if hasattr(torch.nn, "Buffer"):
    PLAIN_TYPES.append(torch.nn.Buffer)


def _increment_each(tensors: list[Tensor]) -> None:
    for tensor in tensors:
        if not tensor.is_inference():
            torch._C._increment_version(tensor)


def _find_increment_version() -> Any:
    """The function that tells autograd that tensors were written. In older versions of PyTorch it takes one tensor."""
    try:
        torch._C._increment_version([torch.zeros(1, device="cpu")])
    except (TypeError, RuntimeError):
        return _increment_each
    return torch._C._increment_version


increment_version = _find_increment_version()

try:
    # Does nothing unless somebody profiles, where torch.profiler.record_function takes 10 microseconds.
    from torch._C._profiler import _RecordFunctionFast as record_function
except ImportError:
    record_function = torch.profiler.record_function  # type: ignore[misc, assignment]


def memory_of(tensor: Tensor) -> Tensor:
    """The memory of a tensor: itself, or this process's part of a distributed one."""
    if type(tensor) in PLAIN_TYPES or type(tensor).__torch_dispatch__ is torch.Tensor.__torch_dispatch__:
        return tensor.as_subclass(torch.Tensor) if type(tensor) not in PLAIN_TYPES else tensor
    local = getattr(tensor, "_local_tensor", None)
    if isinstance(local, Tensor):
        # A part that is still on its way from other processes.
        wait: Any = getattr(local, "wait", None)
        return wait() if wait is not None else local
    raise TypeError(
        f"{type(tensor).__name__} is no tensor with memory of its own: fake, functional and wrapped tensors "
        "cannot be stepped"
    )
