"""The programs in the README and the pages run as they stand."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

pytest.importorskip("torch")

PLACE = pathlib.Path(__file__).parents[1]


def programs_of(page: str) -> list[str]:
    text = (PLACE / page).read_text(encoding="utf-8")
    programs = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(programs) >= 4
    return programs


@pytest.mark.parametrize("page", ["README.md", "docs/moving.md"])
def test_the_programs_of_a_page_run(page: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    programs = programs_of(page)
    if importlib.util.find_spec("safetensors") is None:
        programs = [program for program in programs if "safetensors" not in program]
    names: dict[str, object] = {}
    for number, program in enumerate(programs):
        exec(compile(program, f"{page}, program {number + 1}", "exec"), names)  # noqa: S102


def test_the_programs_of_the_page_for_processes_run(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("torch", minversion="2.6", reason="fully_shard is public from PyTorch 2.6 on")
    has_deepspeed = importlib.util.find_spec("deepspeed") is not None
    programs = programs_of("docs/sharded.md")
    programs = [program for program in programs if has_deepspeed or "import deepspeed" not in program]
    (tmp_path / "page.py").write_text("\n".join(programs), encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = subprocess.run(
        [*torchrun, "page.py"],
        check=False,
        cwd=tmp_path,
        env=os.environ | {"DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "run.pt").exists()
    assert (tmp_path / "zero.pt").exists()


def test_links_of_the_pages_lead_somewhere() -> None:
    for page in [PLACE / "README.md", *PLACE.glob("docs/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_example_trains_and_draws(tmp_path: pathlib.Path) -> None:
    for name in ("tqdm", "matplotlib"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    options = "--optimizer adamant --state q8 --steps 20 --layers 1 --width 32 --heads 2 --context 16 --threads 1"
    found = subprocess.run(
        [sys.executable, PLACE / "examples/gpt.py", *options.split(), "--out", tmp_path / "gpt.png"],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert found.returncode == 0, found.stderr
    row = next(line for line in found.stdout.splitlines() if line.startswith("adamant q8"))
    loss, _, _, _, _, state_bytes, _ = row.split()[2:]
    # Of some hundred characters one is guessed with a loss of 4.6.
    assert float(loss) < 4.5
    assert 2.0 <= float(state_bytes) < 2.2
    assert (tmp_path / "gpt.png").read_bytes().startswith(b"\x89PNG")


def test_the_example_says_what_it_does_not_do() -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    for options, text in (
        ("--optimizer torch --state q8", "f32 only"),
        ("--width 30 --heads 4", "must be a multiple"),
        ("--steps 0", "must be at least 1"),
    ):
        found = subprocess.run(
            [sys.executable, PLACE / "examples/gpt.py", *options.split()],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert found.returncode == 2
        assert text in found.stderr
