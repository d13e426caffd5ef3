"""A GPU beside the CPU: tensors there are refused, and models there have their optimizer here.

These tests are skipped on machines without CUDA. CuPy's arrays are tested where CuPy is installed.
"""

from __future__ import annotations

import copy
import os
from typing import Any

# Before CUDA is used: the same sums in the same order in every run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest

torch = pytest.importorskip("torch")

import adamant_optim
import numpy as np
import ranks
from adamant_optim import numpy as functional
from support import OWN, SETTINGS, has_names
from test_memory import WAYS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")

GPU = "cuda:0"


def on_both() -> tuple[list[Any], list[Any]]:
    """A parameter on the CPU and one on the GPU, with gradients; for the optimizer, with names where it takes them."""
    params = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(4, 3, device=GPU))]
    for param in params:
        param.grad = torch.ones_like(param)
    names = ["layer.bias", "layer.weight"]
    return params, list(zip(names, params)) if has_names() else params


def named(text: str) -> str:
    name = "parameter 'layer.weight'" if has_names() else r"param_groups\[0\]\['params'\]\[1\]"
    return f"{name} .*{text}"


# ---- Refused, by name, before anything is written


@WAYS
def test_a_parameter_on_the_gpu_is_refused(make: Any) -> None:
    params, listed = on_both()
    optimizer = make(listed)
    for _ in range(2):
        with pytest.raises(ValueError, match=named(f"is not on the CPU .*on {GPU}")):
            optimizer.step()
    assert all(torch.equal(param.cpu(), torch.ones(param.shape)) for param in params)
    assert not optimizer.state


@pytest.mark.parametrize("name", [*SETTINGS, *OWN])
def test_every_optimizer_refuses_a_parameter_on_the_gpu(name: str) -> None:
    params, listed = on_both()
    with pytest.raises(ValueError, match=named(f"on {GPU}")):
        getattr(adamant_optim, name)(listed).step()
    assert all(torch.equal(param.cpu(), torch.ones(param.shape)) for param in params)


@pytest.mark.parametrize("options", [{}, {"dense_equivalent": True}, {"max_grad_norm": 1.0}])
def test_a_table_on_the_gpu_is_refused(options: Any) -> None:
    table = torch.nn.Embedding(10, 4, sparse=True, device=GPU)
    optimizer = adamant_optim.AdamW(table.parameters(), **options)
    if options.get("dense_equivalent"):
        optimizer.watch(table)
    before = table.weight.detach().clone()
    table(torch.tensor([1, 2, 1], device=GPU)).sum().backward()
    with pytest.raises(ValueError, match=f"on {GPU}"):
        optimizer.step()
    assert torch.equal(table.weight, before)


def test_steps_in_the_backward_pass_refuse_a_parameter_on_the_gpu() -> None:
    model = torch.nn.Linear(3, 2).to(GPU)
    before = copy.deepcopy(model.state_dict())
    optimizer = adamant_optim.AdamW(model.parameters())
    optimizer.step_in_backward(model)
    model(torch.ones(5, 3, device=GPU)).sum().backward()
    with pytest.raises(ValueError, match=f"on {GPU}"):
        optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(param.grad is not None for param in model.parameters())


def test_states_are_not_made_on_the_gpu() -> None:
    params, listed = on_both()
    optimizer = adamant_optim.AdamW(listed, lr=0.0)
    for param in params:
        param.grad.zero_()
    # torch.distributed.checkpoint takes such a step to make states.
    with pytest.raises(ValueError, match=named(f"is on {GPU}, but must be on the CPU")):
        optimizer.step()
    other = torch.optim.AdamW([torch.nn.Parameter(param.detach().clone()) for param in params])
    for param in other.param_groups[0]["params"]:
        param.grad = torch.ones_like(param)
    other.step()
    with pytest.raises(ValueError, match=named(f"is on {GPU}, but must be on the CPU")):
        optimizer.load_state_dict(other.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_rows_on_the_gpu_are_rows() -> None:
    found = []
    for device in ("cpu", GPU):
        torch.manual_seed(5)
        table = torch.nn.Embedding(10, 4, sparse=True)
        optimizer = adamant_optim.AdamW(table.parameters(), dense_equivalent=True)
        optimizer.watch(table)
        for rows in ([1, 2], [3]):
            optimizer.zero_grad()
            table(torch.tensor(rows)).sum().backward()
            optimizer.step()
        behind = table.weight.detach().clone()
        optimizer.catch_up(table.weight, torch.tensor([[1, 2]], device=device))
        assert not torch.equal(table.weight[1:3], behind[1:3])
        found.append(table.weight.detach().clone())
    assert torch.equal(*found)


def test_a_model_that_was_moved_is_refused_until_it_is_back() -> None:
    def model() -> Any:
        torch.manual_seed(3)
        return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 2))

    def step(model: Any, optimizer: Any) -> None:
        device = next(model.parameters()).device
        optimizer.zero_grad()
        # Sums of few small integers have no rounding, so both devices have the same gradients.
        for param in model.parameters():
            param.grad = torch.full_like(param, 0.5)
        assert device == param.grad.device
        optimizer.step()

    moved, stayed = model(), model()
    optimizers = [adamant_optim.AdamW(one.parameters(), state_dtype="bf16") for one in (moved, stayed)]
    for one, optimizer in zip((moved, stayed), optimizers):
        step(one, optimizer)
    moved.to(GPU)
    with pytest.raises(ValueError, match=f"on {GPU}"):
        step(moved, optimizers[0])
    moved.to("cpu")
    for one, optimizer in zip((moved, stayed), optimizers):
        step(one, optimizer)
    for one, other in zip(moved.parameters(), stayed.parameters()):
        assert torch.equal(one, other)
        assert float(optimizers[0].state[one]["step"]) == 2


