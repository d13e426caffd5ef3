"""The options beyond PyTorch's."""

from __future__ import annotations

import copy
import re
import weakref
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import adamant_optim
from support import OWN, SETTINGS, assert_close, copies, named, params, set_grads

DTYPES = {torch.bfloat16: 2**-7, torch.float16: 2**-9, "q8": 2**-3}


def run(steps: int = 5, **kwargs: Any) -> tuple[Any, list[Any]]:
    torch.manual_seed(4)
    own = [torch.nn.Parameter(torch.randn(700)), torch.nn.Parameter(torch.randn(3, 4))]
    optimizer = adamant_optim.AdamW(own, **kwargs)
    for _ in range(steps):
        set_grads(own)
        optimizer.step()
    return optimizer, own


@pytest.mark.parametrize("state_dtype", DTYPES)
def test_moments_of_fewer_bits_are_near_those_of_32(state_dtype: Any) -> None:
    precise, _ = run()
    optimizer, own = run(state_dtype=state_dtype)
    expected, found = precise.state_dict()["state"], optimizer.state_dict()["state"]
    for index, param in enumerate(own):
        for key in ("exp_avg", "exp_avg_sq"):
            live = optimizer.state[param]
            if state_dtype == "q8":
                assert live[f"{key}_codes"].dtype == torch.uint8 and live[f"{key}_codes"].shape == param.shape
                assert live[f"{key}_scales"].shape == (-(-param.numel() // 256),)
                assert found[index][key].dtype == torch.float32
            else:
                assert live[key].dtype == state_dtype
            largest = expected[index][key].abs().max()
            difference = (found[index][key].float() - expected[index][key]).abs().max()
            assert 0 < difference < 4 * DTYPES[state_dtype] * largest


@pytest.mark.parametrize("state_dtype", ["f32", "bf16", "f16"])
def test_names_of_types_stand_for_types(state_dtype: str) -> None:
    optimizer, _ = run(state_dtype=state_dtype)
    expected = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[state_dtype]
    assert optimizer.param_groups[0]["state_dtype"] == expected


@pytest.mark.parametrize("state_dtype", [torch.bfloat16, "q8"])
def test_random_bits_depend_on_the_seed_alone(state_dtype: Any) -> None:
    first, again, other = (run(state_dtype=state_dtype, seed=seed)[1] for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    serial = run(state_dtype=state_dtype, seed=1, threads=1, isa="scalar")[1]
    assert torch.equal(first[0], serial[0])


@pytest.mark.parametrize("name", [*SETTINGS, *OWN])
def test_states_are_converted_when_they_are_loaded(name: str) -> None:
    make = getattr(adamant_optim, name)
    kwargs = {"momentum": 0.9} if name == "SGD" else {}
    own = [torch.nn.Parameter(torch.randn(300))]
    optimizer = make(own, **kwargs)
    set_grads(own)
    optimizer.step()
    state = optimizer.state_dict()
    for state_dtype in (torch.bfloat16, torch.float16, "q8"):
        other = make(copies(own), state_dtype=state_dtype, **kwargs)
        other.load_state_dict(copy.deepcopy(state))
        found = other.state_dict()["state"][0]
        for key, value in state["state"][0].items():
            near = found[key].float() - value.float()
            assert near.abs().max() <= 2**-4 * value.abs().max(), key
        # And back to what they were, but for one rounding.
        set_grads(other.param_groups[0]["params"])
        other.step()
        back = make(copies(own), **kwargs)
        back.load_state_dict(other.state_dict())
        assert all(value.dtype == torch.float32 for value in back.state[back.param_groups[0]["params"][0]].values())


def test_groups_may_have_moments_of_their_own() -> None:
    own = params()
    groups = [{"params": own[:1], "state_dtype": "q8"}, {"params": own[1:]}]
    optimizer = adamant_optim.AdamW(groups, state_dtype=torch.bfloat16)
    set_grads(own)
    optimizer.step()
    assert "exp_avg_codes" in optimizer.state[own[0]]
    assert optimizer.state[own[1]]["exp_avg"].dtype == torch.bfloat16
    # A change in the middle of a run converts what is there.
    optimizer.param_groups[1]["state_dtype"] = torch.float32
    before = optimizer.state[own[1]]["exp_avg"].float()
    own[1].grad.zero_()
    optimizer.step()
    assert torch.allclose(optimizer.state[own[1]]["exp_avg"], 0.9 * before)
    assert not {"state_dtype", "master"} & set(optimizer.state_dict()["param_groups"][0])


@pytest.mark.parametrize(
    ("key", "value"), [("max_grad_norm", 1.0), ("zero_grad_in_step", True), ("threads", -5), ("seed", 1)]
)
def test_options_of_the_whole_optimizer_are_refused_in_groups(key: str, value: Any) -> None:
    own = params()
    with pytest.raises(ValueError, match=f"{key} is an option of the whole optimizer.*pass it to SGD"):
        adamant_optim.SGD([{"params": own, key: value}], lr=1.0)
    optimizer = adamant_optim.SGD(own[:1], lr=1.0)
    with pytest.raises(ValueError, match=f"set optimizer.{key}"):
        optimizer.add_param_group({"params": own[1:], key: value})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("flag", ["capturable", "differentiable"])
def test_flags_that_no_step_can_follow_are_refused_in_groups_but_not_in_checkpoints(flag: str) -> None:
    own = params()
    with pytest.raises(ValueError, match=f"{flag}=True is not supported"):
        adamant_optim.AdamW([{"params": own, flag: True}])
    other = torch.optim.AdamW(own)
    set_grads(own)
    other.step()
    state = copy.deepcopy(other.state_dict())
    # As a run on a GPU saves it.
    state["param_groups"][0][flag] = True
    optimizer = adamant_optim.AdamW(own)
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0][flag] is False
    assert optimizer.state[own[0]]["step"] == 1


@pytest.mark.parametrize("first", [None, "bf16", "q8"])
@pytest.mark.parametrize("text", ["f32", "bf16", "float16"])
def test_names_of_types_are_read_in_the_middle_of_a_run(first: str | None, text: str) -> None:
    optimizer, own = run(state_dtype=first)
    group = optimizer.param_groups[0]
    group["state_dtype"] = "f8"
    with pytest.raises(ValueError, match="state_dtype is 'f8'"):
        optimizer.step()
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match="state_dtype is 'f8'"):
        optimizer.load_state_dict(state)
    expected = {"f32": torch.float32, "bf16": torch.bfloat16, "float16": torch.float16}[text]
    group["state_dtype"] = text
    optimizer.step()
    assert group["state_dtype"] is expected
    assert optimizer.state[own[0]]["exp_avg"].dtype == expected
    # Also before a checkpoint is loaded.
    group["state_dtype"] = text
    optimizer.load_state_dict(copy.deepcopy(state))
    assert optimizer.state[own[0]]["exp_avg"].dtype == expected


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("state_dtype", 8, "state_dtype is 8"),
        ("master", "f16", "master is 'f16'"),
        ("master", True, "master is True"),
        ("stochastic_rounding", "no", "stochastic_rounding is 'no'"),
        ("dense_equivalent", "often", "dense_equivalent is 'often'"),
    ],
)
def test_options_that_are_set_to_nonsense_in_the_middle_of_a_run_are_refused(
    option: str, value: object, error: str
) -> None:
    optimizer, own = run()
    group = optimizer.param_groups[0]
    was, before = group[option], copy.deepcopy(optimizer.state_dict()["state"])
    values = [param.detach().clone() for param in own]
    group[option] = value
    for _ in range(2):
        with pytest.raises((TypeError, ValueError), match=error):
            optimizer.step()
    assert all(torch.equal(param, value) for param, value in zip(own, values))
    group[option] = was
    assert str(optimizer.state_dict()["state"]) == str(before)
    optimizer.step()
    assert not torch.equal(own[0], values[0])


