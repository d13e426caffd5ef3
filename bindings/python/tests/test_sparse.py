"""Sparse gradients: lazy, and with the results of dense ones."""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import adamant_optim
from support import OWN, SETTINGS

ROWS, WIDTH = 60, 8


def embeddings(count: int, **kwargs: Any) -> list[Any]:
    """Modules with the same weights."""
    first = torch.nn.Embedding(ROWS, WIDTH, sparse=True, **kwargs)
    return [first, *(copy.deepcopy(first) for _ in range(count - 1))]


def train(pairs: list[tuple[Any, Any]], steps: int, listed: int = 6) -> None:
    """Steps modules alike."""
    for _ in range(steps):
        # Rows may be listed twice.
        rows, wanted = torch.randint(0, ROWS, (listed,)), torch.randn(listed, WIDTH)
        for module, optimizer in pairs:
            optimizer.zero_grad()
            ((module(rows) - wanted) ** 2).sum().backward()
            optimizer.step()


def test_sparse_adam_is_that_of_pytorch_both_ways() -> None:
    ours, theirs = embeddings(2)
    optimizer, other = (
        adamant_optim.SparseAdam(ours.parameters(), lr=0.01),
        torch.optim.SparseAdam(list(theirs.parameters()), lr=0.01),
    )
    train([(ours, optimizer), (theirs, other)], 5)
    our_state, their_state = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(other.state_dict())
    assert our_state["state"][0]["step"] == their_state["state"][0]["step"] == 5
    optimizer.load_state_dict(their_state)
    other.load_state_dict(our_state)
    train([(ours, optimizer), (theirs, other)], 5)
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)
    ours.weight.grad = torch.ones(ROWS, WIDTH)
    with pytest.raises(RuntimeError, match="SparseAdam does not support dense gradients"):
        optimizer.step()


@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
def test_sgd_and_adagrad_take_sparse_gradients_as_pytorch_does(name: str) -> None:
    ours, theirs = embeddings(2)
    optimizer, other = (
        getattr(it, name)(m.parameters(), lr=0.1) for it, m in ((adamant_optim, ours), (torch.optim, theirs))
    )
    train([(ours, optimizer), (theirs, other)], 6)
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)


@pytest.mark.parametrize("name", [*SETTINGS, *OWN])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_are_listed_take_dense_steps_and_others_stay(name: str, dtype: torch.dtype) -> None:
    kwargs = {"momentum": 0.9} if name == "SGD" else {}
    sparse = torch.nn.Parameter(torch.randn(ROWS, WIDTH, dtype=dtype))
    # FTRL computes parameters from its state alone, and so moves those without a gradient, too.
    dense = torch.nn.Parameter(sparse.detach()[:4].clone())
    start = sparse.detach().clone()
    optimizer = getattr(adamant_optim, name)([sparse], **kwargs)
    other = getattr(adamant_optim, name)([dense], **kwargs)
    for _ in range(4):
        grad = torch.randn(4, WIDTH, dtype=dtype)
        order = torch.randperm(4)
        sparse.grad = torch.sparse_coo_tensor(order[None], grad[order], (ROWS, WIDTH), check_invariants=True)
        dense.grad = grad
        optimizer.step()
        other.step()
    assert torch.equal(sparse.detach()[:4], dense.detach())
    assert torch.equal(sparse.detach()[4:], start[4:])


def test_indices_of_several_dimensions_and_complex_rows() -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(3, 4, 5)) for _ in range(2))
    indices = torch.tensor([[0, 2, 2], [1, 3, 3]])
    grad = torch.sparse_coo_tensor(indices, torch.randn(3, 5), (3, 4, 5), check_invariants=True)
    ours.grad, theirs.grad = grad, grad.to_dense()
    adamant_optim.SGD([ours], lr=0.5).step()
    torch.optim.SGD([theirs], lr=0.5).step()
    assert torch.allclose(ours, theirs)
    pairs = [torch.nn.Parameter(torch.ones(4, 2, dtype=torch.complex64)) for _ in range(2)]
    grad = torch.sparse_coo_tensor(
        torch.tensor([[1, 3]]), torch.randn(2, 2, dtype=torch.complex64), (4, 2), check_invariants=True
    )
    pairs[0].grad, pairs[1].grad = grad, grad.to_dense()
    adamant_optim.SGD([pairs[0]], lr=0.5).step()
    torch.optim.SGD([pairs[1]], lr=0.5).step()
    assert torch.allclose(pairs[0], pairs[1])