def there(kind: str) -> Any:
    if kind == "torch":
        return torch.ones(6, device=GPU)
    return pytest.importorskip("cupy").ones(6, "float32")


@pytest.mark.parametrize("kind", ["torch", "cupy"])
def test_arrays_on_the_gpu_are_named(kind: str) -> None:
    array, here = there(kind), np.ones(6, np.float32)
    device = GPU if kind == "torch" else "CUDA Device 0"
    optimizer = functional.Optimizer("adamw", lr=0.5)
    states = optimizer.init([here, here])

    def refused(name: str) -> Any:
        return pytest.raises(ValueError, match=rf"{name} is on .*{device}.*, but must be on the CPU")

    with refused(r"params\[1\]"):
        optimizer.init([here, array])
    for call in (optimizer.step, optimizer.apply):
        with refused(r"params\[1\]"):
            call([here, array], [here.copy(), here.copy()], states)
        with refused(r"(the gradient of params|grads)\[0\]"):
            call([here, here.copy()], [array, here.copy()], states)
    with refused(r"grads\['a'\]"):
        functional.grad_norm({"a": array, "b": here})
    with refused("values"):
        functional.q8_encode(array)
    codes, scales = functional.q8_encode(here)
    with refused("codes"):
        functional.q8_decode(there(kind).astype("uint8") if kind == "cupy" else array.to(torch.uint8), scales)
    with refused("scales"):
        functional.q8_decode(codes, array[:1])
    assert bool((here == 1).all()) and bool((array == 1).all())
    assert [state.step for state in states] == [0, 0]


def test_pinned_arrays_are_stepped() -> None:
    cupyx = pytest.importorskip("cupyx")
    pinned, usual = cupyx.empty_pinned(1000, np.float32), np.ones(1000, np.float32)
    pinned[...] = 1
    optimizer = functional.Optimizer("adamw", lr=0.5)
    for param in (usual, pinned, torch.ones(1000).pin_memory()):
        states = optimizer.init(param)
        assert optimizer.step(param, np.full(1000, 0.5, np.float32), states).taken
        np.testing.assert_array_equal(np.asarray(param), usual)


# ---- Models on the GPU, their optimizers on the CPU


def model_of(dtype: Any = torch.float32) -> Any:
    torch.manual_seed(7)
    layers = [torch.nn.Linear(64, 128), torch.nn.GELU(), torch.nn.Linear(128, 128), torch.nn.Linear(128, 10)]
    return torch.nn.Sequential(*layers).to(GPU, dtype)


def batch(step: int, dtype: Any = torch.float32) -> Any:
    generator = torch.Generator().manual_seed(100 + step)
    return torch.randn((16, 64), generator=generator).to(GPU, dtype)


