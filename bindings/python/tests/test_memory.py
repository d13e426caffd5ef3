"""Layouts, types and places of tensors: what is stepped in place, what is noticed, what is refused."""

from __future__ import annotations

import copy
import gc
import re
import weakref
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import adamant_optim
from adamant_optim import _core, _optimizer
from support import SETTINGS, assert_close, copies, has_names, named, params, set_grads


class WithoutExchangeApi(adamant_optim.AdamW):
    """Looks at tensors as it must with versions of PyTorch before 2.10."""

    def _new_native(self) -> Any:
        return _core.Stepper(torch, _optimizer.PLAIN_TYPES, _optimizer.increment_version, self._plan, True)


WAYS = pytest.mark.parametrize("make", [adamant_optim.AdamW, WithoutExchangeApi])


@WAYS
def test_the_versions_of_parameters_count_on(make: Any) -> None:
    own = torch.nn.Parameter(torch.randn(5))
    loss = (own * own).sum()
    loss.backward(retain_graph=True)
    make([own]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@WAYS
def test_layouts_are_stepped_in_place(make: Any) -> None:
    conv = torch.nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    transposed = torch.nn.Parameter(torch.randn(5, 4).t())
    ours = [*conv.parameters(), transposed]
    theirs = [torch.nn.Parameter(param.detach().clone()) for param in ours]
    optimizer, other = make(ours), torch.optim.AdamW(theirs)
    for step in range(4):
        for one, two in zip(ours, theirs):
            grad = torch.randn(one.shape)
            # Every second gradient has another layout than its parameter.
            one.grad = grad if step % 2 else torch.empty_like(one).copy_(grad)
            two.grad = grad.clone()
        places = [param.data_ptr() for param in ours]
        optimizer.step()
        other.step()
        assert [param.data_ptr() for param in ours] == places
    assert_close(ours, theirs)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert optimizer.state[conv.weight]["exp_avg"].stride() == conv.weight.stride()


@pytest.mark.parametrize("name", SETTINGS)
def test_complex_numbers_are_pairs(name: str) -> None:
    kwargs = {"momentum": 0.9} if name == "SGD" else {}
    ours = [torch.nn.Parameter(torch.randn(3, 2, dtype=torch.complex64))]
    theirs = copies(ours)
    optimizer, other = getattr(adamant_optim, name)(ours, **kwargs), getattr(torch.optim, name)(theirs, **kwargs)
    for step in range(5):
        grad = torch.randn(3, 2, dtype=torch.complex64)
        # A lazy conjugate is read as what it stands for.
        ours[0].grad = grad.conj() if step % 2 else grad
        theirs[0].grad = grad.conj().resolve_conj().clone() if step % 2 else grad.clone()
        optimizer.step()
        other.step()
    error = (torch.view_as_real(ours[0].detach()) - torch.view_as_real(theirs[0].detach())).abs().max()
    assert error < 1e-6
    state = copy.deepcopy(optimizer.state_dict())
    other.load_state_dict(state)
    optimizer.load_state_dict(copy.deepcopy(other.state_dict()))


@pytest.mark.parametrize("state_dtype", [torch.bfloat16, "q8"])
def test_complex_moments_of_fewer_bits_are_pairs_in_a_last_dimension(state_dtype: Any) -> None:
    own = [torch.nn.Parameter(torch.randn(4, 3, dtype=torch.complex64).t())]
    precise = copies(own)
    optimizer, other = adamant_optim.AdamW(own, state_dtype=state_dtype), adamant_optim.AdamW(precise)
    for _ in range(3):
        set_grads(own, precise)
        optimizer.step()
        other.step()
    assert (own[0] - precise[0]).abs().max() < 3e-3
    key = "exp_avg_codes" if state_dtype == "q8" else "exp_avg"
    assert optimizer.state[own[0]][key].shape == (3, 4, 2)
    state = optimizer.state_dict()
    again = adamant_optim.AdamW(copies(own), state_dtype=state_dtype)
    again.load_state_dict(state)
    assert torch.equal(again.state_dict()["state"][0]["exp_avg"], state["state"][0]["exp_avg"])


@WAYS
def test_a_parameter_that_became_a_lazy_conjugate_is_refused(make: Any) -> None:
    own = torch.nn.Parameter(torch.tensor([1 + 2j, 3 + 4j]))
    entry, name = named("weight", own)
    optimizer = make([entry], lr=0.1)
    own.grad = torch.ones_like(own)
    optimizer.step()
    own.data = own.data.conj()
    before = own.detach().clone()
    with pytest.raises(ValueError, match=f"{re.escape(name)} is a lazy conjugate"):
        optimizer.step()
    assert torch.equal(own.detach(), before)
    own.data = own.data.resolve_conj()
    optimizer.step()
    assert not torch.equal(own.detach(), before)


@pytest.mark.parametrize("state_dtype", [None, torch.bfloat16, torch.float16, "q8"], ids=str)
@pytest.mark.parametrize("name", SETTINGS)
def test_complex_moments_of_fewer_bits_go_to_pytorch_and_back(name: str, state_dtype: Any) -> None:
    kwargs = {"momentum": 0.9} if name == "SGD" else {}
    make = getattr(adamant_optim, name)
    ours = [torch.nn.Parameter(torch.randn(4, 3, dtype=torch.complex64).t()), torch.nn.Parameter(torch.tensor(1 + 2j))]
    optimizer = make(ours, state_dtype=state_dtype, **kwargs)
    for _ in range(3):
        set_grads(ours)
        optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    theirs = copies(ours)
    other = getattr(torch.optim, name)(theirs, **kwargs)
    other.load_state_dict(copy.deepcopy(saved))
    again = make(copies(ours), state_dtype=state_dtype, **kwargs)
    again.load_state_dict(saved)
    for param, loaded in zip(ours, again.param_groups[0]["params"]):
        for key, value in optimizer.state[param].items():
            assert value.dtype == again.state[loaded][key].dtype and torch.equal(value, again.state[loaded][key]), key
    set_grads(ours, theirs)
    optimizer.step()
    other.step()
    assert all(torch.allclose(one, two, rtol=0.02, atol=0.02) for one, two in zip(ours, theirs))


def test_a_lazy_negative_is_read_as_what_it_stands_for() -> None:
    own = [torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(3))]
    numbers = torch.tensor([1 + 2j]), torch.tensor([1 + 2j, 3 + 4j, 5 + 6j])
    for param, complex_numbers in zip(own, numbers):
        param.grad = complex_numbers.conj().imag
        assert param.grad.is_neg()
    adamant_optim.SGD(own, lr=1.0).step()
    assert own[0].tolist() == [2.0] and own[1].tolist() == [2.0, 4.0, 6.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_parameters_and_gradients(dtype: torch.dtype) -> None:
    ours = params(dtype)
    theirs = copies(ours, torch.float32)
    optimizer, other = adamant_optim.AdamW(ours, lr=1e-2), torch.optim.AdamW(theirs, lr=1e-2)
    set_grads(ours, theirs)
    optimizer.step()
    other.step()
    for one, two in zip(ours, theirs):
        assert torch.allclose(one.float(), two, atol=0, rtol=torch.finfo(dtype).eps)
    assert optimizer.state[ours[0]]["exp_avg"].dtype == torch.float32


@WAYS
def test_memory_that_was_moved_is_found_again(make: Any) -> None:
    ours = params()
    theirs = copies(ours)
    optimizer, other = make(ours, lr=0.1), torch.optim.AdamW(theirs, lr=0.1)

    def step() -> None:
        set_grads(ours, theirs)
        optimizer.step()
        other.step()
        assert_close(ours, theirs)

    step()
    for own in (ours, theirs):
        own[0].data = own[0].detach().clone() + 1
    step()
    # Another layout: moments follow.
    ours[0].data = ours[0].detach().t().contiguous().t()
    step()
    assert optimizer.state[ours[0]]["exp_avg"].stride() == ours[0].stride()
    # States that are replaced, moved or lost.
    state, their_state = optimizer.state[ours[0]], other.state[theirs[0]]
    for one in (state, their_state):
        one["exp_avg"] = one["exp_avg"] * 2
        one["exp_avg_sq"].data = one["exp_avg_sq"] * 3
        one["step"].fill_(7)
    step()
    optimizer.state[ours[0]] = {key: value.clone() for key, value in optimizer.state[ours[0]].items()}
    gc.collect()
    step()
    del optimizer.state[ours[1]], other.state[theirs[1]]
    step()
    optimizer.state.clear()
    other.state.clear()
    step()
    optimizer.param_groups[0]["params"].pop()
    other.param_groups[0]["params"].pop()
    step()
    assert float(optimizer.state[ours[0]]["step"]) == 2


@WAYS
def test_doubles_take_gradients_of_floats(make: Any) -> None:
    own = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    grad = torch.ones(3)
    if not hasattr(own, "grad_dtype"):
        pytest.skip("this version of PyTorch has gradients of the parameter's type only")
    own.grad_dtype = None
    own.grad = grad
    make([own], lr=0.5, weight_decay=0.0).step()
    assert torch.allclose(own.detach(), torch.full((3,), -0.5, dtype=torch.float64))


BASE = torch.zeros(10, 10)


@WAYS
@pytest.mark.parametrize(
    ("tensor", "error", "text"),
    [
        (BASE[:, ::2], ValueError, r"does not fill its memory .*shape \[10, 5\], strides \[10, 2\]"),
        (torch.zeros(3).expand(4, 3), ValueError, r"does not fill its memory .*strides \[0, 1\]"),
        (torch.empty(3, device="meta"), (TypeError, ValueError), "meta"),
        (torch.zeros(3, dtype=torch.int64), ValueError, "torch.int64"),
        (torch.zeros(3, dtype=torch.float8_e5m2), ValueError, "torch.float8_e5m2"),
    ],
)
def test_parameters_that_cannot_be_stepped_are_named(make: Any, tensor: Any, error: Any, text: str) -> None:
    own = torch.nn.Parameter(tensor, requires_grad=False)
    other = torch.nn.Parameter(torch.ones(2))
    optimizer = make([("layer.first", other), ("layer.weight", own)]) if has_names() else make([other, own])
    for param in (own, other):
        param.requires_grad_(param.is_floating_point())
        param.grad = torch.zeros_like(param)
    name = "layer.weight" if has_names() else r"param_groups\[0\]\['params'\]\[1\]"
    with pytest.raises(error, match=f"{name}.*{text}"):
        optimizer.step()
    assert torch.equal(other.detach(), torch.ones(2))


def misaligned(count: int, dtype: torch.dtype) -> Any:
    """Ones that begin at an odd address."""
    ones = torch.ones(count, dtype=dtype)
    memory = bytearray(count * ones.element_size() + 16)
    start = torch.frombuffer(memory, dtype=torch.uint8).data_ptr()
    found = torch.frombuffer(memory, dtype=dtype, offset=1 + start % 2, count=count)
    assert found.data_ptr() % 2 == 1
    return found.copy_(ones)


@WAYS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64])
def test_misaligned_memory_is_refused_by_name(make: Any, dtype: torch.dtype) -> None:
    own = torch.nn.Parameter(misaligned(6, dtype))
    own.grad = torch.ones(6, dtype=dtype)
    entry, name = named("weight", own)
    with pytest.raises(ValueError, match=f"{re.escape(name)} is not aligned"):
        make([entry]).step()
    own = torch.nn.Parameter(torch.ones(6, dtype=dtype))
    entry, name = named("weight", own)
    optimizer = make([entry])
    for grad in (misaligned(6, dtype), misaligned(6, dtype).reshape(3, 2).to_sparse(1)):
        if grad.is_sparse:
            own.data = torch.ones(3, 2, dtype=dtype)
            values = misaligned(6, dtype).reshape(3, 2)
            own.grad = torch.sparse_coo_tensor(
                torch.tensor([[0, 1, 2]]), values, (3, 2), is_coalesced=True, check_invariants=True
            )
            assert own.grad._values().data_ptr() == values.data_ptr()
        else:
            own.grad = grad
        before = own.detach().clone()
        with pytest.raises(ValueError, match=f"the gradient of {re.escape(name)} is not aligned"):
            optimizer.step()
        assert torch.equal(own.detach(), before)
        own.grad = None