def test_sparse_gradients_are_clipped_with_all_others() -> None:
    torch.manual_seed(3)
    ours, theirs = embeddings(2)
    theirs.sparse = False
    heads = [torch.nn.Linear(WIDTH, 3), torch.nn.Linear(WIDTH, 3)]
    heads[1].load_state_dict(heads[0].state_dict())
    # SGD: what a row without a gradient does is the same, sparse or dense.
    optimizers = [
        adamant_optim.SGD([*module.parameters(), *head.parameters()], lr=0.1, max_grad_norm=0.5)
        for module, head in zip((ours, theirs), heads)
    ]
    for step in range(5):
        rows = torch.randint(0, ROWS, (6,))
        for module, head, optimizer in zip((ours, theirs), heads, optimizers):
            optimizer.zero_grad()
            head(module(rows)).pow(2).sum().backward()
            if step == 3:
                head.bias.grad[0] = float("nan")
            optimizer.step()
    norms = [optimizer.grad_norm for optimizer in optimizers]
    assert abs(norms[0] - norms[1]) < 1e-6 * norms[0]
    assert [optimizer.skipped for optimizer in optimizers] == [1, 1]
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("has_dense", [False, True])
def test_a_clip_that_is_not_reached_changes_no_bit_of_rows_that_are_listed_often(
    dtype: torch.dtype, has_dense: bool
) -> None:
    # Added up one after the other in bfloat16, 1,000 ones are 256. 0.1 has rounding errors in float32.
    count, value = 1000, 1.0 if dtype == torch.bfloat16 else 0.1
    weights = []
    for options in ({}, {"max_grad_norm": float("inf")}, {"skip_nonfinite": True}):
        weight = torch.nn.Parameter(torch.ones(4, 2, dtype=dtype))
        indices = torch.full((1, count), 2)
        values = torch.full((count, 2), value, dtype=dtype)
        weight.grad = torch.sparse_coo_tensor(indices, values, (4, 2), check_invariants=True)
        head = torch.nn.Parameter(torch.ones(3))
        head.grad = torch.full((3,), 100.0)
        own = [weight, head] if has_dense else [weight]
        optimizer = adamant_optim.SGD(own, lr=2**-11, **options)
        optimizer.step()
        if options:
            squares = 2 * (count * value) ** 2 + (3 * 100.0**2 if has_dense else 0.0)
            assert optimizer.grad_norm == pytest.approx(squares**0.5, rel=1e-6)
        weights.append(weight.detach())
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])
    assert weights[0][2, 0].item() == pytest.approx(1.0 - count * value / 2**11, rel=1e-6)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@pytest.mark.parametrize(("way", "tolerance"), [("replay", 0.0), ("series", 2e-5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dense_equivalent_has_the_results_of_dense_gradients(
    name: str, way: str, tolerance: float, dtype: torch.dtype
) -> None:
    ours, theirs = embeddings(2, dtype=dtype)
    theirs.sparse = False
    optimizer = getattr(adamant_optim, name)(ours.parameters(), lr=0.01, dense_equivalent=way)
    other = getattr(adamant_optim, name)(theirs.parameters(), lr=0.01)
    handles = optimizer.watch(torch.nn.Sequential(ours))
    assert len(handles) == 4
    for step in range(6):
        train([(ours, optimizer), (theirs, other)], 20, listed=3)
        for each in (optimizer, other):
            each.param_groups[0]["lr"] *= 0.8
        if step == 3:
            # A dense gradient in between.
            for module, each in ((ours, optimizer), (theirs, other)):
                each.catch_up()
                module.weight.grad = torch.ones(ROWS, WIDTH, dtype=dtype)
                each.step()
    assert not torch.equal(ours.weight, theirs.weight)
    saved = ours.state_dict()["weight"]
    assert (saved - theirs.weight.detach()).abs().max() <= tolerance
    state, expected = optimizer.state_dict()["state"][0], other.state_dict()["state"][0]
    for key in ("exp_avg", "exp_avg_sq"):
        assert (state[key] - expected[key]).abs().max() <= tolerance
    assert state["step"] == expected["step"] == 121


def test_dense_equivalent_goes_on_after_a_checkpoint_and_in_a_copy() -> None:
    ours, theirs = embeddings(2)
    theirs.sparse = False
    optimizer = adamant_optim.AdamW(ours.parameters(), lr=0.01, dense_equivalent="replay")
    other = adamant_optim.AdamW(theirs.parameters(), lr=0.01)
    optimizer.watch(ours)
    train([(ours, optimizer), (theirs, other)], 10, listed=3)
    ours, optimizer = pickle.loads(pickle.dumps((ours, optimizer)))
    # A copy is not watched.
    optimizer.watch(ours)
    train([(ours, optimizer), (theirs, other)], 10, listed=3)
    saved = copy.deepcopy((ours.state_dict(), optimizer.state_dict()))
    train([(ours, optimizer)], 3)
    ours.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
    train([(ours, optimizer), (theirs, other)], 10, listed=3)
    optimizer.catch_up()
    assert torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize("is_inside", [False, True])
def test_weights_that_are_loaded_take_no_steps_from_before(is_inside: bool) -> None:
    ours, theirs = embeddings(2)
    theirs.sparse = False
    optimizer = adamant_optim.AdamW(ours.parameters(), lr=0.01, dense_equivalent="replay")
    other = adamant_optim.AdamW(theirs.parameters(), lr=0.01)
    models = [torch.nn.Sequential(module) if is_inside else module for module in (ours, theirs)]
    optimizer.watch(models[0])
    # Rows are behind.
    train([(ours, optimizer), (theirs, other)], 10, listed=3)
    weight = torch.randn(ROWS, WIDTH)
    for model in models:
        model.load_state_dict({"0.weight" if is_inside else "weight": weight})
    optimizer.catch_up()
    assert torch.equal(ours.weight, weight)
    train([(ours, optimizer), (theirs, other)], 10, listed=3)
    optimizer.catch_up()
    assert torch.equal(ours.weight, theirs.weight)


def test_a_gradient_from_rows_that_were_behind_is_refused() -> None:
    (module,) = embeddings(1)
    optimizer = adamant_optim.AdamW(module.parameters(), dense_equivalent=True)
    for row in (1, 2):
        optimizer.zero_grad()
        before = module.weight.detach().clone()
        module(torch.tensor([row])).sum().backward()
        if row == 2:
            with pytest.raises(
                RuntimeError, match=r"row 2 of .* is 1 step behind: .* optimizer.catch_up\(parameter, rows\) before"
            ):
                optimizer.step()
            assert torch.equal(module.weight, before)
            # As for a model that reads its rows in a way of its own.
            optimizer.catch_up(module.weight, torch.tensor([[2]]))
        optimizer.step()
    with pytest.raises(IndexError, match="row 99 of .* has 60 rows"):
        optimizer.catch_up(module.weight, torch.tensor([99]))


def test_a_head_that_shares_the_table_is_watched() -> None:
    (table,) = embeddings(1)
    head = torch.nn.Linear(WIDTH, ROWS, bias=False)
    head.weight = table.weight
    model = torch.nn.ModuleList([table, head])
    (other,) = embeddings(1)
    other.load_state_dict(table.state_dict())
    optimizer = adamant_optim.AdamW(model.parameters(), lr=0.01, dense_equivalent=True)
    dense = torch.optim.AdamW(other.parameters(), lr=0.01)
    optimizer.watch(model)
    for step in range(12):
        optimizer.zero_grad()
        dense.zero_grad()
        row = torch.tensor([step % 5])
        # Every third step reads the head as well.
        loss, expected = table(row), other(row)
        if step % 3 == 2:
            loss, expected = head(loss), expected @ other.weight.t()
        loss.square().sum().backward()
        expected.square().sum().backward()
        other.weight.grad = other.weight.grad.to_dense()
        optimizer.step()
        dense.step()
    optimizer.catch_up()
    torch.testing.assert_close(table.weight, other.weight)


@pytest.mark.parametrize("is_stray", [False, True])
def test_a_dense_gradient_from_rows_that_were_behind_is_refused_before_anything_is_written(is_stray: bool) -> None:
    # The table is also the head of the model, which reads all rows.
    table, later = embeddings(2)
    optimizer = adamant_optim.AdamW([table.weight, later.weight], lr=0.01, dense_equivalent=True)
    optimizer.watch(table)
    own = [table.weight, later.weight]

    def batch(row: int) -> None:
        optimizer.zero_grad()
        (table(torch.tensor([row])) @ table.weight.t()).sum().backward()
        later.weight.grad = torch.sparse_coo_tensor([[row]], torch.ones(1, WIDTH), (ROWS, WIDTH), check_invariants=True)

    table(torch.tensor([1])).sum().backward()
    optimizer.step()
    batch(1)
    assert not table.weight.grad.is_sparse
    if is_stray:
        # Another thing that is wrong, found later.
        later.weight.grad._indices()[0, 0] = 77
    before = [(weight.detach().clone(), weight._version) for weight in own]
    state = copy.deepcopy(optimizer.state[table.weight])
    with pytest.raises(RuntimeError, match=r"row 0 of .* is 1 step behind: .* optimizer.catch_up\(parameter\) before"):
        optimizer.step()
    assert all(torch.equal(weight, bits) and weight._version == version for weight, (bits, version) in zip(own, before))
    assert all(torch.equal(optimizer.state[table.weight][key], value) for key, value in state.items())
    optimizer.catch_up()
    batch(1)
    optimizer.step()


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"state_dtype": "q8"}, TypeError, "8-bit moments need rows of a multiple of 256 numbers"),
        (
            {"state_dtype": torch.bfloat16, "dense_equivalent": True},
            TypeError,
            "dense_equivalent need state_dtype=None",
        ),
        ({"dense_equivalent": True, "amsgrad": True}, ValueError, "without amsgrad"),
        (
            {"dense_equivalent": True, "decoupled_weight_decay": False, "weight_decay": 0.1},
            ValueError,
            'dense_equivalent="series"',
        ),
    ],
)
def test_sparse_gradients_that_do_not_fit_change_nothing(kwargs: Any, error: Any, text: str) -> None:
    (module,) = embeddings(1)
    other = torch.nn.Parameter(torch.ones(3))
    other.grad = torch.ones(3)
    optimizer = adamant_optim.Adam([other, *module.parameters()], **kwargs)
    module(torch.tensor([1])).sum().backward()
    before = module.weight.detach().clone()
    with pytest.raises(error, match=text):
        optimizer.step()
    assert torch.equal(other.detach(), torch.ones(3)) and torch.equal(module.weight, before)
    assert float(optimizer.state[other]["step"]) == 0