@pytest.fixture
def _deterministic() -> Any:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def offloaded(dtype: Any, options: dict[str, Any], pin_memory: bool, steps: int = 6) -> tuple[list[Any], list[Any]]:
    """Trains a model on the GPU whose optimizer is on the CPU: the parameters, and the gradients of all steps."""
    model = model_of(dtype)

    def here(tensor: Any) -> Any:
        return torch.empty_like(tensor, device="cpu", pin_memory=pin_memory)

    params = [torch.nn.Parameter(here(param.detach()).copy_(param.detach())) for param in model.parameters()]
    for param in params:
        param.grad = here(param.detach())
    assert all(param.is_pinned() == param.grad.is_pinned() == pin_memory for param in params)
    optimizer = adamant_optim.AdamW(params, lr=0.01, **options)
    grads = []
    for step in range(steps):
        model.zero_grad()
        model(batch(step, dtype)).float().square().mean().backward()
        for param, far in zip(params, model.parameters()):
            param.grad.copy_(far.grad, non_blocking=True)
        torch.cuda.synchronize()
        grads.append([param.grad.clone() for param in params])
        optimizer.step()
        with torch.no_grad():
            for param, far in zip(params, model.parameters()):
                far.copy_(param, non_blocking=True)
    torch.cuda.synchronize()
    for param, far in zip(params, model.parameters()):
        assert torch.equal(param, far.cpu())
    return params, grads


@pytest.mark.usefixtures("_deterministic")
@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float32, {}),
        (torch.float32, {"state_dtype": "q8", "max_grad_norm": 0.1}),
        (torch.bfloat16, {"master": "f32", "max_grad_norm": 0.1}),
        (torch.bfloat16, {"master": "split", "state_dtype": "bf16"}),
        (torch.bfloat16, {"stochastic_rounding": True, "state_dtype": "q8", "zero_grad_in_step": True}),
    ],
)
def test_offloaded_training_has_the_same_bits_from_pinned_memory(dtype: Any, options: dict[str, Any]) -> None:
    pinned, grads = offloaded(dtype, options, True)
    usual, same_grads = offloaded(dtype, options, False)
    for one, other in zip(grads, same_grads):
        assert all(torch.equal(*pair) for pair in zip(one, other))
    assert all(torch.equal(*pair) for pair in zip(pinned, usual))
    # The same as on a machine without a GPU that is given these gradients.
    params = [torch.nn.Parameter(param.detach().cpu()) for param in model_of(dtype).parameters()]
    start = [param.detach().clone() for param in params]
    optimizer = adamant_optim.AdamW(params, lr=0.01, **options)
    for step in grads:
        for param, grad in zip(params, step):
            param.grad = grad.clone()
        optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(params, pinned))
    assert not any(torch.equal(*pair) for pair in zip(params, start))


