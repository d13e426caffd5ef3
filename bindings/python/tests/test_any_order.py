"""Any shapes, types and orders of calls: the run is the one that PyTorch's optimizer makes of the same calls."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("hypothesis")

import adamant_optim
from hypothesis import given, settings, strategies as st
from support import SETTINGS, configurations

#: Dimensions of 0 and 1, and layouts in which memory is not in the order of dimensions.
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 5, 17]), max_size=3).map(tuple)
LAYOUTS = st.sampled_from(["plain", "transposed", "view"])
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.complex64])

#: The things that a program may do between steps.
CALLS = st.one_of(
    st.tuples(st.just("step"), st.integers(0, 7)),
    st.tuples(st.just("lr"), st.sampled_from([0.0, 1e-3, 0.1])),
    st.tuples(st.just("tensor lr"), st.sampled_from([1e-3, 0.1])),
    st.tuples(st.just("weight_decay"), st.sampled_from([0.0, 0.01])),
    st.tuples(st.just("maximize"), st.booleans()),
    st.tuples(st.just("add group"), SHAPES),
    st.sampled_from([("reload", "own"), ("reload", "each other's"), ("copy", "deepcopy"), ("write", "values")]),
)


def make_param(shape: tuple[int, ...], layout: str, dtype: torch.dtype) -> torch.nn.Parameter:
    if layout == "transposed":
        return torch.nn.Parameter(torch.randn(shape[::-1], dtype=dtype).permute(tuple(reversed(range(len(shape))))))
    if layout == "view":
        # Memory that begins within another tensor's.
        size = torch.Size(shape).numel()
        return torch.nn.Parameter(torch.randn(size + 3, dtype=dtype)[3:].view(shape))
    return torch.nn.Parameter(torch.randn(shape, dtype=dtype))


def takes_groups_later() -> bool:
    """Whether PyTorch's Adagrad steps groups that were added later: older versions make no states for them."""
    one, other = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adagrad([one])
    optimizer.add_param_group({"params": [other]})
    other.grad = torch.ones(1)
    try:
        optimizer.step()
    except KeyError:
        return False
    return True


ADAGRAD_TAKES_GROUPS = takes_groups_later()


class Pair:
    """The same program with our optimizer and with PyTorch's."""

    def __init__(self, name: str, kwargs: dict[str, Any], params: list[torch.nn.Parameter]) -> None:
        self.name = name
        self.params = [params, copy.deepcopy(params)]
        modules = (adamant_optim, torch.optim)
        self.optimizers = [getattr(module, name)(own, **kwargs) for module, own in zip(modules, self.params)]
        self.steps = 0

    def call(self, what: str, value: Any) -> None:
        getattr(self, what.replace(" ", "_"))(value)

    def step(self, missing: int) -> None:
        """A step in which some parameters have no gradient."""
        self.steps += 1
        for number, same in enumerate(zip(*self.params)):
            grad = None if missing >> number & 1 else torch.randn(same[0].shape, dtype=same[0].dtype)
            for param in same:
                param.grad = None if grad is None else grad.clone()
        for optimizer in self.optimizers:
            optimizer.step()

    def _set(self, key: str, *values: Any) -> None:
        for optimizer, value in zip(self.optimizers, values):
            for group in optimizer.param_groups:
                group[key] = value

    def lr(self, value: float) -> None:
        self._set("lr", value, value)

    def tensor_lr(self, value: float) -> None:
        # A number for PyTorch, whose foreach step refuses tensors.
        self._set("lr", torch.tensor(value, dtype=torch.float64), value)

    def weight_decay(self, value: float) -> None:
        if self.name != "Rprop":
            self._set("weight_decay", value, value)

    def maximize(self, value: bool) -> None:
        self._set("maximize", value, value)

    def add_group(self, shape: tuple[int, ...]) -> None:
        if self.name == "Adagrad" and not ADAGRAD_TAKES_GROUPS:
            return
        param = torch.randn(shape, dtype=self.params[0][0].dtype)
        for own, optimizer in zip(self.params, self.optimizers):
            own.append(torch.nn.Parameter(param.clone()))
            optimizer.add_param_group({"params": [own[-1]], "lr": 0.02})

    def reload(self, whose: str) -> None:
        states = [copy.deepcopy(optimizer.state_dict()) for optimizer in self.optimizers]
        if whose == "each other's":
            # Numbers for PyTorch, as above.
            for group in states[0]["param_groups"]:
                group["lr"] = float(group["lr"])
            states.reverse()
        for optimizer, state in zip(self.optimizers, states):
            optimizer.load_state_dict(state)

    def copy(self, _: str) -> None:
        self.params, self.optimizers = copy.deepcopy((self.params, self.optimizers))

    def write(self, _: str) -> None:
        """Somebody else writes parameters, as loading a model does."""
        with torch.no_grad():
            for same in zip(*self.params):
                values = torch.randn(same[0].shape, dtype=same[0].dtype)
                for param in same:
                    param.copy_(values)

    def check(self) -> None:
        for one, other in zip(*self.params):
            assert one.shape == other.shape
            if one.numel():
                error = (one.detach() - other.detach()).abs().max().item()
                scale = max(1.0, other.detach().abs().max().item())
                # Both round once a step, and moments a little less.
                assert error <= (4 + 4 * self.steps) * torch.finfo(one.dtype).eps * scale, error


