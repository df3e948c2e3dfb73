"""An environment of its own for insitubatch, which asks for Python 3.12 or later."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .stores import bench_dir

# Without torch: its batches are NumPy arrays, which torch takes as they are.
PACKAGES = ["insitubatch==0.2.0"]


def insitubatch_python() -> tuple[str | None, str]:
    """The interpreter that has insitubatch, made if need be; or None, and why not."""
    folder = bench_dir() / "insitubatch-env"
    python = folder / "bin" / "python"
    if not _works(str(python), "import insitubatch"):
        base = next((found for found in _candidates() if _is_new_enough(found)), None)
        if base is None:
            return None, "no Python >= 3.12 found (XTD_BENCH_PYTHON may name one)"
        shutil.rmtree(folder, ignore_errors=True)
        for command in (
            [base, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", *PACKAGES],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                last = (done.stderr.strip() or "no message").splitlines()[-1]
                return None, f"`{' '.join(command[1:4])}` failed: {last}"
    return str(python), ""


def _candidates() -> Iterator[str]:
    if given := os.environ.get("XTD_BENCH_PYTHON"):
        yield given
    yield sys.executable
    names = [f"python3.{minor}" for minor in (12, 13, 14)]
    yield from filter(None, map(shutil.which, names))
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True).stdout.strip()
        for name in names:
            prefix = name.removeprefix("python")
            yield from map(str, sorted(Path(root, "versions").glob(f"{prefix}*/bin/python")))


def _is_new_enough(python: str) -> bool:
    return _works(python, "import sys; assert sys.version_info >= (3, 12)")


def _works(python: str, code: str) -> bool:
    try:
        return not subprocess.run([python, "-c", code], capture_output=True).returncode
    except OSError:
        return False
