"""The optimizers for numpy arrays, and for whatever lends its memory. They need no PyTorch."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import importlib
import math
import pickle
import tempfile
from typing import Any, NamedTuple

import adamant_optim
import numpy as np
import pytest
from adamant_optim.numpy import OPTIMIZERS, Moment, Optimizer, State, clip_factor, grad_norm, q8_decode, q8_encode


def tree() -> dict[str, Any]:
    return {
        "weight": np.random.randn(30, 20).astype(np.float32),
        "more": [np.asfortranarray(np.random.randn(5, 4)), np.random.randn(7).astype(np.float16)],
        "pairs": (np.random.randn(3, 2) + 1j * np.random.randn(3, 2)).astype(np.complex64),
    }


def like(tree: Any) -> Any:
    """Gradients."""
    if isinstance(tree, dict):
        return {key: like(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [like(value) for value in tree]
    return np.random.randn(*tree.shape).astype(tree.dtype)


def leaves(tree: Any) -> list[np.ndarray]:
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in leaves(value)]
    if isinstance(tree, list):
        return [leaf for value in tree for leaf in leaves(value)]
    return [tree]


def test_adamw_follows_its_formula() -> None:
    lr, beta1, beta2, eps, decay = 0.1, 0.9, 0.99, 1e-6, 0.2
    param = np.random.randn(50)
    expected, m, v = param.copy(), np.zeros(50), np.zeros(50)
    optimizer = Optimizer("adamw", lr=lr, beta2=beta2, eps=eps, weight_decay=decay)
    state = optimizer.init(param)
    for t in range(1, 8):
        grad = np.random.randn(50)
        assert optimizer.step(param, grad, state) == (True, None)
        expected *= 1 - lr * decay
        m = beta1 * m + (1 - beta1) * grad
        v = beta2 * v + (1 - beta2) * grad**2
        expected -= lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    np.testing.assert_allclose(param, expected, rtol=1e-12)
    np.testing.assert_allclose(state[0].moments["exp_avg"], m, rtol=1e-12)
    assert state[0].step == 7


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("state_dtype", ["f32", "f16", "q8"])
def test_steps_in_place_and_to_new_arrays_are_the_same(name: str, state_dtype: Any) -> None:
    params = tree()
    optimizer = Optimizer(name, lr=0.5, state_dtype=state_dtype, seed=5)
    states = optimizer.init(params)
    start = copy.deepcopy(params)
    for _ in range(4):
        grads = like(params)
        before = copy.deepcopy((params, states))
        new_params, new_states = optimizer.apply(params, grads, states)
        for one, other in zip(leaves(params), leaves(before[0])):
            np.testing.assert_array_equal(one, other)
        assert pickle.dumps(states) == pickle.dumps(before[1])
        assert optimizer.step(params, grads, states).taken
        for one, other in zip(leaves(params), leaves(new_params)):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        assert [state.step for state in new_states] == [state.step for state in states]
        states = pickle.loads(pickle.dumps(states))
    assert all(not np.array_equal(one, other) for one, other in zip(leaves(params), leaves(start)))


def test_apply_keeps_the_order_of_8_bit_moments() -> None:
    orders: tuple[Any, ...] = (np.asfortranarray, lambda array: array.transpose(1, 0, 2))
    for as_ordered in orders:
        param = as_ordered(np.random.randn(20, 10, 6).astype(np.float32))
        optimizer = Optimizer("adam", lr=0.5, state_dtype="q8")
        states = optimizer.init(param)
        for _ in range(3):
            grad = as_ordered(np.random.randn(20, 10, 6).astype(np.float32))
            new_param, new_states = optimizer.apply(param, grad, states)
            assert optimizer.step(param, grad, states).taken
            np.testing.assert_array_equal(new_param, param)
            for name, moment in states[0].moments.items():
                assert new_states[0].moments[name].codes.strides == moment.codes.strides
                np.testing.assert_array_equal(new_states[0].moments[name].codes, moment.codes)


def test_moments_have_the_types_that_are_asked_for() -> None:
    params = tree()
    for state_dtype, expected in (("f32", np.float32), ("f16", np.float16)):
        weight, double, half, pairs = Optimizer("adam", state_dtype=state_dtype).init(params)
        assert weight.moments["exp_avg"].dtype == half.moments["exp_avg"].dtype == expected
        assert double.moments["exp_avg"].dtype == np.float64
        assert pairs.moments["exp_avg"].dtype == (np.complex64 if expected == np.float32 else np.float16)
    weight, double, half, pairs = Optimizer("adam", state_dtype="q8").init(params)
    assert isinstance(weight.moments["exp_avg"], Moment) and weight.moments["exp_avg"].scales.shape == (3,)
    assert pairs.moments["exp_avg"].codes.shape == (3, 2, 2)
    assert [state.first for state in (weight, double, half, pairs)] == [0, 600, 620, 627]
    assert Optimizer("sgd").init(params)[0].moments == {}


def test_bfloat16_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    param = np.random.randn(600).astype(ml_dtypes.bfloat16)
    wide = param.astype(np.float32)
    optimizer = Optimizer("adamw", lr=0.1, state_dtype="bf16")
    precise = Optimizer("adamw", lr=0.1)
    states, precise_states = optimizer.init(param), precise.init(wide)
    assert states[0].moments["exp_avg"].dtype == ml_dtypes.bfloat16
    grad = np.random.randn(600).astype(ml_dtypes.bfloat16)
    optimizer.step(param, grad, states)
    precise.step(wide, grad.astype(np.float32), precise_states)
    np.testing.assert_allclose(param.astype(np.float32), wide, rtol=2**-7, atol=2e-3)


def test_settings_are_read_changed_and_checked() -> None:
    optimizer = Optimizer("adamw", lr=0.1)
    assert optimizer.settings["lr"] == 0.1 and optimizer.settings["weight_decay"] == 0.01
    optimizer.set(lr=0.05)
    assert optimizer.settings["lr"] == 0.05
    assert "lr=0.05" in repr(optimizer)
    for settings, text in (
        ({"lr": -1}, "lr is -1"),
        ({"lrr": 1}, "lrr"),
        ({"epsilon": "both"}, "epsilon"),
    ):
        with pytest.raises((ValueError, TypeError), match=text):
            optimizer.set(**settings)
    assert optimizer.settings["lr"] == 0.05
    with pytest.raises(ValueError, match="adamx"):
        Optimizer("adamx")
    with pytest.raises(ValueError, match="state_dtype"):
        Optimizer("adam", state_dtype="f8")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [(0.9, 0.99), None, "both", True, 0.5])
def test_unknown_settings_are_refused_whatever_their_value(value: Any) -> None:
    text = 'no setting "betas"; known: lr, beta1, beta2,'
    with pytest.raises(ValueError, match=text):
        Optimizer("adamw", lr="fast", betas=value)
    optimizer = Optimizer("adamw")
    with pytest.raises(ValueError, match=text):
        optimizer.set(lr=0.5, betas=value)
    assert optimizer.settings["lr"] == 1e-3
    with pytest.raises(TypeError, match=r"beta1 is \(0.9, 0.99\), but must be a number"):
        optimizer.set(beta1=(0.9, 0.99))  # type: ignore[arg-type]


def test_norms_clip_and_leave_steps_out() -> None:
    params = tree()
    grads = like(params)
    squares = sum((np.abs(grad.astype(np.complex128)) ** 2).sum() for grad in leaves(grads))
    norm = grad_norm(grads)
    assert math.isclose(norm, math.sqrt(squares), rel_tol=1e-6)
    assert math.isclose(grad_norm([np.array([3.0, -4.0])], 1), 7.0)
    assert math.isclose(grad_norm([np.array([3.0, -4.0])], math.inf), 4.0)
    with pytest.raises(ValueError, match="ord is 3"):
        grad_norm([np.ones(2)], 3)
    assert clip_factor(norm, 1.0) == 1.0 / (norm + 1e-6) and clip_factor(0.5, 1.0) == 1.0
    with pytest.raises(ValueError, match="max_norm is 0"):
        clip_factor(1.0, 0.0)

    clipped, plain = Optimizer("sgd", lr=0.1, max_grad_norm=1.0), Optimizer("sgd", lr=0.1)
    other = copy.deepcopy(params)
    report = clipped.step(params, grads, clipped.init(params))
    assert report.taken and report.grad_norm == norm
    plain.step(other, grads, plain.init(other), grad_factor=clip_factor(norm, 1.0))
    for one, two in zip(leaves(params), leaves(other)):
        np.testing.assert_array_equal(one, two)

    grads["weight"][2, 3] = np.nan
    before = copy.deepcopy(params)
    states = clipped.init(params)
    report = clipped.step(params, grads, states)
    assert not report.taken and states[0].step == 0
    for one, two in zip(leaves(params), leaves(before)):
        np.testing.assert_array_equal(one, two)


def test_gradients_are_zeroed_as_they_are_read() -> None:
    param, grad = np.ones(5), np.ones(5)
    optimizer = Optimizer("sgd", lr=0.5, zero_grad_in_step=True)
    optimizer.step(param, grad, optimizer.init(param))
    assert not grad.any() and (param == 0.5).all()


class Immutable:
    """An array that is taken for one of JAX's, which lends memory that nobody else may write."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.shape, self.dtype = values.shape, values.dtype

    def __dlpack_device__(self) -> Any:
        return self.values.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return self.values


