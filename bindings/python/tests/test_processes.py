"""Forked children, many threads, and how many threads a process may use."""

from __future__ import annotations

import copy
import gc
import math
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable
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


class Slow(adamant_optim.AdamW):
    """Waits in the middle of a step, as one of many gradients that it must copy would."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_inside, self.may_go_on = threading.Event(), threading.Event()

    def _grad_like(self, *args: Any) -> Any:
        self.is_inside.set()
        assert self.may_go_on.wait(60)
        return super()._grad_like(*args)


def answer_of_a_forked_child(work: Callable[[], str], seconds: int = 30) -> str:
    """What ``work()`` returns in a forked child, which is killed if it takes longer."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        try:
            answer = work()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        answer = pipe.read()
    status = os.waitpid(child, 0)[1]
    return answer if status == 0 else f"ended by signal {os.WTERMSIG(status)} {answer}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("options", [{}, {"dense_equivalent": True}])
def test_a_child_that_was_forked_in_the_middle_of_a_step_does_not_wait_for_it(options: dict[str, Any]) -> None:
    own = torch.nn.Parameter(torch.zeros(6, 4))
    optimizer = Slow([own], lr=0.5, **options)
    own.grad = torch.ones(6, 4)
    optimizer.step()
    saved = own.detach().clone(), copy.deepcopy(optimizer.state_dict())
    # Another order than the parameter's: the step has it copied.
    own.grad = torch.ones(4, 6).t()
    thread = threading.Thread(target=optimizer.step)
    thread.start()
    assert optimizer.is_inside.wait(60)

    def child() -> str:
        optimizer.may_go_on.set()
        with pytest.raises(RuntimeError, match="forked while another thread was in a step of this optimizer"):
            optimizer.step()
        gc.collect()
        # A new start: the parameters and the state of a checkpoint.
        own.data.copy_(saved[0])
        optimizer.load_state_dict(saved[1])
        own.grad = torch.ones(6, 4)
        optimizer.step()
        return own.detach().numpy().tobytes().hex()

    try:
        found = answer_of_a_forked_child(child)
    finally:
        optimizer.may_go_on.set()
        thread.join()
    # The parent's step was taken, and is the child's: both are the second one.
    assert own.detach().numpy().tobytes().hex() == found
    assert float(optimizer.state[own]["step"]) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_knows_which_rows_are_behind() -> None:
    table = torch.nn.Embedding(10, 4, sparse=True)
    optimizer = adamant_optim.AdamW(table.parameters(), lr=0.5, dense_equivalent=True)
    optimizer.watch(table)
    for rows in ([1, 2], [3]):
        optimizer.zero_grad()
        table(torch.tensor(rows)).sum().backward()
        optimizer.step()
    behind = table.weight.detach().clone()

    def child() -> str:
        optimizer.catch_up()
        return table.weight.detach().numpy().tobytes().hex()

    found = answer_of_a_forked_child(child)
    optimizer.catch_up()
    assert found == table.weight.detach().numpy().tobytes().hex()
    assert not torch.equal(table.weight, behind)


def test_steps_that_threads_leave_out_are_all_counted() -> None:
    own = torch.nn.Parameter(torch.zeros(1))
    own.grad = torch.full((1,), math.nan)
    optimizer = adamant_optim.SGD([own], skip_nonfinite=True)
    threads = [threading.Thread(target=steps, args=(optimizer, 2000)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert optimizer.skipped == 8000
    assert copy.deepcopy(optimizer).skipped == pickle.loads(pickle.dumps(optimizer)).skipped == 8000


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


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: [0])(0)) < 2, reason="there is one CPU only")
def test_a_process_that_lost_its_cpus_starts_no_threads_for_them() -> None:
    code = """
import os, torch
from adamant_optim import AdamW

torch.set_num_threads(1)
cpus = os.sched_getaffinity(0)
param = torch.nn.Parameter(torch.zeros(4_000_000))
param.grad = torch.ones_like(param)
optimizer = AdamW([param])
before = len(os.listdir("/proc/self/task"))
os.sched_setaffinity(0, {min(cpus)})
optimizer.step()
print(len(os.listdir("/proc/self/task")) - before)
os.sched_setaffinity(0, cpus)
optimizer.step()
print(len(os.listdir("/proc/self/task")) - before)
"""
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    alone, all_cpus = map(int, output.stdout.split())
    assert alone == 0 < all_cpus


#: A file system for cgroups that grants one CPU, by either version, for this process and its children alone.
QUOTA = """
set -e
mount -t tmpfs quota /sys/fs/cgroup
second=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir -p /sys/fs/cgroup/cpu "$second"
touch /sys/fs/cgroup/cpu/cgroup.procs "$second/cgroup.controllers"
echo 100000 > /sys/fs/cgroup/cpu/cpu.cfs_quota_us
echo 100000 > /sys/fs/cgroup/cpu/cpu.cfs_period_us
echo 100000 100000 > "$second/cpu.max"
"""


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: [0])(0)) < 2, reason="there is one CPU only")
def test_a_quota_of_the_cgroup_counts() -> None:
    code = "from adamant_optim import _core; print(_core.default_threads())"

    def in_namespace(script: str) -> subprocess.CompletedProcess[bytes]:
        command = ["unshare", "--mount", "sh", "-c", script, sys.executable, code]
        return subprocess.run(command, check=False, capture_output=True)

    if shutil.which("unshare") is None or in_namespace(QUOTA).returncode != 0:
        pytest.skip("this user cannot mount file systems")
    found = in_namespace(QUOTA + 'exec "$0" -c "$1"')
    assert found.stdout == b"1\n", found.stderr


def test_pytorch_may_be_without_numpy() -> None:
    code = """
import sys
sys.modules["numpy"] = None  # Whoever imports it gets an ImportError.
import torch
from adamant_optim import AdamW

param = torch.nn.Parameter(torch.ones(300, 2))
optimizer = AdamW([param], state_dtype="q8", max_grad_norm=1.0)
for _ in range(2):
    param.grad = torch.ones_like(param)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
assert (param < 1.0).all() and optimizer.state[param]["step"] == 2
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


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
