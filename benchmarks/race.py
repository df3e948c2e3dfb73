"""The race: contenders checked, then timed in interleaved rounds, each in its own process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from s3_server import Server

from .child import Child
from .contenders import Contender
from .report import MIB
from .stores import bench_dir
from .workloads import Workload

BEGUN = time.monotonic()
# Without torch: its batches are NumPy arrays, which torch takes as they are.
INSITUBATCH = "insitubatch==0.2.0"


def say(line: str) -> None:
    """Progress, beside the table."""
    print(f"{time.monotonic() - BEGUN:5.0f} s  {line}", file=sys.stderr, flush=True)


def rounds(quick: bool, most: int = 5) -> int:
    """How often everything is timed; ROUNDS sets it."""
    return int(os.environ.get("ROUNDS") or (2 if quick else most))


def race(
    contenders: Mapping[str, Contender],
    work: Workload,
    rounds: int,
    firsts: int = 0,
    check: bool = True,
    server: Server | None = None,
) -> pd.DataFrame:
    """Time contenders in turns, each in its process; one that fails does not end the race.

    A row for each of them, with the medians of all that their epochs say: by name, and by name and
    " first" for the first epochs of fresh processes, which those run that have `firsts`.
    """
    if server:
        work = replace(work, endpoint=server.endpoint)
    say(f"{work.name}: making the store")
    stored = {}
    for key, each in contenders.items():
        store = each.of(work).store
        store.make()
        stored[key] = store.warm()
    records: list[dict[str, Any]] = []
    children: dict[str, Child] = {}
    skipped: dict[str, str] = {}

    def stop(key: str) -> None:
        if key in children:
            children.pop(key).close()

    def started(key: str) -> Child:
        stop(key)
        each = contenders[key]
        python = _insitubatch_python() if each.other_python else ""
        children[key] = Child(each, each.of(work), python)
        return children[key]

    def epoch(key: str, child: Child, when: str) -> None:
        if not server:
            return records.append({"key": key, "when": when, **child.epoch()})
        server.spoil(contenders[key].faults)
        before, took, after = server.counts(), child.epoch(), server.counts()
        names = {"fetched": "sent", "failed": "failed", "slowed": "slowed"}
        counted = {name: getattr(after, of) - getattr(before, of) for name, of in names.items()}
        records.append({"key": key, "when": when, **took, **counted, "most at once": after.most})

    def check_it(key: str) -> None:
        started(key).check()

    def first(key: str) -> None:
        child = started(key)
        warm_memory()
        epoch(key, child, " first")

    def later(key: str) -> None:
        epoch(key, children.get(key) or started(key), "")

    checks = [key for key, each in contenders.items() if each.checked]
    fresh = [key for key, each in contenders.items() if each.firsts]
    turns: list[tuple[str, Callable[[str], None], list[str]]] = [
        *[("checks", check_it, checks)] * check,
        *[("first epochs", first, fresh)] * firsts,
        *[("later epochs", later, list(contenders))] * rounds,
    ]
    try:
        for number, (title, run, keys) in enumerate(turns):
            say(f"{work.name}: {title}, turn {number + 1} of {len(turns)}")
            for key in [key for key in keys if key not in skipped]:
                try:
                    run(key)
                except RuntimeError as error:
                    skipped[key] = f"failed: {error}"
                    say(f"{work.name}: {contenders[key].title} {skipped[key]}")
                    stop(key)
    finally:
        for child in children.values():
            child.close()
    told = {"title": {key: each.title for key, each in contenders.items()},
            "slow": {key: each.slow for key, each in contenders.items()},
            "stored": stored, "skipped": skipped}  # fmt: skip
    records = [each for each in records if each["key"] not in skipped]
    return medians(records).join(pd.DataFrame(told), how="outer").reindex(contenders)


def warm_memory(nbytes: int = 3 * 2**30) -> None:
    """Use memory that nobody has used for a while, and let go of it.

    The host of a virtual machine takes back what lies idle for some seconds. It gives it again in
    pieces of 4 KiB, at the first touch, which takes a second or two for a GiB: that is a matter of
    the host, and falls to whoever comes first.
    """
    np.zeros(nbytes // 8)[:: 4096 // 8] = 1


def medians(records: list[dict[str, Any]]) -> pd.DataFrame:
    """The medians of each figure by contender; of memory the most, of texts the last."""
    every = pd.DataFrame(records, columns=None if records else ["key", "when", "peak"])
    found = pd.DataFrame({"peak, MiB": every.groupby("key")["peak"].max() / MIB})
    for when, part in every.groupby("when"):
        numbers = set(part.select_dtypes("number"))
        names = [name for name in part if name not in ("key", "when")]
        how = {name: "median" if name in numbers else "last" for name in names}
        found = found.join(part.groupby("key").agg(how).add_suffix(when))
    return found


def _insitubatch_python() -> str:
    """The interpreter that has insitubatch, in an environment that is made if need be."""
    folder = bench_dir() / "insitubatch-env"
    python = str(folder / "bin" / "python")
    if Path(python).exists():
        return python
    named = [os.environ.get("XTD_BENCH_PYTHON"), *(f"python3.{minor}" for minor in (12, 13, 14))]
    root = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    found = [*map(shutil.which, filter(None, named)), *root.glob("versions/3.1[2-9]*/bin/python")]
    newer = "import sys; sys.exit(sys.version_info < (3, 12))"
    base = next(
        (
            str(each)
            for each in filter(None, found)
            if not subprocess.run([each, "-c", newer], capture_output=True).returncode
        ),
        None,
    )
    if base is None:
        raise RuntimeError("no Python >= 3.12 found (XTD_BENCH_PYTHON may name one)")
    install = [python, "-m", "pip", "install", "--quiet", INSITUBATCH]
    for command in ([base, "-m", "venv", str(folder)], install):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise RuntimeError(f"`{' '.join(command[1:4])}` failed: {last}")
    return python
