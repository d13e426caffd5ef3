"""The hooks of modules that read rows of ``dense_equivalent`` parameters."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ._copies import before_copy

if TYPE_CHECKING:
    from ._optimizer import Optimizer

#: The forward passes that read the rows of their first argument, and no others.
_FORWARDS = (torch.nn.Embedding.forward, torch.nn.EmbeddingBag.forward)

#: The types of indices.
_INDEX_TYPES = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]


def indices_of(rows: Any) -> Tensor:
    """A list of rows in the form that the native call takes.

    Raises:
        TypeError: it is no tensor of whole numbers.
    """
    if not isinstance(rows, Tensor):
        raise TypeError(f"rows is {rows!r}, but must be a tensor of the indices of rows")
    if rows.dtype not in _INDEX_TYPES:
        raise TypeError(f"rows is of {rows.dtype}, but must be of whole numbers: the indices of rows")
    if rows.is_nested:
        # Before `detach`, which in PyTorch 2.4 makes a tensor with holes one without.
        rows = _values_of(rows)
    listed: Tensor = rows.detach().reshape(-1).to("cpu", torch.int64)
    return listed.contiguous()


def _values_of(nested: Any) -> Tensor:
    if nested.layout is torch.jagged and nested.lengths() is None:
        return nested.values()  # type: ignore[no-any-return]
    # The memory of others has holes, with numbers that are no indices.
    parts = [part.reshape(-1) for part in nested.unbind()]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device="cpu")


class CatchUp:
    """The hooks of a module whose weight must catch up before it is read. They do not keep the optimizer alive, and
    copies of them, in a copied model, do nothing."""

    def __init__(self, optimizer: Optimizer | None) -> None:
        self._optimizer = (lambda: None) if optimizer is None else weakref.ref(optimizer)
        #: The parameters of the module, and its hooks before a forward pass.
        self.params: list[Tensor] = []
        self._hooks: dict[int, Any] = {}

    def __reduce__(self) -> Any:
        return CatchUp, (None,)

    def watch(self, module: torch.nn.Module) -> list[Any]:
        """Registers the hooks of a module that has such a parameter.

        Returns:
            Their handles.
        """
        self.params, self._hooks = list(module.parameters(recurse=False)), module._forward_pre_hooks
        # Older versions of PyTorch have it under this name only.
        before_load = module._register_load_state_dict_pre_hook
        return [
            module.register_forward_pre_hook(self.before_forward, with_kwargs=True),
            module.register_state_dict_pre_hook(self.before_all_rows),  # type: ignore[no-untyped-call]
            # Rows that are behind would catch up later, on top of what was loaded.
            before_load(self.before_all_rows, with_module=True),  # type: ignore[no-untyped-call]
            before_copy(module, self.before_all_rows),
        ]

    def is_there(self) -> bool:
        """Whether the hook before the forward pass is there: its handle may have removed it."""
        return any(getattr(hook, "__self__", None) is self for hook in self._hooks.values())

    def before_forward(self, module: Any, args: Any, kwargs: Any) -> None:
        """Before a module reads rows."""
        rows = args[0] if args else kwargs.get("input")
        if not self._is_read_as_it_is(module, rows):
            self.before_all_rows(module)
        elif (optimizer := self._optimizer()) is not None:
            optimizer.catch_up(module.weight, rows)

    def _is_read_as_it_is(self, module: Any, rows: Any) -> bool:
        """Whether a module is a table that reads the rows which its arguments list, and no others."""
        # A head that shares the table reads all rows. The position tables of OPT and BART add 2.
        if type(module).forward not in _FORWARDS or "forward" in vars(module):
            return False
        for hook in reversed(module._forward_pre_hooks.values()):
            owner = getattr(hook, "__self__", None)
            if owner is self:
                break
            if not isinstance(owner, CatchUp):
                # It runs after this one, and may return other indices.
                return False
        # The table itself refuses other indices, with PyTorch's message. In `torch.vmap` they have no memory to read.
        is_list = isinstance(rows, Tensor) and rows.dtype in _INDEX_TYPES
        return is_list and not torch._C._functorch.is_functorch_wrapped_tensor(rows)

    def before_all_rows(self, module: Any, *_: Any) -> None:
        """Before all rows of a module's parameters are read, saved, loaded or copied."""
        optimizer = self._optimizer()
        if optimizer is not None:
            for param in module.parameters(recurse=False):
                optimizer.catch_up(param)