def test_stray_indices_and_shapes_are_named() -> None:
    (module,) = embeddings(1)
    optimizer = adamant_optim.Adam(module.parameters())
    grad = torch.sparse_coo_tensor(torch.tensor([[9, 3]]), torch.ones(2, WIDTH), (ROWS, WIDTH), check_invariants=True)
    grad._indices()[0, 1] = 77
    module.weight.grad = grad
    with pytest.raises(IndexError, match=r"index 1 of the gradient of .* is 77, but the parameter has 60 rows"):
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("state_dtype", [torch.float32, torch.bfloat16, "q8"])
def test_all_rows_have_the_bits_of_a_dense_step_in_every_type(dtype: torch.dtype, state_dtype: Any) -> None:
    torch.manual_seed(3)
    start, rows = torch.randn(7, 256).to(dtype), torch.randperm(7)
    sparse, dense = (torch.nn.Parameter(start.clone()) for _ in range(2))
    options = {"state_dtype": state_dtype, "stochastic_rounding": dtype != torch.float32, "seed": 5}
    optimizers = [adamant_optim.AdamW([parameter], **options) for parameter in (sparse, dense)]
    for _ in range(3):
        grad = torch.randn(7, 256).to(dtype)
        sparse.grad = torch.sparse_coo_tensor(rows[None], grad[rows], (7, 256), check_invariants=True)
        dense.grad = grad
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(sparse, dense) and not torch.equal(sparse.detach(), start)
    listed = torch.tensor([2, 5])
    grad = torch.randn(2, 256).to(dtype)
    sparse.grad = torch.sparse_coo_tensor(listed[None], grad, (7, 256), check_invariants=True)
    before = sparse.detach().clone()
    optimizers[0].step()
    moved = (sparse.detach() != before).any(1)
    assert moved.tolist() == [row in (2, 5) for row in range(7)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("grad_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_gradients_of_16_bit_parameters_are_not_rounded_to_16_bits(
    dtype: torch.dtype, grad_dtype: torch.dtype, is_sparse: bool
) -> None:
    if not hasattr(torch.Tensor, "grad_dtype"):
        pytest.skip("this version of PyTorch has gradients in the parameter's type alone")
    parameter = torch.nn.Parameter(torch.zeros(4, 2, dtype=dtype))
    parameter.grad_dtype = None
    # Infinite in float16; 100352 in bfloat16.
    dense = torch.tensor([[0.0], [1e5], [0.0], [0.0]], dtype=grad_dtype).expand(4, 2).contiguous()
    parameter.grad = dense.to_sparse(1) if is_sparse else dense
    # As the second moment, which keeps what is rounded away.
    optimizer = adamant_optim.Adagrad([parameter], lr=1e-6)
    optimizer.step()
    assert optimizer.state[parameter]["sum"][1].tolist() == [1e10] * 2
    assert parameter.isfinite().all()


def test_dense_equivalent_refuses_parameters_of_16_bits() -> None:
    half = torch.nn.Parameter(torch.ones(4, 2, dtype=torch.bfloat16))
    half.grad = torch.sparse_coo_tensor(
        torch.tensor([[1]]), torch.ones(1, 2, dtype=torch.bfloat16), (4, 2), check_invariants=True
    )
    with pytest.raises(TypeError, match="float32 or float64"):
        adamant_optim.Adam([half], dense_equivalent=True).step()


@pytest.mark.parametrize("is_sparse", [True, False])
def test_rows_that_were_behind_when_their_type_changed_are_refused(is_sparse: bool) -> None:
    (module,) = embeddings(1, dtype=torch.float64)
    optimizer = adamant_optim.AdamW(module.parameters(), dense_equivalent=True)
    module(torch.tensor([1])).sum().backward()
    optimizer.step()
    module.float()
    before = module.weight.detach().clone()
    grad = torch.ones(ROWS, WIDTH)
    module.weight.grad = grad.to_sparse(1) if is_sparse else grad
    for act in (optimizer.step, optimizer.step, optimizer.catch_up):
        with pytest.raises(RuntimeError, match="60 rows of float64, some of which were behind"):
            act()
    assert torch.equal(module.weight, before)
    # A checkpoint has no rows behind.
    optimizer.load_state_dict(adamant_optim.AdamW([module.weight]).state_dict())
    optimizer.step()
    assert not torch.equal(module.weight, before)


def test_rows_may_change_their_type_when_none_is_behind() -> None:
    ours, theirs = embeddings(2, dtype=torch.float64)
    theirs.sparse = False
    optimizer = adamant_optim.AdamW(ours.parameters(), lr=0.01, dense_equivalent="replay")
    other = adamant_optim.AdamW(theirs.parameters(), lr=0.01)
    optimizer.watch(ours)
    for module, each in ((ours, optimizer), (theirs, other)):
        module(torch.tensor([1])).sum().backward()
        each.step()
    optimizer.catch_up()
    for module in (ours, theirs):
        module.float()
    train([(ours, optimizer), (theirs, other)], 5)
    optimizer.catch_up()
    assert torch.equal(ours.weight, theirs.weight)


def test_rows_of_several_dimensions_have_dense_gradients_after_they_caught_up() -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(3, 4, 5)) for _ in range(2))
    optimizer = adamant_optim.AdamW([ours], lr=0.1, dense_equivalent="replay")
    other = adamant_optim.AdamW([theirs], lr=0.1)
    indices = torch.tensor([[0, 2], [1, 3]])
    sparse = torch.sparse_coo_tensor(indices, torch.randn(2, 5), (3, 4, 5), check_invariants=True)
    for grad in (sparse, torch.randn(3, 4, 5)):
        optimizer.catch_up(ours)
        ours.grad, theirs.grad = grad, grad.to_dense()
        optimizer.step()
        other.step()
    assert torch.equal(ours.detach(), theirs.detach())