@pytest.mark.parametrize("name", OWN)
def test_optimizers_that_pytorch_lacks_take_its_flags(name: str) -> None:
    make, own = getattr(adamant_optim, name), params()
    for flag in ("foreach", "fused"):
        optimizer = make(own, **{flag: True})
        assert optimizer.param_groups[0][flag] is True
        set_grads(own)
        optimizer.step()
        # Checkpoints from before do not have the flags.
        state = optimizer.state_dict()
        for key in ("foreach", "fused", "capturable", "differentiable"):
            del state["param_groups"][0][key]
        make(own).load_state_dict(state)
    for flag in ("capturable", "differentiable"):
        with pytest.raises(ValueError, match=f"{flag}=True is not supported: steps run on the CPU"):
            make(own, **{flag: True})


@pytest.mark.parametrize("size", [1e4, 1e2, 1.0, 1e-2, 1e-4])
def test_float16_moments_are_for_gradients_of_the_size_that_the_readme_says(size: float) -> None:
    moved = {}
    for state_dtype in (None, "f16", "bf16", "q8"):
        torch.manual_seed(0)
        own = torch.nn.Parameter(torch.zeros(4096))
        optimizer = adamant_optim.AdamW([own], lr=1e-3, state_dtype=state_dtype)
        for _ in range(50):
            own.grad = torch.randn(4096) * size
            optimizer.step()
        moved[state_dtype] = own.detach().abs().max() / (1 if state_dtype is None else moved[None])
    assert abs(moved["bf16"] - 1) < 0.01 and abs(moved["q8"] - 1) < 0.01
    if 1e-2 <= size <= 1e2:
        assert abs(moved["f16"] - 1) < 0.03
    else:
        assert moved["f16"] < 0.3


