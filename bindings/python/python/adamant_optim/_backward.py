"""Steps while the backward pass goes on: each parameter as soon as its gradient is complete."""

from __future__ import annotations

import functools
import inspect
import os
import sys
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


#: The functions that run a backward pass, and the one that calls the ``backward`` of an ``autograd.Function``.
_RUNS = tuple(inspect.unwrap(function).__code__ for function in (torch.autograd.backward, torch.autograd.grad))
_CALLS = inspect.unwrap(torch.autograd.function.BackwardCFunction.apply).__code__


def _is_inside_another_run() -> bool:
    """Whether the backward pass that calls a hook runs inside another one.

    PyTorch has no call that says so. The stack of Python has the function that runs this pass, and outside of it the
    one that runs the other pass. A thread of a GPU was not started by that one: there the other pass has called the
    ``backward`` of a function.
    """
    frame, is_in_run = sys._getframe(), False
    while frame.f_back is not None:
        frame = frame.f_back
        is_run = any(frame.f_code is run for run in _RUNS)
        if is_in_run and (is_run or frame.f_code is _CALLS):
            return True
        is_in_run |= is_run
    return False


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


class _Run:
    """A backward pass that is under way."""

    def __init__(self) -> None:
        self.is_inner = _is_inside_another_run()
        self.thread = threading.get_ident()
        #: The parameters whose gradients were queued.
        self.queued: set[int] = set()


class Backward:
    """Takes gradients as they become complete, and steps their parameters in a thread of its own.

    A backward pass inside another one, as that of a checkpoint with ``use_reentrant=True``, does not know whether more
    gradients of its parameters follow. So those of inner passes are kept until all passes have ended.
    """

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
        # Gradients that wait would otherwise step what was loaded.
        self._handles.append(module._register_load_state_dict_pre_hook(hooks.wait))  # type: ignore[no-untyped-call]
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
        #: The backward passes that are under way, by PyTorch's numbers for them.
        self._runs: dict[int, _Run] = {}
        #: Parameters with the gradients that inner passes gave.
        self._late: dict[int, tuple[Tensor, Tensor]] = {}

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
        """Takes a gradient that is complete, from the hook of its parameter.

        Raises:
            RuntimeError: the pass is inside another one, which has given a gradient of the same parameter.
        """
        self._notice_fork()
        number = torch._C._current_graph_task_id()
        run = self._runs.get(number)
        if run is None:
            run = _Run()
            with self._lock:
                self._runs[number] = run
            if number != -1:
                end = functools.partial(self._end_run, number)
                torch.autograd.Variable._execution_engine.queue_callback(end)
        with self._lock:
            is_queued = run.is_inner and any(id(param) in other.queued for other in self._runs.values())
        if is_queued:
            name = self._optimizer._name_of(*self._places[id(param)])
            raise RuntimeError(
                f"step_in_backward: {name} has a gradient in this backward pass, and another one in a backward pass "
                "inside it, when it may have been stepped: use checkpoint(..., use_reentrant=False)"
            )
        grad, param.grad = param.grad, None
        if grad is None:
            return
        _wait_for_copy(grad)
        with self._lock:
            _, late = self._late.pop(id(param), (param, None))
            if late is not None:
                grad = late + grad
            if run.is_inner:
                # Not left in `param.grad`, where `zero_grad` would drop it.
                self._late[id(param)] = param, grad
                return
            run.queued.add(id(param))
        self._queue(param, grad)

    def _end_run(self, number: int) -> None:
        with self._lock:
            self._runs.pop(number, None)

    def _queue(self, param: Tensor, grad: Tensor) -> None:
        place = self._places[id(param)]
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
        self._notice_fork()
        for param, grad in self._take_late():
            self._queue(param, grad)
        self._step_all()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _take_late(self) -> list[tuple[Tensor, Tensor]]:
        """The gradients of inner passes, if no pass is under way that could add to them."""
        if torch._C._current_graph_task_id() != -1:
            # A checkpoint runs its forward pass again.
            return []
        # A pass that ended with an error has not called `_end_run`. This thread is in none now. Python does not know
        # the threads of GPUs.
        others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        with self._lock:
            self._runs = {number: run for number, run in self._runs.items() if run.thread in others}
            if self._runs:
                return []
            late, self._late = self._late, {}
        return list(late.values())

    def _step_all(self) -> None:
        """Steps all gradients that are complete, or gives them back after an error."""
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