@pytest.mark.parametrize("shape", [(5, 0), (0, 5)])
@pytest.mark.parametrize("kwargs", [{}, {"dense_equivalent": True}])
def test_empty_tables_take_steps(shape: tuple[int, int], kwargs: dict[str, Any]) -> None:
    table, other = torch.nn.Parameter(torch.ones(shape)), torch.nn.Parameter(torch.ones(3))
    index = torch.zeros(1, min(shape[0], 1), dtype=torch.int64)
    table.grad = torch.sparse_coo_tensor(index, torch.ones(index.shape[1], shape[1]), shape, check_invariants=True)
    other.grad = torch.ones(3)
    optimizer = adamant_optim.AdamW([table, other], **kwargs)
    for step in (1, 2):
        optimizer.step()
        optimizer.catch_up()
        assert float(optimizer.state[other]["step"]) == float(optimizer.state[table]["step"]) == step


def test_memory_that_is_shared_is_seen_after_rows_caught_up() -> None:
    (module,) = embeddings(1)
    other = torch.nn.Parameter(torch.ones(ROWS, WIDTH))
    optimizer = adamant_optim.AdamW([module.weight, other], dense_equivalent=True)
    module(torch.tensor([1])).sum().backward()
    other.grad = torch.ones(ROWS, WIDTH)
    optimizer.step()
    module.weight.data = other.data
    optimizer.catch_up(module.weight)
    with pytest.raises(ValueError, match="share memory"):
        optimizer.step()


