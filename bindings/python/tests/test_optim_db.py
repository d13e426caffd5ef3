"""PyTorch's own tables of optimizers: every configuration, every bad argument, every schedule."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest", reason="PyTorch's tables need expecttest")

import adamant_optim
from tables import (
    INFOS,
    NOT_ELEMENTWISE,
    SHAPES,
    Case,
    cases,
    copies,
    default_dtype,
    distance,
    error_cases,
    make_grads,
    make_params,
    run,
    signature,
)

STEPS = 12
CASES = cases()
#: A type, and the one in which PyTorch's results count as exact.
DTYPES = [
    (torch.float32, torch.float64),
    (torch.float64, torch.float64),
    (torch.complex64, torch.complex128),
    (torch.complex128, torch.complex128),
]


def start(case: Case, dtype: torch.dtype) -> tuple[list[Any], list[Any]]:
    """Parameters and the gradients of all steps."""
    if case.is_sparse and dtype.is_complex:
        pytest.skip("SparseAdam takes no complex parameters")
    params = make_params(dtype, [shape for shape in SHAPES if shape] if case.is_sparse else SHAPES)
    return params, [make_grads(case, params, number) for number in range(STEPS)]


def test_every_elementwise_optimizer_has_a_drop_in() -> None:
    from torch.testing._internal.common_optimizers import optim_db

    without = {info.name for info in optim_db if not hasattr(adamant_optim, info.name)}
    assert without == NOT_ELEMENTWISE & {info.name for info in optim_db}
    assert len(INFOS) == 12


@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_the_signature_is_that_of_pytorch(info: Any) -> None:
    ours, theirs = signature(getattr(adamant_optim, info.name)), signature(info.optim_cls)
    for name, argument in theirs.items():
        assert name in ours, name
        assert ours[name].default == argument.default, name
        # Arguments that older versions of PyTorch took by position are taken by position.
        assert ours[name].kind == argument.kind, name
    by_position = [name for name, argument in ours.items() if argument.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert by_position == [name for name in theirs if name in by_position]
    # Arguments that PyTorch does not have are taken by keyword alone.
    by_keyword = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    assert {ours[name].kind for name in ours if name not in theirs} <= by_keyword


@pytest.mark.parametrize("dtypes", DTYPES, ids=lambda dtypes: str(dtypes[0]).removeprefix("torch."))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_steps_and_states_are_as_exact_as_a_rounding_a_step(case: Case, dtypes: tuple[Any, Any]) -> None:
    dtype, wide = dtypes
    ours, steps = start(case, dtype)
    exact = copies(ours, wide)
    before = copies(ours, dtype)
    optimizer = case.ours(ours)
    run(optimizer, ours, steps)
    # PyTorch keeps NAdam's product and ASGD's step size in its default type. So does this package with the latter.
    with default_dtype(torch.float32 if case.name == "ASGD" and wide == dtype else torch.float64):
        reference = case.exact(exact)
        run(reference, exact, steps)
    states = optimizer.state_dict()["state"]
    for index, (one, other, old) in enumerate(zip(ours, exact, before)):
        assert not one.numel() or not torch.equal(one, old)
        # A step rounds the parameter once, by half a unit at most; what moments were rounded by is a little more.
        assert distance(one, other, 1.0) <= STEPS
        state = states.get(index, {})
        for key, value in reference.state[other].items():
            if key == "step":
                assert float(state["step"]) == float(value) == STEPS
            elif isinstance(value, torch.Tensor):
                assert state[key].shape == value.shape, key
                # Few numbers may all be small differences of large ones, which the bound is not for.
                if value.numel() >= 24:
                    assert distance(state[key], value, 0.0) <= STEPS, key


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_step_is_one_pass_however_it_is_asked_for(case: Case) -> None:
    own, steps = start(case, torch.float32)
    run(case.ours(plain := copies(own, torch.float32)), plain, steps)
    arguments = signature(getattr(torch.optim, case.name))
    for flag, value in itertools.product(("foreach", "fused"), (True, False)):
        if flag not in arguments or (isinstance(case.kwargs.get("lr"), torch.Tensor) and flag == "foreach" and value):
            continue
        params = copies(own, torch.float32)
        run(case.ours(params, **{flag: value}), params, steps)
        assert all(torch.equal(one, other) for one, other in zip(params, plain))
    for flag in ("capturable", "differentiable"):
        if flag in arguments:
            with pytest.raises((ValueError, RuntimeError), match=f"{flag}=True is not supported"):
                case.ours(own, **{flag: True})


@pytest.mark.parametrize(("name", "row"), error_cases(), ids=lambda value: getattr(value, "desc", value))
def test_what_pytorch_refuses_is_refused_with_its_words(name: str, row: Any) -> None:
    entry = row.optimizer_error_input
    optimizer = getattr(adamant_optim, name)
    if issubclass(row.error_type, Warning):
        with pytest.warns(row.error_type, match=row.error_regex):
            optimizer(entry.params, **entry.kwargs)
    else:
        with pytest.raises(row.error_type, match=row.error_regex):
            optimizer(entry.params, **entry.kwargs)


def bad_settings() -> list[tuple[str, str, Any, Exception]]:
    """Each setting with values at and over its edges, where PyTorch refuses them, and its error."""
    found = []
    param = torch.nn.Parameter(torch.ones(2))
    for info in INFOS:
        for key, argument in signature(info.optim_cls).items():
            default = argument.default
            values: list[Any] = []
            if isinstance(default, tuple):
                bad = (-0.5, 1.0, math.nan)
                values = [(value, default[1]) for value in bad] + [(default[0], value) for value in bad]
            elif isinstance(default, (int, float)) and not isinstance(default, bool):
                values = [-1, -0.5, 1.0, 1.5, math.nan, -math.inf]
            for value in values:
                try:
                    info.optim_cls([param], **{key: value})
                except Exception as error:  # noqa: BLE001
                    found.append((info.name, key, value, error))
    return found


@pytest.mark.parametrize(("name", "key", "value", "error"), bad_settings())
def test_edges_of_settings_are_those_of_pytorch(name: str, key: str, value: Any, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        getattr(adamant_optim, name)([torch.nn.Parameter(torch.ones(2))], **{key: value})
    assert str(raised.value) == str(error)


def schedules() -> list[tuple[str, list[Any]]]:
    return [(info.name, makers) for info in INFOS for makers in info.scheduler_inputs]


@pytest.mark.parametrize("is_tensor", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize(("name", "makers"), schedules())
def test_schedules_change_the_learning_rate_as_with_pytorch(name: str, makers: list[Any], is_tensor: bool) -> None:
    case = Case(name, {"lr": torch.tensor(0.01, dtype=torch.float64) if is_tensor else 0.01}, name == "SparseAdam")
    ours, steps = start(case, torch.float64)
    theirs = copies(ours, torch.float64)
    rates: list[list[float]] = []
    kwargs = {"foreach": False} if "foreach" in signature(getattr(torch.optim, name)) else {}
    for params, optimizer in ((ours, case.ours(ours)), (theirs, case.theirs(theirs, **kwargs))):
        with warnings.catch_warnings():
            # PyTorch's own words about the order of step calls.
            warnings.simplefilter("error", UserWarning)
            schedulers = [make(optimizer) for make in makers]
            rates.append([])
            for number, grads in enumerate(steps):
                run(optimizer, params, [grads])
                for scheduler in schedulers:
                    on_plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
                    scheduler.step(1.0 + number) if on_plateau else scheduler.step()
                rates[-1].append(float(optimizer.param_groups[0]["lr"]))
    assert rates[0] == rates[1]
    bound = 1e7 if name == "NAdam" else STEPS  # PyTorch's product is a float32 here
    assert all(distance(one, other, 1.0) <= bound for one, other in zip(ours, theirs))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_run_changes_hands_half_way_through(case: Case) -> None:
    """PyTorch's optimizer takes over a run of ours, and ours one of PyTorch's."""
    start_params, steps = start(case, torch.float32)
    first, second = steps[: STEPS // 2], steps[STEPS // 2 :]
    ours, theirs = copies(start_params, torch.float32), copies(start_params, torch.float32)
    our_first, their_first = case.ours(ours), case.theirs(theirs)
    run(our_first, ours, first)
    run(their_first, theirs, first)

    our_state, their_state = copy.deepcopy(our_first.state_dict()), copy.deepcopy(their_first.state_dict())
    for one, other in zip(our_state["param_groups"], their_state["param_groups"]):
        assert {key: one[key] for key in other} == other
        # A switch of this package, and one that older versions of PyTorch lack.
        assert set(one) - set(other) <= {"cautious", "decoupled_weight_decay"}
    for index, state in their_state["state"].items():
        assert set(state) <= set(our_state["state"][index])

    their_params, our_params = copies(ours, torch.float32), copies(theirs, torch.float32)
    their_second, our_second = case.theirs(their_params), case.ours(our_params)
    their_second.load_state_dict(our_state)
    our_second.load_state_dict(their_state)
    run(their_second, their_params, second)
    run(our_second, our_params, second)
    run(our_first, ours, second)
    run(their_first, theirs, second)
    # Whoever finishes, it is as near as two runs are that never change hands.
    for went_to_pytorch, came_from_pytorch, never_left, never_came in zip(their_params, our_params, ours, theirs):
        assert distance(went_to_pytorch, never_left, 1.0) <= STEPS
        assert distance(came_from_pytorch, never_came, 1.0) <= STEPS
