"""Checkpoints saved by some number of processes and loaded by another one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", minversion="2.6", reason="fully_shard is public from PyTorch 2.6 on")
import adamant_optim
import ranks
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from adamant_optim import checkpoint
from support import OWN, SETTINGS
from test_sharded import Net, assert_same, cut, sharded, whole
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

#: Optimizers with options, and the type of the parameters.
KINDS: dict[str, tuple[str, dict[str, Any], torch.dtype]] = {
    "adamw": ("AdamW", {"lr": 0.01}, torch.float32),
    "sgd": ("SGD", {"lr": 0.01}, torch.float32),
    "bf16": ("AdamW", {"lr": 0.01, "state_dtype": "bf16", "stochastic_rounding": True}, torch.bfloat16),
    "master": ("AdamW", {"lr": 0.01, "master": "f32"}, torch.bfloat16),
    "split": ("SGD", {"lr": 0.01, "momentum": 0.9, "master": "split"}, torch.bfloat16),
    "q8": ("AdamW", {"lr": 0.01, "state_dtype": "q8"}, torch.float32),
}


def model_of(kind: str, is_sharded: bool) -> tuple[Any, Any]:
    name, kwargs, dtype = KINDS[kind]
    model = Net(dtype)
    if is_sharded:
        model = sharded(model)
    return model, getattr(adamant_optim, name)(model.named_parameters(), **kwargs)


def take_steps(model: Any, optimizer: Any, first: int, count: int) -> None:
    """Steps with gradients that do not depend on how many processes there are."""
    for step in range(first, first + count):
        for number, param in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(1000 * step + number)
            grad = torch.randn(param.shape, generator=generator).to(param.dtype)
            is_cut = isinstance(param, DTensor)
            param.grad = cut(grad, param.device_mesh, param.placements) if is_cut else grad
        optimizer.step()
        optimizer.zero_grad()


def seen(model: Any, optimizer: Any) -> dict[str, torch.Tensor]:
    """Parameters and states, whole, as a checkpoint has them."""
    found = {key: whole(param) for key, param in model.named_parameters()}
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            # Codes are for processes that do not share.
            if not key.endswith(("_codes", "_scales")):
                found[f"{number} {key}"] = whole(value if isinstance(value, torch.Tensor) else torch.tensor(value))
    return found


def save_all(folder: str, by_hand: bool) -> dict[str, Any]:
    """Two steps, a save, one step more."""
    found = {}
    for kind in KINDS:
        model, optimizer = model_of(kind, dist.get_world_size() > 1)
        take_steps(model, optimizer, 0, 2)
        before = seen(model, optimizer)
        if by_hand:
            model_state, optim_state = get_state_dict(model, optimizer)
            dcp.save({"model": model_state, "optim": optim_state}, checkpoint_id=f"{folder}/{kind}")
        else:
            checkpoint.save(f"{folder}/{kind}", model, optimizer, extra={"step": 2})
        assert_same(seen(model, optimizer), before, f"{kind}: a save changes nothing")
        take_steps(model, optimizer, 2, 1)
        found[kind] = before, seen(model, optimizer)
    return found


def load_all(folder: str, by_hand: bool) -> dict[str, Any]:
    """A load, and one step more."""
    found = {}
    for kind in KINDS:
        model, optimizer = model_of(kind, dist.get_world_size() > 1)
        with torch.no_grad():
            for param in model.parameters():
                param.zero_()
        if by_hand:
            model_state, optim_state = get_state_dict(model, optimizer)
            state = {"model": model_state, "optim": optim_state}
            dcp.load(state, checkpoint_id=f"{folder}/{kind}")
            set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optim"])
        else:
            extra = checkpoint.load(f"{folder}/{kind}", model, optimizer, extra={"step": 0})
            assert extra == {"step": 2}
        before = seen(model, optimizer)
        take_steps(model, optimizer, 2, 1)
        found[kind] = before, seen(model, optimizer)
    return found


@pytest.mark.parametrize(
    "saved_by, loaded_by",
    [(n, m) for n in (1, 2, 3, 4) for m in (1, 2, 3, 4)] if ranks.LONG else [(2, 3), (3, 1), (1, 2), (2, 2), (4, 1)],
)
def test_saved_by_n_loaded_by_m(saved_by: int, loaded_by: int, tmp_path: Path) -> None:
    by_hand = saved_by % 2 == 0
    saved = ranks.run(save_all, saved_by, str(tmp_path), by_hand)[0]
    for loaded in ranks.run(load_all, loaded_by, str(tmp_path), by_hand):
        for kind in KINDS:
            if kind != "q8" or saved_by == loaded_by:
                assert_same(loaded[kind][0], saved[kind][0], f"{kind}, {saved_by} to {loaded_by}")
                assert_same(loaded[kind][1], saved[kind][1], f"{kind}, {saved_by} to {loaded_by}, a step later")
                continue
            # Blocks of 256 are cut elsewhere: a code of 8 bits is within 1/16 of its number, or 2^-18 of the largest
            # one of its block.
            then, now = saved[kind][0], loaded[kind][0]
            for key, value in then.items():
                bound = value.abs() * 1.001 / 16 + value.abs().max() * 2.0**-18 if "exp_avg" in key else 0
                assert bool(((now[key] - value).abs() <= bound).all()), key
            # A step goes at most a learning rate or so, and the two differ by less.
            for key, value in saved[kind][1].items():
                if "exp_avg" not in key:
                    assert bool(((loaded[kind][1][key] - value).abs() <= 0.01).all()), key


def one_file(folder: str) -> None:
    model, optimizer = model_of("adamw", True)
    take_steps(model, optimizer, 0, 2)
    checkpoint.save(f"{folder}/dcp", model, optimizer)
    whole_state = get_optimizer_state_dict(
        model, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    if dist.get_rank() == 0:
        torch.save(whole_state, f"{folder}/whole.pt")


def test_torchs_optimizer_goes_on_from_a_sharded_checkpoint(tmp_path: Path) -> None:
    ranks.run(one_file, 2, str(tmp_path))
    dcp_to_torch_save(tmp_path / "dcp", tmp_path / "dcp.pt")
    ours, optimizer = model_of("adamw", False)
    take_steps(ours, optimizer, 0, 3)
    for way in ("dcp.pt", "whole.pt"):
        theirs = Net()
        other = torch.optim.AdamW(theirs.parameters(), lr=0.01)
        take_steps(theirs, other, 0, 1)
        saved = torch.load(tmp_path / way, weights_only=False)
        if way == "dcp.pt":
            theirs.load_state_dict(saved["model"])
            other.load_state_dict(saved["optim"])
        else:
            again, one = model_of("adamw", False)
            take_steps(again, one, 0, 2)
            theirs.load_state_dict(again.state_dict())
            set_optimizer_state_dict(theirs, other, saved)
        take_steps(theirs, other, 2, 1)
        for one, two in zip(ours.parameters(), theirs.parameters()):
            # PyTorch rounds a step elsewhere: a unit or two in the last place of parameters below 4, 2.4e-7.
            assert torch.allclose(one, two, rtol=0, atol=1e-6), way
        assert {state["step"].item() for state in other.state.values()} == {3.0}


def from_torch(folder: str) -> dict[str, torch.Tensor]:
    """A checkpoint of torch.optim.AdamW, one file, into shards."""
    model, optimizer = model_of("adamw", True)
    saved = torch.load(f"{folder}/torch.pt")
    options = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(model, optimizer, saved["optim"], options=options)
    # The same by hand: each process takes its part of whole tensors.
    other = adamant_optim.AdamW(model.named_parameters(), lr=0.5)
    other.load_state_dict(saved["plain"])
    assert_same(
        {key: whole(value) for key, value in other.state[model.head.weight].items()},
        {key: whole(value) for key, value in optimizer.state[model.head.weight].items()},
        "by load_state_dict",
    )
    return seen(model, optimizer)


def test_a_checkpoint_of_torchs_optimizer_is_cut_for_the_processes(tmp_path: Path) -> None:
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    take_steps(model, optimizer, 0, 2)
    torch.save(
        {"optim": get_optimizer_state_dict(model, optimizer), "plain": optimizer.state_dict()}, tmp_path / "torch.pt"
    )
    for found in ranks.run(from_torch, 3, str(tmp_path)):
        for number, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                assert torch.equal(found[f"{number} {key}"], value), key


# ---- Failures


def save_and_die(folder: str, bad_rank: int) -> str:
    """A second save, in the middle of which one process ends."""
    model, optimizer = model_of("adamw", True)
    take_steps(model, optimizer, 0, 1)
    checkpoint.save(f"{folder}/run", model, optimizer, extra={"step": 1})
    take_steps(model, optimizer, 1, 1)
    if dist.get_rank() == bad_rank:
        write_data = dcp.FileSystemWriter.write_data

        def ends(self: Any, plan: Any, planner: Any) -> Any:
            write_data(self, plan, planner).wait()
            os._exit(1)

        dcp.FileSystemWriter.write_data = ends
    try:
        checkpoint.save(f"{folder}/run", model, optimizer, extra={"step": 2})
    except Exception as error:
        return type(error).__name__
    return "saved"


def load_run(folder: str) -> tuple[dict[str, int], float]:
    model, optimizer = model_of("adamw", dist.get_world_size() > 1)
    extra = checkpoint.load(f"{folder}/run", model, optimizer, extra={"step": 0})
    return extra, whole(optimizer.state[model.head.weight]["step"]).item()


def test_a_rank_that_dies_in_a_save_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    results = ranks.run(save_and_die, 2, str(tmp_path), 1, ends=1)
    assert results[0] != "saved", results
    assert ranks.run(load_run, 2, str(tmp_path)) == [({"step": 1}, 1.0)] * 2
    # Between the two renamings, it is beside its place.
    (tmp_path / "run").rename(tmp_path / "run.old")
    assert ranks.run(load_run, 1, str(tmp_path)) == [({"step": 1}, 1.0)]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model, optimizer = model_of("adamw", False)
    take_steps(model, optimizer, 0, 1)
    checkpoint.save(tmp_path / "run", model, optimizer)
    return tmp_path / "run"


def assert_refused(folder: Path, *words: str, kind: str = "adamw", error: Any = ValueError) -> None:
    model, optimizer = model_of(kind, False)
    take_steps(model, optimizer, 0, 1)
    before = seen(model, optimizer)
    with pytest.raises(error) as refused:
        checkpoint.load(folder, model, optimizer)
    for word in words:
        assert word in str(refused.value)
    assert_same(seen(model, optimizer), before, "nothing has changed")


def test_damaged_bytes_are_an_error_that_names_the_tensor(saved: Path) -> None:
    file = next(saved.glob("*.distcp"))
    metadata = dcp.FileSystemReader(saved).read_metadata()
    for index, info in metadata.storage_data.items():
        if index.fqn == "optim.state.blocks.1.weight.exp_avg_sq":
            content = bytearray(file.read_bytes())
            content[info.offset + info.length // 2] ^= 1
            file.write_bytes(content)
    assert_refused(saved, "optim.state.blocks.1.weight.exp_avg_sq", "checksum")


def test_a_file_that_was_cut_is_an_error_that_names_the_tensor(saved: Path) -> None:
    file = next(saved.glob("*.distcp"))
    items = dcp.FileSystemReader(saved).read_metadata().storage_data.items()
    index, info = max(items, key=lambda item: item[1].offset)
    os.truncate(file, info.offset + info.length - 1)
    assert_refused(saved, "ends after", index.fqn)


def test_a_missing_file_is_an_error_that_names_it(saved: Path) -> None:
    next(saved.glob("*.distcp")).unlink()
    assert_refused(saved, ".distcp", "No such file")


def test_damaged_checksums_are_an_error(saved: Path) -> None:
    name = next(saved.glob("checksums-*.json"))
    name.write_text(name.read_text()[:-20])
    assert_refused(saved, name.name)
    name.write_text(json.dumps({"crc32": [["other", 0, 1, 2]]}))
    assert_refused(saved, "no checksum")


def test_damaged_metadata_is_an_error(saved: Path) -> None:
    os.truncate(saved / ".metadata", 10)
    assert_refused(saved, ".metadata")


def test_a_folder_of_something_else_is_an_error(tmp_path: Path) -> None:
    assert_refused(tmp_path, "no checkpoint")
    assert_refused(tmp_path / "nowhere", "nowhere", error=FileNotFoundError)


def test_a_checkpoint_of_another_optimizer_is_an_error_that_names_the_tensor(saved: Path) -> None:
    assert_refused(saved, "momentum_buffer", "is not in", kind="split")


def test_a_checkpoint_of_another_model_is_an_error_that_names_the_tensor(saved: Path) -> None:
    model = Net()
    model.head = torch.nn.Linear(13, 4, bias=False)
    optimizer = adamant_optim.AdamW(model.named_parameters())
    with pytest.raises(ValueError, match=r"head.weight .* has shape \[3, 13\], but must have \[4, 13\]"):
        checkpoint.load(saved, model, optimizer)


def test_a_save_over_a_file_is_an_error(tmp_path: Path) -> None:
    model, optimizer = model_of("adamw", False)
    (tmp_path / "run").write_text("precious")
    with pytest.raises(RuntimeError, match="is a file"):
        checkpoint.save(tmp_path / "run", model, optimizer)
    assert (tmp_path / "run").read_text() == "precious"


NAMES = [*SETTINGS, *OWN, "SparseAdam"]


def two_layers(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return torch.nn.ModuleDict({"used": torch.nn.Linear(20, 30), "other": torch.nn.Linear(3, 2)}).to(dtype)


def step_some(optimizer: Any, params: list[torch.Tensor], seed: int) -> None:
    torch.manual_seed(seed)
    for param in params:
        grad = torch.randn(param.shape).to(param.dtype)
        param.grad = grad.to_sparse(1) if type(optimizer).__name__ == "SparseAdam" else grad
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    ours, again = two_layers(), two_layers()
    optimizer, other = (getattr(adamant_optim, name)(model.parameters()) for model in (ours, again))
    step_some(optimizer, [*ours.parameters()], 1)
    checkpoint.save(tmp_path / "run", ours, optimizer)
    checkpoint.load(tmp_path / "run", again, other)
    for model, one in ((ours, optimizer), (again, other)):
        step_some(one, [*model.parameters()], 2)
    assert_same(seen(again, other), seen(ours, optimizer), name)


@pytest.mark.parametrize("lr", [0.0, torch.tensor(0.0)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_makes_states_with_a_learning_rate_of_0(name: str, lr: Any) -> None:
    model = two_layers()
    before = [param.detach().clone() for param in model.parameters()]
    optimizer = getattr(adamant_optim, name)(model.parameters())
    optimizer.param_groups[0]["lr"] = lr
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    optimizer.step()
    saved = optimizer.state_dict()["state"]
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters()))
    # Adagrad has its states from the beginning, and counts, as PyTorch's does.
    assert name == "Adagrad" or all(float(state.get("step", 0)) == 0 for state in saved.values())


def test_a_checkpoint_that_is_refused_leaves_the_states_as_they_are(tmp_path: Path) -> None:
    ours = two_layers()
    plain = adamant_optim.SGD(ours.parameters())
    step_some(plain, [*ours.parameters()], 1)
    checkpoint.save(tmp_path / "run", ours, plain)
    again = two_layers()
    momentum = adamant_optim.SGD(again.parameters(), momentum=0.9)
    step_some(momentum, [*again["used"].parameters()], 2)
    before = set(momentum.state)
    with pytest.raises(ValueError, match="another model, optimizer or options"):
        checkpoint.load(tmp_path / "run", again, momentum)
    assert set(momentum.state) == before


def test_a_flattened_checkpoint_is_refused_by_pytorch() -> None:
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    model = two_layers()
    optimizer = adamant_optim.AdamW(model.parameters())
    step_some(optimizer, [*model.parameters()], 1)
    saved = get_optimizer_state_dict(model, optimizer, options=options)
    with pytest.raises(KeyError, match="state_dtype"):
        set_optimizer_state_dict(model, optimizer, saved, options=options)


@pytest.mark.parametrize("name", ["SGD", "Adam", "SparseAdam", "FTRL"])
def test_a_parameter_without_a_gradient_is_loaded_without_a_state(name: str, tmp_path: Path) -> None:
    ours = two_layers()
    optimizer = getattr(adamant_optim, name)(ours.parameters())
    step_some(optimizer, [*ours["used"].parameters()], 1)
    checkpoint.save(tmp_path / "run", ours, optimizer)
    for steps in (0, 1):
        again = two_layers()
        other = getattr(adamant_optim, name)(again.parameters())
        for _ in range(steps):
            step_some(other, [*again["other"].parameters()], 3)
        checkpoint.load(tmp_path / "run", again, other)
        assert all(param not in other.state for param in again["other"].parameters())
        assert_same(seen(again, other), seen(ours, optimizer), name)
    for model, one in ((ours, optimizer), (again, other)):
        step_some(one, [*model.parameters()], 2)
    assert_same(seen(again, other), seen(ours, optimizer), name)


def making_states() -> tuple[int, float]:
    """States that are made for a load: no step, and none left out."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    param = torch.nn.Parameter(cut(torch.ones(4, 3), mesh, [Shard(0)]))
    model = torch.nn.Module()
    model.weight = param
    optimizer = adamant_optim.AdamW([param], weight_decay=0.5, max_grad_norm=1.0)
    get_optimizer_state_dict(model, optimizer)
    assert torch.equal(whole(param), torch.ones(4, 3)) and optimizer.skipped == 0
    return len(optimizer.state), optimizer.state[param]["step"].item()


@pytest.mark.parametrize("size", [1, 3])
def test_making_states_for_a_load_counts_no_step(size: int) -> None:
    assert ranks.run(making_states, size) == [(1, 0.0)] * size
