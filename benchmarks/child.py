"""A process of its own for a contender: calls in, answers out, and what its tree takes."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from .contenders import Contender
from .workloads import Workload

ROOT = Path(__file__).parents[1]
PATIENCE = 900  # seconds that an answer may take; the longest check takes a minute or two
WORDS = 300  # characters of an error that are shown
POLL = 0.01  # seconds between two looks at the memory of a process
POLL_TREE = 0.1  # and of a tree, which costs more to look at
READ_CHARS = 4  # in Linux's counters: bytes of every read, from the page cache or not


class Child:
    """The process of a contender, which does one thing at a time.

    Processes that a contender with workers starts count as well; memory they share counts once.
    """

    def __init__(self, contender: Contender, work: Workload, python: str = "") -> None:
        self._errors = tempfile.TemporaryFile("w+")
        self._tree = contender.workers > 0
        paths = [] if python else filter(None, [os.environ.get("PYTHONPATH")])
        self._popen = subprocess.Popen(
            [python or sys.executable, "-m", "benchmarks.serve"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *paths])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._process = psutil.Process(self._popen.pid)
        try:
            self._ask((contender, work))
        except RuntimeError:
            self.close()
            raise
        self._begun = self._resident()  # after its imports

    def check(self) -> None:
        """Compare its samples with plain `isel`; RuntimeError has the last words of a process."""
        self._ask("check")

    def epoch(self) -> dict[str, Any]:
        """An epoch, and what it took: CPU seconds, bytes read, bytes of memory above imports."""
        before = self._used()
        value, peak = self._ask("epoch")
        took = {name: then - before[name] for name, then in self._used().items()}
        return {**value, **took, "peak": peak - self._begun, "begun": self._begun}

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

    def _ask(self, question: Any) -> tuple[Any, int]:
        """The answer, and the highest resident memory meanwhile."""
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(question, self._popen.stdin, protocol=4)
            self._popen.stdin.flush()
        peak, deadline = 0, time.monotonic() + PATIENCE
        poll = POLL_TREE if self._tree else POLL
        while not select.select([self._popen.stdout], [], [], poll)[0]:
            peak = max(peak, self._resident())
            if time.monotonic() > deadline:
                self._kill()
                raise RuntimeError(f"no answer within {PATIENCE} s")
        try:
            value = pickle.load(self._popen.stdout)
        except EOFError:
            self._errors.seek(0)
            last = (self._errors.read().strip() or "no message").splitlines()[-1]
            raise RuntimeError(last if len(last) < WORDS else last[:WORDS] + " …") from None
        return value, max(peak, self._resident())

    def _kill(self) -> None:
        for member in (*self._process.children(recursive=True), self._process):
            with contextlib.suppress(psutil.Error):
                member.kill()
        self._popen.wait()

    def _members(self) -> list[psutil.Process]:
        return [self._process, *(self._process.children(recursive=True) if self._tree else ())]

    def _resident(self) -> int:
        total = 0
        for member in self._members():
            with contextlib.suppress(psutil.Error):  # has ended meanwhile
                if self._tree and hasattr(member, "memory_maps"):
                    total += member.memory_full_info().pss
                else:
                    total += member.memory_info().rss
        return total

    def _used(self) -> dict[str, float]:
        """CPU seconds and bytes read, by the tree and what has ended of it."""
        used = {"user": 0.0, "system": 0.0, "fetched": 0.0}
        for member in self._members():
            with contextlib.suppress(psutil.Error):
                times = member.cpu_times()
                used["user"] += times.user + times.children_user
                used["system"] += times.system + times.children_system
                if hasattr(member, "io_counters"):
                    used["fetched"] += member.io_counters()[READ_CHARS]
        return used
