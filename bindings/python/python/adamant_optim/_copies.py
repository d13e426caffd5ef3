"""Calls before a module is pickled or copied."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

_KEY = "__getstate__"


class _GetState:
    """The ``__getstate__`` of a module, with calls before it."""

    def __init__(self, module: torch.nn.Module | None, own: Callable[[], Any] | None) -> None:
        self._module = (lambda: None) if module is None else weakref.ref(module)
        self._own = own
        # RemovableHandle needs a dictionary that weak references can be made of.
        self.calls: OrderedDict[int, Callable[[Any], None]] = OrderedDict()

    def _called_module(self) -> Any:
        module: Any = self._module()
        if module is None:
            raise RuntimeError("this __getstate__ was copied without its module: remove it from the copy")
        for call in list(self.calls.values()):
            call(module)
        return module

    def __deepcopy__(self, memo: dict[int, Any]) -> _GetState:
        # Parametrized modules copy their dictionary themselves, by now the parameters, too.
        module = self._called_module()
        with torch.no_grad():
            for param in module.parameters(recurse=False):
                if id(param) in memo:
                    memo[id(param)].copy_(param)
        return _GetState(memo.get(id(module)), deepcopy(self._own, memo))

    def __call__(self) -> Any:
        module = self._called_module()
        own: Any = getattr(type(module), _KEY, None)
        if self._own is not None:
            state = self._own()
        elif own is not None:
            state = own(module)
        else:
            # Python before 3.11 has none for every object.
            state = vars(module)
        # The copy is not that of an optimizer which could be called.
        return {key: value for key, value in state.items() if key != _KEY} if isinstance(state, dict) else state


def before_copy(module: torch.nn.Module, call: Callable[[Any], None]) -> RemovableHandle:
    """Has ``call(module)`` called before a module is pickled or copied.

    In a pickle of a model and its optimizer, the model's tensors are written before the optimizer is asked for its
    state. So the module itself must bring them up to date. PyTorch has no hook for this. Python looks for
    ``__getstate__`` on the object before it asks the class, so the module keeps its class.
    """
    found = vars(module).get(_KEY)
    if not isinstance(found, _GetState):
        vars(module)[_KEY] = found = _GetState(module, found)
    handle = RemovableHandle(found.calls)
    found.calls[handle.id] = call
    return handle
