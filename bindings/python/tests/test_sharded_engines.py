"""ZeroRedundancyOptimizer and DeepSpeed."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

pytest.importorskip("torch", minversion="2.6", reason="fully_shard is public from PyTorch 2.6 on")
import adamant_optim
import ranks
import torch
import torch.distributed as dist
from test_sharded import Net, assert_same, batch
from torch.distributed.optim import ZeroRedundancyOptimizer

# ---- ZeroRedundancyOptimizer: each process steps some of the parameters, and sends them to the others.


def zero(name: str, kwargs: dict[str, Any], is_sharded: bool) -> tuple[dict[str, torch.Tensor], Any, float | None]:
    """Some steps with the same batch everywhere: parameters, the whole state, the last norm."""
    model: Any = Net()
    cls = getattr(adamant_optim, name)
    if is_sharded:
        model = torch.nn.parallel.DistributedDataParallel(model)
        optimizer = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=cls, **kwargs)
    else:
        kwargs = {key: value for key, value in kwargs.items() if key != "grad_norm_group"}
        optimizer = cls(model.parameters(), **kwargs)
    for step in range(3):
        model(batch(step)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    state = None
    if is_sharded:
        optimizer.consolidate_state_dict(to=0)
        state = optimizer.state_dict() if dist.get_rank() == 0 else None
        norm = optimizer.optim.grad_norm
    else:
        state, norm = optimizer.state_dict(), optimizer.grad_norm
    params = getattr(model, "module", model).named_parameters()
    return {key: param.detach().clone() for key, param in params}, state, norm


@pytest.mark.parametrize(
    "name, kwargs",
    [
        ("SGD", {"lr": 0.05, "momentum": 0.9}),
        ("AdamW", {"lr": 0.05}),
        ("AdamW", {"lr": 0.05, "state_dtype": "q8", "max_grad_norm": 0.5, "grad_norm_group": "world"}),
    ],
)
@pytest.mark.parametrize("size", [2, 4] if ranks.LONG else [2])
def test_zero_redundancy_trains_as_one_process_does(name: str, kwargs: dict[str, Any], size: int) -> None:
    wanted, state, norm = zero(name, kwargs, False)
    results = ranks.run(zero, size, name, kwargs, True)
    is_random = "state_dtype" in kwargs
    for found, _, found_norm in results:
        if norm is not None:
            # The same factor everywhere: that of all gradients, of which each process steps some.
            assert found_norm == pytest.approx(norm, rel=0.05 if is_random else 1e-12)
            assert found_norm == results[0][2]
        if not is_random:
            assert_same(found, wanted, name)
        assert_same(found, results[0][0], "all ranks have the same")
    # The whole state is one that a single process goes on from.
    model = Net()
    optimizer = getattr(adamant_optim, name)(model.parameters(), lr=0.05)
    optimizer.load_state_dict(results[0][1])
    theirs = getattr(torch.optim, name)(Net().parameters(), lr=0.05)
    theirs.load_state_dict(results[0][1])
    for number, saved in state["state"].items():
        for key in ("momentum_buffer", "exp_avg", "exp_avg_sq"):
            if key in saved and not is_random:
                assert torch.equal(results[0][1]["state"][number][key], saved[key])


RANDOM = {
    "moments": (torch.float32, {"state_dtype": "bf16"}),
    "params": (torch.bfloat16, {"stochastic_rounding": True, "state_dtype": "q8"}),
}


def zero_at_random(which: str, is_sharded: bool) -> list[torch.Tensor]:
    dtype, kwargs = RANDOM[which]
    model = Net().to(dtype)
    # Two groups, the later parameters first: what counts is the order in which one process has them.
    params = list(model.parameters())
    groups: list[dict[str, Any]] = [{"params": params[2:]}, {"params": params[:2], "lr": 0.02}]
    if is_sharded:
        optimizer: Any = ZeroRedundancyOptimizer(groups, optimizer_class=adamant_optim.AdamW, lr=0.05, **kwargs)
        optimizer.optim.place_among(optimizer.param_groups)
    else:
        optimizer = adamant_optim.AdamW(groups, lr=0.05, **kwargs)
    for step in range(3):
        model(batch(step).to(dtype)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [param.detach().clone() for param in params]


@pytest.mark.parametrize("which", RANDOM)
def test_zero_redundancy_has_the_random_bits_of_one_process(which: str) -> None:
    wanted = zero_at_random(which, False)
    for found in ranks.run(zero_at_random, 2, which, True):
        for own, other in zip(found, wanted):
            assert torch.equal(own, other)


def test_place_among_wants_all_parameters() -> None:
    params = list(Net().parameters())
    optimizer = adamant_optim.AdamW(params[1:], lr=0.05, state_dtype="bf16")
    with pytest.raises(ValueError, match=r"param_groups\[0\]\['params'\]\[1\] is not among the parameters"):
        optimizer.place_among([params[1], *params[3:]])
    optimizer.place_among(params)
    # A group that was added later stands nowhere yet.
    late = torch.nn.Parameter(torch.ones(3))
    late.grad = torch.ones(3)
    optimizer.add_param_group({"params": [late]})
    with pytest.raises(ValueError, match=r"param_groups\[1\]\['params'\]\[0\] is not among the parameters"):
        optimizer.step()
    optimizer.place_among([*params, late])
    optimizer.step()


def test_copies_keep_the_place_of_each_parameter() -> None:
    whole = [torch.nn.Parameter(torch.linspace(-1, 1, 50)) for _ in range(3)]
    part = [torch.nn.Parameter(param.detach().clone()) for param in whole[1:]]
    one = adamant_optim.AdamW(whole, lr=0.05, state_dtype="bf16")
    other = adamant_optim.AdamW(part, lr=0.05, state_dtype="bf16")
    other.place_among([whole[0], *part])
    other = copy.deepcopy(other)
    for _ in range(3):
        for param in [*whole, *other.param_groups[0]["params"]]:
            param.grad = param.detach().cos()
        one.step()
        other.step()
    for own, wanted in zip(other.param_groups[0]["params"], whole[1:]):
        assert torch.equal(other.state[own]["exp_avg"], one.state[wanted]["exp_avg"])
        assert torch.equal(own, wanted)


def zero_norm_of_first_step() -> tuple[float, float]:
    model = torch.nn.parallel.DistributedDataParallel(Net())
    optimizer = ZeroRedundancyOptimizer(
        model.parameters(), optimizer_class=adamant_optim.SGD, lr=1.0, max_grad_norm=0.25, grad_norm_group="world"
    )
    before = [param.detach().clone() for param in model.parameters()]
    model(batch(0)).square().mean().backward()
    norm = math.sqrt(sum(param.grad.double().square().sum().item() for param in model.parameters()))
    optimizer.step()
    moved = [new.detach() - old for new, old in zip(model.parameters(), before)]
    assert math.sqrt(sum(move.double().square().sum().item() for move in moved)) == pytest.approx(0.25, rel=1e-5)
    return optimizer.optim.grad_norm, norm


def test_zero_redundancy_clips_by_the_norm_of_all() -> None:
    for found, norm in ranks.run(zero_norm_of_first_step, 3):
        assert found == pytest.approx(norm, rel=1e-9)


# ---- DeepSpeed


def deepspeed_config(stage: int, dtype: str, offload: bool) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": stage, "reduce_bucket_size": 1000, "allgather_bucket_size": 1000}
    if offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
    if stage == 3:
        zero |= {"stage3_param_persistence_threshold": 0, "stage3_prefetch_bucket_size": 100}
    return {
        "train_micro_batch_size_per_gpu": 4,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": dtype == "bf16"},
    }


def deepspeed(which: str, stage: int, dtype: str, offload: bool, steps: int) -> list[float]:
    """Losses of a training under DeepSpeed."""
    import os

    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    import deepspeed as ds

    # gloo does the work. The other way is compiled when it is first used, for a minute.
    ds.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    ds.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    model = Net()
    cls = (adamant_optim if which == "adamant" else torch.optim).AdamW
    optimizer = cls(model.parameters(), lr=0.02)
    engine, *_ = ds.initialize(
        model=model, optimizer=optimizer, config=deepspeed_config(stage, dtype, offload), dist_init_required=False
    )
    losses = []
    for step in range(steps):
        x = batch(step % 2).to(torch.bfloat16 if dtype == "bf16" else torch.float32)
        loss = engine(x).float().square().mean()
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    "stage, dtype, offload",
    [(stage, dtype, offload) for stage in (1, 2, 3) for dtype in ("f32", "bf16") for offload in (False, True)]
    if ranks.LONG
    else [(1, "f32", False), (2, "bf16", True), (3, "f32", True)],
)
def test_deepspeed_trains_as_with_torchs_optimizer(stage: int, dtype: str, offload: bool) -> None:
    pytest.importorskip("deepspeed")
    ours = ranks.run(deepspeed, 2, "adamant", stage, dtype, offload, 6)
    theirs = ranks.run(deepspeed, 2, "torch", stage, dtype, offload, 6)
    assert ours[0][-1] < 0.8 * ours[0][0], "it learns"
    for one, other in zip(ours, theirs):
        # Steps in f32 on both sides; in bf16 a rounding of a parameter moves the loss by 1/256 of itself.
        assert one == pytest.approx(other, rel=1e-5 if dtype == "f32" else 1e-2)
