"""Steps while the backward pass goes on."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading
import weakref
from typing import Any

import pytest

pytest.importorskip("torch", minversion="2.6", reason="fully_shard is public from PyTorch 2.6 on")
import adamant_optim
import ranks
import torch
import torch.distributed as dist
from adamant_optim import _backward
from test_sharded import Net, assert_same, batch, sharded, whole
from torch.utils.checkpoint import checkpoint


class Large(torch.nn.Module):
    """Layers that are large enough for a thread, and some that are not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(300, 300) for _ in range(4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def train(model: Any, optimizer: Any, batches: list[torch.Tensor]) -> None:
    for one in batches:
        model(one).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def params_of(model: Any) -> dict[str, torch.Tensor]:
    return {key: whole(param) for key, param in model.named_parameters()}


@pytest.mark.parametrize(
    "name, options",
    [("SGD", {"momentum": 0.9}), ("AdamW", {"state_dtype": "bf16"}), ("AdamW", {"state_dtype": "q8"}), ("ASGD", {})],
)
def test_the_bits_are_those_of_steps_after_backward(name: str, options: dict[str, Any]) -> None:
    batches = [torch.randn(8, 300) for _ in range(4)]
    results = []
    for in_backward in (False, True):
        model = Large()
        cls = getattr(adamant_optim, name)
        groups = [{"params": [p for p in model.parameters() if p.dim() == d], "lr": 0.1 / d} for d in (1, 2)]
        optimizer = cls(groups, **options)
        if in_backward:
            optimizer.step_in_backward(model)
        train(model, optimizer, batches)
        states = optimizer.state_dict()["state"]
        found = {f"{number} {key}": value for number, state in states.items() for key, value in state.items()}
        results.append(params_of(model) | found)
    assert_same(results[1], results[0], name)


def test_parameters_are_stepped_while_backward_goes_on() -> None:
    model = Large()
    optimizer = adamant_optim.SGD(model.parameters(), lr=0.1)
    optimizer.step_in_backward(model)
    last, first = model.layers[3].weight, model.layers[0].weight
    before = [last.detach().clone(), first.detach().clone()]
    seen = {}

    def late(grad: torch.Tensor) -> None:
        # The gradient of the first layer is computed; those of the others are complete.
        running = optimizer._backward._running
        if running is not None:
            running.result()
        seen["last"] = not torch.equal(last, before[0])
        seen["first"] = not torch.equal(first, before[1])
        seen["is freed"] = last.grad is None
        seen["thread"] = [thread.name for thread in threading.enumerate() if thread.name.startswith("adamant")]

    model.layers[0].weight.register_hook(late)
    model(torch.randn(8, 300)).sum().backward()
    assert seen.pop("thread") and seen == {"last": True, "first": False, "is freed": True}
    optimizer.step()
    assert not torch.equal(first, before[1]) and first.grad is None


def test_gradients_are_freed_while_backward_goes_on() -> None:
    model = Large()
    optimizer = adamant_optim.SGD(model.parameters(), lr=0.1)
    optimizer.step_in_backward(model)
    alive: list[Any] = []
    most = []

    def count(grad: torch.Tensor) -> None:
        running = optimizer._backward._running
        if running is not None:
            running.result()
        alive.append(weakref.ref(grad))
        most.append(sum(ref() is not None for ref in alive))

    for layer in model.layers:
        layer.weight.register_hook(count)
    model(torch.randn(8, 300)).sum().backward()
    optimizer.step()
    assert len(most) == 4 and max(most) <= 2, most


def test_the_next_forward_pass_waits() -> None:
    model, other = Large(), Large()
    optimizer = adamant_optim.SGD(model.parameters(), lr=0.1)
    optimizer.step_in_backward(model)
    after = adamant_optim.SGD(other.parameters(), lr=0.1)
    for one in (torch.randn(8, 300), torch.randn(8, 300)):
        model(one).square().mean().backward()
        other(one).square().mean().backward()
        after.step()
        after.zero_grad()
    model(one)
    assert_same(params_of(model), params_of(other), "without calls of step")


def test_step_takes_the_parameters_that_no_backward_pass_steps() -> None:
    results = []
    for in_backward in (False, True):
        model, head = Large(), torch.nn.Linear(300, 3)
        torch.nn.init.constant_(head.weight, 0.01)
        model.layers[1].requires_grad_(False)
        optimizer = adamant_optim.AdamW([*model.parameters(), head.weight], lr=0.01)
        if in_backward:
            optimizer.step_in_backward(model)
        late = torch.nn.Parameter(torch.ones(3))
        optimizer.add_param_group({"params": [late]})
        model.layers[1].requires_grad_(True)
        for step in range(3):
            ((model(torch.full((2, 300), 0.1 * step)) @ head.weight.T) * late).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        results.append(params_of(model) | {"head": head.weight.detach(), "late": late.detach()})
        assert all(float(state["step"]) == 3 for state in optimizer.state.values())
    assert_same(results[1], results[0], "outside of the module, added and unfrozen later")


def test_a_backward_pass_right_after_another_is_a_step_of_its_own() -> None:
    results = []
    for in_backward in (False, True):
        layer = torch.nn.Linear(4, 3)
        torch.nn.init.constant_(layer.weight, 0.5)
        torch.nn.init.constant_(layer.bias, 0.5)
        optimizer = adamant_optim.AdamW(layer.parameters(), lr=0.01)
        if in_backward:
            optimizer.step_in_backward(layer)
        losses = [layer(torch.full((2, 4), value)).square().sum() for value in (1.0, 2.0)]
        for loss in losses:
            loss.backward()
            if not in_backward:
                optimizer.step()
                optimizer.zero_grad()
        optimizer.step()
        assert {float(state["step"]) for state in optimizer.state.values()} == {2.0}
        results.append(params_of(layer))
    assert_same(results[1], results[0], "two passes")


def test_no_gradient_is_lost_in_an_error_of_two_passes() -> None:
    layer = torch.nn.Linear(4, 3)
    optimizer = adamant_optim.SGD(layer.parameters(), lr=0.5)
    optimizer.step_in_backward(layer)
    losses = [layer(torch.full((2, 4), value)).sum() for value in (1.0, 2.0)]
    optimizer.param_groups[0]["momentum"] = -1.0
    for loss in losses:
        loss.backward()
    with pytest.raises(ValueError, match="momentum"):
        optimizer.step()
    # 2 rows of ones and 2 of twos.
    assert torch.equal(layer.weight.grad, torch.full((3, 4), 6.0))
    assert torch.equal(layer.bias.grad, torch.full((3,), 4.0))
    optimizer.param_groups[0]["momentum"] = 0.0
    before = params_of(layer)
    optimizer.step()
    assert_same(params_of(layer), {"weight": before["weight"] - 3.0, "bias": before["bias"] - 2.0}, "both passes")


def test_schedulers_hooks_and_copies_go_on() -> None:
    model = Large()
    optimizer = adamant_optim.AdamW(model.parameters(), lr=0.1)
    optimizer.step_in_backward(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    for _ in range(2):
        train(model, optimizer, [torch.randn(8, 300)])
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.025 and len(calls) == 2
    twin = copy.deepcopy(optimizer)
    assert twin._backward is None and {s["step"].item() for s in twin.state.values()} == {2.0}
    # state_dict waits, too.
    model(torch.randn(8, 300)).sum().backward()
    assert {s["step"].item() for s in optimizer.state_dict()["state"].values()} == {3.0}


@pytest.mark.parametrize("option", [{"max_grad_norm": 1.0}, {"skip_nonfinite": True}, {"zero_grad_in_step": True}])
def test_options_that_need_all_gradients_are_refused(option: dict[str, Any]) -> None:
    model = Large()
    optimizer = adamant_optim.SGD(model.parameters(), **option)
    (name,) = option
    with pytest.raises(ValueError, match=f"{name} is .*needs all gradients"):
        optimizer.step_in_backward(model)
    optimizer = adamant_optim.SGD(model.parameters())
    optimizer.step_in_backward(model)
    before = params_of(model)
    setattr(optimizer, name, option[name])
    model(torch.randn(8, 300)).sum().backward()
    with pytest.raises(ValueError, match=f"{name} is .*needs all gradients"):
        optimizer.step()
    assert_same(params_of(model), before, "nothing was stepped")


def test_a_loss_scaler_is_refused() -> None:
    model = Large()
    optimizer = adamant_optim.SGD(model.parameters())
    optimizer.step_in_backward(model)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(model(torch.randn(8, 300)).sum()).backward()
    with pytest.raises((ValueError, AssertionError), match="GradScaler|No inf checks"):
        scaler.step(optimizer)


def test_other_modules_are_refused() -> None:
    model = Large()
    optimizer = adamant_optim.SGD(model.parameters())
    with pytest.raises(ValueError, match="no parameter of this optimizer"):
        optimizer.step_in_backward(torch.nn.Linear(2, 2))
    optimizer.step_in_backward(model)
    with pytest.raises(ValueError, match="called before"):
        optimizer.step_in_backward(model)


def test_errors_come_from_step_and_the_gradient_is_back() -> None:
    model = Large()
    optimizer = adamant_optim.SGD(model.parameters(), lr=0.1)
    optimizer.step_in_backward(model)
    model(torch.randn(8, 300)).sum().backward()
    optimizer.step()
    optimizer.param_groups[0]["momentum"] = -1.0
    before = params_of(model)
    model(torch.randn(8, 300)).sum().backward()
    with pytest.raises(ValueError, match="momentum"):
        optimizer.step()
    assert_same(params_of(model), before, "nothing was stepped")
    assert all(param.grad is not None for param in model.parameters())
    optimizer.param_groups[0]["momentum"] = 0.0
    optimizer.zero_grad()
    train(model, optimizer, [torch.randn(8, 300)])
    assert not torch.equal(model.layers[0].weight, before["layers.0.weight"])


def test_step_after_backward_takes_it_back() -> None:
    model = Large()
    optimizer = adamant_optim.SGD(model.parameters(), lr=0.1)
    optimizer.step_in_backward(model)
    optimizer.step_after_backward()
    before = params_of(model)
    model(torch.randn(8, 300)).sum().backward()
    assert_same(params_of(model), before, "not in backward")
    optimizer.step()
    assert not torch.equal(model.layers[0].weight, before["layers.0.weight"])
    optimizer.step_in_backward(model)


def test_optimizers_are_collected() -> None:
    model = Large()
    optimizer = adamant_optim.SGD(model.parameters(), lr=0.1)
    optimizer.step_in_backward(model)
    train(model, optimizer, [torch.randn(8, 300)])
    gone = weakref.ref(optimizer)
    del optimizer, model
    gc.collect()
    assert gone() is None


def test_steps_that_have_begun_are_finished_when_the_optimizer_is_collected() -> None:
    model, other = Large(), Large()
    optimizer = adamant_optim.SGD(model.parameters(), lr=0.1)
    optimizer.step_in_backward(model)
    after = adamant_optim.SGD(other.parameters(), lr=0.1)
    for each in (model, other):
        each(torch.ones(8, 300)).square().mean().backward()
    after.step()
    del optimizer
    gc.collect()
    assert_same(params_of(model), params_of(other), "without an optimizer")


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


#: Copies, and how the weight is found in them.
COPIES = {
    "model": (lambda model: model, lambda model: model[0].weight),
    "layer": (lambda model: model[0], lambda layer: layer.weight),
    "state_dict": (lambda model: model.state_dict(), lambda weights: weights["0.weight"]),
    "parameters": (lambda model: list(model.parameters()), lambda params: params[0]),
}


# A pickle of parameters is written before the optimizer is asked.
@pytest.mark.parametrize(
    ("copied", "kind"), [(pickled, kind) for kind in list(COPIES)[:3]] + [(copy.deepcopy, kind) for kind in COPIES]
)
def test_copies_between_backward_and_step_have_the_step(copied: Any, kind: str) -> None:
    layer = torch.nn.Linear(3, 1)
    model = torch.nn.Sequential(layer)
    optimizer = adamant_optim.AdamW(model.parameters(), lr=0.1)
    optimizer.step_in_backward(model)
    before = layer.weight.detach().clone()
    model(torch.ones(3)).sum().backward()
    part_of, weight_of = COPIES[kind]
    found, twin = copied((part_of(model), optimizer))
    weight = weight_of(found)
    assert torch.equal(weight, layer.weight) and not torch.equal(weight, before)
    assert all(float(state["step"]) == 1 for state in twin.state.values())
    optimizer.step()
    assert torch.equal(weight, layer.weight)


def test_a_copied_or_loaded_model_is_not_stepped() -> None:
    model = Large()
    optimizer = adamant_optim.SGD(model.parameters(), lr=0.1)
    optimizer.step_in_backward(model)
    for twin in (pickled(model), copy.deepcopy(model)):
        before = params_of(twin)
        twin(torch.ones(8, 300)).sum().backward()
        twin(torch.ones(8, 300))
        optimizer.step()
        assert_same(params_of(twin), before, "no step")
        assert all(param.grad is not None for param in twin.parameters())


class Twice(torch.nn.Module):
    """A layer that is used several times, in a checkpoint or not, and one that is not shared."""

    def __init__(self, size: int, uses: str, reentrant: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.last = torch.nn.Linear(size, size), torch.nn.Linear(size, size)
        self.uses, self.reentrant = uses, reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for use in self.uses:
            x = checkpoint(self.layer, x, use_reentrant=self.reentrant) if use == "c" else self.layer(x)
            x = torch.tanh(x)
        return self.last(x)


@pytest.mark.parametrize("size", [4, 300])
@pytest.mark.parametrize(("uses", "reentrant"), [("cc", False), ("cp", False), ("c", True), ("cc", True), ("pc", True)])
@pytest.mark.parametrize("calls_step", [True, False])
def test_a_backward_pass_with_checkpoints_is_one_step(size: int, uses: str, reentrant: bool, calls_step: bool) -> None:
    results = []
    for in_backward in (False, True):
        model = Twice(size, uses, reentrant)
        optimizer = adamant_optim.AdamW(model.parameters(), lr=0.01)
        if in_backward:
            optimizer.step_in_backward(model)
        for _ in range(3):
            model(torch.ones(2, size, requires_grad=True)).square().sum().backward()
            if calls_step or not in_backward:
                optimizer.step()
            optimizer.zero_grad()
            model.zero_grad()
        states = optimizer.state_dict()["state"].values()
        assert all(float(state["step"]) == 3 for state in states)
        results.append(params_of(model))
    assert_same(results[1], results[0], uses)


def test_copies_of_parametrized_modules_have_their_own_state() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    torch.nn.utils.parametrize.register_parametrization(model[0], "weight", torch.nn.Identity())
    optimizer = adamant_optim.AdamW(model.parameters(), lr=0.1)
    optimizer.step_in_backward(model)
    model(torch.ones(2, 4)).square().sum().backward()
    copied = copy.deepcopy(model)
    assert_same(params_of(copied), params_of(model), "a copy waits for the step")
    torch.nn.utils.parametrize.remove_parametrizations(copied[0], "weight")
    del model, optimizer
    gc.collect()
    with torch.no_grad():
        copied[0].weight.fill_(7.0)
    again = pickle.loads(pickle.dumps(copied))
    assert_same(params_of(again), params_of(copied), "the copy's own")


@pytest.mark.parametrize("is_collected", [True, False])
def test_gradients_that_wait_do_not_step_weights_that_are_loaded(is_collected: bool) -> None:
    model = Twice(4, "c", True)
    good = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = adamant_optim.AdamW(model.parameters(), lr=0.1)
    optimizer.step_in_backward(model)
    model(torch.ones(2, 4, requires_grad=True)).square().sum().backward()
    model.load_state_dict(good)
    if is_collected:
        del optimizer
        gc.collect()
    else:
        model.eval()(torch.ones(2, 4))
    assert_same(dict(model.state_dict()), good, "loaded")


def test_a_checkpoint_in_another_thread_leaves_a_backward_pass_alone() -> None:
    results = []
    for in_backward in (False, True):
        model = Twice(4, "cc", True)
        optimizer = adamant_optim.AdamW(model.parameters(), lr=0.01)
        handles = []
        if in_backward:
            optimizer.step_in_backward(model)

            def save(grad: torch.Tensor, model: Any = model) -> None:
                thread = threading.Thread(target=model.state_dict)
                thread.start()
                thread.join()

            handles.append(model.layer.weight.register_hook(save))
        for _ in range(3):
            model(torch.ones(2, 4, requires_grad=True)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        assert all(float(state["step"]) == 3 for state in optimizer.state_dict()["state"].values())
        results.append(params_of(model))
    assert_same(results[1], results[0], "another thread")


@pytest.mark.parametrize("size", [4, 300])
def test_a_checkpoint_of_the_whole_module_is_one_step(size: int) -> None:
    results = []
    for in_backward in (False, True):
        model = Twice(size, "cc", True)
        optimizer = adamant_optim.AdamW(model.parameters(), lr=0.01)
        if in_backward:
            optimizer.step_in_backward(model)
        for _ in range(3):
            x = torch.ones(2, size, requires_grad=True)
            checkpoint(model, checkpoint(model, x, use_reentrant=True), use_reentrant=True).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        results.append(params_of(model))
    assert_same(results[1], results[0], "nested")


def test_a_gradient_inside_a_backward_pass_that_has_stepped_its_parameter_is_refused() -> None:
    model = Twice(300, "cp", True)
    optimizer = adamant_optim.AdamW([{"params": [param]} for param in model.parameters()], lr=0.01)
    optimizer.step_in_backward(model)
    with pytest.raises(RuntimeError, match=r"param_groups\[.\].* use checkpoint\(..., use_reentrant=False\)"):
        model(torch.ones(2, 300, requires_grad=True)).square().sum().backward()
    # What has begun ends, and the next pass is not held against this one.
    optimizer.step()
    model.uses = "c"
    model(torch.ones(2, 300, requires_grad=True)).square().sum().backward()
    optimizer.step()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_goes_on() -> None:
    torch.set_num_threads(1)
    model = Large()
    optimizer = adamant_optim.SGD(model.parameters(), lr=0.1)
    optimizer.step_in_backward(model)
    train(model, optimizer, [torch.ones(8, 300)])
    child = os.fork()
    if child == 0:
        before = params_of(model)
        try:
            optimizer._backward._take(_with_grad(model.layers[0].weight))
            optimizer.step()
            os._exit(0 if not torch.equal(before["layers.0.weight"], model.layers[0].weight) else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def _with_grad(param: torch.Tensor) -> torch.Tensor:
    param.grad = torch.ones_like(param)
    return param


# ---- With other processes


def fsdp(in_backward: bool) -> tuple[dict[str, torch.Tensor], bool]:
    model = sharded(Net(), offload=True)
    optimizer = adamant_optim.AdamW(model.parameters(), lr=0.05)
    _backward.BATCH = 64
    if in_backward:
        optimizer.step_in_backward(model)
    has_grad = False
    for step in range(4):
        model(batch(10 * dist.get_rank() + step)).square().mean().backward()
        has_grad |= any(param.grad is not None for param in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
    return params_of(model), has_grad


def test_fsdp2_has_the_same_bits() -> None:
    wanted = ranks.run(fsdp, 2, False)
    for (found, has_grad), (expected, _) in zip(ranks.run(fsdp, 2, True), wanted):
        assert not has_grad
        assert_same(found, expected, "fully_shard")


def ddp() -> str:
    model = torch.nn.parallel.DistributedDataParallel(Net())
    optimizer = adamant_optim.SGD(model.parameters())
    try:
        optimizer.step_in_backward(model)
    except ValueError as error:
        return str(error)
    return ""


def test_ddp_is_refused() -> None:
    for said in ranks.run(ddp, 2):
        assert "DistributedDataParallel" in said and "fully_shard" in said
