"""Options in any combination, on any shapes: what each promises, against a run that does without."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("hypothesis")

import adamant_optim
from hypothesis import given, settings, strategies as st
from support import OWN, SETTINGS

NAMES = st.sampled_from([*SETTINGS, *OWN])
SIZES = st.lists(st.integers(0, 300), min_size=1, max_size=4)


def make(name: str, params: Any, **kwargs: Any) -> Any:
    return getattr(adamant_optim, name)(params, **kwargs)


@settings(max_examples=150, deadline=None)
@given(name=NAMES, sizes=SIZES, steps=st.integers(1, 6), seed=st.integers(0, 99))
def test_both_masters_are_the_run_in_float32_to_the_bit(name: str, sizes: list[int], steps: int, seed: int) -> None:
    torch.manual_seed(seed)
    starts = [torch.randn(size).to(torch.bfloat16) for size in sizes]
    dtypes = torch.float32, torch.bfloat16, torch.bfloat16
    single, whole, split = ([torch.nn.Parameter(start.to(dtype, copy=True)) for start in starts] for dtype in dtypes)
    optimizers = make(name, single), make(name, whole, master="f32"), make(name, split, master="split")
    for _ in range(steps):
        for one, *others in zip(single, whole, split):
            grad = torch.randn(one.shape).to(torch.bfloat16)
            one.grad = grad.float()
            for other in others:
                other.grad = grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, with_copy, with_rest in zip(single, whole, split):
        if not one.numel():
            continue
        assert torch.equal(optimizers[1].state[with_copy]["master_param"], one)
        assert torch.equal(with_copy, one.to(torch.bfloat16))
        low = optimizers[2].state[with_rest]["param_low"]
        high = with_rest.detach().view(torch.int16).to(torch.int32) << 16
        assert torch.equal((high + low.to(torch.int32)).view(torch.float32), one.detach())


@settings(max_examples=100, deadline=None)
@given(
    name=NAMES,
    sizes=SIZES,
    norm=st.floats(0.01, 100),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    size=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_clipping_in_the_step_is_pytorchs_before_it(
    name: str, sizes: list[int], norm: float, dtype: torch.dtype, size: float
) -> None:
    torch.manual_seed(1)
    single = [torch.nn.Parameter(torch.randn(count, dtype=torch.float64)) for count in sizes]
    ours = [torch.nn.Parameter(param.detach().clone()) for param in single]
    clipping, plain = make(name, ours, max_grad_norm=norm), make(name, single)
    for _ in range(3):
        for one, other in zip(ours, single):
            one.grad = size * torch.randn(one.shape, dtype=torch.float64)
            other.grad = one.grad.clone()
        kept = [param.grad.clone() for param in ours]
        clipping.step()
        expected = torch.nn.utils.clip_grad_norm_(single, norm)
        plain.step()
        assert clipping.grad_norm == pytest.approx(float(expected), rel=1e-12)
        assert all(torch.equal(param.grad, grad) for param, grad in zip(ours, kept))
    # PyTorch adds 1e-6 to the norm before it divides.
    for one, other in zip(ours, single):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3 if name != "FTRL" else 1e-2)


@settings(max_examples=100, deadline=None)
@given(
    name=NAMES,
    sizes=SIZES,
    bad=st.sampled_from([float("inf"), float("-inf"), float("nan")]),
    where=st.integers(0, 10_000),
    when=st.integers(0, 3),
    zero=st.booleans(),
    state_dtype=st.sampled_from([None, torch.bfloat16, "q8"]),
)
def test_a_step_that_is_left_out_leaves_no_trace(
    name: str, sizes: list[int], bad: float, where: int, when: int, zero: bool, state_dtype: Any
) -> None:
    if not sum(sizes):
        return
    runs = []
    for is_disturbed in (False, True):
        torch.manual_seed(2)
        own = [torch.nn.Parameter(torch.randn(size)) for size in sizes]
        optimizer = make(name, own, skip_nonfinite=True, zero_grad_in_step=zero, state_dtype=state_dtype)
        for number in range(4):
            if is_disturbed and number == when:
                for param in own:
                    param.grad = torch.ones_like(param)
                flat = where % sum(sizes)
                for param in own:
                    if flat < param.numel():
                        param.grad[flat] = bad
                        break
                    flat -= param.numel()
                optimizer.step()
            for param in own:
                param.grad = torch.randn(param.shape)
            optimizer.step()
            assert not zero or all(not param.grad.any() for param in own)
        assert optimizer.skipped == is_disturbed
        runs.append((own, optimizer))
    (undisturbed, one), (disturbed, other) = runs
    assert all(torch.equal(*pair) for pair in zip(undisturbed, disturbed))
    for pair in zip(undisturbed, disturbed):
        states = [optimizer.state[param] for optimizer, param in zip((one, other), pair)]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


#: Events between the batches of a table: learning rate, decay, checkpoint, copy, all rows read.
EVENTS = st.one_of(
    st.tuples(st.just("batch"), st.lists(st.integers(0, 19), min_size=1, max_size=6)),
    st.tuples(st.just("lr"), st.sampled_from([1e-3, 0.05, 0.2])),
    st.tuples(st.just("weight_decay"), st.sampled_from([0.0, 0.1])),
    st.tuples(st.just("betas"), st.sampled_from([(0.9, 0.999), (0.5, 0.9)])),
    st.sampled_from([("save", None), ("copy", None), ("pickle", None), ("catch up", None)]),
)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(["Adam", "AdamW"]),
    way=st.sampled_from(["series", "replay"]),
    events=st.lists(EVENTS, min_size=1, max_size=14),
)
def test_a_sparse_table_is_a_dense_one_whatever_happens(name: str, way: str, events: Any) -> None:
    if name == "Adam" and way == "series":
        # Decay that is part of the gradient follows no series, and is refused.
        events = [event for event in events if event[0] != "weight_decay"]
    torch.manual_seed(4)
    sparse = torch.nn.Embedding(20, 5, sparse=True)
    dense = copy.deepcopy(sparse)
    dense.sparse = False
    optimizer = make(name, sparse.parameters(), lr=0.05, dense_equivalent=way)
    other = make(name, dense.parameters(), lr=0.05)
    optimizer.watch(sparse)
    for what, value in [*events, ("batch", [0])]:
        if what == "batch":
            rows, wanted = torch.tensor(value), torch.randn(len(value), 5)
            for table, one in ((sparse, optimizer), (dense, other)):
                one.zero_grad()
                (table(rows) - wanted).square().sum().backward()
                one.step()
        elif what == "save":
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        elif what == "copy":
            sparse, optimizer = copy.deepcopy((sparse, optimizer))
            optimizer.watch(sparse)
        elif what == "pickle":
            sparse, optimizer = pickle.loads(pickle.dumps((sparse, optimizer)))
            optimizer.watch(sparse)
        elif what == "catch up":
            optimizer.catch_up()
        else:
            for one in (optimizer, other):
                one.param_groups[0][what] = value
    weights = sparse.state_dict()["weight"], dense.state_dict()["weight"]
    if way == "replay":
        assert torch.equal(*weights)
    else:
        assert torch.allclose(*weights, rtol=1e-4, atol=1e-5)