@pytest.mark.parametrize("name", ["AdamW", "SGD", "NAdam", "RMSprop"])
def test_checkpoints_go_between_a_gpu_and_here(name: str) -> None:
    kwargs = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    far = model_of()
    theirs = getattr(torch.optim, name)(far.parameters(), lr=0.01, **kwargs)

    def train(model: Any, optimizer: Any, grads: list[Any]) -> None:
        for param, grad in zip(model.parameters(), grads):
            param.grad = grad.to(param.device, copy=True)
        optimizer.step()

    def grads_of(seed: int) -> list[Any]:
        generator = torch.Generator().manual_seed(seed)
        return [torch.randn(param.shape, generator=generator) for param in far.parameters()]

    train(far, theirs, grads_of(1))
    near = copy.deepcopy(far).cpu()
    ours = getattr(adamant_optim, name)(near.parameters(), lr=0.5, **kwargs)
    # Its tensors are on the GPU: a file that was loaded without `map_location`.
    ours.load_state_dict(theirs.state_dict())
    for step in (2, 3):
        for model, optimizer in ((far, theirs), (near, ours)):
            train(model, optimizer, grads_of(step))
    for one, other in zip(near.parameters(), far.parameters()):
        torch.testing.assert_close(one, other.cpu(), rtol=1e-5, atol=1e-6)
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    for model, optimizer in ((far, theirs), (near, ours)):
        train(model, optimizer, grads_of(4))
    for one, other in zip(near.parameters(), far.parameters()):
        torch.testing.assert_close(one, other.cpu(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("is_enabled", [True, False])
def test_a_scaler_of_the_gpu_counts_its_skipped_steps(is_enabled: bool) -> None:
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = adamant_optim.SGD([param], lr=1.0)
    for bad in (1.0, 0.0):
        param.grad = torch.full((3,), 4.0)
        # As torch.amp.GradScaler("cuda") sets them.
        optimizer.grad_scale = torch.tensor(8.0, device=GPU) if is_enabled else None
        optimizer.found_inf = torch.tensor(bad, device=GPU)
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf
    assert optimizer.skipped == 1
    assert param.tolist() == [0.5 if is_enabled else -3.0] * 3


# ---- fully_shard with CPUOffloadPolicy


def whole(params: Any) -> list[Any]:
    """One process has all of each parameter."""
    return [param._local_tensor.detach().clone() for param in params]


def sharded_model(pin_memory: bool) -> Any:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

    torch.cuda.set_device(0)
    model = model_of().cpu()
    settings = {"mesh": init_device_mesh("cuda", (dist.get_world_size(),))}
    settings["offload_policy"] = CPUOffloadPolicy(pin_memory=pin_memory)
    for layer in model:
        if isinstance(layer, torch.nn.Linear):
            fully_shard(layer, **settings)
    return fully_shard(model, **settings)


def fsdp2(pin_memory: bool, options: dict[str, Any], folder: str) -> dict[str, Any]:
    """Trains a model on the GPU whose parameters are offloaded, saves it half way, loads it and trains on."""
    torch.use_deterministic_algorithms(True)
    model = sharded_model(pin_memory)
    optimizer = adamant_optim.AdamW(model.named_parameters(), lr=0.01, **options)
    result: dict[str, Any] = {"start": whole(model.parameters()), "grads": [], "norms": []}
    for step in range(6):
        if step == 3:
            adamant_optim.checkpoint.save(folder, model, optimizer, extra={"step": step})
            model = sharded_model(pin_memory)
            optimizer = adamant_optim.AdamW(model.named_parameters(), lr=0.5, **options)
            found = adamant_optim.checkpoint.load(folder, model, optimizer, extra={"step": 0})
            assert found["step"] == 3
        model(batch(step)).square().mean().backward()
        result["grads"].append([param.grad._local_tensor.clone() for param in model.parameters()])
        optimizer.step()
        optimizer.zero_grad()
        result["norms"].append(optimizer.grad_norm)
    for param in model.parameters():
        assert param.device.type == "cpu" and param._local_tensor.is_pinned() == pin_memory
        assert all(value.device.type == "cpu" for value in optimizer.state[param].values())
    result["end"] = whole(model.parameters())
    return result


OPTIONS: list[dict[str, Any]] = [{"max_grad_norm": 0.05}, {"state_dtype": "bf16"}, {"state_dtype": "q8"}]


@pytest.mark.parametrize("pin_memory", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
def test_fsdp2_with_offload_steps_as_one_process_does(pin_memory: bool, options: Any, tmp_path: Any) -> None:
    pytest.importorskip("torch", minversion="2.6", reason="fully_shard is public from PyTorch 2.6 on")
    folder = str(tmp_path / "saved")
    (result,) = ranks.run(fsdp2, 1, pin_memory, options, folder, backend="cpu:gloo,cuda:nccl")
    params = [torch.nn.Parameter(start.clone()) for start in result["start"]]
    optimizer = adamant_optim.AdamW(params, lr=0.01, **options)
    for grads, norm in zip(result["grads"], result["norms"], strict=True):
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        optimizer.step()
        assert optimizer.grad_norm == (norm if norm is None else pytest.approx(norm, rel=1e-12))
    assert all(torch.equal(*pair) for pair in zip(params, result["end"]))
    assert not any(torch.equal(*pair) for pair in zip(params, result["start"]))


def in_backward(pin_memory: bool, is_in_backward: bool) -> list[Any]:
    torch.use_deterministic_algorithms(True)
    model = sharded_model(pin_memory)
    optimizer = adamant_optim.AdamW(model.named_parameters(), lr=0.01)
    if is_in_backward:
        optimizer.step_in_backward(model)
    for step in range(6):
        model(batch(step)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return whole(model.parameters())


@pytest.mark.parametrize("pin_memory", [True, False])
def test_steps_in_the_backward_pass_wait_for_the_gradients(pin_memory: bool) -> None:
    pytest.importorskip("torch", minversion="2.6", reason="fully_shard is public from PyTorch 2.6 on")
    found, wanted = (
        ranks.run(in_backward, 1, pin_memory, flag, backend="cpu:gloo,cuda:nccl")[0] for flag in (True, False)
    )
    assert all(torch.equal(*pair) for pair in zip(found, wanted))


def without_offload() -> str:
    from torch.distributed.fsdp import fully_shard

    torch.cuda.set_device(0)
    model = fully_shard(model_of())
    optimizer = adamant_optim.AdamW(model.named_parameters())
    model(batch(0)).square().mean().backward()
    before = whole(model.parameters())
    try:
        optimizer.step()
        return "stepped"
    except (TypeError, ValueError) as error:
        assert all(torch.equal(*pair) for pair in zip(whole(model.parameters()), before))
        return str(error)


def test_fsdp2_without_offload_is_refused() -> None:
    pytest.importorskip("torch", minversion="2.6", reason="fully_shard is public from PyTorch 2.6 on")
    (said,) = ranks.run(without_offload, 1, backend="cpu:gloo,cuda:nccl")
    assert "parameter '0.weight'" in said and f"on {GPU}" in said
