"""Steps while the backward pass goes on: each parameter as soon as its gradient is complete."""

from __future__ import annotations

import os
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ._copies import before_copy
from ._torch import memory_of

if TYPE_CHECKING:
    from ._optimizer import Optimizer

#: The thread is woken for this many numbers. Fewer wait for the next gradient, or for the end.
BATCH = 1 << 16

#: The options that need all gradients before the first step, each with the value that turns it off.
_NEEDS_ALL = {"max_grad_norm": None, "skip_nonfinite": False, "zero_grad_in_step": False}


def _wait_for_copy(grad: Tensor) -> None:
    """Waits for a gradient that is on its way from a GPU: ``fully_shard`` copies it to pinned memory, and versions of
    PyTorch before 2.15 call hooks before it is there."""
    is_initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if is_initialized and memory_of(grad).is_pinned():
        torch.cuda.current_stream().synchronize()


class _Hooks:
    """The hooks of a module and its parameters. They do not keep the optimizer alive: the collector does not see those
    of parameters. Copies of them, in a copied module, do nothing."""

    def __init__(self, backward: Backward | None) -> None:
        self._backward = (lambda: None) if backward is None else weakref.ref(backward)

    def __reduce__(self) -> Any:
        return _Hooks, (None,)

    def take(self, param: Tensor) -> None:
        backward = self._backward()
        if backward is not None:
            backward._take(param)

    def wait(self, *_: Any) -> None:
        backward = self._backward()
        if backward is not None:
            backward.finish()


class Backward:
    """Takes gradients as they become complete, and steps their parameters in a thread of its own."""

    def __init__(self, optimizer: Optimizer, module: torch.nn.Module) -> None:
        self._optimizer = optimizer
        self._reset()
        self.check()
        for name, child in module.named_modules():
            if isinstance(child, torch.nn.parallel.DistributedDataParallel):
                raise ValueError(
                    f"step_in_backward: {name or 'the module'!r} is a DistributedDataParallel, whose gradients are "
                    "complete before they are averaged: use fully_shard"
                )
        places = {
            id(param): (number, position)
            for number, group in enumerate(optimizer.param_groups)
            for position, param in enumerate(group["params"])
        }
        params: list[Any] = [param for param in module.parameters() if id(param) in places and param.requires_grad]
        if not params:
            raise ValueError("step_in_backward: the module has no parameter of this optimizer")
        self._places = {id(param): places[id(param)] for param in params}
        hooks = _Hooks(self)
        self._handles = [param.register_post_accumulate_grad_hook(hooks.take) for param in params]
        self._handles.append(module.register_forward_pre_hook(hooks.wait))
        self._handles.append(module.register_state_dict_pre_hook(hooks.wait))  # type: ignore[no-untyped-call]
        for child in module.modules():
            if any(id(param) in self._places for param in child.parameters(recurse=False)):
                self._handles.append(before_copy(child, hooks.wait))

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._running: Future[None] | None = None
        self._waiting: dict[tuple[int, int], Tensor] = {}
        self._numbers = 0
        self._error: BaseException | None = None

    def check(self) -> None:
        """Finds options that need all gradients at once.

        Raises:
            ValueError: one is set.
        """
        for option, off in _NEEDS_ALL.items():
            value = getattr(self._optimizer, option)
            if value != off and value is not None:
                raise ValueError(
                    f"step_in_backward: {option} is {value}, but needs all gradients before the first parameter is "
                    f"stepped: set it to {off}"
                )
        if self._optimizer.__dict__.get("found_inf") is not None:
            raise ValueError("step_in_backward: a GradScaler needs all gradients before the first parameter is stepped")

    def remove(self) -> None:
        """Goes back to steps after the backward pass."""
        self.finish()
        for handle in self._handles:
            handle.remove()

    def _notice_fork(self) -> None:
        """Starts anew in a forked child: the thread of the parent, which may have held the lock, is not there."""
        if self._process != os.getpid():
            self._reset()

    def _take(self, param: Tensor) -> None:
        """Takes a gradient that is complete."""
        grad = param.grad
        if grad is None:
            return
        param.grad = None
        _wait_for_copy(grad)
        place = self._places[id(param)]
        self._notice_fork()
        while not self._add(place, grad):
            # The gradient that waits is of an earlier backward pass, which is a step of its own.
            self._step_all()

    def _add(self, place: tuple[int, int], grad: Tensor) -> bool:
        """Has a gradient wait for its step, unless one of the same parameter does."""
        with self._lock:
            if place in self._waiting:
                return False
            self._waiting[place] = grad
            self._numbers += grad.numel()
            if self._running is None and self._numbers >= BATCH:
                self._executor = self._executor or ThreadPoolExecutor(1, thread_name_prefix="adamant")
                self._running = self._executor.submit(self._run)
            return True

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._numbers < BATCH or self._error is not None:
                    self._running = None
                    return
                listed = self._all_waiting()
            self._step(listed)

    def _all_waiting(self) -> list[tuple[int, int, Tensor]]:
        waiting, self._waiting, self._numbers = self._waiting, {}, 0
        return [(*place, grad) for place, grad in waiting.items()]

    def _step(self, listed: list[tuple[int, int, Tensor]]) -> None:
        try:
            self.check()
            self._optimizer._step_native(1.0, listed)
        except BaseException as error:
            with self._lock:
                self._error = self._error or error
            self._give_back(listed)

    def _give_back(self, listed: list[tuple[int, int, Tensor]]) -> None:
        for number, position, grad in listed:
            param = self._optimizer.param_groups[number]["params"][position]
            # The gradient of an earlier backward pass may be there.
            param.grad = grad if param.grad is None else param.grad + grad

    def finish(self) -> None:
        """Waits until all gradients that are complete have been stepped.

        Raises:
            Exception: what went wrong with one of them. Parameters that were not stepped have their gradient again.
        """
        self._step_all()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _step_all(self) -> None:
        """Steps all gradients that are complete, or gives them back after an error."""
        self._notice_fork()
        while True:
            with self._lock:
                running = self._running
                if running is None:
                    listed = self._all_waiting()
                    break
            running.result()
        if listed and self._error is None:
            self._step(listed)
        elif listed:
            self._give_back(listed)