def test_settings_that_the_readme_says_are_refused() -> None:
    own = params()
    refused: list[tuple[str, dict[str, Any]]] = [
        ("SGD", {"lr": -0.1}),
        ("AdamW", {"lr": float("inf")}),
        ("RMSprop", {"alpha": 1.0}),
        ("Rprop", {"step_sizes": (5, 1)}),
        ("ASGD", {"t0": -1}),
    ]
    for name, kwargs in refused:
        with pytest.raises(ValueError):
            getattr(adamant_optim, name)(own, **kwargs)
    optimizer = adamant_optim.SGD(own, lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 7)
    for step in range(9):
        set_grads(own)
        if step == 8:
            with pytest.raises(ValueError, match="lr is -0.01"):
                optimizer.step()
            return
        optimizer.step()
        schedule.step()


def test_doubles_have_moments_in_double_alone() -> None:
    own = params(torch.float64)
    set_grads(own)
    with pytest.raises(ValueError, match="whose moments are float64"):
        adamant_optim.AdamW(own, state_dtype="q8").step()
    optimizer = adamant_optim.AdamW(own)
    optimizer.step()
    assert optimizer.state[own[0]]["exp_avg"].dtype == torch.float64


@pytest.mark.parametrize(
    ("master", "dtype"), [("f32", torch.bfloat16), ("f32", torch.float16), ("split", torch.bfloat16)]
)
def test_a_master_keeps_what_16_bits_lose(master: str, dtype: torch.dtype) -> None:
    start = torch.randn(500).to(dtype)
    wide, narrow, plain = (torch.nn.Parameter(start.clone().to(it)) for it in (torch.float32, dtype, dtype))
    optimizers = [
        adamant_optim.AdamW([wide], lr=1e-5),
        adamant_optim.AdamW([narrow], lr=1e-5, master=master),
        adamant_optim.AdamW([plain], lr=1e-5),
    ]
    for _ in range(50):
        grad = torch.randn(500).to(dtype) + 1
        for param, optimizer in zip((wide, narrow, plain), optimizers):
            param.grad = grad.to(param.dtype)
            optimizer.step()
    rounded = wide.detach().to(dtype)
    if master == "f32":
        assert torch.equal(optimizers[1].state[narrow]["master_param"], wide.detach())
        assert torch.equal(narrow.detach(), rounded)
    else:
        high = narrow.detach().view(torch.int16).to(torch.int32) << 16
        joined = high + optimizers[1].state[narrow]["param_low"].to(torch.int32)
        assert torch.equal(joined.view(torch.float32), wide.detach())
    assert torch.equal(plain.detach()[start.abs() > 0.1], start[start.abs() > 0.1])
    assert not torch.equal(rounded, start)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_half_a_float_beside_float16_is_refused_by_name(name: str) -> None:
    own = torch.nn.Parameter(torch.ones(3, dtype=torch.float16))
    others = [torch.nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)]
    for param in (own, *others):
        param.grad = torch.ones_like(param)
    (bias, _), (weight, called) = named("bias", others[0]), named("weight", own, 1)
    with pytest.raises(ValueError, match=f'{re.escape(called)} is of float16, but master="split" is for bfloat16'):
        getattr(adamant_optim, name)([bias, weight], master="split").step()
    assert all(torch.equal(param.detach(), torch.ones_like(param)) for param in (own, *others))
    # A parameter of float32 has no other half.
    getattr(adamant_optim, name)(others, master="split").step()


