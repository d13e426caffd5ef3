"""Parameters of which each process has a part: the results are those of one process that has all of them."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("torch", minversion="2.6", reason="fully_shard is public from PyTorch 2.6 on")
import adamant_optim
import ranks
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

#: Rows that four processes share evenly, unevenly, and not at all; one number; none.
SHAPES = [(8, 40), (7, 5), (3,), (1, 600), (2, 3, 5), (1,), (0, 4)]

#: Optimizers with settings, the type of parameters, options. SGD is among them: Adam hides a wrong factor.
CASES: dict[str, tuple[str, dict[str, Any], torch.dtype, dict[str, Any]]] = {
    "sgd": ("SGD", {"lr": 0.1}, torch.float32, {}),
    "sgd_momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, torch.float32, {}),
    "adamw": ("AdamW", {"lr": 0.01, "amsgrad": True}, torch.float32, {}),
    "adamw_f64": ("AdamW", {"lr": 0.01}, torch.float64, {}),
    "asgd": ("ASGD", {"lr": 0.1, "t0": 1, "lambd": 0.1}, torch.float32, {}),
    "rprop": ("Rprop", {}, torch.float32, {}),
    "adagrad": ("Adagrad", {"initial_accumulator_value": 0.1}, torch.float32, {}),
    "nadam": ("NAdam", {}, torch.float32, {}),
    "lion": ("Lion", {"lr": 0.01}, torch.float32, {}),
    "bf16_moments": ("AdamW", {"lr": 0.01}, torch.float32, {"state_dtype": "bf16"}),
    "f16_moments": ("Adam", {"lr": 0.01}, torch.float32, {"state_dtype": "f16", "seed": 3}),
    "bf16_random": ("AdamW", {"lr": 0.01}, torch.bfloat16, {"stochastic_rounding": True}),
    "bf16_all_random": (
        "SGD",
        {"lr": 0.1, "momentum": 0.9},
        torch.bfloat16,
        {"stochastic_rounding": True, "state_dtype": "bf16", "seed": 9},
    ),
    "bf16_master": ("AdamW", {"lr": 0.01}, torch.bfloat16, {"master": "f32"}),
    "bf16_split": ("AdamW", {"lr": 0.01}, torch.bfloat16, {"master": "split", "state_dtype": "bf16"}),
    "complex": ("AdamW", {"lr": 0.01}, torch.complex64, {}),
}


def numbers(step: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Whole parameters or gradients, the same in every process."""
    generator = torch.Generator().manual_seed(step)
    real = torch.float64 if dtype in (torch.float64, torch.bfloat16) else torch.float32
    found = [torch.randn((*shape, 2), dtype=real, generator=generator) for shape in SHAPES]
    if dtype.is_complex:
        return [torch.view_as_complex(tensor) for tensor in found]
    return [tensor[..., 0].to(dtype).contiguous() for tensor in found]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, in memory of its own."""
    tensor = tensor.detach()
    if not isinstance(tensor, DTensor):
        return tensor.clone()
    if tensor.dtype not in (torch.int16, torch.complex64):
        return tensor.full_tensor().clone()
    # gloo sends no such numbers.
    index = torch.arange(tensor.numel()).reshape(tensor.shape)
    piece = cut(index, tensor.device_mesh, tensor.placements)._local_tensor, tensor._local_tensor
    pieces: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(pieces, piece)
    found = torch.zeros(tensor.numel(), dtype=tensor.dtype)
    for index, values in pieces:
        found[index.reshape(-1)] = values.reshape(-1)
    return found.reshape(tensor.shape)


def cut(tensor: torch.Tensor, mesh: Any, placements: Any) -> torch.Tensor:
    """A whole tensor as a DTensor, without a message."""
    return distribute_tensor(tensor, mesh, placements, src_data_rank=None) if mesh is not None else tensor.clone()


def steps_of(case: str, mesh: Any, placements: Any, steps: int = 3) -> dict[str, torch.Tensor]:
    """Parameters and states, whole, after some steps."""
    name, kwargs, dtype, options = CASES[case]
    params = [torch.nn.Parameter(cut(tensor, mesh, placements)) for tensor in numbers(0, dtype)]
    optimizer = getattr(adamant_optim, name)(params, **kwargs, **options)
    for step in range(1, steps + 1):
        for param, grad in zip(params, numbers(step, dtype)):
            param.grad = cut(grad, mesh, placements)
        memory = [getattr(param, "_local_tensor", param).data_ptr() for param in params]
        optimizer.step()
        assert memory == [getattr(param, "_local_tensor", param).data_ptr() for param in params]
    found = {}
    for number, param in enumerate(params):
        found[f"{number}"] = whole(param)
        for key, value in optimizer.state[param].items():
            if mesh is not None and value.dim() > 0:
                assert isinstance(value, DTensor) and value.placements == param.placements, key
            found[f"{number} {key}"] = whole(value)
    return found


def all_steps(layout: str) -> dict[str, dict[str, torch.Tensor]]:
    size = dist.get_world_size()
    if layout == "rows":
        mesh, placements = init_device_mesh("cpu", (size,)), [Shard(0)]
    elif layout == "columns":
        mesh, placements = init_device_mesh("cpu", (size,)), [Shard(1)]
    elif layout == "copies of rows":
        mesh, placements = init_device_mesh("cpu", (2, size // 2)), [Replicate(), Shard(0)]
    else:
        mesh, placements = init_device_mesh("cpu", (2, size // 2)), [Shard(1), Shard(0)]
    cases = CASES
    if "columns" in layout:
        # Only what has columns.
        global SHAPES
        SHAPES = [shape for shape in SHAPES if len(shape) > 1]
    return {case: steps_of(case, mesh, placements) for case in cases}


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, torch.Tensor]]:
    return {case: steps_of(case, None, None) for case in CASES}


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], what: str) -> None:
    assert found.keys() == wanted.keys(), what
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value), f"{what}: {key}"


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_any_number_of_ranks_gives_the_bits_of_one(size: int, alone: Any) -> None:
    for rank, found in enumerate(ranks.run(all_steps, size, "rows")):
        for case, wanted in alone.items():
            assert_same(found[case], wanted, f"{case}, rank {rank} of {size}")


@pytest.mark.parametrize("layout, size", [("columns", 3), ("columns and rows", 4), ("copies of rows", 4)])
def test_any_layout_gives_the_bits_of_one(layout: str, size: int, alone: Any, monkeypatch: Any) -> None:
    if "columns" in layout:
        monkeypatch.setattr("test_sharded.SHAPES", [shape for shape in SHAPES if len(shape) > 1])
        alone = {case: steps_of(case, None, None) for case in CASES}
    for rank, found in enumerate(ranks.run(all_steps, size, layout)):
        for case, wanted in alone.items():
            assert_same(found[case], wanted, f"{layout}, {case}, rank {rank} of {size}")


# ---- FSDP2


class Net(torch.nn.Module):
    """Two blocks and a head, of sizes that do not divide evenly."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(13, 13) for _ in range(2)])
        self.head = torch.nn.Linear(13, 3, bias=False)
        generator = torch.Generator().manual_seed(1)
        for param in self.parameters():
            param.data = torch.randn(param.shape, generator=generator).to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = torch.tanh(block(x))
        return self.head(x)