Immutable.__module__ = "jaxlib._jax"


def test_gradients_of_jax_are_not_zeroed() -> None:
    param, grad = np.ones(5), Immutable(np.ones(5))
    optimizer = Optimizer("sgd", lr=0.5, zero_grad_in_step=True)
    states = optimizer.init({"a": param})
    with pytest.raises(TypeError, match=r"the gradient of params\['a'\] is a JAX array.* zero_grad_in_step must be"):
        optimizer.step({"a": param}, {"a": grad}, states)
    assert (grad.values == 1).all() and (param == 1).all() and states[0].step == 0
    optimizer.zero_grad_in_step = False
    optimizer.step({"a": param}, {"a": grad}, states)
    assert (grad.values == 1).all() and (param == 0.5).all()


@pytest.mark.parametrize("grad", [np.ones(5), Immutable(np.ones(5))])
def test_apply_zeroes_no_gradients(grad: Any) -> None:
    optimizer = Optimizer("sgd", lr=0.5, zero_grad_in_step=True)
    states = optimizer.init(np.ones(5))
    for params, grads in ((np.ones(5), grad), ([np.ones(5)], [grad]), (Immutable(np.ones(5)), grad)):
        with pytest.raises(ValueError, match="zero_grad_in_step is True, but apply writes no gradients"):
            optimizer.apply(params, grads, states)
        assert (np.asarray(grad) == 1).all()


