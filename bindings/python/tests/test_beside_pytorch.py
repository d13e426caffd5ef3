"""Parts of PyTorch beside the step: compiled models, files in safetensors, averages of weights, the profiler."""

from __future__ import annotations

import copy
import pathlib
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import adamant_optim
from support import OWN, SETTINGS, copies, params, set_grads


def small_model() -> Any:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.GELU(), torch.nn.Linear(8, 2))


def train(model: Any, optimizer: Any, steps: int, step: Any = None) -> None:
    chance = torch.Generator().manual_seed(4)
    for _ in range(steps):
        batch = torch.randn(5, 6, generator=chance)
        if step is not None:
            step(batch)
            continue
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("what", ["model", "whole step"])
def test_compiled_code_runs_beside(what: str) -> None:
    plain, compiled = small_model(), small_model()
    optimizers = [adamant_optim.AdamW(model.parameters(), lr=0.1) for model in (plain, compiled)]
    train(plain, optimizers[0], 6)
    # Tracing is what could go wrong; what a backend makes of it does not matter here.
    torch._dynamo.reset()
    if what == "model":
        train(torch.compile(compiled, backend="aot_eager"), optimizers[1], 6)
    else:

        def step(batch: Any) -> None:
            optimizers[1].zero_grad()
            compiled(batch).square().mean().backward()
            optimizers[1].step()

        train(compiled, optimizers[1], 6, torch.compile(step, backend="eager"))
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(plain.parameters(), compiled.parameters()))
    assert float(optimizers[1].state[compiled[0].weight]["step"]) == 6