def test_a_master_takes_over_what_others_write() -> None:
    own = torch.nn.Parameter(torch.randn(20).to(torch.bfloat16))
    optimizer = adamant_optim.SGD([own], lr=1e-3, master="f32")
    own.grad = torch.randn(20).to(torch.bfloat16)
    optimizer.step()
    master = optimizer.state[own]["master_param"].clone()
    with torch.no_grad():
        own[3] = 5.0
    own.grad.zero_()
    optimizer.step()
    expected = master.clone()
    expected[3] = 5.0
    assert torch.equal(optimizer.state[own]["master_param"], expected)


def test_a_master_takes_over_memory_that_others_put_in() -> None:
    own = torch.nn.Parameter(torch.randn(20).to(torch.bfloat16))
    optimizer = adamant_optim.SGD([own], lr=1e-3, master="f32")
    own.grad = torch.zeros(20, dtype=torch.bfloat16)
    optimizer.step()
    own.data = torch.full((20,), 7.0, dtype=torch.bfloat16)
    optimizer.step()
    assert torch.equal(own.detach(), torch.full((20,), 7.0, dtype=torch.bfloat16))


def test_a_master_takes_over_memory_that_has_the_address_of_the_old_one() -> None:
    same = 0
    for size in range(8, 600, 7):
        own = torch.nn.Parameter(torch.ones(size, dtype=torch.bfloat16))
        optimizer = adamant_optim.SGD([own], lr=1e-3, master="f32")
        own.grad = torch.zeros(size, dtype=torch.bfloat16)
        for _ in range(2):
            optimizer.step()
        place = own.data_ptr()
        # The allocator gives freed memory to the next tensor of its size.
        own.data = torch.empty(0, dtype=torch.bfloat16)
        own.data = torch.full((size,), 7.0, dtype=torch.bfloat16)
        same += own.data_ptr() == place
        optimizer.step()
        assert torch.equal(own.detach(), torch.full((size,), 7.0, dtype=torch.bfloat16)), size
    assert same > 0


def test_a_master_takes_over_what_a_model_was_given_in_another_type() -> None:
    for size in range(8, 300, 7):
        model = torch.nn.Linear(size, 3, dtype=torch.bfloat16)
        optimizer = adamant_optim.SGD(model.parameters(), lr=0.0, master="f32")
        set_grads([*model.parameters()])
        for _ in range(2):
            optimizer.step()
        model.float()
        for param in model.parameters():
            param.data = torch.full_like(param, 7.0)
        model.bfloat16()
        set_grads([*model.parameters()])
        optimizer.step()
        assert all(bool((param == 7).all()) for param in model.parameters()), size