def test_a_misaligned_state_is_refused_by_name() -> None:
    own = torch.nn.Parameter(torch.ones(6))
    own.grad = torch.ones(6)
    optimizer = adamant_optim.AdamW([own])
    optimizer.step()
    optimizer.state[own]["exp_avg"] = misaligned(6, torch.float32)
    with pytest.raises(RuntimeError, match="exp_avg is not aligned"):
        optimizer.step()


def test_states_are_made_on_the_cpu_only() -> None:
    own = torch.nn.Parameter(torch.ones(2))
    own.grad = torch.zeros(2)
    saved = adamant_optim.AdamW([own])
    saved.step()
    there = torch.nn.Parameter(torch.empty(2, device="meta"))
    optimizer = adamant_optim.AdamW([("layer.weight", there)] if has_names() else [there], lr=0.0)
    name = "'layer.weight'" if has_names() else r"params'\]\[0\]"
    with pytest.raises(ValueError, match=f"{name} is on meta, but must be on the CPU"):
        optimizer.load_state_dict(saved.state_dict())
    # The rate is the one from before.
    assert optimizer.param_groups[0]["lr"] == 0.0 and not optimizer.state


def test_fake_tensors_are_refused() -> None:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        own = torch.nn.Parameter(torch.randn(3))
        own.grad = torch.randn(3)
    name = "'layer.weight'" if has_names() else r"params'\]\[0\]"
    named = [("layer.weight", own)] if has_names() else [own]
    # Adagrad makes its states at once, and with a rate of 0 the first step asks whether it only makes states.
    for make, lr in ((adamant_optim.AdamW, 1e-3), (adamant_optim.AdamW, 0.0), (adamant_optim.Adagrad, 1e-3)):
        with pytest.raises(TypeError, match=f"{name}.*FakeTensor"):
            make(named, lr=lr).step()