def test_a_gradient_of_none_leaves_its_parameter_alone() -> None:
    params = [np.ones(3), np.ones(3)]
    optimizer = Optimizer("sgd", lr=0.5)
    states = optimizer.init(params)
    optimizer.step(params, [None, np.ones(3)], states)
    assert (params[0] == 1).all() and (params[1] == 0.5).all()
    assert [state.step for state in states] == [0, 1]


def test_gradients_in_another_order_or_read_only() -> None:
    param = np.asfortranarray(np.zeros((3, 2)))
    grad = np.arange(6.0).reshape(3, 2)
    grad.flags.writeable = False
    optimizer = Optimizer("sgd", lr=1.0)
    optimizer.step(param, grad, optimizer.init(param))
    np.testing.assert_array_equal(param, -grad)
    assert grad_norm(grad) == grad_norm(param)


def unaligned(values: np.ndarray) -> np.ndarray:
    memory = np.zeros(values.nbytes + 1, np.uint8)
    array = memory[1:].view(values.dtype).reshape(values.shape)
    array[...] = values
    return array


@pytest.mark.parametrize("is_writeable", [True, False])
@pytest.mark.parametrize(
    "way",
    [
        lambda values: values,
        lambda values: values.T,
        lambda values: values.transpose(1, 0, 2),
        lambda values: values[::2],
        lambda values: values[:, ::-1],
        lambda values: np.broadcast_to(values[0], (3, *values[0].shape)),
        unaligned,
    ],
)
def test_norms_are_of_arrays_of_any_order(way: Any, is_writeable: bool) -> None:
    grad = way(np.random.randn(6, 5, 4))
    expected = np.linalg.norm(grad.ravel())
    if not is_writeable:
        grad.flags.writeable = False
    assert math.isclose(grad_norm(grad), expected, rel_tol=1e-12)
    assert grad_norm(grad) == grad_norm(grad.copy("K")) == grad_norm({"a": [grad]})


class Pair(NamedTuple):
    left: Any
    right: Any


def full(value: float) -> np.ndarray:
    return np.full(2, float(value))


def taken(call: str, optimizer: Optimizer, params: Any, grads: Any, states: Any) -> tuple[Any, Any]:
    """The parameters and states after a step in place or to new arrays."""
    if call == "apply":
        return optimizer.apply(params, grads, states)
    optimizer.step(params, grads, states)
    return params, states


@pytest.mark.parametrize("call", ["step", "apply"])
def test_the_entries_of_dicts_may_come_in_any_order(call: str) -> None:
    optimizer = Optimizer("sgd", lr=1.0, momentum=0.5)
    params = {"w": full(0), "b": full(0), "in": [{"z": full(0), "a": full(0)}], "pair": Pair(full(0), (full(0),))}
    # JAX sorts the keys of dicts.
    grads = {"b": full(1), "in": ({"a": full(2), "z": full(3)},), "pair": [full(4), [full(5)]], "w": full(6)}
    states = optimizer.init(params)
    params, states = taken(call, optimizer, params, grads, states)
    # Parameters that come back in another order keep their moments.
    params = {key: params[key] for key in sorted(params)}
    params, states = taken(call, optimizer, params, grads, states)
    found = {
        "w": params["w"],
        "b": params["b"],
        "z": params["in"][0]["z"],
        "a": params["in"][0]["a"],
        "left": params["pair"].left,
        "right": params["pair"].right[0],
    }
    assert {name: -array[0] / 2.5 for name, array in found.items()} == {
        "w": 6, "b": 1, "z": 3, "a": 2, "left": 4, "right": 5,
    }  # fmt: skip
    assert {state.path: state.moments["momentum_buffer"][0] / 1.5 for state in states} == {
        "params['w']": 6,
        "params['b']": 1,
        "params['in'][0]['z']": 3,
        "params['in'][0]['a']": 2,
        "params['pair'][0]": 4,
        "params['pair'][1][0]": 5,
    }