def behind(way: str = "replay", table: Any = None) -> tuple[Any, Any, Any]:
    """A table that is watched and has rows that are behind, its optimizer, and the same table after dense steps."""
    table = table or embeddings(1)[0]
    other = copy.deepcopy(table)
    other.sparse = False
    optimizer = adamant_optim.AdamW(table.parameters(), lr=0.1, dense_equivalent=way)
    dense = adamant_optim.AdamW(other.parameters(), lr=0.1)
    optimizer.watch(table)
    train([(table, optimizer), (other, dense)], 10, listed=3)
    assert not torch.equal(table.weight, other.weight)
    return table, optimizer, other


@pytest.mark.parametrize("is_in_cycle", [False, True])
def test_rows_that_are_behind_catch_up_when_the_optimizer_is_collected(is_in_cycle: bool) -> None:
    table, optimizer, other = behind()
    gone = weakref.ref(optimizer)
    if is_in_cycle:
        optimizer.itself = optimizer
    del optimizer
    gc.collect()
    assert gone() is None
    assert torch.equal(table.weight, other.weight)


def test_without_watch_weights_that_are_loaded_stay_when_the_optimizer_is_collected() -> None:
    (table,) = embeddings(1)
    optimizer = adamant_optim.AdamW(table.parameters(), lr=0.1, dense_equivalent=True)
    for row in (1, 2):
        optimizer.catch_up(table.weight, torch.tensor([row]))
        optimizer.zero_grad()
        table(torch.tensor([row])).sum().backward()
        optimizer.step()
    weight = torch.randn(ROWS, WIDTH)
    table.load_state_dict({"weight": weight})
    del optimizer
    gc.collect()
    assert torch.equal(table.weight, weight)


