"""Workers as the driver sees them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
from pathlib import Path
from typing import IO, Any

from .libraries import Source

HERE = Path(__file__).resolve().parent.parent

#: Seconds that an answer may take: imports on a busy machine, and the slowest step.
PATIENCE = 180.0


class WorkerError(Exception):
    """A worker could not do what it was told."""


def environment(source: Source, environments: Path, threads: int) -> dict[str, str]:
    """The environment variables of a worker."""
    path = [str(HERE)]
    if source.overlay:
        path.append(str(environments / source.overlay))
    count = str(threads)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        # Compilers and tools that libraries call lie beside the interpreter.
        "PATH": os.pathsep.join([str(environments / source.environment / "bin"), os.environ.get("PATH", "")]),
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": count,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "KERAS_BACKEND": "tensorflow",
        "TORCH_EXTENSIONS_DIR": str(environments / "extensions"),
    }


class Process:
    """A worker, started."""

    def __init__(self, source: Source, environments: Path, threads: int, log: IO[bytes]) -> None:
        """Starts it; :meth:`hello` waits until it has imported its library."""
        self.source = source
        python = environments / source.environment / "bin" / "python"
        self._process = subprocess.Popen(
            [str(python), "-m", "harness.worker", source.module, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment(source, environments, threads),
            cwd=HERE,
        )
        self._rest = b""
        self.package = source.module
        self.version = ""

    def hello(self) -> None:
        """Waits for the library, and learns its version."""
        found = self._answer()
        self.package, self.version = found["package"], found["version"]

    def order(self, do: str, **fields: Any) -> dict[str, Any]:
        """Gives an order and waits for the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._fate()) from None
        return self._answer()

    def cpu_time(self) -> int:
        """The nanoseconds that its threads have run until now, to the last tick of the scheduler."""
        total = 0
        for thread in Path(f"/proc/{self._process.pid}/task").glob("*/schedstat"):
            # A thread may end meanwhile.
            with contextlib.suppress(OSError):
                total += int(thread.read_text().split()[0])
        return total

    def stop(self) -> None:
        """Ends the worker."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            # What it has not read is lost.
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()

    def _answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._line())
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
            if not ready:
                self.stop()
                raise WorkerError(f"no answer in {PATIENCE:.0f} s")
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise WorkerError(self._fate())
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _fate(self) -> str:
        code = self._process.wait()
        return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with code {code}"