@pytest.mark.parametrize("call", ["step", "apply"])
def test_none_among_parameters_is_no_array(call: str) -> None:
    optimizer = Optimizer("sgd", lr=1.0)
    trees: list[Any] = [{"a": None, "w": full(0), "b": full(0)}, [None, full(0), full(0)]]
    gradients: list[Any] = [{"b": None, "w": full(1), "a": None}, [None, full(1), None]]
    for params, grads in zip(trees, gradients):
        states = optimizer.init(params)
        assert len(states) == 2
        params, states = taken(call, optimizer, params, grads, states)
        empty, stepped, still = params.values() if isinstance(params, dict) else params
        assert empty is None and (stepped == -1).all() and not still.any()
        assert [state.step for state in states] == [1, 0]
    with pytest.raises(ValueError, match=r"grads\['a'\] is a ndarray, but params\['a'\] is None"):
        taken(call, optimizer, trees[0], {"a": full(1), "w": full(1), "b": full(1)}, optimizer.init(trees[0]))


@pytest.mark.parametrize("call", ["step", "apply"])
@pytest.mark.parametrize(
    ("grads", "text"),
    [
        ({"w": full(1)}, r"grads\['b'\] is missing; grads\['more'\] is missing$"),
        ({"w": full(1), "b": full(1), "more": [full(1)], "x": full(1)}, r"grads\['x'\] is surplus$"),
        ({"w": full(1), "c": full(1), "more": [full(1)]}, r"grads\['b'\] is missing; grads\['c'\] is surplus$"),
        ({"w": full(1), "b": full(1), "more": []}, r"grads\['more'\]\[0\] is missing$"),
        ({"w": full(1), "b": full(1), "more": [full(1)] * 2}, r"grads\['more'\]\[1\] is surplus$"),
        ({"w": full(1), "b": full(1), "more": {0: full(1)}}, r"grads\['more'\] is a dict, but params"),
        ({"w": full(1), "b": full(1), "more": full(1)}, r"grads\['more'\] is a ndarray, but params"),
        ({"w": [full(1)], "b": full(1), "more": [full(1)]}, r"grads\['w'\] is a list, but params\['w'\] is a ndarray"),
        ({"w": full(1), "b": full(1), "more": None}, r"grads\['more'\] is None, but params\['more'\] is a list"),
        ([full(1), full(1), full(1)], "grads is a list, but params is a dict"),
        (full(1), "grads is a ndarray, but params is a dict"),
        ({number: full(1) for number in range(9)}, r"grads\[4\] is surplus; and 4 more$"),
    ],
)
def test_gradients_of_another_structure_are_named(call: str, grads: Any, text: str) -> None:
    params = {"w": full(0), "b": full(0), "more": [full(0)]}
    optimizer = Optimizer("sgd")
    states = optimizer.init(params)
    with pytest.raises(ValueError, match=f"^grads has another structure than params: .*{text}"):
        taken(call, optimizer, params, grads, states)
    assert not any(array.any() for array in (params["w"], params["b"], params["more"][0]))
    assert [state.step for state in states] == [0, 0, 0]


@pytest.mark.parametrize("call", ["step", "apply"])
def test_states_of_other_arrays_are_named(call: str) -> None:
    optimizer = Optimizer("sgd", momentum=0.5)
    params, grads = {"w": full(0), "b": full(0)}, {"w": full(1), "b": full(1)}
    one, other = optimizer.init(params)
    for states, text in [
        (optimizer.init({"w": full(0), "c": full(0)}), r"params\['b'\] has no state; params\['c'\] has a state, but"),
        (optimizer.init([full(0), full(0)]), r"params\['w'\] has no state; params\['b'\] has no state; params\[0\]"),
        ([one], r"params\['b'\] has no state$"),
        ([one, one], r"params\['b'\] has no state$"),
        ([one, other, other], "an array has two states$"),
    ]:
        with pytest.raises(ValueError, match=f"^the states are not those of params: {text}"):
            taken(call, optimizer, params, grads, states)
    assert not params["w"].any() and not params["b"].any() and one.step == other.step == 0
    # By position, where there are no paths.
    states = [State(state.step, state.moments) for state in optimizer.init(params)]
    params, states = taken(call, optimizer, params, grads, states)
    assert [state.step for state in states] == [1, 1] and params["w"].all() and params["b"].all()


def read_only() -> np.ndarray:
    array = np.ones(3)
    array.flags.writeable = False
    return array


