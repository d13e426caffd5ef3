"""The base of all optimizers: one native call a step, and PyTorch's protocol around it."""

from __future__ import annotations

import functools
import math
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from . import _backward, _checks, _core, _options, _sharded, _states, _watch
from ._torch import PLAIN_TYPES, increment_version, memory_of, record_function

#: Settings that PyTorch's optimizers have not had from the beginning: older checkpoints lack them.
_NEWER_SETTINGS = ("maximize", "decoupled_weight_decay", "cautious", "nesterov", "amsgrad")

#: The options that groups have; the others are the optimizer's.
_GROUP_OPTIONS = {"state_dtype": None, "master": None, "stochastic_rounding": False, "dense_equivalent": False}
_STEP_OPTIONS = {
    "max_grad_norm": None,
    "skip_nonfinite": False,
    "zero_grad_in_step": False,
    "threads": None,
    "isa": None,
    "seed": 0,
    "grad_norm_group": None,
}


def _named_memory(tensor: Tensor, name: str) -> Tensor:
    """The memory of a tensor; the error has its name."""
    try:
        return memory_of(tensor)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None


class _UnderWay(threading.local):
    """The optimizers in whose subclass a step is under way in a thread: PyTorch runs their hooks around it."""

    def __init__(self) -> None:
        self.ids: set[int] = set()


_under_way = _UnderWay()


def _closure_of(_: Any, closure: Any = None) -> Any:
    """The closure among the arguments of a step."""
    return closure