def test_memory_that_is_shared_is_refused() -> None:
    memory = torch.ones(10)
    one, other = torch.nn.Parameter(memory[:6]), torch.nn.Parameter(memory[4:])
    for param in (one, other):
        param.grad = torch.ones(6)
    with pytest.raises(ValueError, match="share memory"):
        adamant_optim.AdamW([one, other]).step()
    one.grad = one.detach()
    with pytest.raises(ValueError, match="the gradient of .* shares memory"):
        adamant_optim.AdamW([one]).step()
    both = torch.ones(6)
    own = [torch.nn.Parameter(torch.ones(6)), torch.nn.Parameter(torch.ones(6))]
    for param in own:
        param.grad = both
    with pytest.raises(ValueError, match="share memory, and cannot be zeroed"):
        adamant_optim.AdamW(own, zero_grad_in_step=True).step()
    # Gradients that are only read may be the same.
    adamant_optim.AdamW(own).step()
    assert torch.equal(memory, torch.ones(10))


def test_memory_that_is_shared_is_refused_again_and_again() -> None:
    memory = torch.ones(10)
    own = [torch.nn.Parameter(memory[:6]), torch.nn.Parameter(memory[4:])]
    for param in own:
        param.grad = torch.ones(6)
    optimizer = adamant_optim.AdamW(own)
    for _ in range(3):
        with pytest.raises(ValueError, match="share memory"):
            optimizer.step()
    # One alone shares with nobody.
    own[1].grad = None
    optimizer.step()
    own[1].grad = torch.ones(6)
    with pytest.raises(ValueError, match="share memory"):
        optimizer.step()
    own[1].data = own[1].detach().clone()
    optimizer.step()