def misaligned() -> np.ndarray:
    memory = bytearray(40)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    return np.frombuffer(memory, np.float64, count=3, offset=1 + start % 2)


@pytest.mark.parametrize(
    ("param", "grad", "error", "text"),
    [
        (misaligned(), np.zeros(3), ValueError, "params is not aligned"),
        (np.zeros((4, 4))[:, ::2], np.zeros((4, 2)), ValueError, "params does not fill its memory"),
        (np.zeros(3), np.zeros(4), ValueError, r"the gradient of params has shape \(4,\)"),
        (np.zeros(3, np.int64), np.zeros(3), TypeError, "params is of int64, but must be of float32"),
        (np.zeros(3, np.int32), np.zeros(3), TypeError, "params is of a type"),
        (np.zeros(3, np.complex64), np.zeros(3, np.float32), TypeError, "params is of float32, but the parameter"),
        (np.zeros(3), np.zeros(3, np.float32), TypeError, "float32, which does not go with a parameter of float64"),
        (read_only(), np.zeros(3), TypeError, "params"),
        ([1.0], np.zeros(1), TypeError, r"params\[0\] is a float"),
        ([np.zeros(3)], [np.zeros(3), np.zeros(3)], ValueError, "params has 1 arrays, and grads has 2"),
    ],
)
def test_arrays_that_cannot_be_stepped_are_named(param: Any, grad: Any, error: Any, text: str) -> None:
    optimizer = Optimizer("sgd")
    with pytest.raises(error, match=text):
        optimizer.step(param, grad, optimizer.init(param))


class Elsewhere:
    """An array that says of itself that it is on another device, by DLPack's numbers."""

    def __init__(self, array: np.ndarray, kind: int, name: str | None) -> None:
        self.array, self.kind = array, kind
        self.shape, self.dtype = array.shape, array.dtype
        if name is not None:
            self.device = name

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 1

    def __dlpack__(self, **_: Any) -> Any:
        capsule = self.array.__dlpack__()
        api = ctypes.pythonapi.PyCapsule_GetPointer
        api.restype, api.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        # `DLManagedTensor` begins with the address of the numbers and the device's kind and number.
        device = (ctypes.c_int32 * 2).from_address(api(capsule, b"dltensor") + 8)
        device[:] = self.kind, 1
        return capsule


CUDA, CUDA_HOST, ROCM_HOST, CUDA_MANAGED = 2, 3, 11, 13


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [(CUDA, "cuda:1", "cuda:1"), (CUDA_MANAGED, None, "device 1 of DLPack's kind 13")],
)
def test_arrays_on_another_device_are_named(kind: int, name: str | None, text: str) -> None:
    here = np.ones(6, np.float32)
    there = Elsewhere(here.copy(), kind, name)
    optimizer = Optimizer("adamw", lr=0.5)
    states = optimizer.init([here, here])

    def refused(argument: str) -> Any:
        return pytest.raises(ValueError, match=f"^{argument} is on {text}, but must be on the CPU$")

    with refused(r"params\[1\]"):
        optimizer.init([here, there])
    for call in (optimizer.step, optimizer.apply):
        with refused(r"params\[1\]"):
            call([here, there], [here.copy(), here.copy()], states)
        with refused(r"the gradient of params\[0\]"):
            call([here, here.copy()], [there, here.copy()], states)
    with refused(r"grads\['a'\]"):
        grad_norm({"a": there, "b": here})
    with refused("values"):
        q8_encode(there)  # type: ignore[arg-type]
    codes, scales = q8_encode(here)
    with refused("codes"):
        q8_decode(Elsewhere(codes, kind, name), scales)  # type: ignore[arg-type]
    with refused("scales"):
        q8_decode(codes, Elsewhere(scales, kind, name))  # type: ignore[arg-type]
    assert (here == 1).all() and (there.array == 1).all()
    assert [state.step for state in states] == [0, 0]


@pytest.mark.parametrize("kind", [CUDA_HOST, ROCM_HOST])
def test_pinned_memory_is_memory_of_the_cpu(kind: int) -> None:
    here, pinned = np.ones(6, np.float32), Elsewhere(np.ones(6, np.float32), kind, "cuda:1")
    optimizer = Optimizer("adamw", lr=0.5)
    for param in (here, pinned):
        assert optimizer.step(param, np.ones(6, np.float32), optimizer.init(param)).taken
    np.testing.assert_array_equal(pinned.array, here)
    assert (here != 1).all()


def one(values: np.ndarray) -> np.ndarray:
    return values.copy()


def in_file(values: np.ndarray) -> np.ndarray:
    """Of a class of its own, which is numpy's."""
    file = np.memmap(tempfile.TemporaryFile(), values.dtype, "w+", shape=(values.size + 1,))
    file = file[1:].reshape(values.shape)
    file[...] = values
    return file