def test_a_second_optimizer_finds_rows_that_the_first_one_left_caught_up() -> None:
    table, optimizer, other = behind()
    dense = torch.optim.SGD(other.parameters(), lr=0.1)
    # The new one is made before the old one goes.
    optimizer = adamant_optim.SGD(table.parameters(), lr=0.1)
    rows = torch.arange(0, ROWS, 2)
    for module, each in ((table, optimizer), (other, dense)):
        each.zero_grad()
        module(rows).square().sum().backward()
        each.step()
    torch.testing.assert_close(table.weight, other.weight)


def test_an_optimizer_that_was_not_made_and_one_without_rows_behind_are_collected_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    table, optimizer, _ = behind()
    optimizer.catch_up()
    version = table.weight._version
    del optimizer
    with pytest.raises(TypeError, match="unexpected"):
        adamant_optim.AdamW(table.parameters(), unknown=1)
    gc.collect()
    assert table.weight._version == version
    assert not unraisable


def test_nothing_is_printed_when_the_interpreter_exits_with_rows_behind() -> None:
    program = f"""
import adamant_optim, torch
table = torch.nn.Embedding({ROWS}, {WIDTH}, sparse=True)
optimizer = adamant_optim.AdamW(table.parameters(), dense_equivalent=True)
optimizer.watch(table)
optimizer.itself = optimizer
for row in (1, 2):
    optimizer.zero_grad()
    table(torch.tensor([row])).sum().backward()
    optimizer.step()
"""
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=300)
    assert "adamant" not in found.stderr and "Exception" not in found.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_that_drops_the_optimizer_has_current_rows() -> None:
    table, optimizer, other = behind()
    child = os.fork()
    if child == 0:
        try:
            del optimizer
            os._exit(0 if torch.equal(table.weight, other.weight) else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    optimizer.catch_up()
    assert torch.equal(table.weight, other.weight)


#: Options that a group may get while rows are behind. With the last two, steps of sparse gradients are refused.
CHANGES: list[dict[str, Any]] = [
    {"dense_equivalent": False},
    {"dense_equivalent": "series"},
    {"dense_equivalent": False, "amsgrad": True},
    {"dense_equivalent": False, "state_dtype": torch.bfloat16},
    {"amsgrad": True},
    {"state_dtype": "q8"},
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("has_new_group", [False, True])
@pytest.mark.parametrize("reads", ["forward", "state_dict", "optimizer", "catch_up", "collector"])
def test_rows_catch_up_before_options_change(change: dict[str, Any], has_new_group: bool, reads: str) -> None:
    table, optimizer, other = behind()
    optimizer.param_groups[0].update(change)
    if has_new_group:
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
    if reads == "forward":
        table(torch.tensor([3]))
    elif reads == "state_dict":
        table.state_dict()
    elif reads == "optimizer":
        optimizer.state_dict()
    elif reads == "catch_up":
        optimizer.catch_up(table.weight, torch.tensor([3]))
    else:
        del optimizer
        gc.collect()
    assert torch.equal(table.weight, other.weight)


@pytest.mark.parametrize("change", CHANGES)
def test_a_step_is_refused_whose_options_changed_while_rows_were_behind(change: dict[str, Any]) -> None:
    table, optimizer, other = behind()
    table(torch.tensor([3])).sum().backward()
    optimizer.param_groups[0].update(change)
    state = {key: value.clone() for key, value in optimizer.state[table.weight].items()}
    before = table.weight.detach().clone()
    text = "without amsgrad" if change == {"amsgrad": True} else r"has rows that are behind, and options .* changed"
    for _ in range(2):
        with pytest.raises((RuntimeError, ValueError), match=text):
            optimizer.step()
    assert torch.equal(table.weight, before)
    assert all(torch.equal(optimizer.state[table.weight][key], value) for key, value in state.items())
    optimizer.catch_up()
    assert torch.equal(table.weight, other.weight)
    if change.get("dense_equivalent") is not None:
        optimizer.step()
        assert not torch.equal(table.weight[3], other.weight[3])


def test_dense_equivalent_may_be_turned_off_and_on() -> None:
    table, optimizer, other = behind()
    dense = adamant_optim.AdamW(other.parameters(), lr=0.1)
    dense.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    pairs = [(table, optimizer), (other, dense)]
    optimizer.param_groups[0]["dense_equivalent"] = False
    # All rows are listed: then lazy steps are dense ones.
    for _ in range(3):
        for module, each in pairs:
            each.zero_grad()
            module(torch.arange(ROWS)).square().sum().backward()
            each.step()
    optimizer.param_groups[0]["dense_equivalent"] = "replay"
    train(pairs, 10, listed=3)
    optimizer.catch_up()
    assert torch.equal(table.weight, other.weight)


@pytest.mark.parametrize("clear", [lambda state, _: state.clear(), lambda state, weight: state.pop(weight)])
@pytest.mark.parametrize("is_dense", [False, True])
def test_rows_stay_as_they_are_when_the_state_is_cleared(clear: Callable[[Any, Any], None], is_dense: bool) -> None:
    table, optimizer, _ = behind()
    before = table.weight.detach().clone()
    clear(optimizer.state, table.weight)
    if is_dense:
        # A step comes first: the state that it makes is not the one that rows waited for.
        table.weight.grad = torch.ones(ROWS, WIDTH)
        optimizer.step()
        assert torch.allclose(table.weight, (before - 0.1) - 0.001 * before, atol=1e-3)
        return
    table(torch.arange(ROWS))
    table.state_dict()
    assert optimizer.state_dict()["state"] == {}
    assert torch.equal(table.weight, before)
    optimizer.zero_grad()
    table(torch.tensor([3])).sum().backward()
    optimizer.step()
    assert float(optimizer.state[table.weight]["step"]) == 1
    moved = (table.weight.detach() != before).any(1)
    assert moved.tolist() == [row == 3 for row in range(ROWS)]


class Positions(torch.nn.Embedding):
    """As those of OPT and BART, whose first rows are reserved."""

    def forward(self, position: torch.Tensor) -> torch.Tensor:
        return super().forward(position + 2)


def shifted(how: str) -> Any:
    """A table that reads other rows than those of its arguments."""
    if how == "a subclass":
        return Positions(ROWS, WIDTH, sparse=True)
    (table,) = embeddings(1)
    if how == "a method of its own":
        table.forward = lambda rows: torch.nn.Embedding.forward(table, (rows + 2) % ROWS)
    return table


@pytest.mark.parametrize("how", ["a subclass", "a method of its own", "a later hook"])
def test_tables_that_read_other_rows_than_their_arguments_have_current_ones(how: str) -> None:
    results = []
    for is_sparse in (False, True):
        torch.manual_seed(0)
        table = shifted(how)
        table.sparse = is_sparse
        optimizer = adamant_optim.AdamW(table.parameters(), lr=0.1, dense_equivalent="replay" if is_sparse else False)
        optimizer.watch(table)
        if how == "a later hook":
            table.register_forward_pre_hook(lambda _, args: (args[0] + 2,))
        for rows in ([3, 4], [3], [7], [3], [4]):
            optimizer.zero_grad()
            table(torch.tensor(rows)).square().sum().backward()
            optimizer.step()
        # Only the last of them is in memory: nothing else reads the table.
        results.append(table(torch.tensor([3, 4, 7])).detach())
    assert torch.equal(*results)


def test_a_hook_that_came_before_watch_and_a_second_watch_keep_the_rows_few() -> None:
    table, optimizer, other = behind()
    table.register_forward_pre_hook(lambda *_: None, prepend=True)
    optimizer.watch(table)
    stale = table.weight.detach().clone()
    table(torch.tensor([3]))
    assert torch.equal(table.weight[3], other.weight[3])
    moved = (table.weight.detach() != stale).any(1)
    assert moved.sum() <= 1


def saved(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [lambda it: pickle.loads(pickle.dumps(it)), saved, copy.deepcopy])
@pytest.mark.parametrize("order", ["model, optimizer", "optimizer, model", "model"])
def test_copies_of_a_model_have_current_rows(copied: Callable[[Any], Any], order: str) -> None:
    table, optimizer, other = behind()
    head = torch.nn.Linear(WIDTH, ROWS, bias=False)
    head.weight = table.weight
    # The head is the first module that has the weight.
    model = torch.nn.ModuleList([head, table])
    optimizer.watch(model)
    both = {"model": model, "optimizer": optimizer}
    made = copied({name: both[name] for name in order.split(", ")})
    for module in made["model"]:
        assert torch.equal(module.weight, other.weight)
        # The copy is not watched.
        assert "__getstate__" not in vars(module)


def test_copies_of_parameters_with_their_optimizer_have_current_rows() -> None:
    table, optimizer, other = behind()
    (weight,), twin = copy.deepcopy((list(table.parameters()), optimizer))
    assert torch.equal(weight, other.weight)
    assert twin.param_groups[0]["params"][0] is weight


def test_a_module_keeps_its_own_way_to_be_pickled() -> None:
    table, optimizer, other = behind(table=Pickled(ROWS, WIDTH, sparse=True))
    for handle in optimizer.watch(table):
        handle.remove()
    made = pickle.loads(pickle.dumps(table))
    assert made.note == "kept" and torch.equal(made.weight, other.weight)


class Pickled(torch.nn.Embedding):
    """A table with a ``__getstate__`` of its own."""

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"note": "kept"}


def test_hooks_that_are_removed_do_nothing() -> None:
    (table,) = embeddings(1)
    optimizer = adamant_optim.AdamW(table.parameters(), lr=0.1, dense_equivalent=True)
    handles = optimizer.watch(table)
    for row in (1, 2):
        optimizer.zero_grad()
        table(torch.tensor([row])).sum().backward()
        optimizer.step()
    for handle in handles:
        handle.remove()
    before = table.weight.detach().clone()
    table(torch.arange(ROWS))
    table.state_dict()
    copy.deepcopy(table)
    del optimizer
    gc.collect()
    assert torch.equal(table.weight, before)


def test_a_table_that_is_not_watched_stays_as_it_is_when_its_optimizer_is_collected() -> None:
    watched, other = embeddings(2)
    optimizer = adamant_optim.AdamW([watched.weight, other.weight], lr=0.1, dense_equivalent=True)
    optimizer.watch(watched)
    for row in (1, 2):
        optimizer.zero_grad()
        optimizer.catch_up(other.weight)
        (watched(torch.tensor([row])).sum() + other(torch.tensor([row])).sum()).backward()
        optimizer.step()
    wanted = copy.deepcopy(watched).weight.detach().clone()
    with torch.no_grad():
        other.weight.fill_(5.0)
    del optimizer
    gc.collect()
    assert torch.equal(other.weight, torch.full_like(other.weight, 5.0)) and torch.equal(watched.weight, wanted)


def test_all_rows_may_be_read_twice_before_the_backward_pass() -> None:
    table, optimizer, _ = behind()
    head = torch.nn.Linear(WIDTH, ROWS, bias=False)
    head.weight = table.weight
    optimizer.watch(head)
    # The first pass through the head keeps its weight for the backward pass.
    found = head(table(torch.tensor([3]))).sum() + head(torch.ones(1, WIDTH)).sum()
    table.state_dict()
    copy.deepcopy(table)
    found.backward()


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_nested_indices_are_watched(layout: torch.layout) -> None:
    table, optimizer, other = behind()
    parts = [torch.tensor([3, 5]), torch.tensor([7])]
    with torch.no_grad():
        found = table(torch.nested.nested_tensor(parts, layout=layout))
        wanted = other(torch.tensor([3, 5, 7]))
    assert torch.equal(torch.cat(list(found.unbind())), wanted)


def test_indices_in_vmap_are_watched() -> None:
    table, _, other = behind()
    rows = torch.tensor([[3, 5], [7, 9]])
    with torch.no_grad():
        assert torch.equal(torch.vmap(table)(rows), other(rows))


def test_nested_indices_with_holes_are_watched() -> None:
    table, optimizer, other = behind()
    whole = torch.tensor([[3, 99], [5, 7]])
    rows = torch.nested.narrow(whole, 1, torch.tensor([0, 0]), torch.tensor([1, 2]), layout=torch.jagged)
    optimizer.catch_up(table.weight, rows)
    assert torch.equal(table.weight[[3, 5, 7]], other.weight[[3, 5, 7]])


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (torch.tensor([False, True]), r"rows is of torch.bool, but must be of whole numbers"),
        (torch.tensor([2.7]), r"rows is of torch.float32, but must be of whole numbers"),
        (torch.tensor([1j]), r"rows is of torch.complex64, but must be of whole numbers"),
        ([1, 2], r"rows is \[1, 2\], but must be a tensor"),
    ],
)
def test_rows_that_are_no_indices_are_refused(rows: Any, text: str) -> None:
    table, optimizer, _ = behind()
    before = table.weight.detach().clone()
    with pytest.raises(TypeError, match=text):
        optimizer.catch_up(table.weight, rows)
    assert torch.equal(table.weight, before)


def test_a_gradient_after_another_step_is_refused_until_its_row_catches_up() -> None:
    table, optimizer, other = behind()
    dense = adamant_optim.AdamW(other.parameters(), lr=0.1)
    dense.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for module, each in ((table, optimizer), (other, dense)):
        each.zero_grad()
        late = module(torch.tensor([3])).square().sum()
        for row in (5, 6):
            each.zero_grad()
            module(torch.tensor([row])).square().sum().backward()
            each.step()
        each.zero_grad()
        late.backward()
        if module is table:
            with pytest.raises(RuntimeError, match=r"row 3 of .* is 2 steps behind: .* another step was taken since"):
                each.step()
            optimizer.catch_up(table.weight, torch.tensor([3]))
        each.step()
    assert torch.equal(table.state_dict()["weight"], other.weight)
