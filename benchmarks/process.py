"""A contender's process, seen from outside: what it answers, and what its process tree takes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from .faults import Faults
from .server import Server
from .stores import Store

MIB = 2**20
PATIENCE = 900  # seconds that an answer may take; the longest check takes a minute or two
WORDS = 300  # characters of an error that are shown
POLL = 0.02  # seconds between two looks at the memory of a process
POLL_TREE = 0.1  # and of a tree, which costs more to look at


@dataclass(frozen=True)
class Epoch:
    """One timed epoch."""

    seconds: float
    first_batch: float
    samples: int
    user: float  # CPU seconds, of the process tree
    system: float
    read: int  # bytes, by the process tree or from the server; 0 where that is not known
    most: int = 0  # requests that the server had in flight at the same time
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.samples / self.seconds


class Process:
    """`benchmarks.worker` for one contender. Use as a context manager."""

    def __init__(
        self,
        config: dict[str, Any],
        python: str | None,
        tree: bool,
        server: Server | None,
        faults: Faults | None = None,
    ) -> None:
        self._errors = tempfile.TemporaryFile("w+")
        self._poll = POLL_TREE if tree else POLL
        self._tree = tree
        self._server = server
        self._faults = faults
        self._popen = subprocess.Popen(
            [python or sys.executable, "-m", "benchmarks.worker", json.dumps(config)],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._process = psutil.Process(self._popen.pid)
        self.peak = 0
        try:
            self.versions: dict[str, str] = self._answer()["versions"]
        except RuntimeError:
            self.close()
            raise
        self.imported = self._process.memory_info().rss
        self.peak = self.imported

    @classmethod
    def of(
        cls,
        kind: type,
        workload: str,
        quick: bool,
        python: str | None = None,
        server: Server | None = None,
        **options: Any,
    ) -> Process:
        config = {
            "contender": kind.__name__,
            "workload": workload,
            "quick": quick,
            "endpoint": server.endpoint if server else "",
            "options": options,
        }
        tree = bool(kind.workers)  # type: ignore[attr-defined]
        faults: Faults | None = kind.faults  # type: ignore[attr-defined]
        return cls(config, python, tree, server, faults)

    @property
    def above_imports(self) -> int:
        """Peak of resident memory of the tree above what the process took after its imports."""
        return self.peak - self.imported

    def check(self) -> dict[str, Any]:
        """Have an epoch compared with plain `isel`; what that took of memory does not count."""
        found = self._ask("check")
        self.peak = self.imported
        return found

    def epoch(self) -> Epoch:
        """Have an epoch run and timed."""
        before, asked = self._used(), self._server and self._server.counts()
        found = self._ask("epoch")
        user, system, read = (b - a for a, b in zip(before, self._used(), strict=True))
        if self._server and asked:
            counts = self._server.counts()
            read = counts.sent - asked.sent
            found["most"] = counts.most
            found["details"]["failed"] = counts.failed - asked.failed
            found["details"]["slowed"] = counts.slowed - asked.slowed
        return Epoch(**found, user=user, system=system, read=int(read))

    def close(self) -> None:
        """Let the process end."""
        assert self._popen.stdin is not None and self._popen.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.close()
        try:
            self._popen.wait(20)
        except subprocess.TimeoutExpired:
            self._kill()
        self._popen.stdout.close()
        self._errors.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, what: str) -> dict[str, Any]:
        assert self._popen.stdin is not None
        if self._server:
            self._server.spoil(self._faults)
        with contextlib.suppress(BrokenPipeError):  # has died: its last words say why
            self._popen.stdin.write(json.dumps(what) + "\n")
            self._popen.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._popen.stdout is not None
        deadline = time.monotonic() + PATIENCE
        while not select.select([self._popen.stdout], [], [], self._poll)[0]:
            self.peak = max(self.peak, self._resident())
            if time.monotonic() > deadline:
                self._kill()
                raise RuntimeError(f"no answer within {PATIENCE} s")
        line = self._popen.stdout.readline()
        self.peak = max(self.peak, self._resident())
        if not line:
            self._errors.seek(0)
            last = (self._errors.read().strip() or "no message").splitlines()[-1]
            raise RuntimeError(last if len(last) < WORDS else last[:WORDS] + " …")
        found: dict[str, Any] = json.loads(line)
        return found

    def _kill(self) -> None:
        """End the process and those that it has started."""
        for member in (*self._process.children(recursive=True), self._process):
            with contextlib.suppress(psutil.Error):
                member.kill()
        self._popen.wait()

    def _members(self) -> list[psutil.Process]:
        return [self._process, *(self._process.children(recursive=True) if self._tree else ())]

    def _resident(self) -> int:
        total = 0
        for member in self._members():
            try:
                if self._tree and hasattr(psutil.Process, "memory_maps"):
                    total += member.memory_full_info().pss  # what is shared counts once
                else:
                    total += member.memory_info().rss
            except psutil.Error:  # has ended meanwhile
                pass
        return total

    def _used(self) -> tuple[float, float, float]:
        """CPU seconds (user, system) and bytes read, by the tree and what has ended of it."""
        user, system, read = 0.0, 0.0, 0.0
        for member in self._members():
            try:
                times = member.cpu_times()
                user += times.user + times.children_user
                system += times.system + times.children_system
                read += getattr(member, "io_counters", _no_counters)()[_READ_CHARS]
            except psutil.Error:
                pass
        return user, system, read


_READ_CHARS = 4  # of Linux: bytes of every read, from the page cache or not


def _no_counters() -> tuple[int, ...]:
    return (0,) * (_READ_CHARS + 1)


def warm(store: Store) -> int:
    """Bring the files of a store into the page cache; their bytes."""
    return sum(len(path.read_bytes()) for path in store.files())
