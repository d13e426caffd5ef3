"""Many Python threads at once, without PyTorch: also on free-threaded Python, where they run at the same time."""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import threading
import time
from typing import Any

import adamant_optim._core
import numpy as np
import pytest
from adamant_optim.numpy import Optimizer, State, grad_norm, q8_decode, q8_encode

THREADS = 8
STEPS = 40


def start(number: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    random = np.random.default_rng(number)
    shapes = {"weight": (37, 29), "bias": (300,)}
    return tuple(  # type: ignore[return-value]
        {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(2)
    )


def run(optimizer: Optimizer, number: int) -> tuple[dict[str, np.ndarray], list[State]]:
    params, grads = start(number)
    states = optimizer.init(params)
    for _ in range(STEPS):
        optimizer.step(params, grads, states)
    return params, states


def in_threads(function: Any) -> list[Any]:
    """What ``function(number)`` returns in each of the threads, which begin at the same time."""
    results: list[Any] = [None] * THREADS
    barrier = threading.Barrier(THREADS)

    def work(number: int) -> None:
        barrier.wait()
        try:
            results[number] = function(number)
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="Python has a GIL")
def test_the_package_leaves_the_gil_off() -> None:
    assert adamant_optim._core is not None
    assert not sys._is_gil_enabled()  # type: ignore[attr-defined]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("state_dtype", ["f32", "q8"])
def test_one_optimizer_steps_for_many_threads(threads: int, state_dtype: Any) -> None:
    optimizer = Optimizer("adamw", lr=0.01, state_dtype=state_dtype, max_grad_norm=1.0, threads=threads)
    wanted = [run(optimizer, number) for number in range(THREADS)]
    for (params, states), (other, others) in zip(in_threads(lambda number: run(optimizer, number)), wanted):
        assert all((params[name] == other[name]).all() for name in params)
        assert [state.step for state in states] == [state.step for state in others] == [STEPS, STEPS]


@pytest.mark.parametrize("state_dtype", ["f32", "q8"])
def test_steps_of_one_state_come_one_after_the_other(state_dtype: Any) -> None:
    # So large that the other threads come in the middle of a step.
    param = np.linspace(-1, 1, 1 << 20, dtype=np.float32)
    wanted, grad = param.copy(), np.cos(param)
    optimizer = Optimizer("adamw", lr=0.01, state_dtype=state_dtype, max_grad_norm=1.0, threads=1)
    states, wanted_states = optimizer.init(param), optimizer.init(wanted)
    for _ in range(4 * THREADS):
        optimizer.step(wanted, grad, wanted_states)

    def work(_: int) -> None:
        for _ in range(4):
            optimizer.step(param, grad, states)

    in_threads(work)
    # No step is lost, and none is counted that was not taken.
    assert states[0].step == 4 * THREADS
    assert (param == wanted).all()


def test_optimizers_that_share_a_parameter_take_turns() -> None:
    param, grad = np.zeros(1 << 20, np.float32), np.ones(1 << 20, np.float32)

    def work(_: int) -> None:
        optimizer = Optimizer("sgd", lr=0.25, threads=1)
        state = optimizer.init(param)
        for _ in range(STEPS):
            optimizer.step(param, grad, state)

    in_threads(work)
    assert (param == -0.25 * THREADS * STEPS).all()


def test_a_step_count_must_not_be_negative() -> None:
    optimizer = Optimizer("adamw")
    param, grad = np.ones(3, np.float32), np.ones(3, np.float32)
    state = optimizer.init(param)
    state[0].step = -1
    with pytest.raises(ValueError, match="step in the state of params is -1, but must be a whole number"):
        optimizer.step(param, grad, state)
    assert (param == 1.0).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_is_forked_in_a_step_can_step() -> None:
    optimizer = Optimizer("adamw", threads=2)
    param, grad = np.ones(1 << 20, np.float32), np.ones(1 << 20, np.float32)
    state = optimizer.init(param)
    is_done = threading.Event()

    def work() -> None:
        while not is_done.is_set():
            optimizer.step(param, grad, state)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                # Nobody steps these arrays here: the thread that did is the parent's.
                optimizer.step(param, grad, state)
                os._exit(0)
            deadline = time.monotonic() + 120
            while os.waitpid(child, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    raise AssertionError("the child waits for a step of its parent")
                time.sleep(0.01)
    finally:
        is_done.set()
        thread.join()


def test_settings_change_while_others_step() -> None:
    optimizer = Optimizer("sgd", lr=0.25)

    def work(number: int) -> float:
        if number == 0:
            for _ in range(STEPS):
                # Both have the same meaning.
                optimizer.set(lr=0.25, momentum=0.0)
                optimizer.set(lr=0.25, momentum=0)
            return -STEPS * 0.25
        param, grad = np.zeros(1000, np.float32), np.ones(1000, np.float32)
        state = optimizer.init(param)
        for _ in range(STEPS):
            optimizer.step(param, grad, state)
        assert (param == param[0]).all()
        return float(param[0])

    assert in_threads(work) == [-STEPS * 0.25] * THREADS


def test_norms_and_codes_of_a_shared_array() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    norm, decoded = grad_norm(values), q8_decode(*q8_encode(values))
    for found_norm, found in in_threads(lambda _: (grad_norm(values), q8_decode(*q8_encode(values)))):
        assert found_norm == norm
        assert (found == decoded).all()
