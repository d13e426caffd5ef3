"""Optimizers for numpy arrays, and for anything on the CPU that lends its memory by ``__dlpack__``.

::

    import numpy as np
    from adamant_optim.numpy import Optimizer

    optimizer = Optimizer("adamw", lr=1e-3)
    state = optimizer.init(params)               # params: an array, or lists and dicts of arrays
    optimizer.step(params, grads, state)         # in place

Arrays of frameworks that do not let others write theirs, such as JAX, go through :meth:`Optimizer.apply`, which
returns new ones.

Arrays are of ``float32``, ``float64``, ``float16``, ``complex64``, ``complex128``, or ml_dtypes' ``bfloat16``, and
fill their memory without gaps, in any order. Gradients have the shape and order of their parameters; a gradient of a
numpy array may have any order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from . import _checks, _core

__all__ = [
    "OPTIMIZERS",
    "Moment",
    "Optimizer",
    "Report",
    "State",
    "clip_factor",
    "grad_norm",
    "q8_decode",
    "q8_encode",
]

#: The names that :class:`Optimizer` takes.
OPTIMIZERS: tuple[str, ...] = tuple(_core.optimizers())

_BLOCK = 256


class Report(NamedTuple):
    """The result of a step."""

    #: Whether it was taken; if not, no parameter, moment or step count has changed.
    taken: bool
    #: The norm of all gradients, if it was needed.
    grad_norm: float | None


class Moment(NamedTuple):
    """A moment of 8 bits: codes in the shape of the parameter (complex: with a last dimension of 2), and a scale for
    each 256 of them, in the order of memory.

    Pickles and copies of a moment keep that order. Codes that are saved without it, as by :func:`numpy.save`, lose it
    where it is neither C's nor Fortran's: save ``codes.ravel("K")``, too, or pickle the moment.
    """

    codes: np.ndarray
    scales: np.ndarray

    def __reduce__(self) -> Any:
        # numpy pickles arrays of other orders than C's and Fortran's in that of C, which scales know nothing of.
        axes = _axes_of(self.codes)
        return _moment_in_order, (self.codes.transpose(axes), axes, self.scales)


def _axes_of(array: np.ndarray) -> list[int]:
    """The dimensions, from the largest stride to the smallest."""
    return sorted(range(array.ndim), key=lambda dim: -array.strides[dim])


def _moment_in_order(memory: np.ndarray, axes: list[int], scales: np.ndarray) -> Moment:
    """The inverse of pickling: ``memory`` is in the order of C, and ``axes`` are its dimensions."""
    return Moment(memory.transpose([axes.index(dim) for dim in range(len(axes))]), scales)


@dataclass
class State:
    """The state of one array: the number of steps taken, and the moments by name.

    It can be pickled, copied and saved: all of it is here. numpy pickles an array that is in neither C's nor Fortran's
    order in that of C. Its moments of 8 bits stay in the order that they have, and a step of the two is refused: copy
    the array back, into ``numpy.empty_like(codes, dtype=array.dtype)``.
    """

    step: int = 0
    moments: dict[str, np.ndarray | Moment] = field(default_factory=dict)
    #: The number of the array's first element among all elements of the model, which random bits go by.
    first: int = 0
    #: Where the array is, such as ``params['weight']``: a dict may have its entries in another order in a later step.
    #: States without paths, those that were made one by one, and those of lists of arrays go by position.
    path: str = ""


_STATES: frozenset[type] = frozenset({State})
_ARRAYS: frozenset[type] = frozenset({np.ndarray})
_ARRAYS_OR_NONE: frozenset[type] = frozenset({np.ndarray, type(None)})


def _is_flat(tree: Any, types: frozenset[type]) -> bool:
    """Whether a tree is a list or tuple of objects of such types, and of nothing else."""
    return type(tree) in (list, tuple) and types.issuperset(map(type, tree))


def _leaves(tree: Any, path: str) -> list[tuple[str, Any]]:
    """The arrays of a tree of lists, tuples and dicts, by their paths, in order. ``None`` has none, as in JAX."""
    if tree is None:
        return []
    if isinstance(tree, np.ndarray):
        return [(path, tree)]
    if isinstance(tree, Mapping):
        return [leaf for key in tree for leaf in _leaves(tree[key], f"{path}[{key!r}]")]
    if isinstance(tree, (list, tuple)):
        return [leaf for position, value in enumerate(tree) for leaf in _leaves(value, f"{path}[{position}]")]
    return [(path, tree)]


def _keys(tree: Any) -> Collection[Any] | None:
    """The keys of a dict, or the positions of a list or tuple; ``None`` for everything else, which is an array."""
    if isinstance(tree, Mapping):
        return tree.keys()
    return range(len(tree)) if isinstance(tree, (list, tuple)) else None


def _kind(tree: Any) -> str:
    return "None" if tree is None else f"a {type(tree).__name__}"


def _pair(param: Any, grad: Any, path: str, pairs: list[tuple[str, Any, Any]], faults: list[str]) -> None:
    """Adds the arrays at a path to ``pairs``, and the differences in structure to ``faults``."""
    keys, grad_keys = _keys(param), _keys(grad)
    if param is None and grad is None:
        return
    if keys is None and grad_keys is None and param is not None:
        pairs.append((f"params{path}", param, grad))
    elif keys is None or grad_keys is None or isinstance(keys, range) != isinstance(grad_keys, range):
        faults.append(f"grads{path} is {_kind(grad)}, but params{path} is {_kind(param)}")
    else:
        for key in keys:
            place = f"{path}[{key!r}]"
            if key in grad_keys:
                _pair(param[key], grad[key], place, pairs, faults)
            else:
                faults.append(f"grads{place} is missing")
        faults += [f"grads{path}[{key!r}] is surplus" for key in grad_keys if key not in keys]


def _paired(params: Any, grads: Any) -> tuple[list[str], list[Any], list[Any]]:
    """The paths of all parameters, the parameters, and the gradients at the same places.

    Entries of dicts go together by their keys: JAX sorts the keys of the gradients that it returns.
    """
    pairs: list[tuple[str, Any, Any]] = []
    faults: list[str] = []
    _pair(params, grads, "", pairs, faults)
    if faults:
        raise ValueError(f"grads has another structure than params: {_some(faults)}")
    return [name for name, _, _ in pairs], [param for _, param, _ in pairs], [grad for _, _, grad in pairs]


def _some(faults: list[str]) -> str:
    """The first of many sentences."""
    more = f"; and {len(faults) - 8} more" if len(faults) > 8 else ""
    return "; ".join(faults[:8]) + more


def _list_of(states: Any) -> list[State]:
    """The states that a step was given: one, or a list of them."""
    if isinstance(states, State):
        return [states]
    if not isinstance(states, (list, tuple)):
        raise TypeError(f"states is {_kind(states)}, but must be the list that init returned")
    for place, state in enumerate(states):
        if not isinstance(state, State):
            raise TypeError(f"states[{place}] is {_kind(state)}, but must be a State, as init returns them")
    return list(states)


def _states_of(names: list[str], states: list[State]) -> list[State]:
    """The states of arrays by their paths."""
    paths = [state.path for state in states]
    # An array that stands alone takes any state, and arrays those that were made one by one.
    if paths == names or names == ["params"] or not all(paths) or set(paths) == {"params"}:
        return states
    by_path, known = dict(zip(paths, states)), set(names)
    faults = [f"{name} has no state" for name in names if name not in by_path]
    faults += [f"{path} has a state, but is not in params" for path in by_path if path not in known]
    if not faults and len(by_path) < len(states):
        faults.append("an array has two states")
    if faults:
        raise ValueError(f"the states are not those of params: {_some(faults)}")
    return [by_path[name] for name in names]


def _rebuilt(tree: Any, values: Iterator[Any]) -> Any:
    """A tree of the same structure, of other arrays."""
    if tree is None:
        return None
    if isinstance(tree, Mapping):
        return {key: _rebuilt(tree[key], values) for key in tree}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_rebuilt(value, values) for value in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(_rebuilt(value, values) for value in tree)
    return next(values)


def _is_jax(array: Any) -> bool:
    return type(array).__module__.split(".")[0] in ("jax", "jaxlib")


def _check_array(array: Any, name: str) -> None:
    if not hasattr(array, "__dlpack__"):
        raise TypeError(f"{name} is a {type(array).__name__}, but must be a numpy array or have __dlpack__")
    _check_mask(array, name)


def _check_mask(array: Any, name: str) -> None:
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose mask would not count: pass its data, or what filled() returns"
        )


def _check_host(array: Any, name: str) -> None:
    """Refuses an array in the memory of another device. JAX copies from there when it is asked for a numpy array."""
    _check_array(array, name)
    if isinstance(array, np.ndarray) or _is_jax(array) or not hasattr(array, "__dlpack_device__"):
        return
    kind, number = array.__dlpack_device__()
    if not _core.is_host(int(kind)):
        raise ValueError(f"{name} is on {_core.device_name(array, int(kind), number)}, but must be on the CPU")


def _order_like(grad: np.ndarray, param: np.ndarray, name: str) -> np.ndarray:
    """A copy of a gradient in the memory order of its parameter."""
    if grad.shape != param.shape:
        raise ValueError(f"the gradient of {name} has shape {grad.shape}, but the parameter has {param.shape}")
    copy = np.empty_like(param, dtype=grad.dtype)
    copy[...] = grad
    return copy


class Optimizer:
    """An optimizer with its settings.

    Args:
        name: one of :data:`OPTIMIZERS`, such as ``"adamw"``. Its settings with their defaults are
            ``Optimizer("adamw").settings``. Its formula is in the documentation of the Rust crate, by
            ``cargo doc -p adamant --open`` in a clone; with PyTorch installed, also in ``help(adamant_optim.AdamW)``.
        state_dtype: the type of the moments: ``"f32"``, ``"f16"``, or ``"q8"`` for 8 bits; with ml_dtypes installed,
            ``"bf16"``. Moments of ``float64`` parameters are ``float64``.
        stochastic_rounding: whether bfloat16 and float16 parameters are rounded up or down at random.
        max_grad_norm: the largest norm of all gradients. Where it is greater, gradients count as if they were scaled
            down to it, but are not written.
        skip_nonfinite: whether a step is left out where a gradient is not finite.
        zero_grad_in_step: whether gradients are set to zero as they are read; for :meth:`step` alone.
        threads: the number of threads; ``None`` is what affinity and cgroup grant.
        isa: the instruction set; ``None`` is the best one of this CPU.
        seed: the seed of the random bits.
        settings: the settings of the optimizer, such as ``lr``, ``beta1``, ``weight_decay``; those that are not given
            have their defaults.

    Raises:
        ValueError: the optimizer has no such setting, or a value is out of its range.
        TypeError: a value is of a wrong type.
    """

    def __init__(
        self,
        name: str,
        *,
        state_dtype: Literal["f32", "bf16", "f16", "q8"] = "f32",
        stochastic_rounding: bool = False,
        max_grad_norm: float | None = None,
        skip_nonfinite: bool = False,
        zero_grad_in_step: bool = False,
        threads: int | None = None,
        isa: Literal["scalar", "avx2", "avx512", "neon"] | None = None,
        seed: int = 0,
        **settings: float | bool | str,
    ) -> None:
        if state_dtype not in ("f32", "bf16", "f16", "q8"):
            raise ValueError(f"state_dtype is {state_dtype!r}, but must be f32, bf16, f16 or q8")
        self.name = name
        self.state_dtype = state_dtype
        self.stochastic_rounding = stochastic_rounding
        self.max_grad_norm = max_grad_norm
        self.skip_nonfinite = skip_nonfinite
        self.zero_grad_in_step = zero_grad_in_step
        self.threads = threads
        self.isa = isa
        self.seed = seed
        self._check_options()
        #: The settings that were given, and the moments: name, what each number starts from or ``None``, format of
        #: 8 bits. Both change at once, also for other threads.
        self._chosen: tuple[dict[str, Any], list[tuple[str, float | None, str]]] = ({}, [])
        self.set(**settings)
        self._default_threads = _core.default_threads()

    @property
    def settings(self) -> dict[str, float | bool | str]:
        """All settings of the optimizer."""
        return _core.describe(self.name, self._chosen[0])[0]

    def set(self, **settings: float | bool | str) -> None:
        """Changes settings, as a schedule does: they count from the next step on.

        Raises:
            ValueError: the optimizer has no such setting, or a value is out of its range. Nothing has changed then.
            TypeError: a value is of a wrong type. Nothing has changed then, either.
        """
        known = _core.describe(self.name, {})[0]
        for name, value in settings.items():
            if isinstance(known.get(name), bool):
                _checks.check_flag(name, value)
            if name not in known:
                # The core says which settings there are. PyTorch's `betas` would first be refused as no number.
                _core.describe(self.name, {name: 0.0})
        changed = self._chosen[0] | settings
        self._chosen = changed, _core.describe(self.name, changed)[1]

    def _check_options(self) -> None:
        _checks.check_flag("stochastic_rounding", self.stochastic_rounding)
        _checks.check_steps(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # It may be another machine, or another process of this one.
        self._default_threads = _core.default_threads()

    def __repr__(self) -> str:
        settings = "".join(f", {key}={value!r}" for key, value in self.settings.items())
        return f"Optimizer({self.name!r}, state_dtype={self.state_dtype!r}{settings})"

    def init(self, params: Any) -> list[State]:
        """The states of the arrays of ``params``, in their order, before the first step."""
        states, first = [], 0
        for name, param in _leaves(params, "params"):
            _check_host(param, name)
            states.append(self._state(param, name, first))
            first += math.prod(param.shape) * (2 if _is_complex(param) else 1)
        return states

    def _state(self, param: Any, name: str, first: int) -> State:
        # The order of the elements is the parameter's, where numpy can see it.
        like = param if isinstance(param, np.ndarray) else np.empty(tuple(param.shape), np.uint8)
        is_complex, is_double = _is_complex(param), _is_double(param)
        shape = tuple(param.shape)
        moments: dict[str, np.ndarray | Moment] = {}
        for moment, start, format in self._chosen[1]:
            if start is None:
                continue
            if self.state_dtype == "q8" and not is_double:
                moments[moment] = _q8_moment(like, is_complex, start, format)
                continue
            dtype = np.dtype(np.float64) if is_double else _dtype(self.state_dtype)
            if is_complex and dtype.itemsize >= 4:
                dtype = np.dtype(np.complex128 if is_double else np.complex64)
                moments[moment] = np.full_like(like, complex(start, start), dtype=dtype, shape=shape)
            elif is_complex:
                moments[moment] = _pairs(like, dtype, start)
            else:
                moments[moment] = np.full_like(like, start, dtype=dtype, shape=shape)
        return State(0, moments, first, name)

    def step(self, params: Any, grads: Any, states: list[State], *, grad_factor: float = 1.0) -> Report:
        """Takes a step, in place: parameters and states are written.

        Args:
            params: an array, or lists, tuples and dicts of arrays. ``None`` holds the place of no array.
            grads: as many arrays in the same structure; ``None`` for an array that is left alone, and where ``params``
                has ``None``. The entries of a dict may come in any order; lists and tuples go by position.
            states: what :meth:`init` returned: a list of :class:`State`, or one.
            grad_factor: the factor that gradients are multiplied by as they are read; over 0.

        Raises:
            TypeError: an array is of a type that is not supported, cannot be written or has a mask; or ``states`` are
                none.
            ValueError: structures, shapes, orders or settings do not fit, arrays share memory, or one is on another
                device. Nothing has changed then.
        """
        if not _is_flat(states, _STATES):
            states = _list_of(states)
        if _is_flat(params, _ARRAYS) and _is_flat(grads, _ARRAYS_OR_NONE):
            # The core reads them as they are, and makes their names where an error needs them.
            return self._take(None, params, grads, states, grad_factor)
        names, params, grads = _paired(params, grads)
        return self._take(names, params, grads, states, grad_factor)

    def _take(self, names: list[str] | None, params: Any, grads: Any, states: Any, grad_factor: float) -> Report:
        """Steps the arrays of a list."""
        settings, used = self._chosen
        if names is not None:
            states = _states_of(names, states)
        if len(params) != len(states):
            raise ValueError(f"params has {len(params)} arrays, but there are {len(states)} states")
        if len(params) != len(grads):
            raise ValueError(f"params has {len(params)} arrays, and grads has {len(grads)}")
        if names is not None:
            self._check_leaves(names, params, grads)
        try:
            taken, norm = _core.step_arrays(
                self.name,
                settings,
                names,
                params,
                grads,
                states,
                [(moment, start is not None) for moment, start, _ in used],
                _order_like,
                self.stochastic_rounding,
                grad_factor,
                self.max_grad_norm,
                self.skip_nonfinite,
                self.zero_grad_in_step,
                self._default_threads if self.threads is None else self.threads,
                self.isa,
                self.seed,
            )
        except (TypeError, ValueError, OverflowError):
            _checks.name_bad_option(self._check_options)
            raise
        return Report(taken, norm)

    def _check_leaves(self, names: list[str], params: list[Any], grads: list[Any]) -> None:
        """Refuses what is no array that can be written."""
        for name, param, grad in zip(names, params, grads):
            if type(param) is not np.ndarray:
                _check_array(param, name)
            if grad is None:
                continue
            if _is_jax(param):
                raise TypeError(f"{name} is a JAX array, which must not be written: use apply")
            if type(grad) is not np.ndarray:
                _check_array(grad, f"the gradient of {name}")
            if self.zero_grad_in_step and _is_jax(grad):
                raise TypeError(
                    f"the gradient of {name} is a JAX array, which must not be written: zero_grad_in_step must be False"
                )

    def apply(
        self, params: Any, grads: Any, states: list[State], *, grad_factor: float = 1.0
    ) -> tuple[Any, list[State]]:
        """Takes a step and returns new parameters, as numpy arrays in the same structure, and new states. Nothing is
        written: for JAX and whatever else is immutable.

        Arguments and errors are as in :meth:`step`. With ``zero_grad_in_step`` it raises :class:`ValueError`.
        """
        if self.zero_grad_in_step:
            raise ValueError("zero_grad_in_step is True, but apply writes no gradients: it must be False")
        names, values, grads = _paired(params, grads)
        values = [_copy_of(param, name) for name, param in zip(names, values)]
        new_states = [
            State(
                state.step,
                {
                    name: Moment(*(array.copy("K") for array in moment))
                    if isinstance(moment, Moment)
                    else moment.copy("K")
                    for name, moment in state.moments.items()
                },
                state.first,
                state.path,
            )
            for state in _list_of(states)
        ]
        grads = [
            _copy_of(grad, f"the gradient of {name}") if _is_jax(grad) else grad for name, grad in zip(names, grads)
        ]
        self._take(names, values, grads, new_states, grad_factor)
        return _rebuilt(params, iter(values)), new_states


def _copy_of(array: Any, name: str) -> np.ndarray:
    _check_host(array, name)
    if isinstance(array, np.ndarray):
        return array.copy("K")
    # JAX's bfloat16 is ml_dtypes', which numpy has no DLPack for.
    return np.array(array) if _is_jax(array) else np.from_dlpack(array).copy("K")


def _type_name(array: Any) -> str:
    return str(getattr(array, "dtype", "")).rsplit(".", 1)[-1]


def _is_complex(array: Any) -> bool:
    return _type_name(array).startswith("complex")


def _is_double(array: Any) -> bool:
    return _type_name(array) in ("float64", "complex128")


def _dtype(name: str) -> np.dtype:
    if name == "bf16":
        try:
            import ml_dtypes
        except ImportError as error:
            raise ImportError('state_dtype="bf16" needs the package ml_dtypes: numpy has no bfloat16') from error
        return np.dtype(ml_dtypes.bfloat16)  # type: ignore[no-any-return]
    return np.dtype({"f32": np.float32, "f16": np.float16}[name])


def _pairs(like: np.ndarray, dtype: np.dtype, start: float) -> np.ndarray:
    """An array for a complex one: its numbers are a last dimension, in the order of its memory."""
    if like.flags.c_contiguous:
        return np.full((*like.shape, 2), start, dtype)
    order = _axes_of(like)
    memory = np.full((*(like.shape[dim] for dim in order), 2), start, dtype)
    back = [order.index(dim) for dim in range(like.ndim)]
    return memory.transpose(*back, like.ndim)


def _q8_moment(like: np.ndarray, is_complex: bool, start: float, format: str) -> Moment:
    shape = (*like.shape, 2) if is_complex else like.shape
    size = math.prod(shape)
    codes = _pairs(like, np.dtype(np.uint8), 0) if is_complex else np.zeros_like(like, dtype=np.uint8, shape=shape)
    scales = np.zeros(-(-size // _BLOCK), np.float32)
    if start != 0.0:
        _core.q8_encode(format, np.full_like(codes, start, dtype=np.float32), codes, scales)
    return Moment(codes, scales)


def grad_norm(
    grads: Any,
    ord: float = 2,
    *,
    threads: int | None = None,
    isa: Literal["scalar", "avx2", "avx512", "neon"] | None = None,
) -> float:
    """The norm of all gradients, taken as one vector: ``ord`` is 1, 2 or ``inf``, as in
    ``torch.nn.utils.get_total_norm``.

    Squares are summed in ``float64``. It has the same bits on every instruction set and number of threads.

    Args:
        grads: an array, or lists, tuples and dicts of arrays; ``None`` counts for nothing. numpy's arrays may have
            gaps, such as ``grad[::2]``, and may be read-only.
    """
    arrays = []
    for name, grad in _leaves(grads, "grads"):
        _check_array(grad, name)
        # What numpy or the core would not lend. A copy in the same order has the same norm, to the bit.
        if isinstance(grad, np.ndarray) and not (grad.flags.behaved and grad.flags.forc):
            grad = grad.copy("K")
        arrays.append((name, grad))
    return _core.grad_norm(arrays, float(ord), threads, isa)


def clip_factor(norm: float, max_norm: float) -> float:
    """The factor that brings gradients of norm ``norm`` down to a norm of ``max_norm``, by PyTorch's formula::

    min(1, max_norm / (norm + 1e-6))
    """
    return _core.clip_factor(norm, max_norm)


def q8_encode(
    values: np.ndarray, format: Literal["signed", "squares", "unsigned"] = "signed"
) -> tuple[np.ndarray, np.ndarray]:
    """Turns ``float32`` numbers into codes of 8 bits, in the same shape and order, and a scale for each 256 of them.

    Each is rounded to nearest; ``"squares"`` and ``"unsigned"`` are for numbers that are never negative and that a
    formula divides by, which never become 0.
    """
    if hasattr(values, "__dlpack__"):
        _check_host(values, "values")
    values = np.asarray(values, dtype=np.float32)
    if not values.flags.writeable or not (values.flags.c_contiguous or values.flags.f_contiguous):
        values = values.copy("K")
    codes = np.empty_like(values, dtype=np.uint8)
    scales = np.empty(-(-values.size // _BLOCK), np.float32)
    _core.q8_encode(format, values, codes, scales)
    return codes, scales


def q8_decode(
    codes: np.ndarray, scales: np.ndarray, format: Literal["signed", "squares", "unsigned"] = "signed"
) -> np.ndarray:
    """Turns codes and scales into ``float32`` numbers: the inverse of :func:`q8_encode`, to a rounding."""
    _check_host(codes, "codes")
    _check_mask(scales, "scales")
    values = np.empty_like(codes, dtype=np.float32)
    _core.q8_decode(format, codes, scales, values)
    return values