def other_way_round(values: np.ndarray) -> np.ndarray:
    return np.array(values, order="F")


@pytest.mark.parametrize("way", [one, in_file, other_way_round])
@pytest.mark.parametrize("into", [list, tuple, lambda arrays: {"all": list(arrays)}, lambda arrays: [list(arrays)]])
def test_arrays_have_the_same_step_however_they_come(way: Any, into: Any) -> None:
    dtypes: list[Any] = [np.float32, np.float64, np.float16, np.complex64]
    with contextlib.suppress(ImportError):
        dtypes.append(importlib.import_module("ml_dtypes").bfloat16)
    shapes: list[Any] = [(5, 4), 7, (), (3, 0), (1, 6)]
    params = [np.array(np.random.standard_normal(shape), dtype) for dtype in dtypes for shape in shapes]
    grads = [np.array(np.random.standard_normal(param.shape), param.dtype) for param in params]
    expected = [param.copy() for param in params]
    for param, grad in zip(expected, grads):
        optimizer = Optimizer("adamw")
        optimizer.step(param, grad, optimizer.init(param))

    optimizer = Optimizer("adamw")
    arrays = [way(param) for param in params]
    states = optimizer.init(into(arrays))
    optimizer.step(into(arrays), into([way(grad) for grad in grads]), states)
    for array, values, state in zip(arrays, expected, states):
        assert np.array_equal(array, values) and state.step == 1


def test_arrays_that_numpy_does_not_lend_are_named_however_they_come() -> None:
    good = np.ones(3, np.float32)
    optimizer = Optimizer("sgd")
    for bad, text in [
        (np.ones(3, ">f4"), "cannot lend its memory"),
        (np.ones(3, [("x", np.float32)]), "cannot lend its memory"),
        (np.ones(3, np.int32), "is of another type|not supported"),
        (np.ones(6, np.float32)[::2], "without gaps"),
    ]:
        for arrays in [good, bad], (good, bad), [[good], bad]:
            states = optimizer.init(arrays)
            with pytest.raises((TypeError, ValueError), match=rf"params\[1\] .*({text})"):
                optimizer.step(arrays, arrays[:1] + type(arrays)([good]), states)
            assert [state.step for state in states] == [0, 0]
        states = optimizer.init({"a": bad, "b": good})
        with pytest.raises((TypeError, ValueError), match=rf"params\['a'\] .*({text})"):
            optimizer.step({"a": bad, "b": good}, {"a": good.copy(), "b": good}, states)
        assert [state.step for state in states] == [0, 0]


def test_memory_that_is_shared_is_refused() -> None:
    memory = np.zeros(10)
    optimizer = Optimizer("sgd")
    params = [memory[:6], memory[4:]]
    with pytest.raises(ValueError, match=r"params\[0\] and params\[1\] share memory"):
        optimizer.step(params, [np.ones(6), np.ones(6)], optimizer.init(params))
    with pytest.raises(ValueError, match="the gradient of params and params share memory"):
        optimizer.step(memory, memory, optimizer.init(memory))


def test_states_that_do_not_fit_are_named() -> None:
    param = np.zeros(3)
    plain, heavy = Optimizer("sgd"), Optimizer("sgd", momentum=0.9)
    with pytest.raises(ValueError, match="momentum_buffer of params is missing"):
        heavy.step(param, np.ones(3), plain.init(param))
    with pytest.raises(ValueError, match="do not use it"):
        plain.step(param, np.ones(3), heavy.init(param))
    with pytest.raises(ValueError, match="momentum_buffer of params has 4 numbers, not 3"):
        heavy.step(param, np.ones(3), heavy.init(np.zeros(4)))
    with pytest.raises(ValueError, match="there are 2 states"):
        plain.step(param, np.ones(3), plain.init([param, param]))


