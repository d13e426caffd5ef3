"""Forked children, many threads, and how many threads a process may use."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import sysconfig
import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import adamant_optim
from adamant_optim import _core

LARGE = 1 << 19


def large(threads: int | None = 2) -> tuple[Any, Any]:
    """An optimizer of one parameter that is large enough for threads."""
    torch.manual_seed(2)
    own = torch.nn.Parameter(torch.randn(LARGE))
    own.grad = torch.randn(LARGE)
    return adamant_optim.AdamW([own], threads=threads, state_dtype="q8", seed=1), own


def steps(optimizer: Any, count: int) -> None:
    for _ in range(count):
        optimizer.step()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_steps_with_the_same_bits() -> None:
    optimizer, own = large()
    steps(optimizer, 3)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def child() -> None:
        steps(optimizer, 2)
        queue.put(own.detach().numpy().tobytes())

    process = context.Process(target=child)
    process.start()
    found = queue.get()
    process.join(60)
    assert process.exitcode == 0
    steps(optimizer, 2)
    assert own.detach().numpy().tobytes() == found


def test_threads_and_instruction_sets_change_no_bit() -> None:
    results = []
    for threads in (1, 2, 5, None):
        optimizer, own = large(threads)
        steps(optimizer, 3)
        results.append(own.detach().clone())
    assert all(torch.equal(results[0], result) for result in results[1:])


def test_many_threads_step_at_once() -> None:
    shared, own = large()
    expected, _ = large()
    steps(expected, 40)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            optimizer, mine = large()
            for _ in range(10):
                optimizer.step()
                shared.step()
            assert float(optimizer.state[mine]["step"]) == 10
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    # Each of the steps was taken whole, one after the other.
    assert float(shared.state[own]["step"]) == 40
    assert torch.equal(own, expected.param_groups[0]["params"][0])


def test_optimizers_that_share_a_parameter_take_turns() -> None:
    own = torch.nn.Parameter(torch.zeros(1 << 20))
    own.grad = torch.ones(1 << 20)
    optimizers = [adamant_optim.SGD([own], lr=0.25, threads=1) for _ in range(4)]
    threads = [threading.Thread(target=steps, args=(optimizer, 40)) for optimizer in optimizers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A step that ran beside another one would lose some of what that one did.
    assert bool((own == -0.25 * 4 * 40).all())


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="Python has no GIL to hold")
def test_other_threads_run_while_a_step_runs() -> None:
    optimizer, own = large(1)
    own.data, own.grad = torch.randn(1 << 24), torch.randn(1 << 24)
    optimizer.step()
    counted = 0
    is_done = threading.Event()

    def step() -> None:
        optimizer.step()
        is_done.set()

    thread = threading.Thread(target=step)
    thread.start()
    while not is_done.is_set():
        counted += 1
    thread.join()
    # With the lock of the interpreter held, the loop would not turn while 16 million numbers are stepped.
    assert counted > 100


def test_the_number_of_threads_is_what_is_granted() -> None:
    code = "from adamant_optim import _core; print(_core.default_threads())"

    def ask(code: str = code, **more: str) -> int:
        output = subprocess.run([sys.executable, "-c", code], env=os.environ | more, check=True, capture_output=True)
        return int(output.stdout)

    granted = ask()
    assert 1 <= granted <= (os.cpu_count() or 1)
    assert granted == _core.default_threads()
    assert ask(LOCAL_WORLD_SIZE="1") == granted
    assert ask(LOCAL_WORLD_SIZE=str(granted)) == 1
    assert ask(LOCAL_WORLD_SIZE="nonsense") == granted
    # torchrun sets OMP_NUM_THREADS=1, which is not about these threads.
    assert ask(OMP_NUM_THREADS="1") == granted
    if hasattr(os, "sched_setaffinity"):
        first = min(os.sched_getaffinity(0))
        assert ask(f"import os; os.sched_setaffinity(0, {{{first}}}); {code}") == 1


def test_the_environment_chooses_the_instruction_set() -> None:
    code = "import adamant_optim; adamant_optim.show_config()"
    output = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"ADAMANT_ISA": "scalar"}, check=True, capture_output=True
    )
    assert b"instruction set: scalar" in output.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, adamant_optim; print({'torch', 'numpy'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert output.stdout == b"set()\n"
    code = "import sys, adamant_optim.numpy; print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert output.stdout == b"False\n"