def sharded(model: torch.nn.Module, offload: bool = False, mixed: bool = False) -> torch.nn.Module:
    """The model under FSDP2, with gradients that are added up and divided here: gloo only adds."""
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    settings: dict[str, Any] = {"mesh": mesh, "offload_policy": OffloadPolicy()}
    if offload:
        settings["offload_policy"] = CPUOffloadPolicy(pin_memory=False)
    if mixed:
        settings["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for block in model.blocks:
        fully_shard(block, **settings)
    fully_shard(model, **settings)
    for module in model.modules():
        if hasattr(module, "set_force_sum_reduction_for_comms"):
            module.set_force_sum_reduction_for_comms(True)
    return model


def batch(step: int) -> torch.Tensor:
    return torch.randn((4, 13), generator=torch.Generator().manual_seed(100 + step))


def train(name: str, is_sharded: bool, kwargs: dict[str, Any], flags: dict[str, bool]) -> tuple[Any, Any]:
    """Some steps, the same batch in every process: parameters, and the norms of gradients."""
    model = Net()
    if is_sharded:
        model = sharded(model, **flags)
    optimizer = getattr(adamant_optim, name)(model.parameters(), **kwargs)
    norms = []
    for step in range(4):
        model(batch(step)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        norms.append(optimizer.grad_norm)
    return {key: whole(param) for key, param in model.named_parameters()}, norms


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize("size", [2, 4] if ranks.LONG else [2])
def test_fsdp2_trains_as_one_process_does(name: str, size: int) -> None:
    # Sums of two or four equal gradients, divided by two or four, have no rounding.
    kwargs = {"lr": 0.05, "max_grad_norm": 0.5}
    wanted, norms = train(name, False, kwargs, {})
    assert any(norm > 0.5 for norm in norms), norms
    for found, found_norms in ranks.run(train, size, name, True, kwargs, {"offload": True}):
        assert found_norms == pytest.approx(norms, rel=1e-12)
        assert_same(found, wanted, name)


def test_fsdp2_trains_with_mixed_precision() -> None:
    kwargs = {"lr": 0.05}
    wanted, _ = train("SGD", False, kwargs, {})
    for found, _ in ranks.run(train, 2, "SGD", True, kwargs, {"mixed": True}):
        for key, value in wanted.items():
            # The forward and backward passes are in bfloat16, which keeps 8 bits.
            assert torch.allclose(found[key], value, atol=0.02), key


def states_beside_a_mesh_of_another_device() -> list[str]:
    """With parameters that are offloaded from a GPU, the mesh is of the GPU, and all arrays are here."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    params = [torch.nn.Parameter(cut(tensor, mesh, [Shard(0)])) for tensor in numbers(0, torch.float32)]
    for param, grad in zip(params, numbers(1, torch.float32)):
        param.grad = cut(grad, mesh, [Shard(0)])
    optimizer = adamant_optim.AdamW(params, state_dtype="q8", max_grad_norm=1.0)
    # DTensor.from_local moves arrays to the mesh's device: to this one they could not be moved without CUDA.
    type(mesh).device_type = property(lambda self: "cuda")
    assert mesh.device_type == "cuda"
    optimizer.step()
    return sorted({str(value.device) for state in optimizer.state.values() for value in state.values()})


def test_states_of_offloaded_parameters_stay_on_the_cpu() -> None:
    assert ranks.run(states_beside_a_mesh_of_another_device, 2) == [["cpu"], ["cpu"]]


def written(kwargs: dict[str, Any]) -> list[float]:
    """The largest numbers of a weight that was written in several ways, each between two steps."""
    model: Any = sharded(Net(torch.bfloat16))
    optimizer = adamant_optim.AdamW(model.parameters(), lr=1e-3, **kwargs)
    weight = model.head.weight

    def step() -> None:
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        optimizer.step()

    def load() -> None:
        model.load_state_dict({key: torch.full_like(value, 5.0) for key, value in model.state_dict().items()})

    largest = []
    for write in (
        load,
        lambda: weight.clamp_(-0.25, 0.25),
        lambda: torch.nn.init.constant_(weight, 3.0),
        lambda: weight.copy_(torch.full_like(weight, 2.0)),
        lambda: weight.to_local().fill_(7.0),
    ):
        step()
        with torch.no_grad():
            write()
        step()
        largest.append(whole(weight).float().max().item())
    return largest


@pytest.mark.parametrize("kwargs", [{"master": "f32"}, {"master": "split"}, {}], ids=str)
def test_a_write_to_a_sharded_parameter_stays(kwargs: dict[str, Any]) -> None:
    for largest in ranks.run(written, 2, kwargs):
        # A step goes by 1e-3, and bfloat16 keeps 8 bits.
        assert largest == pytest.approx([5.0, 0.25, 3.0, 2.0, 7.0], rel=0.01)


# ---- One norm


def clipped(layout: str, max_norm: float) -> tuple[float, list[torch.Tensor]]:
    """A step with clipping, on parameters of which some are whole everywhere."""
    size = dist.get_world_size()
    if layout == "copies of rows":
        mesh, placements = init_device_mesh("cpu", (2, size // 2)), [Replicate(), Shard(0)]
    else:
        mesh, placements = init_device_mesh("cpu", (size,)), [Shard(0)]
    params = []
    for number, tensor in enumerate(numbers(0, torch.float32)):
        if layout == "some whole" and number == 1:
            params.append(torch.nn.Parameter(tensor))
        elif layout == "some whole" and number == 2:
            params.append(torch.nn.Parameter(cut(tensor, mesh, [Replicate()])))
        else:
            params.append(torch.nn.Parameter(cut(tensor, mesh, placements)))
    optimizer = adamant_optim.SGD(params, lr=1.0, max_grad_norm=max_norm)
    for param, grad in zip(params, numbers(1, torch.float32)):
        param.grad = cut(grad, mesh, param.placements) if isinstance(param, DTensor) else grad
    optimizer.step()
    return optimizer.grad_norm, [whole(param) for param in params]


@pytest.mark.parametrize("layout", ["rows", "copies of rows", "some whole"])
def test_norm_counts_every_gradient_once(layout: str) -> None:
    params, grads = numbers(0, torch.float32), numbers(1, torch.float32)
    norm = math.sqrt(sum(grad.double().square().sum().item() for grad in grads))
    found = ranks.run(clipped, 4, layout, 0.5)
    assert len({result[0] for result in found}) == 1, "every rank has the same norm"
    assert found[0][0] == pytest.approx(norm, rel=1e-12)
    for _, stepped in found:
        for param, grad, new in zip(params, grads, stepped):
            assert torch.allclose(new, param - grad * (0.5 / norm), rtol=0, atol=1e-6)


def with_nan(option: dict[str, Any], bad_rank: int) -> tuple[int, bool, float]:
    """A step whose gradient is not finite in one process."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    param = torch.nn.Parameter(cut(torch.ones(8, 3), mesh, [Shard(0)]))
    optimizer = adamant_optim.SGD([param], lr=1.0, **option)
    param.grad = cut(torch.ones(8, 3), mesh, [Shard(0)])
    if dist.get_rank() == bad_rank:
        param.grad._local_tensor[0, 0] = math.nan
    before = param._local_tensor.clone()
    optimizer.step()
    is_kept = torch.equal(before, param._local_tensor)
    param.grad = cut(torch.ones(8, 3), mesh, [Shard(0)])
    optimizer.step()
    return optimizer.skipped, is_kept, param._local_tensor.max().item()


@pytest.mark.parametrize("option", [{"skip_nonfinite": True}, {"max_grad_norm": 100.0}])
def test_nan_on_one_rank_leaves_the_step_out_on_all(option: dict[str, Any]) -> None:
    for skipped, is_kept, value in ranks.run(with_nan, 3, option, 1):
        assert (skipped, is_kept, value) == (1, True, 0.0)


def with_scaler(bad_rank: int) -> tuple[int, float, float]:
    """Steps under a loss scaler, the first one with an overflow in one process."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    param = torch.nn.Parameter(cut(torch.ones(8, 3), mesh, [Shard(0)]))
    optimizer = adamant_optim.SGD([param], lr=1.0)
    for found_inf in (1.0 if dist.get_rank() == bad_rank else 0.0, 0.0):
        param.grad = cut(torch.full((8, 3), 4.0), mesh, [Shard(0)])
        # As torch.amp.GradScaler does, which looks at this process alone.
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(8.0), torch.tensor(found_inf)
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf
    return optimizer.skipped, param._local_tensor.min().item(), param._local_tensor.max().item()


def test_overflow_on_one_rank_leaves_the_step_out_on_all() -> None:
    for result in ranks.run(with_scaler, 2, 1):
        assert result == (1, 0.5, 0.5)


def with_error(bad_rank: int) -> tuple[str, int, bool]:
    """A step that one process refuses."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    param = torch.nn.Parameter(cut(torch.ones(9, 3), mesh, [Shard(0)]))
    optimizer = adamant_optim.AdamW([param], lr=1.0, max_grad_norm=1.0)
    param.grad = cut(torch.ones(9, 3), mesh, [Shard(0)])
    if dist.get_rank() == bad_rank:
        # Shares its memory with the parameter.
        param.grad = DTensor.from_local(param._local_tensor, mesh, [Shard(0)])
    try:
        optimizer.step()
        said = ""
    except ValueError as error:
        said = str(error)
    return said, optimizer.skipped, bool((param._local_tensor == 1).all())


def test_error_on_one_rank_leaves_the_step_out_on_the_others() -> None:
    results = ranks.run(with_error, 3, 2)
    assert "shares memory" in results[2][0] and results[2][1:] == (0, True)
    assert results[0] == results[1] == ("", 1, True)


def warm_up() -> tuple[float, float]:
    """A first step with a learning rate of 0, with gradients in one process only."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    param = torch.nn.Parameter(cut(torch.ones(4, 3), mesh, [Shard(0)]))
    optimizer = adamant_optim.AdamW([param], lr=0.0, max_grad_norm=1.0)
    grad = torch.zeros(4, 3)
    grad[0] = 1
    param.grad = cut(grad, mesh, [Shard(0)])
    optimizer.step()
    counted = optimizer.state[param]["step"].item()
    # torch.distributed.checkpoint does this to make states.
    other = adamant_optim.AdamW([param], lr=0.0, max_grad_norm=1.0)
    param.grad = cut(torch.zeros(4, 3), mesh, [Shard(0)])
    other.step()
    return counted, other.state[param]["step"].item()


def test_a_first_step_counts_on_all_ranks_or_none() -> None:
    assert ranks.run(warm_up, 2) == [(1.0, 0.0)] * 2


def partial_grad() -> torch.Tensor:
    """A gradient that has not been added up over the processes."""
    from torch.distributed.tensor import Partial

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    param = torch.nn.Parameter(cut(torch.zeros(5, 3), mesh, [Shard(0)]))
    optimizer = adamant_optim.SGD([param], lr=1.0)
    param.grad = DTensor.from_local(torch.ones(5, 3), mesh, [Partial()])
    optimizer.step()
    return whole(param)


def test_gradients_in_another_placement_are_brought_into_that_of_the_parameter() -> None:
    for found in ranks.run(partial_grad, 2):
        assert torch.equal(found, torch.full((5, 3), -2.0))


def with_other_local_part() -> bool:
    """A step after a state got another local part."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    param = torch.nn.Parameter(cut(torch.ones(4, 3), mesh, [Shard(0)]))
    optimizer = adamant_optim.AdamW([param])
    param.grad = cut(torch.ones(4, 3), mesh, [Shard(0)])
    optimizer.step()
    state = optimizer.state[param]["exp_avg"]
    state._local_tensor = torch.zeros_like(state._local_tensor)
    optimizer.step()
    return bool((state._local_tensor != 0).all())


def test_another_local_part_of_a_state_is_noticed() -> None:
    assert ranks.run(with_other_local_part, 2) == [True, True]
