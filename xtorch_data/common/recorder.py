"""What the threads of one iteration count: seconds, bytes, samples, ways and failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Recorder"]


@dataclass(eq=False)
class Recorder:
    """Adds up what the threads of one iteration do. Once a block or batch, not once a sample."""

    epoch: int
    _sums: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _begun: float = field(default_factory=time.perf_counter)
    _ended: float | None = None
    _failures: list[Any] = field(default_factory=list)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block of code to a stage."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(**{stage: time.perf_counter() - begun})

    def add(self, **amounts: float) -> None:
        """Add to some sums."""
        with self._lock:
            for name, amount in amounts.items():
                self._sums[name] = self._sums.get(name, 0) + amount

    def fail(self, failures: Iterable[Any]) -> None:
        """Note what could not be read."""
        with self._lock:
            self._failures.extend(failures)

    def end(self) -> None:
        """Stop the clock."""
        if self._ended is None:
            self._ended = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall time since the iteration began, up to its end."""
        return (time.perf_counter() if self._ended is None else self._ended) - self._begun

    def counted(self) -> tuple[Mapping[str, float], tuple[Any, ...]]:
        """The sums by name so far, and what could not be read."""
        with self._lock:
            return dict(self._sums), tuple(self._failures)