@pytest.mark.parametrize("format", ["signed", "squares", "unsigned"])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 1000])
def test_8_bits_are_near_what_they_stand_for(format: Any, size: int) -> None:
    values = np.random.randn(size).astype(np.float32)
    values = values if format == "signed" else values**2
    codes, scales = q8_encode(values, format)
    assert codes.dtype == np.uint8 and scales.shape == (-(-size // 256),)
    decoded = q8_decode(codes, scales, format)
    for start in range(0, size, 256):
        block = values[start : start + 256]
        error = np.abs(decoded[start : start + 256] - block)
        assert (error <= np.abs(block) / 15 + np.abs(block).max() * 2**-17).all()


def test_a_torch_tensor_lends_its_memory() -> None:
    torch = pytest.importorskip("torch")
    param, grad = torch.zeros(4, dtype=torch.bfloat16), torch.ones(4, dtype=torch.bfloat16)
    optimizer = Optimizer("sgd", lr=0.5)
    optimizer.step(param, grad, optimizer.init(param))
    assert param.tolist() == [-0.5] * 4


def test_jax_arrays_are_left_as_they_are() -> None:
    jax = pytest.importorskip("jax")
    param, grad = jax.numpy.ones(4), jax.numpy.ones(4)
    optimizer = Optimizer("sgd", lr=0.5)
    states = optimizer.init(param)
    with pytest.raises(TypeError, match="use apply"):
        optimizer.step(param, grad, states)
    new, new_states = optimizer.apply(param, grad, states)
    assert new.tolist() == [0.5] * 4 and param.tolist() == [1.0] * 4
    assert (states[0].step, new_states[0].step) == (0, 1)


def test_the_package_without_pytorch() -> None:
    assert "AdamW" in dir(adamant_optim) and "numpy" in dir(adamant_optim)
    with pytest.raises(AttributeError, match="no attribute 'AdamX'"):
        _ = adamant_optim.AdamX


def test_a_star_leaves_the_names_of_other_packages() -> None:
    assert not {"checkpoint", "numpy", "torch"} & set(adamant_optim.__all__)
    torch = pytest.importorskip("torch")
    names: dict[str, Any] = {"numpy": np, "torch": torch}
    exec("from adamant_optim import *", names)  # noqa: S102
    assert names["numpy"] is np and names["torch"] is torch
    assert names["AdamW"] is adamant_optim.AdamW and adamant_optim.numpy.Optimizer is Optimizer


@pytest.mark.parametrize("state_dtype", ["f32", "q8"])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_moments_of_another_shape_or_order_are_refused(state_dtype: Any, dtype: Any) -> None:
    optimizer = Optimizer("adamw", lr=0.1, state_dtype=state_dtype)
    state = optimizer.init(np.ones((2, 3), dtype))
    for param in (np.ones((3, 2), dtype), np.asfortranarray(np.ones((2, 3), dtype))):
        with pytest.raises(ValueError, match="has shape"):
            optimizer.step(param, np.ones_like(param), state)
        assert (param == 1).all() and state[0].step == 0
        optimizer.step(param, np.ones_like(param), optimizer.init(param))


def by_pickle(values: Any) -> Any:
    return pickle.loads(pickle.dumps(values))


@pytest.mark.parametrize("through", [by_pickle, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1)])
@pytest.mark.parametrize("shape", [(40, 5, 30), (40, 1, 30), (0, 5, 30)])
def test_states_keep_the_order_of_8_bit_moments(through: Any, dtype: Any, axes: Any, shape: Any) -> None:
    param = np.ones(shape, dtype).transpose(axes)
    grad = np.random.default_rng(0).standard_normal(param.shape).astype(dtype)
    # Where the order is lost, numbers get a scale of others.
    grad[..., :10] *= 1e3
    optimizer = Optimizer("adamw", lr=0.1, state_dtype="q8")
    state = optimizer.init(param)
    optimizer.step(param, grad, state)
    other, other_state = copy.deepcopy(param), copy.deepcopy(through(state))
    for one, states in ((param, state), (other, other_state)):
        optimizer.step(one, grad / 1e3, states)
    assert np.array_equal(param, other)
    for moment in state[0].moments:
        for found, wanted in zip(other_state[0].moments[moment], state[0].moments[moment]):
            assert np.array_equal(found, wanted)


def test_a_parameter_that_lost_the_order_of_its_8_bit_moments_is_refused() -> None:
    param = np.ones((40, 5, 30), np.float32).transpose(1, 0, 2)
    optimizer = Optimizer("adamw", state_dtype="q8")
    state = optimizer.init(param)
    optimizer.step(param, np.ones_like(param), state)
    # numpy pickles this array in the order of C.
    param, state = by_pickle((param, state))
    with pytest.raises(ValueError, match="codes of exp_avg .* one must be copied into the order of the other"):
        optimizer.step(param, np.ones_like(param), state)
    codes = state[0].moments["exp_avg"].codes
    back = np.empty_like(codes, dtype=param.dtype)
    back[...] = param
    assert optimizer.step(back, np.ones_like(back), state).taken


def masked(values: Any) -> Any:
    return np.ma.masked_array(values, mask=values != values[0])


@pytest.mark.parametrize("into", [lambda array: array, lambda array: [array], lambda array: {"w": array}])
@pytest.mark.parametrize("call", ["step", "apply"])
def test_masked_arrays_are_refused(call: str, into: Any) -> None:
    array, optimizer = np.arange(3, dtype=np.float32), Optimizer("adamw")
    states = optimizer.init(into(array))
    with pytest.raises(TypeError, match="params.* is a masked array, whose mask would not count"):
        optimizer.init(into(masked(array)))
    for param, grad in ((masked(array), array), (array, masked(array))):
        with pytest.raises(TypeError, match="params.* is a masked array, whose mask would not count"):
            getattr(optimizer, call)(into(param), into(grad), states)
    assert states[0].step == 0 and np.array_equal(array, [0, 1, 2])
    codes, scales = q8_encode(array)
    for function in (
        lambda: grad_norm(into(masked(array))),
        lambda: q8_encode(masked(array)),
        lambda: q8_decode(masked(codes), scales),
        lambda: q8_decode(codes, masked(scales)),
    ):
        with pytest.raises(TypeError, match="is a masked array"):
            function()


@pytest.mark.parametrize("call", ["step", "apply"])
@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda states: {"w": states[0]}, "states is a dict, but must be the list that init returned"),
        (lambda states: None, "states is None, but"),
        (lambda states: "w", "states is a str, but"),
        (lambda states: iter(states), "states is a list_iterator, but"),
        (lambda states: [states[0].moments], r"states\[0\] is a dict, but must be a State"),
        (lambda states: (states,), r"states\[0\] is a list, but must be a State"),
    ],
)
def test_states_that_are_none_are_refused(call: str, wrong: Any, text: str) -> None:
    optimizer = Optimizer("adamw")
    for into in (lambda array: array, lambda array: [array], lambda array: {"w": array}):
        params, grads = into(np.ones(3)), into(np.ones(3))
        states = optimizer.init(params)
        with pytest.raises(TypeError, match=text):
            getattr(optimizer, call)(params, grads, wrong(states))
        assert states[0].step == 0


