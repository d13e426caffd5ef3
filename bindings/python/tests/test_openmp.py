"""Steps on the threads that PyTorch computes with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import adamant_optim
from adamant_optim import _core

LARGE = 1 << 19

#: What tells OpenMP how long to spin, or brings another one.
ENVIRONMENT = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "LD_PRELOAD")

pytestmark = [
    pytest.mark.skipif(any(name in os.environ for name in ENVIRONMENT), reason="the environment is about OpenMP"),
    pytest.mark.skipif(_core.openmp_library() is None, reason="PyTorch's threads are not those of GCC's OpenMP"),
    pytest.mark.skipif(_core.default_threads() < 2, reason="there is one CPU only"),
]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def large(threads: int | None = None, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(2)
    own = torch.nn.Parameter(torch.randn(LARGE))
    own.grad = torch.randn(LARGE)
    return adamant_optim.AdamW([own], threads=threads, **options), own


def after_an_operation(step: Callable[[], Any]) -> int:
    """The calls that OpenMP's threads have worked for in ``step()``, right after an operation of PyTorch."""
    numbers = torch.ones(1 << 22)
    numbers.mul_(2)
    before = _core.openmp_calls()
    step()
    return _core.openmp_calls() - before


def most_of(step: Callable[[], Any], enough: int = 1) -> int:
    """The most of a hundred tries, or the first that is ``enough``: on a busy machine OpenMP's threads may lose their
    CPUs in between."""
    most = 0
    for _ in range(100):
        most = max(most, after_an_operation(step))
        if most >= enough:
            break
    return most


def test_pytorchs_threads_step_right_after_an_operation() -> None:
    optimizer, _ = large()
    assert most_of(optimizer.step) == 1
    # The norm is a call of its own.
    clipped, _ = large(max_grad_norm=1.0)
    assert most_of(clipped.step, 2) == 2


def test_threads_that_sleep_are_left_alone() -> None:
    optimizer, _ = large()

    def late() -> None:
        time.sleep(0.2)
        optimizer.step()

    assert most_of(optimizer.step) == 1
    # The least: something else may have woken them.
    assert min(after_an_operation(late) for _ in range(10)) == 0


def test_bits_are_those_of_one_thread() -> None:
    for options in ({}, {"state_dtype": "q8"}, {"max_grad_norm": 1.0}):
        (alone, expected), (beside, own) = large(threads=1, **options), large(**options)
        calls = 0
        for _ in range(10):
            alone.step()
            calls += after_an_operation(beside.step)
        assert calls > 0
        assert torch.equal(own, expected)


def test_small_steps_and_those_of_one_thread_ask_nobody() -> None:
    own = torch.nn.Parameter(torch.ones(1000))
    own.grad = torch.ones(1000)
    assert most_of(adamant_optim.SGD([own]).step) == 0
    assert most_of(large(threads=1)[0].step) == 0


def test_another_number_of_threads_has_its_own() -> None:
    # As many threads of OpenMP as PyTorch uses, or none: others would end, or be more than the CPUs.
    assert most_of(large(threads=3)[0].step) == 0
    torch.set_num_threads(_core.default_threads() + 1)
    assert most_of(large()[0].step) == 0
    torch.set_num_threads(1)
    assert most_of(large()[0].step) == 0
    torch.set_num_threads(2)
    assert most_of(large(threads=2)[0].step) == 1


def test_other_threads_of_python_have_their_own() -> None:
    # Each would have a team of OpenMP of its own.
    optimizer, _ = large()
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(most_of(optimizer.step)))
    thread.start()
    thread.join()
    assert found == [0]


def run(code: str, **environment: str) -> str:
    """What a new process prints, which is killed if it hangs."""
    command = [sys.executable, "-c", PROGRAM + code]
    found = subprocess.run(
        command, env=os.environ | environment, check=False, capture_output=True, timeout=120, text=True
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


#: Steps of a process that has done nothing else; how often OpenMP's threads took part. Without operations of PyTorch,
#: which in a forked child wait for threads that are not there.
PROGRAM = """
import os, signal, threading, time
import numpy, torch
torch.set_num_threads(2)

def steps():
    import adamant_optim
    from adamant_optim import _core
    signal.alarm(60)
    own = torch.nn.Parameter(torch.from_numpy(numpy.ones(1 << 19, numpy.float32)))
    own.grad = torch.from_numpy(numpy.ones(1 << 19, numpy.float32))
    optimizer = adamant_optim.SGD([own], lr=0.5)
    before = _core.openmp_calls()
    for _ in range(10):
        optimizer.step()
    assert own.detach().numpy()[-1] == -4.0
    return _core.openmp_calls() - before

def child(work):
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    print("code", os.WEXITSTATUS(status) if os.WIFEXITED(status) else f"signal {os.WTERMSIG(status)}")
"""


def test_the_first_step_may_be_the_first_work_of_openmp() -> None:
    assert int(run("print(steps())")) > 0


def test_asking_before_pytorch_is_there_changes_nothing() -> None:
    # The package does not import PyTorch itself.
    code = "from adamant_optim import _core; assert _core.openmp_library() is None\n" + PROGRAM + "print(steps())"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120, text=True)
    assert int(found.stdout) > 0


def test_the_environment_turns_it_off() -> None:
    assert run("print(steps())", ADAMANT_OPENMP="0") == "0"
    code = "import adamant_optim; adamant_optim.show_config()"
    assert "beside PyTorch: threads of its own" in run(code, ADAMANT_OPENMP="0")
    assert "libgomp" in run(code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_was_forked_after_steps_has_its_own_threads() -> None:
    assert run("assert steps() > 0; child(steps)") == "code 0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_imports_the_package_itself_has_its_own_threads() -> None:
    # The parent has used OpenMP's threads, which the child lacks; it has as many others.
    code = """
torch.ones(1 << 22).mul_(2)

def work():
    for _ in range(4):
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
    return steps()

child(work)
"""
    assert run(code) == "code 0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forks_in_this_process_are_seen() -> None:
    (optimizer, own), (alone, expected) = large(threads=2), large(threads=1)
    assert most_of(optimizer.step) == 1
    # And the child's.
    for _ in range(int(optimizer.state[own]["step"]) + 1):
        alone.step()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(60)
            optimizer.step()
            code = 0 if (own.detach().numpy() == expected.detach().numpy()).all() else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert most_of(optimizer.step) == 1
