"""The Python environments that the libraries run in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Collection
from pathlib import Path

from .libraries import SOURCES
from .process import environment

#: The packages of each environment, in the order of their installation. What fails is told, and left out.
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "torch": (
        "numpy==2.4.6",
        "torch==2.15.0",
        "setuptools==80.9.0",
        "ninja==1.13.2",
        "deepspeed==0.19.8",
        "bitsandbytes==0.50.2",
        "torch-optimi==0.3.3",
        "trainstream==0.4.1",
    ),
    "tensorflow": ("tensorflow-cpu==2.21.0", "keras==3.15.1"),
    # It is built for this version of PyTorch.
    "fbgemm": ("numpy==2.4.6", "torch==2.14.1", "fbgemm-gpu-cpu==1.9.0"),
}

#: Packages that hide others of an environment, in folders of their own.
OVERLAYS: dict[str, tuple[str, ...]] = {"bitsandbytes-cpu-fork": ("bitsandbytes-cpu-fork==0.50.2.dev9", "psutil")}

#: DeepSpeed compiles its optimizer when it is first used; a compiler takes longer than a worker may.
COMPILE = {"deepspeed": "from deepspeed.ops.op_builder import CPUAdamBuilder; CPUAdamBuilder().load()"}


def _pip(python: Path, *arguments: str) -> str | None:
    """Runs pip, and returns what it complains about if it fails."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if result.returncode == 0:
        return None
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    line = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "pip failed")
    return line[:200]


def _stamp(folder: Path, packages: tuple[str, ...]) -> bool:
    """Whether exactly these packages were installed into the folder before."""
    stamp = folder / "packages.json"
    return stamp.exists() and json.loads(stamp.read_text()) == list(packages)


def needed(modules: Collection[str]) -> set[str]:
    """The folders of the environments and overlays that libraries run in, adamant among them."""
    sources = [source for source in SOURCES if source.module in modules or source.module == "adamant"]
    return {folder for source in sources for folder in (source.environment, source.overlay) if folder}


def install(environments: Path, modules: Collection[str]) -> dict[str, str]:
    """Installs what the libraries lack, and returns why packages are left out."""
    failed: dict[str, str] = {}
    folders = needed(modules)
    for name, packages in ENVIRONMENTS.items():
        folder = environments / name
        if name not in folders or _stamp(folder, packages):
            continue
        print(f"installing into {folder}: {', '.join(packages)}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        _install(folder, packages, failed)
    for name, packages in OVERLAYS.items():
        folder = environments / name
        if name in folders and not _stamp(folder, packages):
            print(f"installing into {folder}: {', '.join(packages)}", file=sys.stderr)
            folder.mkdir(parents=True, exist_ok=True)
            _install(
                folder, packages, failed, python=environments / "torch/bin/python", target=("--target", str(folder))
            )
    _compile(environments, modules, failed)
    return failed


def _install(
    folder: Path,
    packages: tuple[str, ...],
    failed: dict[str, str],
    python: Path | None = None,
    target: tuple[str, ...] = (),
) -> None:
    complete = True
    for package in packages:
        options = ("--upgrade", "--no-deps", *target) if target else ()
        problem = _pip(python or folder / "bin/python", "install", *options, package)
        if problem:
            failed[package], complete = problem, False
    # What failed is tried again by the next run.
    if complete:
        (folder / "packages.json").write_text(json.dumps(packages))


def _compile(environments: Path, modules: Collection[str], failed: dict[str, str]) -> None:
    for source in SOURCES:
        code = COMPILE.get(source.module)
        if code is None or source.module not in modules:
            continue
        python = environments / source.environment / "bin/python"
        variables = environment(source, environments, len(os.sched_getaffinity(0)))
        result = subprocess.run([str(python), "-c", code], env=variables, capture_output=True, text=True)
        if result.returncode != 0:
            lines = result.stderr.strip().splitlines()
            failed[source.module] = lines[-1] if lines else f"exit code {result.returncode}"


def build_adamant(environments: Path, repository: Path) -> str | None:
    """Builds and installs adamant's wheel; returns what went wrong."""
    python = environments / "torch/bin/python"
    return _pip(python, "install", "--no-deps", "--force-reinstall", str(repository / "bindings/python"))