class Optimizer(torch.optim.Optimizer):
    """The base of all optimizers of this package: a :class:`torch.optim.Optimizer` whose steps run in adamant.

    In ``optimizer.state[param]``, ``step`` and the other numbers (``mu_product``, ``eta``, ``mu``) are ``float32``
    tensors without dimensions, and each moment is a tensor of the shape and layout of ``param``. Moments of 16 or 8
    bits of complex parameters have one dimension more, of 2. A moment of 8 bits is two tensors instead: ``..._codes``
    of that shape, and ``..._scales`` with a number for every 256 codes.
    """

    #: The core's optimizer; a flag of the group that selects another one; which settings come from
    #: ``group[key]`` or ``group[key][position]``; which are always the same.
    _plan: ClassVar[tuple[str, tuple[str, str] | None, list[tuple[str, int | None, str]], list[tuple[str, Any]]]]

    #: For :class:`torch.amp.GradScaler`: a step undoes the scale, and is left out for gradients that are not finite.
    _step_supports_amp_scaling = True
    #: It sets these for the time of a step, and takes their absence for a scale of 1.
    grad_scale: Tensor | None
    found_inf: Tensor | None

    max_grad_norm: float | None
    skip_nonfinite: bool
    zero_grad_in_step: bool
    threads: int | None
    isa: str | None
    seed: int

    #: The state of :meth:`step_in_backward`, if it was called.
    _backward: _backward.Backward | None = None
    #: Where the parameters lie, since the native step asked.
    _where: _sharded.Places | None = None
    #: How many numbers of the model are before each parameter, where this optimizer has only some of them.
    _firsts: dict[Tensor, int] | None = None
    #: The hooks of the modules that :meth:`watch` has found.
    _watched: tuple[_watch.CatchUp, ...] = ()
    #: Whether this process has sent its norm to the others, or NaN in place of it.
    _has_told_norm: bool = False

    #: The norm of all gradients in the last step, if it was needed.
    grad_norm: float | None = None

    def __init__(self, params: Any, defaults: dict[str, Any], options: _options.Options) -> None:
        unknown = [key for key in options if key not in _GROUP_OPTIONS and key not in _STEP_OPTIONS]
        if unknown:
            raise TypeError(f"{type(self).__name__} got an unexpected keyword argument {unknown[0]!r}")
        for key, default in _STEP_OPTIONS.items():
            setattr(self, key, options.get(key, default))
        _checks.check_steps(self)
        _options.check_flags(defaults)
        if defaults.get("fused") and defaults.get("foreach"):
            raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
        self._native = self._new_native()
        defaults |= {key: options.get(key, default) for key, default in _GROUP_OPTIONS.items()}
        super().__init__(params, defaults)

    def _new_native(self) -> _core.Stepper:
        return _core.Stepper(torch, PLAIN_TYPES, increment_version, self._plan, False)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self._check_new_group(param_group)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _options.check_group(group)
            self._native.check(group)
        except Exception:
            self.param_groups.pop()
            raise

    def _check_new_group(self, param_group: Any) -> None:
        if not isinstance(param_group, dict):
            # PyTorch says so.
            return
        for key in _STEP_OPTIONS:
            # ZeroRedundancyOptimizer copies all options into groups.
            if key in param_group and param_group[key] != getattr(self, key):
                raise ValueError(
                    f"{key} is an option of the whole optimizer, and cannot differ from group to group: pass it to "
                    f"{type(self).__name__}, or set optimizer.{key}"
                )
        _options.check_flags(param_group)

    # ---- Steps

    @torch._disable_dynamo
    def step(self, closure: Callable[[], Any] | None = None, /, **keywords: Any) -> Any:
        """Takes a step of all parameters that have a gradient.

        Args:
            closure: computes the loss again and returns it; called with gradients enabled. By position or as
                ``closure=...``: hooks see it as it came.

        Returns:
            The closure's loss, if there is one.
        """
        if keywords:
            self._check_keywords(closure, keywords)
        with record_function(self._step_name):
            args = (self,) if closure is None else (self, closure)
            runs_hooks = id(self) not in _under_way.ids
            if runs_hooks and (self._optimizer_step_pre_hooks or _global_optimizer_pre_hooks):
                args, keywords = self._run_pre_hooks(args, keywords)
            closure = _closure_of(*args, **keywords)
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            self._step()
            self._optimizer_step_code()
            if runs_hooks and (self._optimizer_step_post_hooks or _global_optimizer_post_hooks):
                self._run_post_hooks(args, keywords)
        return loss

    # The hooks are called above: PyTorch need not wrap the method, which costs ten times as much as the rest.
    step.hooked = True  # type: ignore[attr-defined]

    @staticmethod
    def profile_hook_step(func: Callable[..., Any]) -> Callable[..., Any]:
        """What PyTorch wraps the ``step`` of a subclass with. The hooks run here, and not again in the step below."""
        hooked = torch.optim.Optimizer.profile_hook_step(func)

        @functools.wraps(func)
        def step(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
            ids = _under_way.ids
            if id(self) in ids:
                # Of a subclass of this one.
                return func(self, *args, **kwargs)
            ids.add(id(self))
            try:
                return hooked(self, *args, **kwargs)
            finally:
                ids.discard(id(self))

        return step

    def _check_keywords(self, closure: Any, keywords: dict[str, Any]) -> None:
        name = f"{type(self).__name__}.step()"
        for key in keywords:
            if key != "closure":
                raise TypeError(f"{name} got an unexpected keyword argument {key!r}")
        if closure is not None:
            raise TypeError(f"{name} got multiple values for argument 'closure'")

    @property
    def _step_name(self) -> str:
        name = type(self).__name__
        return f"Optimizer.step#{name}.step"

    def _run_pre_hooks(self, args: Any, kwargs: Any) -> Any:
        hooks = chain(_global_optimizer_pre_hooks.values(), self._optimizer_step_pre_hooks.values())
        for hook in list(hooks):
            result = hook(self, args, kwargs)
            if result is not None:
                if not (isinstance(result, tuple) and len(result) == 2):
                    raise RuntimeError(
                        f"{type(self).step} must return None or a tuple of (new_args, new_kwargs), but got {result}."
                    )
                args, kwargs = result
        return args, kwargs

    def _run_post_hooks(self, args: Any, kwargs: Any) -> None:
        hooks = chain(self._optimizer_step_post_hooks.values(), _global_optimizer_post_hooks.values())
        for hook in list(hooks):
            hook(self, args, kwargs)

    def _step(self) -> None:
        if self._backward is not None:
            self._backward.check()
            self._backward.finish()
            # Now only parameters that the backward pass does not step can have gradients.
            if all(param.grad is None for group in self.param_groups for param in group["params"]):
                return
        if not self.state and self._only_makes_states():
            return
        scale, found_inf = self.__dict__.get("grad_scale"), self.__dict__.get("found_inf")
        if found_inf is not None and self._is_true_anywhere(found_inf.item() != 0):
            self._leave_out()
            return
        factor = 1.0 if scale is None else 1.0 / scale.item()
        self._has_told_norm = False
        try:
            self._step_native(factor, None)
        except BaseException:
            if not self._has_told_norm:
                self._tell_no_norm()
            raise

    def _step_native(self, factor: float, listed: list[tuple[int, int, Tensor]] | None) -> None:
        try:
            _, self.grad_norm = self._native.step(
                self,
                self.param_groups,
                self.state,
                factor,
                self.max_grad_norm,
                self.skip_nonfinite,
                self.zero_grad_in_step,
                self.threads,
                self.isa,
                self.seed,
                listed,
            )
        except (TypeError, ValueError, OverflowError):
            _checks.name_bad_option(lambda: _checks.check_steps(self))
            raise

    @property
    def skipped(self) -> int:
        """The number of steps that were left out."""
        # Steps of several threads count here, too.
        return self._native.skipped

    @skipped.setter
    def skipped(self, count: int) -> None:
        self._native.skipped = count

    def _leave_out(self) -> None:
        self._native.leave_out()
        if self.zero_grad_in_step:
            self.zero_grad(set_to_none=False)

    def _only_makes_states(self) -> bool:
        """Makes states without a step, if that is what the first step is for: ``torch.distributed.checkpoint``
        takes one with gradients of 0 and a learning rate of 0. It must not count."""
        try:
            if any(float(group["lr"]) != 0.0 for group in self.param_groups):
                return False
        except (TypeError, ValueError, RuntimeError):
            # No number. The step names it.
            return False
        places, grads = [], []
        for number, group in enumerate(self.param_groups):
            for position, param in enumerate(group["params"]):
                if param.grad is not None:
                    places.append((number, position))
                    grads.append(_named_memory(param.grad, f"the gradient of {self._name_of(number, position)}"))
        # Those of sparse gradients that are not listed are zero.
        values = (grad._values() if grad.is_sparse else grad for grad in grads)
        is_zero = bool(grads) and not any(bool(value.any()) for value in values)
        # A process can have nothing but zeros of gradients that are not: all must come to the same result.
        if self._is_true_anywhere(not is_zero):
            return False
        self._make_states(places, for_checkpoints=True)
        return True

    def _make_missing_states(self) -> list[Tensor]:
        """Makes the states of parameters that had no gradient yet, before a checkpoint is loaded:
        ``torch.distributed.checkpoint`` makes states for an optimizer without any, and only then.

        Returns:
            The parameters.
        """
        if not self.state:
            return []
        places = [
            (number, position)
            for number, group in enumerate(self.param_groups)
            for position, param in enumerate(group["params"])
            if param.requires_grad and param not in self.state
        ]
        self._make_states(places, for_checkpoints=True)
        return [self.param_groups[number]["params"][position] for number, position in places]

    # ---- Processes that share parameters

    @property
    def grad_norm_group(self) -> Any:
        """The option of that name."""
        return self._grad_norm_group

    @grad_norm_group.setter
    def grad_norm_group(self, value: Any) -> None:
        _options.check_grad_norm_group(value)
        self._grad_norm_group = value
        if "_native" in self.__dict__:
            self._forget_places()

    def _forget_places(self) -> None:
        # The native step remembers them, and which rows are behind.
        self.catch_up()
        self._native.forget()

    def place_among(self, params: Iterable[Any]) -> None:
        """Tells where the parameters of this optimizer stand in the model, if it has only some of them.

        Random bits depend on an element's place in the whole model, which is taken to be the parameters of this
        optimizer, one after the other. Engines that give each process some of the parameters, such as
        ``ZeroRedundancyOptimizer`` and pipelines, do not tell it of the others. With this, its random bits are those
        of one optimizer of ``params`` in one process::

            zero = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=AdamW, state_dtype="bf16")
            zero.optim.place_among(zero.param_groups)

        Args:
            params: parameters, named parameters, or groups of them: all of the model, in its order.

        Raises:
            ValueError: a parameter of this optimizer is not among them.
        """
        firsts = _sharded.numbers_before(params)
        self._check_places(firsts)
        self._finish()
        self._firsts = firsts
        self._forget_places()

    def _check_places(self, firsts: dict[Tensor, int]) -> None:
        for number, group in enumerate(self.param_groups):
            for position, param in enumerate(group["params"]):
                if param not in firsts:
                    name = self._name_of(number, position)
                    raise ValueError(f"{name} is not among the parameters that place_among was called with")

    def _places(self) -> tuple[bool, list[list[tuple[int, int]]] | None]:
        """Whether other processes have parts of the parameters, and where in the model the parts here begin."""
        if self._firsts is not None:
            # A group may have been added since.
            self._check_places(self._firsts)
        self._where = _sharded.find_places(self.param_groups, self._firsts)
        is_shared = bool(self._where.meshes) or self.grad_norm_group is not None
        return is_shared, self._where.runs

    def _norm_of_all(self, which: list[tuple[int, int]], norms: list[float]) -> float:
        """The norm of the gradients of all processes."""
        where = self._where or _sharded.find_places(self.param_groups)
        self._has_told_norm = True
        return math.sqrt(_sharded.sum_of_squares(where, self.grad_norm_group, which, norms))

    def _is_true_anywhere(self, value: bool) -> bool:
        if self.grad_norm_group is None and not self._has_dtensors():
            return value
        return _sharded.is_true_anywhere(_sharded.find_places(self.param_groups), self.grad_norm_group, value)

    def _has_dtensors(self) -> bool:
        return any(_sharded.is_dtensor(param) for group in self.param_groups for param in group["params"])

    def _tell_no_norm(self) -> None:
        """Lets the other processes leave out a step that fails here, instead of waiting for its norm."""
        needs_norm = self.max_grad_norm is not None or self.skip_nonfinite
        if needs_norm and (self.grad_norm_group is not None or self._has_dtensors()):
            where = _sharded.find_places(self.param_groups)
            _sharded.tell_no_norm(where, self.grad_norm_group)

    def _finish(self) -> None:
        """Waits for steps that a backward pass has begun."""
        if self._backward is not None:
            self._backward.finish()

    def step_in_backward(self, module: torch.nn.Module) -> None:
        """Has each parameter stepped as soon as its gradient is complete, while the backward pass goes on.

        A thread of this optimizer takes the gradients as they come and steps their parameters; the memory of each
        gradient is free after that. :meth:`step` then waits for the rest, and so does the next forward pass of
        ``module``. The training loop stays as it is::

            optimizer.step_in_backward(model)
            for batch in batches:
                model(batch).backward()     # steps, too
                optimizer.step()            # waits for the last of them
                scheduler.step()

        Parameters of this optimizer that are not in ``module``, or that were frozen or not in the optimizer when this
        was called, are stepped by :meth:`step`.

        Every backward pass is a step, so gradients cannot be accumulated over several. Nothing that needs all
        gradients before the first step can be had: ``max_grad_norm``, ``skip_nonfinite``, a ``GradScaler``, a closure.
        With ``fully_shard`` parts are stepped when their gradients have been added up; in
        ``DistributedDataParallel`` gradients come before that, so it is refused.

        A checkpoint with ``use_reentrant=True`` runs a backward pass of its own, inside the outer one. It cannot know
        whether another gradient of the same parameter follows. So these gradients are kept until :meth:`step` or the
        next forward pass, which step their parameters once. If the outer pass had a gradient of such a parameter
        already, it may have stepped it: then the backward pass ends with an error. With ``use_reentrant=False`` there
        is one pass only, which steps all parameters.

        :meth:`state_dict` waits, too, and so do ``state_dict`` of ``module`` and a pickle or a copy of it.

        Args:
            module: the model, or a part of it whose parameters this optimizer has.

        Raises:
            ValueError: an option needs all gradients at once, or ``module`` has no parameter of this optimizer.
        """
        if self._backward is not None:
            raise ValueError("step_in_backward was called before: an optimizer does it for one module")
        self._backward = _backward.Backward(self, module)

    def step_after_backward(self) -> None:
        """Takes back :meth:`step_in_backward`."""
        if self._backward is not None:
            backward, self._backward = self._backward, None
            backward.remove()

    # ---- Called by the native step

    def _name_of(self, number: int, position: int) -> str:
        """The name of a parameter, for errors."""
        names = self.param_groups[number].get("param_names")
        return f"parameter {names[position]!r}" if names else f"param_groups[{number}]['params'][{position}]"

    @staticmethod
    def _check_group(group: dict[str, Any]) -> None:
        """Checks options of a group that were set since the last step, and brings them in one form."""
        _options.check_group(group)

    @staticmethod
    def _memory_of(tensor: Tensor) -> Tensor:
        return memory_of(tensor)

    def _form(self, group: dict[str, Any], param: Tensor, name: str) -> _states.Form:
        moments = [_states.Moment(*moment) for moment in self._native.moments(group)]
        dtype = _states.dtype_of(param, group["state_dtype"], name)
        _options.check_centered(group, dtype)
        return _states.Form(
            moments=moments,
            dtype=dtype,
            counts_steps=self._native.counts_steps(group, param.dtype in (torch.bfloat16, torch.float16)),
            master=group["master"],
            scalars=lambda step: self._scalars(group, step),
        )

    def _scalars(self, group: dict[str, Any], step: float) -> dict[str, float]:
        """The numbers that PyTorch keeps beside ``step``, after so many steps with the settings of the group."""
        return {}

    @torch.no_grad()
    def _make_states(self, places: list[tuple[int, int]], for_checkpoints: bool = False) -> None:
        """Makes the states of parameters, or brings them into the form that steps need.

        Moments of 8 bits are ``float32`` with ``for_checkpoints``, as in every checkpoint: PyTorch loads no entries but
        those that are here. The next step turns them into codes.
        """
        for number, position in places:
            group = self.param_groups[number]
            if for_checkpoints and group["state_dtype"] == "q8":
                group = {**group, "state_dtype": None}
            param = group["params"][position]
            self._conform(group, param, self.state[param], self._name_of(number, position))

    def _conform(self, group: dict[str, Any], param: Tensor, state: dict[str, Any], name: str) -> None:
        memory = _named_memory(param, name)
        form = self._form(group, memory, name)
        if not _sharded.is_dtensor(param):
            _states.conform(memory, state, form, name)
            return
        local = _sharded.local_state(param, state, name)
        _states.conform(memory, local, form, name)
        local = _sharded.distributed_state(param, local, state)
        state.clear()
        state.update(local)

    @torch.no_grad()
    def _grad_like(
        self, number: int, position: int, param: Tensor, grad: Tensor
    ) -> Tensor | tuple[Tensor, Tensor, int, int]:
        """A gradient that a step cannot read as it is: a copy in the layout of its parameter, or the rows of a
        sparse one."""
        name = self._name_of(number, position)
        outer = self.param_groups[number]["params"][position]
        if _sharded.is_dtensor(grad) and _sharded.is_dtensor(outer) and grad.placements != outer.placements:
            grad = grad.redistribute(placements=outer.placements)
        grad = memory_of(grad)
        if grad.shape != param.shape:
            raise ValueError(
                f"the gradient of {name} has shape {list(grad.shape)}, but the parameter has {list(param.shape)}"
            )
        if grad.device != param.device:
            raise ValueError(f"the gradient of {name} is on {grad.device}, but must be on the CPU")
        if grad.is_complex() != param.is_complex():
            raise TypeError(f"the gradient of {name} is of {grad.dtype}, but the parameter is of {param.dtype}")
        if grad.layout is torch.sparse_coo:
            return self._rows_of(name, param, grad)
        if grad.layout is not torch.strided:
            raise TypeError(f"the gradient of {name} has layout {grad.layout}, which no optimizer takes")
        dtype = grad.dtype if grad.dtype in (torch.float32, torch.bfloat16, torch.float16) else torch.float32
        if param.dtype in (torch.float64, torch.complex64, torch.complex128):
            dtype = param.dtype
        grad = grad.resolve_conj().resolve_neg()
        if grad.dtype == dtype and grad.stride() == param.stride():
            return grad
        return torch.empty_like(param, dtype=dtype, memory_format=torch.preserve_format).copy_(grad)

    @staticmethod
    def _rows_of(name: str, param: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, int, int]:
        """Indices, values, and the number and width of the rows of a parameter, by a sparse gradient."""
        if not param.is_contiguous():
            raise ValueError(
                f"{name} has strides {list(param.stride())}, but sparse gradients need a contiguous parameter"
            )
        # The first dimensions are indexed: their elements are rows.
        dims = grad.sparse_dim()
        rows = math.prod(param.shape[:dims])
        width = math.prod(param.shape[dims:]) * (2 if param.is_complex() else 1)
        indices = grad._indices()
        if dims == 1:
            index = indices[0]
        else:
            index = torch.zeros(indices.shape[1], dtype=torch.int64, device="cpu")
            for one, size in zip(indices, param.shape):
                # An index out of range would become that of another row.
                if one.numel() and not (0 <= int(one.min()) and int(one.max()) < size):
                    raise IndexError(f"an index of the gradient of {name} is out of range for {list(param.shape)}")
                index = index * size + one
        values = grad._values()
        if param.dtype not in (torch.bfloat16, torch.float16):
            values = values.to(param.dtype)
        elif values.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            # Not the type of the parameter: large values would be infinite in float16.
            values = values.to(torch.float32)
        values = values.resolve_conj().resolve_neg()
        return index.contiguous(), _states.reals(values.contiguous()), rows, width

    @staticmethod
    @torch.no_grad()
    def _zero_grad(param: Tensor, grad: Tensor) -> None:
        """Zeroes a gradient after a step that read a copy of it, or that found it to be part of a graph: the graph
        ends here, as in ``zero_grad``."""
        if grad.grad_fn is None:
            grad.requires_grad_(False)
        elif grad._is_view():
            # PyTorch takes no view out of its graph in place.
            param.grad = grad = grad.detach()
        else:
            grad.detach_()
        grad.zero_()

    @staticmethod
    @torch.no_grad()
    def _refresh_master(param: Tensor, master: Tensor) -> None:
        """Takes over what somebody else has written to a parameter: where a parameter is not its master copy,
        rounded, the copy becomes the parameter."""
        is_kept = master.to(param.dtype) == param
        master.copy_(torch.where(is_kept, master, param.to(torch.float32)))

    # ---- Sparse gradients with the results of dense ones

    def watch(self, module: torch.nn.Module) -> list[Any]:
        """Sees to it that the embeddings of a model read current rows: for parameters of ``dense_equivalent`` groups.

        With ``dense_equivalent`` a step leaves rows without a gradient as they are, though a dense step would move
        them on; they catch up when they are next needed. This registers a hook before the forward pass of each
        ``nn.Embedding`` and ``nn.EmbeddingBag`` in ``module`` whose weight is in such a group, which brings the rows
        that it will read up to date. Hooks leave the model as it is: no other class, no other keys in its checkpoints.

        All rows catch up:

        - before the forward pass of another module that has the parameter, such as a head that shares it;
        - before the forward pass of an embedding that may read other rows than its arguments list: a subclass with a
          ``forward`` of its own, or one with forward pre-hooks that were registered after this call. If such hooks
          leave the arguments as they are, register them first, or each forward pass looks at all rows;
        - before ``state_dict`` and ``load_state_dict`` of a module that has the parameter;
        - before such a module is pickled or copied, alone or together with the optimizer, in any order;
        - when the optimizer is collected.

        Call :meth:`catch_up` before rows are read or a weight is written in another way. Two orders of pickles are such
        a way: parameters without their module that come before the optimizer, and a module with a ``__reduce__`` of its
        own. A step is refused if its gradient was computed from rows that were behind.

        Copies of the model are not watched, until they are passed to the ``watch`` of their optimizer.

        Returns:
            The handles of the hooks.
        """
        handles = []
        for child in module.modules():
            own = child.parameters(recurse=False)
            if any(self._is_dense_equivalent(param) for param in own):
                hooks = _watch.CatchUp(self)
                handles += hooks.watch(child)
                self._watched += (hooks,)
        return handles

    def _is_dense_equivalent(self, param: Tensor) -> bool:
        groups = (group["params"] for group in self.param_groups if group["dense_equivalent"])
        return any(other is param for params in groups for other in params)

    @torch.no_grad()
    def catch_up(self, param: Tensor | None = None, rows: Tensor | None = None) -> None:
        """Brings rows of ``dense_equivalent`` parameters to the present step, before they are read.

        Rows catch up with the options that their group had when they fell behind. If these have changed since, all rows
        do. If the state of a parameter was removed, as by ``optimizer.state.clear()``, its rows stay as they are: no
        moments are left to catch up with.

        Args:
            param: the parameter; all of them without.
            rows: the indices of the rows: whole numbers in a tensor of any shape, nested ones included; all rows
                without.

        Raises:
            IndexError: a row is out of range.
            TypeError: ``rows`` is no tensor of whole numbers, such as a mask.
        """
        if rows is not None:
            rows = _watch.indices_of(rows)
        self._native.catch_up(self, self.param_groups, self.state, param, rows, self.threads)

    def __del__(self) -> None:
        # The state that rows need to catch up goes with the optimizer, while the model may live on, as after a function
        # that trains a model and returns it. Hooks that kept the optimizer alive for that would keep its moments as
        # long as the model lives, and a second optimizer of the same table would step rows that are still behind.
        #
        # Tables that are not watched, or not any more, stay as they are: the program may have written them since. An
        # error here is printed, and not raised: Python has nobody to raise it to.
        native = self.__dict__.get("_native")
        if native is None or sys.is_finalizing():
            return
        self._finish()
        if native.has_rows_behind():
            for param in (param for hooks in self._watched if hooks.is_there() for param in hooks.params):
                self.catch_up(param)

    # ---- Checkpoints

    @torch._disable_dynamo
    def state_dict(self) -> dict[str, Any]:
        """The state of the optimizer, which PyTorch's optimizer of the same name loads, too.

        Moments of 8 bits are there twice: as ``float32`` under PyTorch's name, for others, and bit by bit as
        ``..._codes`` and ``..._scales``, which :meth:`load_state_dict` prefers. Moments of 16 bits of complex
        parameters are ``complex64``.
        """
        for hook in list(self._optimizer_state_dict_pre_hooks.values()):
            hook(self)
        self._finish()
        self.catch_up()
        numbers: dict[int, int] = {}
        packed_groups = []
        states: dict[Any, Any] = {}
        for number, group in enumerate(self.param_groups):
            for position, param in enumerate(group["params"]):
                index = numbers.setdefault(id(param), len(numbers))
                if param in self.state:
                    states[index] = self._saved(group, param, self.state[param], self._name_of(number, position))
            packed = {key: value for key, value in group.items() if key != "params" and key not in _GROUP_OPTIONS}
            packed["params"] = [numbers[id(param)] for param in group["params"]]
            packed_groups.append(packed)
        # Entries that belong to no parameter are saved as they are.
        states |= {key: value for key, value in self.state.items() if not isinstance(key, Tensor)}
        state_dict = {"state": states, "param_groups": packed_groups}
        for post_hook in list(self._optimizer_state_dict_post_hooks.values()):
            result = post_hook(self, state_dict)
            if result is not None:
                state_dict = result
        return state_dict

    def _saved(self, group: dict[str, Any], param: Tensor, state: dict[str, Any], name: str) -> dict[str, Any]:
        """The state of a parameter in PyTorch's form, with the codes and scales of 8-bit moments beside it."""
        saved = dict(state)
        for moment in self._native.moments(group):
            moment = _states.Moment(*moment)
            codes, scales = state.get(f"{moment.name}_codes"), state.get(f"{moment.name}_scales")
            if codes is None or scales is None:
                saved |= self._saved_pairs(param, moment.name, state)
                continue
            decoded = _states.decode(memory_of(param), memory_of(codes), scales, moment)
            if _sharded.is_dtensor(param):
                decoded = _sharded.like(decoded, param)
            if _sharded.has_processes():
                # Blocks of 256 are of this cut alone. The numbers fit any, and give back these codes in this one.
                del saved[f"{moment.name}_codes"], saved[f"{moment.name}_scales"]
            saved[moment.name] = decoded
        return saved

    @staticmethod
    def _saved_pairs(param: Tensor, key: str, state: dict[str, Any]) -> dict[str, Any]:
        """A moment of 16 bits of a complex parameter, as complex numbers: there are none of 16 bits that PyTorch could
        step. Loaded again, they round to the same bits."""
        value = state.get(key)
        if not (param.is_complex() and isinstance(value, Tensor) and not value.is_complex()):
            return {}
        wide = torch.view_as_complex(memory_of(value).detach().to(torch.float32))
        return {key: _sharded.like(wide, param) if _sharded.is_dtensor(param) else wide}

    @torch._disable_dynamo
    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state of this optimizer or of PyTorch's. Moments become what ``state_dtype`` says; the options of
        this optimizer stay. The tensors of ``state_dict`` are copied.

        Raises:
            ValueError: this optimizer has other groups or shapes, or the state has no meaning here.
                Nothing has changed then.
        """
        self._finish()
        state_dict = state_dict.copy()
        for hook in list(self._optimizer_load_state_dict_pre_hooks.values()):
            result = hook(self, state_dict)
            if result is not None:
                state_dict = result

        groups, saved_groups = self.param_groups, deepcopy(state_dict["param_groups"])
        if len(groups) != len(saved_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(one["params"]) != len(other["params"]) for one, other in zip(groups, saved_groups)):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
            )
        places = {}
        for number, (group, saved) in enumerate(zip(groups, saved_groups)):
            for position, (param, key) in enumerate(zip(group["params"], saved["params"])):
                places[key] = number, position, param
        for saved in saved_groups:
            self._check_is_own_group(saved)
        new_groups = [self._loaded_group(*pair) for pair in zip(groups, saved_groups)]
        state: defaultdict[Any, Any] = defaultdict(dict)
        for key, saved in state_dict["state"].items():
            if key not in places:
                state[key] = saved
                continue
            number, position, param = places[key]
            name = self._name_of(number, position)
            if not isinstance(saved, Mapping):
                raise ValueError(f"the state of {name} is {saved!r}, but must be a dictionary")
            if not saved:
                # As PyTorch saves the state of a parameter that had no gradient yet.
                continue
            state[param] = self._loaded(new_groups[number], param, dict(saved), name)
        self._native.reset_rows()
        self.__setstate__({"state": state, "param_groups": new_groups})
        # The native step holds the old states. Without this, both sets would be in memory until the next step.
        self._native.forget()
        for post_hook in list(self._optimizer_load_state_dict_post_hooks.values()):
            post_hook(self)

    @classmethod
    def _settings(cls) -> set[str]:
        """The keys of a group that are settings of this optimizer."""
        _, variant, sources, _ = cls._plan
        return {key for key, _, _ in sources} | ({variant[0]} if variant else set())

    def _check_is_own_group(self, saved: dict[str, Any]) -> None:
        """Refuses a group of another optimizer: one that lacks settings of this one and has those of others. A group
        may lack settings, as those of older versions do, and may have keys of the user's."""
        own = self._settings()
        lacking = sorted(own - saved.keys() - set(_NEWER_SETTINGS))
        foreign = sorted((_all_settings() - own) & saved.keys())
        if lacking and foreign:
            raise ValueError(
                f"loaded state dict is of another optimizer than {type(self).__name__}: a parameter group has "
                f"{', '.join(foreign)}, but lacks {', '.join(lacking)}"
            )

    def _check_is_own_state(
        self, group: dict[str, Any], moments: list[_states.Moment], saved: dict[str, Any], name: str
    ) -> None:
        """Refuses a state that has moments of another optimizer: in place of those of this one, or beside its
        settings."""
        core, variant, _, _ = self._plan
        own = _states.moment_names(core) | _states.moment_names(variant[1] if variant else core)

        def has(key: str) -> bool:
            return saved.get(key) is not None or f"{key}_codes" in saved

        foreign = sorted(key for key in _states.moment_names() - own if has(key))
        if not foreign:
            return
        lacking = [moment.name for moment in moments if not has(moment.name)]
        if lacking or (_all_settings() - self._settings()) & group.keys():
            but = f", but lacks {', '.join(lacking)}" if lacking else ""
            raise ValueError(
                f"loaded state dict is of another optimizer than {type(self).__name__}: the state of {name} has "
                f"{', '.join(foreign)}{but}"
            )

    def _loaded_group(self, group: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
        # Settings that the saved group lacks stay as they are, and so do the options of this package.
        new = {key: value for key, value in group.items() if key not in saved}
        new |= {key: value for key, value in saved.items() if key not in _GROUP_OPTIONS}
        new |= {key: group[key] for key in _GROUP_OPTIONS}
        for key, value in group.items():
            # JSON has no tuples.
            if isinstance(value, tuple) and isinstance(new[key], list):
                new[key] = tuple(new[key])
        # How PyTorch ran there, and no part of the result.
        new |= {key: False for key in _options.REFUSED_FLAGS if key in new}
        new["params"] = group["params"]
        _options.check_group(new)
        self._native.check(new)
        return new

    def _loaded(self, group: dict[str, Any], param: Tensor, saved: dict[str, Any], name: str) -> dict[str, Any]:
        own = {key: value.clone() if isinstance(value, Tensor) else deepcopy(value) for key, value in saved.items()}
        moments = [_states.Moment(*moment) for moment in self._native.moments(group)]
        self._check_is_own_state(group, moments, saved, name)
        for moment in moments:
            # Codes may be of another sharding than the numbers beside them. Then the numbers count.
            _states.drop_foreign_codes(_named_memory(param, name), own, moment)
        self._conform(group, param, own, name)
        return own

    # ---- Copies

    def __getstate__(self) -> dict[str, Any]:
        self._finish()
        self.catch_up()
        state = super().__getstate__()
        state |= {key: getattr(self, key) for key in _STEP_OPTIONS}
        if not isinstance(self.grad_norm_group, str):
            # Groups of processes cannot be copied.
            state["grad_norm_group"] = None
        state["skipped"] = self.skipped
        if self._firsts is not None:
            # Of its own parameters: others are no part of a copy.
            own = (param for group in self.param_groups for param in group["params"])
            state["_firsts"] = {param: self._firsts[param] for param in own}
        return state

    @torch.no_grad()
    def __deepcopy__(self, memo: dict[int, Any]) -> Optimizer:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        is_behind = self._backward is not None or self._native.has_rows_behind()
        state = self.__getstate__()
        if is_behind:
            # Parameters that were copied before this lack what has been written since: rows that caught up, and steps
            # that a backward pass had begun.
            for param in (param for group in self.param_groups for param in group["params"]):
                if id(param) in memo:
                    memo[id(param)].copy_(param)
        new.__setstate__(deepcopy(state, memo))
        return new

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.setdefault("_native", self._new_native())
        state = dict(state)
        if "grad_norm_group" in state:
            # PyTorch writes into `__dict__`, where a property does not look.
            self._grad_norm_group = state.pop("grad_norm_group")
        if "skipped" in state:
            self._native.skipped = state.pop("skipped")
        super().__setstate__(state)
        for group in self.param_groups:
            for key, default in self.defaults.items():
                group.setdefault(key, default)


def _all_settings(base: type[Optimizer] = Optimizer) -> set[str]:
    """The keys of groups that are settings of some optimizer."""
    found = base._settings() if "_plan" in vars(base) else set()
    return found.union(*(_all_settings(child) for child in base.__subclasses__()))