@pytest.mark.parametrize("name", [*SETTINGS, *OWN])
@pytest.mark.parametrize("state_dtype", [None, torch.bfloat16, "q8"], ids=str)
def test_states_go_through_safetensors_with_their_bits(name: str, state_dtype: Any, tmp_path: pathlib.Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    make = getattr(adamant_optim, name)
    own = [torch.nn.Parameter(torch.randn(300)), torch.nn.Parameter(torch.randn(5, 7))]
    optimizer = make(own, state_dtype=state_dtype, seed=3)
    for _ in range(3):
        set_grads(own)
        optimizer.step()
    state = optimizer.state_dict()
    numbers = {(index, key) for index, values in state["state"].items() for key in values}
    tensors = {f"{index}.{key}": torch.as_tensor(state["state"][index][key]).contiguous() for index, key in numbers}
    safetensors.save_file(tensors, tmp_path / "optimizer.safetensors")

    loaded: dict[int, dict[str, Any]] = {}
    for path, tensor in safetensors.load_file(tmp_path / "optimizer.safetensors").items():
        index, key = path.split(".")
        loaded.setdefault(int(index), {})[key] = tensor
    others = copies(own)
    other = make(others, state_dtype=state_dtype, seed=3)
    other.load_state_dict({"state": loaded, "param_groups": copy.deepcopy(state["param_groups"])})
    for _ in range(3):
        set_grads(own, others)
        optimizer.step()
        other.step()
    assert all(torch.equal(one, two) for one, two in zip(own, others))


def test_the_readmes_files_in_safetensors_go_on_with_the_same_bits(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    text = (pathlib.Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    program = text.split("## Files in safetensors\n\n```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    channels = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    own = [torch.nn.Parameter(channels), torch.nn.Parameter(torch.randn(5, 7).to(torch.bfloat16))]
    optimizer = adamant_optim.AdamW(own, state_dtype="q8", master="split", lr=0.02, seed=3)
    for _ in range(3):
        set_grads(own)
        optimizer.step()
    others = copies(own)
    other = adamant_optim.AdamW(others, state_dtype="q8", master="split", seed=3)
    # It saves the one and loads into the other.
    saving, loading = program.split("states = {}")
    names = {"torch": torch, "optimizer": optimizer}
    exec(saving, names)  # noqa: S102
    names["optimizer"] = other
    exec("states = {}" + loading, names)  # noqa: S102
    assert other.param_groups[0]["lr"] == 0.02
    assert other.param_groups[0]["betas"] == (0.9, 0.999)
    for _ in range(3):
        set_grads(own, others)
        optimizer.step()
        other.step()
    assert all(torch.equal(one, two) for one, two in zip(own, others))


@pytest.mark.parametrize("name", [*SETTINGS, *OWN])
@pytest.mark.parametrize(
    "options", [{}, {"state_dtype": "q8"}, {"state_dtype": "bf16", "master": "split"}], ids=["f32", "q8", "split"]
)
def test_states_are_on_the_cpu_whatever_the_default_device(name: str, options: dict[str, Any]) -> None:
    runs = []
    for device in (None, "meta"):
        torch.manual_seed(5)
        own = [*params(), *params(torch.bfloat16)]
        gradients = [[torch.randn(param.shape).to(param.dtype) for param in own] for _ in range(4)]
        make = getattr(adamant_optim, name)
        optimizer = make(own, **options)
        # As after torch.set_default_device("cuda"), for a model that is there.
        torch.set_default_device(device)
        try:
            for number, grads in enumerate(gradients):
                if number == 2:
                    saved = copy.deepcopy(optimizer.state_dict())
                    optimizer = make(own, **options)
                    optimizer.load_state_dict(saved)
                for param, grad in zip(own, grads):
                    param.grad = grad
                optimizer.step()
        finally:
            torch.set_default_device(None)
        values = [value for param in own for value in optimizer.state[param].values()]
        assert {value.device.type for value in values} <= {"cpu"}
        runs.append(own)
    assert all(torch.equal(one, other) for one, other in zip(*runs))


def test_rows_are_found_whatever_the_default_device() -> None:
    runs = []
    for device in (None, "meta"):
        table = torch.nn.Parameter(torch.ones(3, 4, 2))
        # Its rows are those of two dimensions.
        indices, values = torch.tensor([[0, 2], [1, 3]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        table.grad = torch.sparse_coo_tensor(indices, values, (3, 4, 2))
        optimizer = adamant_optim.Adam([table], lr=0.1, dense_equivalent=True)
        torch.set_default_device(device)
        try:
            optimizer.step()
        finally:
            torch.set_default_device(None)
        runs.append(table)
    assert torch.equal(*runs)
    assert int((runs[0] != 1.0).any(dim=2).sum()) == 2


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("state_dtype", [torch.bfloat16, torch.float16, "q8"], ids=str)
def test_pytorch_takes_over_moments_of_few_bits(name: str, state_dtype: Any) -> None:
    ours = params()
    optimizer = getattr(adamant_optim, name)(ours, state_dtype=state_dtype)
    for _ in range(3):
        set_grads(ours)
        optimizer.step()
    theirs = copies(ours)
    other = getattr(torch.optim, name)(theirs)
    saved = copy.deepcopy(optimizer.state_dict())
    other.load_state_dict(copy.deepcopy(saved))
    for index, param in enumerate(theirs):
        for key, value in other.state[param].items():
            if isinstance(value, torch.Tensor) and key in saved["state"].get(index, {}) and value.is_floating_point():
                # Moments of few bits become as many numbers in float32.
                assert value.dtype == torch.float32
                assert torch.equal(value, torch.as_tensor(saved["state"][index][key]).float())
    set_grads(ours, theirs)
    optimizer.step()
    other.step()
    # One step from the same moments, exact ones there and rounded ones here.
    assert all(torch.allclose(one, two, rtol=0.02, atol=0.02) for one, two in zip(ours, theirs))
    # And back: the bits that were loaded are those that were saved.
    optimizer.load_state_dict(saved)
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(saved["state"][index][key])), key


@pytest.mark.parametrize("state_dtype", [None, torch.bfloat16, "q8"], ids=str)
def test_codes_that_pytorch_has_gone_on_without_are_not_read(state_dtype: Any) -> None:
    ours = params()
    optimizer = adamant_optim.AdamW(ours, state_dtype="q8")
    set_grads(ours)
    optimizer.step()
    theirs = copies(ours)
    other = torch.optim.AdamW(theirs)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        set_grads(theirs)
        other.step()
    back = adamant_optim.AdamW(ours, state_dtype=state_dtype)
    back.load_state_dict(copy.deepcopy(other.state_dict()))
    for index, state in back.state_dict()["state"].items():
        expected = other.state[theirs[index]]["exp_avg"]
        # 8 bits have four for the leading digits of a number, and so a sixteenth of it is the error at most.
        assert torch.allclose(state["exp_avg"].float(), expected, rtol=1 / 16, atol=1e-3)


def test_a_checkpoint_of_unlike_groups_is_refused_with_pytorchs_words() -> None:
    own = params()
    whole, split = adamant_optim.AdamW(own), [{"params": own[:2]}, {"params": own[2:]}]
    for other in (adamant_optim.AdamW(split), torch.optim.AdamW(split)):
        with pytest.raises(ValueError, match="different number of parameter groups"):
            whole.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="doesn't match the size of optimizer's group"):
        whole.load_state_dict(adamant_optim.AdamW(own[:2]).state_dict())


def test_weight_averages_follow_a_run() -> None:
    from torch.optim.swa_utils import SWALR, AveragedModel

    results = []
    for module in (adamant_optim, torch.optim):
        model = small_model()
        optimizer = module.AdamW(model.parameters(), lr=0.05)
        average, schedule = AveragedModel(model), SWALR(optimizer, swa_lr=0.01, anneal_epochs=3)
        for _ in range(5):
            train(model, optimizer, 2)
            average.update_parameters(model)
            schedule.step()
        results.append(average)
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(results[0].parameters(), results[1].parameters()))


def test_a_closure_is_called_once_a_step_and_sees_the_parameters_of_the_last_one() -> None:
    own = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = adamant_optim.Rprop([own], lr=0.1)
    seen = []

    def closure() -> Any:
        optimizer.zero_grad()
        loss = own.square().sum()
        loss.backward()
        seen.append(own.detach().clone())
        return loss

    losses = [optimizer.step(closure).item() for _ in range(20)]
    assert len(seen) == 20
    assert losses == [values.square().sum().item() for values in seen]
    assert losses[-1] < 0.1 * losses[0]


def test_a_step_stands_in_the_profile() -> None:
    model = small_model()
    optimizer = adamant_optim.AdamW(model.parameters())
    train(model, optimizer, 1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        train(model, optimizer, 1)
    assert "Optimizer.step#AdamW.step" in {event.key for event in profile.key_averages()}


def test_named_parameters_are_in_checkpoints_and_errors() -> None:
    model = small_model()
    try:
        torch.optim.AdamW(model.named_parameters())
    except TypeError:
        pytest.skip("this PyTorch takes no named parameters")
    optimizer = adamant_optim.AdamW(model.named_parameters())
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == [name for name, _ in model.named_parameters()]
    torch.optim.AdamW(small_model().named_parameters()).load_state_dict(optimizer.state_dict())
    model[2].weight.data = torch.ones(1, 8).expand(2, 8)
    before = model[0].weight.detach().clone()
    for param in model.parameters():
        param.grad = torch.ones(param.shape)
    with pytest.raises((TypeError, ValueError, RuntimeError), match=r"parameter '2\.weight'"):
        optimizer.step()
    assert torch.equal(model[0].weight, before)
