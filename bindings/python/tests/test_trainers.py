"""Trainers that own the loop: some steps on a small random model, saved, resumed, with the bits of a run without."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from adamant_optim import AdamW

STEPS, SAVED = 6, 3
#: The moments of 8 bits show whether a trainer keeps them with their bits.
OPTIONS: dict[str, Any] = {"lr": 1e-2, "state_dtype": "q8", "seed": 4}


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: param.detach().clone() for name, param in model.named_parameters()}


def assert_same(ours: Any, theirs: Any, start: Any) -> None:
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert any(not torch.equal(ours[name], start[name]) for name in start)


def test_hugging_face_trainer_resumes(tmp_path: pathlib.Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate, which transformers' Trainer needs, is not installed")
    torch.manual_seed(0)
    texts = torch.randint(0, 50, (24, 12))
    data = [{"input_ids": text, "labels": text} for text in texts]

    def trainer(place: str) -> Any:
        config = transformers.GPT2Config(vocab_size=50, n_positions=12, n_embd=16, n_layer=1, n_head=2)
        torch.manual_seed(1)
        return transformers.Trainer(
            model=transformers.GPT2LMHeadModel(config),
            args=transformers.TrainingArguments(
                output_dir=str(tmp_path / place),
                max_steps=STEPS,
                save_steps=SAVED,
                per_device_train_batch_size=4,
                learning_rate=OPTIONS["lr"],
                max_grad_norm=1.0,
                use_cpu=True,
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=data,
            optimizer_cls_and_kwargs=(AdamW, OPTIONS),
        )

    whole = trainer("whole")
    start = weights(whole.model)
    whole.train()
    assert isinstance(whole.optimizer.optimizer, AdamW)
    resumed = trainer("resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{SAVED}"))
    assert resumed.state.global_step == STEPS
    assert_same(weights(resumed.model), weights(whole.model), start)


def test_accelerate_prepares_accumulates_clips_and_resumes(tmp_path: pathlib.Path) -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(torch.randn(STEPS * 8, 5), torch.randn(STEPS * 8, 3))

    def prepared() -> Any:
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
        optimizer = AdamW(model.parameters(), **OPTIONS)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        loader = torch.utils.data.DataLoader(data, batch_size=4)
        return accelerator, *accelerator.prepare(model, optimizer, schedule, loader)

    def train(parts: Any, batches: range, save_after: int | None = None) -> None:
        accelerator, model, optimizer, schedule, loader = parts
        for number, (inputs, wanted) in enumerate(loader):
            if number not in batches:
                continue
            with accelerator.accumulate(model):
                accelerator.backward(torch.nn.functional.mse_loss(model(inputs), wanted))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            if number == save_after:
                accelerator.save_state(str(tmp_path / "saved"))

    whole = prepared()
    start = weights(whole[1])
    train(whole, range(2 * STEPS), save_after=2 * SAVED - 1)
    resumed = prepared()
    resumed[0].load_state(str(tmp_path / "saved"))
    train(resumed, range(2 * SAVED, 2 * STEPS))
    assert_same(weights(resumed[1]), weights(whole[1]), start)
    # Every second batch was a step.
    state = whole[2].state_dict()["state"]
    assert {float(one["step"]) for one in state.values()} == {STEPS}


def test_lightning_resumes(tmp_path: pathlib.Path) -> None:
    try:
        import lightning
    except ImportError:
        pytest.skip("lightning is not installed")

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))

        def training_step(self, batch: Any, number: int) -> Any:
            inputs, wanted = batch
            return torch.nn.functional.mse_loss(self.net(inputs), wanted)

        def configure_optimizers(self) -> Any:
            optimizer = AdamW(self.parameters(), **OPTIONS)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    torch.manual_seed(0)
    # An epoch is as many steps as are taken before the save.
    data = torch.utils.data.TensorDataset(torch.randn(SAVED * 4, 5), torch.randn(SAVED * 4, 3))

    def fit(epochs: int, **kwargs: Any) -> Any:
        torch.manual_seed(1)
        model = Model()
        start = weights(model)
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
            default_root_dir=tmp_path,
        )
        trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=4), **kwargs)
        return trainer, weights(model), start

    half, _, _ = fit(1)
    assert half.global_step == SAVED
    half.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed, start = fit(2, ckpt_path=tmp_path / "half.ckpt")
    whole_trainer, whole, _ = fit(2)
    assert whole_trainer.global_step == STEPS
    assert_same(resumed, whole, start)