def test_a_master_keeps_no_memory_that_its_parameter_has_left() -> None:
    own = torch.nn.Parameter(torch.ones(20, dtype=torch.bfloat16))
    optimizer = adamant_optim.SGD([own], lr=1e-3, master="f32")
    own.grad = torch.zeros(20, dtype=torch.bfloat16)
    for _ in range(2):
        optimizer.step()
        old = weakref.ref(own.untyped_storage())
        assert old() is not None
        own.data = torch.zeros(20, dtype=torch.bfloat16)
        assert old() is None


def test_a_master_is_saved_with_its_bits() -> None:
    torch.manual_seed(0)
    for master in ("f32", "split"):
        own = [torch.nn.Parameter(torch.randn(50).to(torch.bfloat16))]
        optimizer = adamant_optim.AdamW(own, master=master)
        set_grads(own)
        optimizer.step()
        other_own = copies(own)
        other = adamant_optim.AdamW(other_own, master=master)
        other.load_state_dict(optimizer.state_dict())
        for _ in range(3):
            set_grads(own, other_own)
            optimizer.step()
            other.step()
        for key, value in optimizer.state[own[0]].items():
            assert torch.equal(value, other.state[other_own[0]][key])


@pytest.mark.parametrize(("dtype", "apart"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_stochastic_rounding_is_right_on_average(dtype: torch.dtype, apart: float) -> None:
    start = torch.ones(40_000, dtype=dtype)
    own = torch.nn.Parameter(start.clone())
    own.grad = torch.ones_like(own)
    optimizer = adamant_optim.SGD([own], lr=1e-5, stochastic_rounding=True)
    for _ in range(4):
        optimizer.step()
    # Neighbours below 1 are that far apart: the mean of 40,000 is within 5 deviations.
    deviation = (4e-5 * apart) ** 0.5 / 200
    assert abs(own.detach().double().mean() - (1 - 4e-5)) < 5 * deviation
    assert deviation * 5 < 4e-5
    assert float(optimizer.state[own]["step"]) == 4


def test_clipping_is_that_of_pytorch_and_tells_the_norm() -> None:
    ours = params()
    theirs = copies(ours)
    optimizer = adamant_optim.AdamW(ours, lr=0.1, max_grad_norm=0.5)
    other = torch.optim.AdamW(theirs, lr=0.1)
    for _ in range(4):
        set_grads(ours, theirs)
        before = ours[0].grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(theirs, 0.5)
        optimizer.step()
        other.step()
        assert abs(optimizer.grad_norm - float(norm)) < 1e-6 * float(norm)
        assert torch.equal(ours[0].grad, before)
    assert_close(ours, theirs)
    ours[1].grad[0] = float("nan")
    before = copies(ours)
    optimizer.step()
    assert optimizer.skipped == 1 and all(torch.equal(one, other) for one, other in zip(ours, before))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_steps_with_gradients_that_are_not_finite_are_left_out(value: float) -> None:
    own = params()
    optimizer = adamant_optim.AdamW(own, skip_nonfinite=True, zero_grad_in_step=True)
    set_grads(own)
    optimizer.step()
    assert all(not param.grad.any() for param in own)
    set_grads(own)
    own[0].grad[2, 3] = value
    before, state = copies(own), copy.deepcopy(optimizer.state_dict())
    optimizer.step()
    assert optimizer.skipped == 1
    assert all(torch.equal(one, other) for one, other in zip(own, before))
    assert float(optimizer.state[own[0]]["step"]) == 1
    assert torch.equal(optimizer.state[own[0]]["exp_avg"], state["state"][0]["exp_avg"])
    assert all(not param.grad.any() for param in own)


def test_gradients_are_zeroed_wherever_they_lie() -> None:
    own = [torch.nn.Parameter(torch.randn(4, 6)), torch.nn.Parameter(torch.randn(4, 6))]
    own[0].grad, own[1].grad = torch.randn(4, 6), torch.randn(6, 4).t()
    optimizer = adamant_optim.AdamW(own, zero_grad_in_step=True)
    versions = [param.grad._version for param in own]
    optimizer.step()
    assert all(not param.grad.any() for param in own)
    assert all(param.grad._version > version for param, version in zip(own, versions))


@pytest.mark.parametrize("is_leaf", [False, True])
def test_gradients_of_another_layout_that_require_gradients_are_zeroed(is_leaf: bool) -> None:
    own = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 3))]
    optimizer = adamant_optim.SGD(own, lr=0.5, momentum=0.9, zero_grad_in_step=True)
    own[0].grad = torch.ones(3)
    grad = torch.ones(3, 2, requires_grad=True)
    own[1].grad = grad.detach().t().requires_grad_() if is_leaf else grad.t()
    versions = [param._version for param in own]
    optimizer.step()
    assert all(torch.equal(param.detach(), torch.full_like(param, 0.5)) for param in own)
    assert [param._version for param in own] == [version + 1 for version in versions]
    for param in own:
        assert not param.grad.any() and not param.grad.requires_grad


