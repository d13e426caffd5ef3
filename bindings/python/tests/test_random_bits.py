"""Random bits depend on the seed, the step and the element alone: a run is reproducible to the bit."""

from __future__ import annotations

import copy
import hashlib
import io
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import adamant_optim

STEPS = 6
#: The arrays that are rounded at random: moments, and parameters of 16 bits.
WAYS: dict[str, dict[str, Any]] = {
    "q8": {"state_dtype": "q8"},
    "bf16": {"state_dtype": torch.bfloat16},
    "f16": {"state_dtype": torch.float16},
    "params": {"stochastic_rounding": True},
    "params-q8": {"stochastic_rounding": True, "state_dtype": "q8"},
}


def start(way: str, seed: int = 11, threads: int | None = 1) -> tuple[Any, Any]:
    """Parameters, and an optimizer of them."""
    chance = torch.Generator().manual_seed(1)
    dtype = torch.bfloat16 if "params" in way else torch.float32
    own = [torch.nn.Parameter(torch.randn(size, generator=chance).to(dtype)) for size in (70_000, 300, 1)]
    return own, adamant_optim.AdamW(own, lr=0.01, seed=seed, threads=threads, **WAYS[way])


def step(own: Any, optimizer: Any, number: int) -> None:
    chance = torch.Generator().manual_seed(100 + number)
    for param in own:
        param.grad = torch.randn(param.shape, generator=chance).to(param.dtype)
    optimizer.step()


def digest(own: Any, optimizer: Any) -> str:
    """A checksum of parameters and states."""
    found = hashlib.sha256()
    for param in own:
        for tensor in (param.detach(), *(value for _, value in sorted(optimizer.state[param].items()))):
            found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def run(way: str, **kwargs: Any) -> str:
    own, optimizer = start(way, **kwargs)
    for number in range(STEPS):
        step(own, optimizer, number)
    return digest(own, optimizer)


@pytest.mark.parametrize("way", WAYS)
def test_the_seed_decides_and_threads_do_not(way: str) -> None:
    assert run(way) == run(way, threads=3) == run(way, threads=None)
    assert run(way) != run(way, seed=12)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_save_goes_on_with_the_same_bits(way: str) -> None:
    expected = run(way)

    def through_a_file(state: Any) -> Any:
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        return torch.load(file, weights_only=True)

    for at in range(STEPS):
        for save in (copy.deepcopy, through_a_file):
            own, optimizer = start(way)
            for number in range(STEPS):
                if number == at:
                    weights, state = (save(it) for it in ([param.detach() for param in own], optimizer.state_dict()))
                    own, optimizer = start(way)
                    with torch.no_grad():
                        for param, weight in zip(own, weights):
                            param.copy_(weight)
                    optimizer.load_state_dict(state)
                step(own, optimizer, number)
            assert digest(own, optimizer) == expected, at


def test_another_process_finds_the_same_bits() -> None:
    program = "import sys, test_random_bits as it; print(*(it.run(way) for way in it.WAYS))"
    place = pathlib.Path(__file__).parent
    for isa in ("scalar", ""):
        environment = {**os.environ, "ADAMANT_ISA": isa} if isa else os.environ
        found = subprocess.run(
            [sys.executable, "-c", program],
            check=False,
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert found.returncode == 0, found.stderr
        assert found.stdout.split() == [run(way) for way in WAYS]


def test_a_gradient_that_is_missing_changes_no_bits_of_others() -> None:
    """Random bits go by the element, not by the order in which elements are stepped."""
    results = []
    for is_missing in (False, True):
        own, optimizer = start("params-q8")
        for number in range(STEPS):
            chance = torch.Generator().manual_seed(number)
            for param in own:
                param.grad = torch.randn(param.shape, generator=chance).to(param.dtype)
            if is_missing:
                own[1].grad = None
            optimizer.step()
        results.append([own[0].detach().clone(), own[2].detach().clone()])
    assert all(torch.equal(one, other) for one, other in zip(*results))
