"""A process of its own for what is measured: calls in, answers out, and what its tree takes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
PATIENCE = 900  # seconds that an answer may take; the longest check takes a minute or two
WORDS = 300  # characters of an error that are shown
POLL = 0.01  # seconds between two looks at the memory of a process
POLL_TREE = 0.1  # and of a tree, which costs more to look at
READ_CHARS = 4  # in Linux's counters: bytes of every read, from the page cache or not


@dataclass(frozen=True)
class Answer:
    """What a call returned, and what it took."""

    value: Any
    peak: int  # highest resident memory during the call, bytes
    user: float  # CPU seconds
    system: float
    read: int  # bytes


class Child:
    """A process that makes an object and calls its methods, one at a time.

    Parameters
    ----------
    maker : str
        ``"module:function"`` of this package; what it returns has the methods.
    *arguments
        Of the function, as JSON has them.
    python : str
        Another interpreter.
    tree : bool
        Whether processes that it starts count as well; memory they share counts once.
    """

    def __init__(self, maker: str, *arguments: Any, python: str = "", tree: bool = False) -> None:
        self._errors = tempfile.TemporaryFile("w+")
        self._tree = tree
        paths = [] if python else filter(None, [os.environ.get("PYTHONPATH")])
        self._popen = subprocess.Popen(
            [python or sys.executable, "-m", "benchmarks.serve", json.dumps([maker, *arguments])],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *paths])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._process = psutil.Process(self._popen.pid)
        try:
            self._answer()
        except RuntimeError:
            self.close()
            raise
        self.begun = self.resident()  # after what the maker has imported

    def call(self, method: str, *arguments: Any) -> Answer:
        """Call a method; raises RuntimeError with the last words of a process that died."""
        before = self._used()
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps([method, *arguments]), file=self._popen.stdin, flush=True)
        value, peak = self._answer()
        user, system, read = (b - a for a, b in zip(before, self._used(), strict=True))
        return Answer(value, peak, user, system, int(read))

    def resident(self) -> int:
        """Resident memory of the process or the tree."""
        total = 0
        for member in self._members():
            with contextlib.suppress(psutil.Error):  # has ended meanwhile
                if self._tree and hasattr(member, "memory_maps"):
                    total += member.memory_full_info().pss
                else:
                    total += member.memory_info().rss
        return total

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.close()
        try:
            self._popen.wait(20)
        except subprocess.TimeoutExpired:
            self._kill()
        self._popen.stdout.close()
        self._errors.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> tuple[Any, int]:
        peak, deadline = 0, time.monotonic() + PATIENCE
        poll = POLL_TREE if self._tree else POLL
        while not select.select([self._popen.stdout], [], [], poll)[0]:
            peak = max(peak, self.resident())
            if time.monotonic() > deadline:
                self._kill()
                raise RuntimeError(f"no answer within {PATIENCE} s")
        line = self._popen.stdout.readline()
        if not line:
            self._errors.seek(0)
            last = (self._errors.read().strip() or "no message").splitlines()[-1]
            raise RuntimeError(last if len(last) < WORDS else last[:WORDS] + " …")
        return json.loads(line), max(peak, self.resident())

    def _kill(self) -> None:
        for member in (*self._process.children(recursive=True), self._process):
            with contextlib.suppress(psutil.Error):
                member.kill()
        self._popen.wait()

    def _members(self) -> list[psutil.Process]:
        return [self._process, *(self._process.children(recursive=True) if self._tree else ())]

    def _used(self) -> tuple[float, float, float]:
        """CPU seconds (user, system) and bytes read, by the tree and what has ended of it."""
        user, system, read = 0.0, 0.0, 0.0
        for member in self._members():
            with contextlib.suppress(psutil.Error):
                times = member.cpu_times()
                user += times.user + times.children_user
                system += times.system + times.children_system
                if hasattr(member, "io_counters"):
                    read += member.io_counters()[READ_CHARS]
        return user, system, read