def test_memory_may_pass_from_one_parameter_to_another() -> None:
    memory = torch.ones(6)
    own = [torch.nn.Parameter(memory), torch.nn.Parameter(torch.ones(6))]
    optimizer = adamant_optim.AdamW(own)
    for param in own:
        param.grad = torch.ones(6)
    optimizer.step()
    own[0].grad, own[0].data, own[1].data = None, torch.ones(6), memory
    before = memory.clone()
    optimizer.step()
    assert not torch.equal(memory, before) and torch.equal(own[0].detach(), torch.ones(6))


@WAYS
def test_empty_and_lone_tensors(make: Any) -> None:
    own = [torch.nn.Parameter(torch.ones(shape)) for shape in [(0,), (), (1,), (0, 3), (1, 1, 1)]]
    optimizer = make(own, lr=0.5, weight_decay=0.0)
    for param in own:
        param.grad = torch.ones_like(param)
    optimizer.step()
    assert all(torch.allclose(param.detach(), torch.full_like(param, 0.5)) for param in own)


class Named(torch.nn.Parameter):
    """A parameter of a class of the user's."""


@WAYS
def test_subclasses_that_are_nothing_but_memory(make: Any) -> None:
    own = Named(torch.ones(3))
    own.grad = torch.ones(3)
    loss = (own * own).sum()
    make([own], lr=0.5, weight_decay=0.0).step()
    assert torch.allclose(own.detach(), torch.full((3,), 0.5))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("what", ["state", "setting", "form"])
