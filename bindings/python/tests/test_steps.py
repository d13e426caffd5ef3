"""Steps of every optimizer against PyTorch's, and what an optimizer of PyTorch's must do besides."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import adamant_optim
from support import OWN, SETTINGS, assert_close, configurations, copies, pair, params, set_grads


@pytest.mark.parametrize(("name", "kwargs"), configurations())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_those_of_pytorch(name: str, kwargs: dict[str, Any], dtype: torch.dtype) -> None:
    our_optimizer, their_optimizer, ours, theirs = pair(name, kwargs, dtype)
    start = copies(ours)
    for _ in range(12):
        set_grads(ours, theirs)
        our_optimizer.step()
        their_optimizer.step()
    # PyTorch keeps ASGD's step size and NAdam's product in float32, whatever the parameters are.
    is_rounded = dtype == torch.float64 and name in ("ASGD", "NAdam")
    assert_close(ours, theirs, 1e10 if is_rounded else 100)
    assert all(not torch.equal(one, other) for one, other in zip(ours, start))


@pytest.mark.parametrize(("name", "kwargs"), [config for config in configurations() if config[0] in SETTINGS])
def test_checkpoints_go_both_ways(name: str, kwargs: dict[str, Any]) -> None:
    our_optimizer, their_optimizer, ours, theirs = pair(name, kwargs)
    for step in range(12):
        if step == 5:
            our_state, their_state = (copy.deepcopy(it.state_dict()) for it in (our_optimizer, their_optimizer))
            our_optimizer.load_state_dict(their_state)
            their_optimizer.load_state_dict(our_state)
        set_grads(ours, theirs)
        our_optimizer.step()
        their_optimizer.step()
    assert_close(ours, theirs, 100)


@pytest.mark.parametrize("name", [*SETTINGS, *OWN])
@pytest.mark.parametrize("state_dtype", [None, torch.bfloat16, torch.float16, "q8"])
def test_a_run_that_is_saved_goes_on_with_the_same_bits(name: str, state_dtype: Any) -> None:
    runs = []
    for is_saved in (False, True):
        torch.manual_seed(1)
        own = [torch.nn.Parameter(torch.randn(300)), torch.nn.Parameter(torch.randn(5, 7))]
        optimizer = getattr(adamant_optim, name)(own, state_dtype=state_dtype, seed=3)
        for step in range(6):
            if is_saved and step == 3:
                saved = pickle.loads(pickle.dumps(optimizer.state_dict()))
                own = copies(own)
                optimizer = getattr(adamant_optim, name)(own, state_dtype=state_dtype, seed=3)
                optimizer.load_state_dict(saved)
            set_grads(own)
            optimizer.step()
        runs.append(own)
    assert all(torch.equal(one, other) for one, other in zip(*runs))


def test_nothing_has_changed_after_a_state_that_does_not_fit() -> None:
    optimizer, other, ours, theirs = pair("AdamW", {})
    set_grads(ours, theirs)
    optimizer.step()
    other.step()
    state = copy.deepcopy(other.state_dict())
    state["state"][1]["exp_avg"] = torch.zeros(4)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"exp_avg of param_groups\[0\]\['params'\]\[1\] has shape \[4\]"):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert all(torch.equal(before["state"][0][key], value) for key, value in after["state"][0].items())


BAD_STATES: list[tuple[str, dict[str, Any], str, Any, str]] = [
    *[("AdamW", {}, "step", torch.tensor(value), "step of .* must be a whole number") for value in (-3.0, 5.5)],
    *[("AdamW", {}, "step", torch.tensor(float(value)), f"step of .* is {value}") for value in ("nan", "inf", "-inf")],
    ("AdamW", {}, "step", "5", "step of .* is '5', but must be a number"),
    ("AdamW", {}, "step", torch.ones(2), "step of .* must be a number"),
    ("AdamW", {}, "step", torch.empty((), device="meta"), "step of .* must be a number"),
    ("AdamW", {}, "exp_avg", "nothing", "exp_avg of .* is 'nothing', but must be a tensor"),
    ("AdamW", {"state_dtype": "q8"}, "exp_avg", "nothing", "exp_avg of .* is 'nothing', but must be a tensor"),
    ("AdamW", {}, "exp_avg_sq", torch.empty(3, device="meta"), "exp_avg_sq of .* is on meta"),
    ("AdamW", {"state_dtype": "q8"}, "exp_avg_sq", torch.empty(3, device="meta"), "exp_avg_sq of .* is on meta"),
    ("AdamW", {}, "exp_avg", torch.ones(3).to_sparse(), "exp_avg of .* has layout torch.sparse_coo"),
    ("AdamW", {"state_dtype": "q8"}, "exp_avg", None, "exp_avg_codes of .* is of torch.float32"),
    ("NAdam", {}, "mu_product", torch.tensor(float("nan")), "mu_product of .* is nan, but must be finite"),
    ("ASGD", {}, "eta", "fast", "eta of .* is 'fast', but must be a number"),
]


@pytest.mark.parametrize(("optimizer_name", "kwargs", "key", "value", "text"), BAD_STATES)
def test_states_without_a_meaning_are_named_and_change_nothing(
    optimizer_name: str, kwargs: dict[str, Any], key: str, value: Any, text: str
) -> None:
    own = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))]
    optimizer = getattr(adamant_optim, optimizer_name)(own, **kwargs)
    set_grads(own)
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict())
    bad = copy.deepcopy(before)
    bad["param_groups"][0]["lr"] = 7.0
    bad["state"][1][key] = value
    if value is None:
        # Codes as PyTorch loads them, without the numbers beside them.
        bad["state"][1]["exp_avg_codes"] = bad["state"][1]["exp_avg_codes"].float()
    with pytest.raises(ValueError, match=text) as error:
        optimizer.load_state_dict(bad)
    assert "param_groups[0]['params'][1]" in str(error.value)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for index, state in before["state"].items():
        assert all(torch.equal(value, after["state"][index][key]) for key, value in state.items())
    optimizer.step()
    with pytest.raises(ValueError, match="the state of .* is 5, but must be a dictionary"):
        optimizer.load_state_dict({**before, "state": {0: 5}})


@pytest.mark.parametrize("lr", ["x", None, [1.0], torch.empty(1, device="meta"), torch.ones(2)], ids=str)
def test_a_rate_that_is_no_number_is_named(lr: Any) -> None:
    own = params()
    set_grads(own)
    with pytest.raises((TypeError, ValueError), match="lr "):
        adamant_optim.AdamW(own, lr=lr)
    optimizer = adamant_optim.AdamW(own)
    for _ in range(2):
        optimizer.param_groups[0]["lr"] = lr
        with pytest.raises(TypeError, match="lr is .* but must be a number"):
            optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.1
        optimizer.step()


@pytest.mark.parametrize("into", [*SETTINGS, "Lion", "FTRL"])
@pytest.mark.parametrize("source", SETTINGS)
def test_checkpoints_of_other_optimizers_are_refused(source: str, into: str) -> None:
    kwargs = {"momentum": 0.9} if source == "SGD" else {}
    own = params()
    other = getattr(torch.optim, source)(own, **kwargs)
    set_grads(own)
    other.step()
    optimizer = getattr(adamant_optim, into)(copies(own), lr=0.5)
    # Nothing in these checkpoints is missing here, and no moment would be lost.
    takes = {
        "Adam": ["AdamW", "NAdam", "RAdam"],
        "AdamW": ["Adam", "NAdam", "RAdam"],
        "RAdam": ["Adam", "AdamW", "NAdam"],
        "NAdam": ["RAdam"],
    }
    if source == into or source in takes.get(into, []):
        optimizer.load_state_dict(other.state_dict())
        assert optimizer.param_groups[0]["lr"] == other.param_groups[0]["lr"]
        return
    with pytest.raises(ValueError, match=f"loaded state dict is of another optimizer than {into}"):
        optimizer.load_state_dict(other.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(("name", "kwargs"), configurations())
@pytest.mark.parametrize("steps", [0, 1])
def test_checkpoints_that_lack_newer_settings_are_loaded(name: str, kwargs: dict[str, Any], steps: int) -> None:
    optimizer, other, ours, theirs = pair(name, kwargs)
    for _ in range(steps):
        set_grads(theirs)
        other.step()
    state = copy.deepcopy(other.state_dict())
    group = state["param_groups"][0]
    for key in ("maximize", "foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay"):
        group.pop(key, None)
    # What schedulers and users add.
    group |= {"initial_lr": 0.1, "max_momentum": 0.9, "name": "head", "lr_scale": 2.0}
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["name"] == "head"
    set_grads(ours)
    optimizer.step()


def test_nadam_warns_once_of_a_product_of_other_settings() -> None:
    optimizer, other, ours, theirs = pair("NAdam", {})
    set_grads(ours, theirs)
    other.step()
    state = copy.deepcopy(other.state_dict())
    state["param_groups"][0]["betas"] = (0.5, 0.999)
    with pytest.warns(UserWarning, match=r"mu_product of param_groups\[0\]\['params'\]\[0\]") as found:
        optimizer.load_state_dict(state)
    assert len(found) == 1
    # A warning that is an error changes nothing.
    another = adamant_optim.NAdam(copies(ours), lr=0.25)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="mu_product"):
            another.load_state_dict(state)
    assert another.param_groups[0]["lr"] == 0.25 and not another.state
    # The product is PyTorch's, which goes on with it.
    assert torch.equal(optimizer.state_dict()["state"][0]["mu_product"], state["state"][0]["mu_product"])
    optimizer.step()


def test_nadam_goes_on_where_a_schedule_moves_its_betas() -> None:
    optimizer, other, ours, theirs = pair("NAdam", {"lr": 0.01})
    schedules = [torch.optim.lr_scheduler.OneCycleLR(it, 0.01, total_steps=100) for it in (optimizer, other)]
    for step in range(60):
        set_grads(ours, theirs)
        for it, schedule in zip((optimizer, other), schedules):
            it.step()
            schedule.step()
        if step % 10 == 3:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore" if step < 20 else "error")
                optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    # The product is that of today's betas: steps of 0.01 differ by 4e-4 of themselves at most, and the first 20 only.
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(ours, theirs))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_nadam_takes_a_product_that_pytorch_has_rounded(dtype: torch.dtype) -> None:
    ours = params(dtype)
    optimizer = adamant_optim.NAdam(ours)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(8):
            for _ in range(3):
                set_grads(ours)
                optimizer.step()
            # There and back: PyTorch's product is of the parameters' type after it was loaded.
            there = copies(ours)
            other = torch.optim.NAdam(there)
            other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            for _ in range(3):
                set_grads(there)
                other.step()
            ours = copies(there)
            optimizer = adamant_optim.NAdam(ours)
            optimizer.load_state_dict(copy.deepcopy(other.state_dict()))


def test_loaded_tensors_are_copied() -> None:
    optimizer, other, ours, theirs = pair("AdamW", {})
    set_grads(ours, theirs)
    other.step()
    state = other.state_dict()
    optimizer.load_state_dict(state)
    before = state["state"][0]["exp_avg"].clone()
    optimizer.step()
    assert torch.equal(state["state"][0]["exp_avg"], before)
    assert state["state"][0]["step"] == 1


def test_groups_are_added_changed_and_scheduled() -> None:
    ours = params()
    theirs = copies(ours)
    pairs = []
    for module, own in ((adamant_optim, ours), (torch.optim, theirs)):
        optimizer = module.AdamW(own[:2], lr=0.1)
        pairs.append((optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)))
    for step in range(8):
        set_grads(ours, theirs)
        for (optimizer, scheduler), own in zip(pairs, (ours, theirs)):
            if step == 3:
                optimizer.add_param_group({"params": [own[2]], "lr": 0.02, "weight_decay": 0.0})
                scheduler.base_lrs.append(0.02)
            if step == 5:
                optimizer.param_groups[0]["betas"] = (0.5, 0.9)
            if step == 6:
                own[0].grad = None
            optimizer.step()
            scheduler.step()
    assert_close(ours, theirs)
    assert [float(pairs[0][0].state[param]["step"]) for param in ours] == [7, 8, 5]


def test_the_learning_rate_may_be_a_tensor_that_changes() -> None:
    ours = params()
    theirs = copies(ours)
    rates = torch.tensor(0.1), torch.tensor(0.1)
    optimizers = adamant_optim.AdamW(ours, lr=rates[0]), torch.optim.AdamW(theirs, lr=rates[1], foreach=False)
    for step in range(4):
        set_grads(ours, theirs)
        for optimizer, rate in zip(optimizers, rates):
            rate.fill_(0.1 / (step + 1))
            optimizer.step()
    assert_close(ours, theirs)


def test_a_closure_runs_with_gradients_and_its_loss_is_returned() -> None:
    own = torch.nn.Parameter(torch.ones(3))
    optimizer = adamant_optim.SGD([own], lr=0.5)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (own**2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure) == 3
    assert torch.equal(own.detach(), torch.zeros(3))


def test_hooks_run_in_order_and_may_change_arguments() -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    own = params()
    set_grads(own)
    optimizer = adamant_optim.AdamW(own)
    calls: list[str] = []

    def change(optimizer: Any, args: Any, kwargs: Any) -> Any:
        calls.append("pre")
        return (optimizer, lambda: 7.0), {}

    handles = [
        register_optimizer_step_pre_hook(lambda *_: calls.append("global pre")),
        register_optimizer_step_post_hook(lambda *_: calls.append("global post")),
        optimizer.register_step_pre_hook(change),
        optimizer.register_step_post_hook(lambda *_: calls.append("post")),
    ]
    try:
        assert optimizer.step() == 7.0
    finally:
        for handle in handles:
            handle.remove()
    assert calls == ["global pre", "pre", "post", "global post"]
    assert optimizer.step() is None


def test_hooks_see_a_closure_as_it_was_passed() -> None:
    own = params()
    set_grads(own)
    optimizer, other = adamant_optim.AdamW(own), torch.optim.AdamW(copies(own))
    seen: list[Any] = []
    for each in (optimizer, other):
        each.register_step_pre_hook(lambda _, args, kwargs: seen.append((args[1:], kwargs)))
        each.register_step_post_hook(lambda _, args, kwargs: seen.append((args[1:], kwargs)))

    def closure() -> float:
        return 3.0

    for each in (optimizer, other):
        assert each.step() is None
        assert each.step(closure) == each.step(closure=closure) == 3.0
        assert seen == 2 * [((), {})] + 2 * [((closure,), {})] + 2 * [((), {"closure": closure})]
        seen.clear()
    with pytest.raises(TypeError, match=r"AdamW.step\(\) got an unexpected keyword argument 'closures'"):
        optimizer.step(closures=closure)
    with pytest.raises(TypeError, match="multiple values for argument 'closure'"):
        optimizer.step(closure, closure=closure)
    assert seen == []


def test_hooks_run_once_around_the_step_of_a_subclass() -> None:
    class Own(adamant_optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            calls.append("step")
            return super().step(closure)

    calls: list[str] = []
    own = params()
    set_grads(own)
    optimizer = Own(own)
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    for _ in range(2):
        optimizer.step()
        assert calls == ["pre", "step", "post"]
        calls.clear()
    plain = adamant_optim.AdamW(own)
    plain.register_step_pre_hook(lambda *_: calls.append("pre"))
    plain.step()
    assert calls == ["pre"]
    calls.clear()

    class OfOwn(Own):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    optimizer = OfOwn(own)
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    optimizer.step()
    assert calls == ["pre", "step", "post"]


def test_hooks_run_once_for_each_thread_in_the_step_of_a_subclass() -> None:
    class Own(adamant_optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            if threading.current_thread() is not threading.main_thread():
                is_inside.set()
                assert may_end.wait(30)
            return super().step(closure)

    is_inside, may_end = threading.Event(), threading.Event()
    calls: list[str] = []
    own = params()
    set_grads(own)
    optimizer = Own(own)
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    other = threading.Thread(target=optimizer.step)
    other.start()
    assert is_inside.wait(30)
    optimizer.step()
    may_end.set()
    other.join(30)
    assert calls == 2 * ["pre"]
    optimizer.step()
    adamant_optim.AdamW.step(optimizer)
    assert calls == 4 * ["pre"]


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_copies_go_on_alike(way: str) -> None:
    model = torch.nn.Linear(4, 3)
    optimizer = adamant_optim.AdamW(model.parameters(), state_dtype="q8", max_grad_norm=1.0, seed=9)
    set_grads(list(model.parameters()))
    optimizer.step()
    both = (model, optimizer)
    other_model, other = pickle.loads(pickle.dumps(both)) if way == "pickle" else copy.deepcopy(both)
    assert (other.max_grad_norm, other.seed, other.param_groups[0]["state_dtype"]) == (1.0, 9, "q8")
    for _ in range(3):
        set_grads(list(model.parameters()), list(other_model.parameters()))
        optimizer.step()
        other.step()
    assert torch.equal(model.weight, other_model.weight)
    assert other.grad_norm_group is None


def test_grad_scaler_undoes_the_scale_and_leaves_steps_out() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    model = torch.nn.Linear(4, 3)
    other = copy.deepcopy(model)
    optimizer, plain = adamant_optim.AdamW(model.parameters()), adamant_optim.AdamW(other.parameters())
    for step in range(4):
        batch = torch.randn(8, 4)
        optimizer.zero_grad()
        scaler.scale(model(batch).pow(2).mean()).backward()
        if step == 2:
            model.weight.grad[0, 0] = float("inf")
        scaler.step(optimizer)
        scaler.update()
        if step != 2:
            plain.zero_grad()
            other(batch).pow(2).mean().backward()
            plain.step()
    assert optimizer.skipped == 1
    assert float(optimizer.state[model.weight]["step"]) == 3
    assert scaler.get_scale() == 2.0**9
    # A scale that is a power of 2 changes no bit.
    assert torch.equal(model.weight, other.weight)


def test_a_first_step_of_nothing_makes_states_and_counts_nothing() -> None:
    own = params()
    optimizer = adamant_optim.AdamW(own, lr=0.0)
    for param in own:
        param.grad = torch.zeros_like(param)
    optimizer.step()
    assert all(float(optimizer.state[param]["step"]) == 0 for param in own)
    # But a step with gradients counts.
    set_grads(own)
    optimizer.step()
    assert all(float(optimizer.state[param]["step"]) == 1 for param in own)


@pytest.mark.parametrize(("value", "steps"), [(0.0, 0), (2.0, 1)])
def test_a_first_step_of_sparse_gradients_counts_if_one_is_not_zero(value: float, steps: int) -> None:
    param = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = adamant_optim.Adam([param], lr=0.0)
    values = torch.full((1, 3), value)
    param.grad = torch.sparse_coo_tensor(torch.tensor([[1]]), values, (4, 3), check_invariants=True)
    optimizer.step()
    state = optimizer.state[param]
    assert float(state["step"]) == steps
    assert bool(state["exp_avg"].any()) == (steps == 1)


def test_a_step_from_within_a_step_is_refused() -> None:
    own = torch.nn.Parameter(torch.ones(3))
    own.grad = torch.ones(3)
    optimizer = adamant_optim.AdamW([own])
    make = optimizer._make_states

    def again(places: Any) -> None:
        make(places)
        optimizer.step()

    optimizer._make_states = again
    with pytest.raises(RuntimeError, match="within step"):
        optimizer.step()
    del optimizer._make_states
    optimizer.step()


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"lr": -1}, ValueError, "Invalid learning rate: -1"),
        ({"betas": (1.0, 0.5)}, ValueError, "Invalid beta parameter at index 0: 1.0"),
        ({"lr": torch.ones(2)}, ValueError, "Tensor lr must be 1-element"),
        ({"capturable": True}, ValueError, "capturable=True is not supported"),
        ({"differentiable": True}, ValueError, "differentiable=True is not supported"),
        ({"fused": True, "foreach": True}, RuntimeError, "cannot be `True` together"),
        ({"lrr": 1}, TypeError, "unexpected keyword argument 'lrr'"),
        ({"state_dtype": "f8"}, ValueError, "state_dtype is 'f8'"),
        ({"master": "f64"}, ValueError, "master is 'f64'"),
        ({"master": "f32", "stochastic_rounding": True}, ValueError, "stochastic_rounding has no use"),
        ({"max_grad_norm": 0}, ValueError, "max_grad_norm is 0"),
        ({"threads": 0}, ValueError, "threads is 0"),
        ({"isa": "sse"}, ValueError, "isa is 'sse'"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"dense_equivalent": "soon"}, ValueError, "dense_equivalent is 'soon'"),
        ({"lr": "0.1"}, TypeError, "lr is '0.1', but must be a number"),
        ({"eps": None}, TypeError, "eps is None, but must be a number"),
        ({"betas": None}, ValueError, "betas must be 2 numbers, but are None"),
        ({"betas": (0.9, "0.99")}, TypeError, r"betas\[1\] is '0.99', but must be a number"),
        ({"max_grad_norm": "1"}, TypeError, "max_grad_norm is '1', but must be a number"),
        ({"skip_nonfinite": "no"}, TypeError, "skip_nonfinite is 'no', but must be True or False"),
        ({"stochastic_rounding": "no"}, TypeError, "stochastic_rounding is 'no', but must be True or False"),
        ({"grad_norm_group": "all"}, ValueError, "grad_norm_group is 'all'"),
    ],
)
def test_bad_arguments_are_refused(kwargs: dict[str, Any], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        adamant_optim.AdamW(params(), **kwargs)


@pytest.mark.parametrize(
    ("name", "kwargs", "error", "text"),
    [
        ("Adadelta", {"rho": "0.9"}, TypeError, "rho is '0.9', but must be a number"),
        ("Rprop", {"etas": 0.5}, ValueError, "etas must be 2 numbers, but are 0.5"),
        ("Rprop", {"etas": ("0.5", 1.2)}, TypeError, r"etas\[0\] is '0.5', but must be a number"),
    ],
)
def test_bad_arguments_of_one_optimizer_are_refused(name: str, kwargs: dict[str, Any], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        getattr(adamant_optim, name)(params(), **kwargs)


@pytest.mark.parametrize(
    ("option", "value", "error", "text"),
    [
        ("max_grad_norm", -1, ValueError, "max_grad_norm is -1, but must be over 0"),
        ("max_grad_norm", "1", TypeError, "max_grad_norm is '1', but must be a number"),
        ("skip_nonfinite", "no", TypeError, "skip_nonfinite is 'no', but must be True or False"),
        ("zero_grad_in_step", None, TypeError, "zero_grad_in_step is None, but must be True or False"),
        ("threads", 0, ValueError, "threads is 0, but must be a whole number from 1 to 1024"),
        ("threads", "two", ValueError, "threads is 'two'"),
        ("isa", "sse", ValueError, "isa is 'sse'"),
        ("seed", -1, ValueError, "seed is -1"),
    ],
)
def test_an_option_that_became_bad_is_refused_by_name(option: str, value: Any, error: type, text: str) -> None:
    own = params()
    set_grads(own)
    optimizer = adamant_optim.AdamW(own)
    optimizer.step()
    before = copies(own)
    setattr(optimizer, option, value)
    with pytest.raises(error, match=text):
        optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(own, before))
    assert {float(optimizer.state[param]["step"]) for param in own} == {1.0}


def test_a_group_of_processes_that_is_none_is_refused_when_it_is_set() -> None:
    optimizer = adamant_optim.AdamW(params())
    with pytest.raises(ValueError, match="grad_norm_group is 'all'"):
        optimizer.grad_norm_group = "all"
    assert optimizer.grad_norm_group is None


def test_a_bad_group_is_not_added() -> None:
    own = params()
    optimizer = adamant_optim.AdamW(own[:1])
    with pytest.raises(ValueError, match="eps is -1"):
        optimizer.add_param_group({"params": own[1:], "eps": -1})
    assert len(optimizer.param_groups) == 1


def test_a_setting_that_became_bad_is_refused_before_anything_is_written() -> None:
    own = params()
    set_grads(own)
    optimizer = adamant_optim.AdamW(own)
    optimizer.step()
    before = copies(own)
    optimizer.param_groups[0]["eps"] = float("nan")
    with pytest.raises(ValueError, match="eps is NaN"):
        optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(own, before))
    # It is no better the next time.
    with pytest.raises(ValueError, match="eps is NaN"):
        optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(own, before))