@pytest.mark.parametrize("value", ["False", 0, 1, 1.0, None, np.ones(1, bool)])
def test_flags_are_true_or_false(value: Any) -> None:
    with pytest.raises(TypeError, match="maximize is .*, but must be True or False"):
        Optimizer("adamw", maximize=value)
    optimizer = Optimizer("adamw", maximize=np.True_)
    with pytest.raises(TypeError, match="maximize is .*, but must be True or False"):
        optimizer.set(lr=0.5, maximize=value)
    assert optimizer.settings["maximize"] is True and optimizer.settings["lr"] != 0.5


def test_float16_is_rounded_at_random() -> None:
    param, grad = np.ones(40_000, np.float16), np.ones(40_000, np.float16)
    optimizer = Optimizer("sgd", lr=1e-5, stochastic_rounding=True)
    optimizer.step(param, grad, optimizer.init(param))
    # The neighbours are 2^-11 apart: the mean is within 5 deviations.
    assert set(np.unique(param)) == {np.float16(1), np.float16(1 - 2**-11)}
    assert abs(param.astype(float).mean() - (1 - 1e-5)) < 5 * (1e-5 * 2**-11) ** 0.5 / 200


@pytest.mark.parametrize(
    ("option", "value", "error", "text"),
    [
        ("max_grad_norm", "1", TypeError, "max_grad_norm is '1', but must be a number"),
        ("max_grad_norm", -1, ValueError, "max_grad_norm is -1, but must be over 0"),
        ("threads", 0, ValueError, "threads is 0, but must be a whole number from 1 to 1024"),
        ("threads", 1.5, ValueError, "threads is 1.5"),
        ("isa", "sse", ValueError, "isa is 'sse'"),
        ("seed", -1, ValueError, "seed is -1"),
        ("skip_nonfinite", "no", TypeError, "skip_nonfinite is 'no', but must be True or False"),
        ("zero_grad_in_step", 1, TypeError, "zero_grad_in_step is 1, but must be True or False"),
        ("stochastic_rounding", None, TypeError, "stochastic_rounding is None, but must be True or False"),
    ],
)
def test_bad_options_are_refused_by_name(option: str, value: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        Optimizer("sgd", **{option: value})
    param, optimizer = np.ones(3, np.float32), Optimizer("sgd")
    states = optimizer.init(param)
    setattr(optimizer, option, value)
    with pytest.raises(error, match=text):
        optimizer.step(param, param.copy(), states)
    assert (param == 1).all() and states[0].step == 0


def test_options_may_be_numbers_of_numpy() -> None:
    param = np.ones(3, np.float32)
    optimizer = Optimizer("sgd", lr=np.float32(0.5), threads=np.int32(1), seed=np.uint64(7), skip_nonfinite=np.True_)
    optimizer.step(param, np.ones(3, np.float32), optimizer.init(param))
    assert (param == 0.5).all()


def test_a_gradient_of_a_type_that_does_not_fit_is_named() -> None:
    params = [np.ones(3, np.float32), np.ones(4, np.float32), np.ones(5, np.float32)]
    grads = [None, np.ones(4, np.float32), np.ones(5)]
    optimizer = Optimizer("sgd")
    with pytest.raises(TypeError, match=r"the gradient of params\[2\] is of float64, which does not go with"):
        optimizer.step(params, grads, optimizer.init(params))
    assert all((param == 1).all() for param in params)