@settings(max_examples=500, deadline=None)
@given(
    config=st.sampled_from(configurations()),
    dtype=DTYPES,
    tensors=st.lists(st.tuples(SHAPES, LAYOUTS), min_size=1, max_size=3),
    calls=st.lists(CALLS, min_size=1, max_size=12),
    seed=st.integers(0, 1000),
)
def test_a_program_with_our_optimizer_is_the_one_with_pytorchs(
    config: Any, dtype: torch.dtype, tensors: Any, calls: Any, seed: int
) -> None:
    name, kwargs = config
    torch.manual_seed(seed)
    # PyTorch keeps NAdam's product in its default type; a step size of ASGD both do.
    wide = torch.float64 if name != "ASGD" else torch.float32
    before = torch.get_default_dtype()
    torch.set_default_dtype(wide)
    try:
        pair = Pair(name, kwargs, [make_param(shape, layout, dtype) for shape, layout in tensors])
        for what, value in calls:
            pair.call(what, value)
        pair.step(0)
        pair.check()
    finally:
        torch.set_default_dtype(before)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from([*SETTINGS, "Lion", "ADOPT", "AdEMAMix", "Adan", "Yogi", "AdaBelief", "FTRL"]),
    state_dtype=st.sampled_from([None, torch.bfloat16, torch.float16, "q8"]),
    param=st.sampled_from(
        [(torch.float32, {}), (torch.bfloat16, {"master": "f32"}), (torch.bfloat16, {"master": "split"})]
    ),
    sizes=st.lists(st.integers(0, 600), min_size=1, max_size=4),
    saves=st.sets(st.integers(0, 7)),
    threads=st.lists(st.sampled_from([1, 2, 3]), min_size=8, max_size=8),
)
def test_saving_and_threads_change_no_bit(
    name: str, state_dtype: Any, param: Any, sizes: Any, saves: Any, threads: Any
) -> None:
    dtype, options = param
    results = []
    for is_disturbed in (False, True):
        torch.manual_seed(3)
        own = [torch.nn.Parameter(torch.randn(size).to(dtype)) for size in sizes]

        def make(own: Any = own) -> Any:
            return getattr(adamant_optim, name)(own, state_dtype=state_dtype, seed=5, threads=1, **options)

        optimizer = make()
        for number in range(8):
            if is_disturbed and number in saves:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = make()
                optimizer.load_state_dict(state)
            if is_disturbed:
                optimizer.threads = threads[number]
            for one in own:
                one.grad = torch.randn(one.shape).to(dtype)
            optimizer.step()
        results.append(own)
    assert all(torch.equal(one, other) for one, other in zip(*results))