def test_a_step_that_zeroes_gradients_ends_their_graph() -> None:
    own = torch.nn.Parameter(torch.ones(3))
    optimizer = adamant_optim.SGD([own], lr=0.0, zero_grad_in_step=True)
    for _ in range(3):
        (own**3).sum().backward(create_graph=True)
        assert own.grad.tolist() == [3.0] * 3
        optimizer.step()
        assert own.grad.grad_fn is None and not own.grad.requires_grad and not own.grad.any()


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512", "neon"])
def test_every_instruction_set_gives_the_same_bits(isa: str) -> None:
    from adamant_optim import _core

    if isa not in _core.instruction_sets()[1]:
        with pytest.raises(ValueError, match=isa):
            run(isa=isa)
        return
    assert torch.equal(run(isa=isa)[1][0], run()[1][0])


def test_the_help_has_every_option_and_formula() -> None:
    import inspect

    from adamant_optim.torch import Options

    text = inspect.getdoc(Options)
    assert text is not None
    for option in Options.__annotations__:
        assert f"\n    {option}: " in text, option
    for name in [*SETTINGS, *OWN, "SparseAdam"]:
        assert ".. code-block:: text" in (getattr(adamant_optim, name).__doc__ or ""), name


def test_the_configuration_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    adamant_optim.show_config()
    text = capsys.readouterr().out
    assert f"adamant_optim {adamant_optim.__version__}" in text
    assert "instruction set: " in text and "threads: " in text


@pytest.mark.parametrize("state_dtype", ["bf16", torch.float16, "q8"])
def test_centered_rmsprop_refuses_moments_of_fewer_bits(state_dtype: Any) -> None:
    param = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match="centered=True"):
        adamant_optim.RMSprop([param], centered=True, state_dtype=state_dtype)
    adamant_optim.RMSprop([param], state_dtype=state_dtype)
    optimizer = adamant_optim.RMSprop([param], centered=True)
    param.grad = torch.ones(3)
    optimizer.step()
    before = param.detach().clone()
    # In the middle of a run.
    optimizer.param_groups[0]["state_dtype"] = state_dtype
    for _ in range(2):
        with pytest.raises(ValueError, match="centered=True"):
            optimizer.step()
    assert torch.equal(param, before)
    other = adamant_optim.RMSprop([param], state_dtype=state_dtype)
    other.step()
    other.param_groups[0]["centered"] = True
    with pytest.raises(ValueError, match="centered=True"):
        other.step()