def test_a_cycle_through_what_a_step_remembers_is_collected(what: str) -> None:
    class Text(str):
        """As an option of a group may be."""

    own = torch.nn.Parameter(torch.ones(3))
    optimizer = adamant_optim.AdamW([own], lr=torch.tensor(0.1))
    own.grad = torch.ones(3)
    optimizer.step()
    group = optimizer.param_groups[0]
    if what == "state":
        optimizer.state[own].update(owner=optimizer)
        optimizer.state[own]["exp_avg"].owner = optimizer
    elif what == "setting":
        group["lr"].owner = optimizer
    else:
        group["dense_equivalent"] = Text("series")
        group["dense_equivalent"].owner = optimizer
    optimizer.step()
    gone = weakref.ref(optimizer)
    del optimizer, group, own
    gc.collect()
    assert gone() is None


def test_memory_is_freed_with_the_optimizer() -> None:
    import weakref

    own = torch.nn.Parameter(torch.ones(3))
    optimizer = adamant_optim.AdamW([own])
    # A cycle that the collector must see through.
    own.optimizer = optimizer
    own.grad = torch.ones(3)
    optimizer.step()
    ghosts = weakref.ref(optimizer), weakref.ref(own)
    del own, optimizer
    gc.collect()
    assert [ghost() for ghost in ghosts] == [None, None]


def test_tables_that_were_replaced_are_freed() -> None:
    table = torch.nn.Embedding(10, 4, sparse=True)
    optimizer = adamant_optim.SparseAdam(table.parameters())
    old = []
    for rows in range(10, 15):
        optimizer.zero_grad()
        table(torch.tensor([1, 2])).sum().backward()
        optimizer.step()
        old.append(weakref.ref(table.weight))
        del optimizer.state[table.weight]
        table.weight = torch.nn.Parameter(torch.randn(rows, 4))
        optimizer.param_groups[0]["params"] = [table.weight]
    table(torch.tensor([1, 2])).sum().backward()
    optimizer.step()
    gc.collect()
    assert [ref() for ref in old] == [None] * 5


def test_a_table_that_left_its_group_comes_back_with_the_rows_that_wait() -> None:
    tables = [torch.nn.Embedding(4, 3, sparse=True, _weight=torch.ones(4, 3)) for _ in range(2)]
    other = torch.nn.Parameter(torch.ones(3))
    optimizers = [adamant_optim.AdamW([table.weight, other], dense_equivalent=True) for table in tables]
    for table, optimizer in zip(tables, optimizers):
        optimizer.watch(table)
        for row in (0, 1, 2):
            optimizer.zero_grad()
            table(torch.tensor([row])).sum().backward()
            optimizer.step()
    # One of them is without its table for a step of the other parameter.
    params = optimizers[1].param_groups[0]["params"]
    optimizers[1].param_groups[0]["params"] = [other]
    other.grad = torch.ones(3)
    optimizers[1].step()
    optimizers[1].param_groups[0]["params"] = params
    for optimizer in optimizers:
        optimizer.catch_up()
    assert torch.equal(tables[0].weight, tables[1].weight)
    assert not torch.equal(tables[0].weight[0], torch.ones(3))


def test_memory_that_a_subclass_has_left_is_freed() -> None:
    own = Named(torch.ones(3))
    optimizer = adamant_optim.AdamW([own])
    for _ in range(3):
        own.grad = torch.ones(3)
        optimizer.step()
        old = weakref.ref(own.untyped_storage())
        own.data = torch.ones(3)
        assert old() is None


def test_old_states_are_freed_when_others_are_loaded() -> None:
    own = torch.nn.Parameter(torch.ones(10))
    own.grad = torch.ones(10)
    optimizer = adamant_optim.AdamW([own])
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    old = [weakref.ref(value) for value in optimizer.state[own].values()]
    optimizer.load_state_dict(state)
    assert all(ref() is None for ref in old)


@pytest.mark.parametrize("what", ["parameter", "gradient", "state"])
def test_freed_storage_is_refused(what: str) -> None:
    own = torch.nn.Parameter(torch.ones(3))
    own.grad = torch.ones(3)
    optimizer = adamant_optim.AdamW([own])
    optimizer.step()
    tensor = {"parameter": own.data, "gradient": own.grad, "state": optimizer.state[own]["exp_avg"]}[what]
    tensor.untyped_storage().resize_(0)
    for _ in range(2):
        with pytest.raises((RuntimeError, ValueError), match="has no memory"):
            optimizer.step()
    assert float(optimizer.state[own]["step"]) == 1
