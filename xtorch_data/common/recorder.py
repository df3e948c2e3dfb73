"""Counters of one iteration: seconds, bytes, samples, the ways data went, and failures."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypedDict, Unpack, cast, get_args

__all__ = ["STAGES", "Counts", "Recorder", "StageName", "Way"]

StageName = Literal["read", "preprocess", "prepare", "transform", "gather", "wait"]
STAGES: tuple[StageName, ...] = get_args(StageName)


class Way(StrEnum):
    """Ways that regions are read and windows are gathered, by their names in `Stats.paths`."""

    READ_DIRECTLY = "read directly"
    READ_BY_ZARR = "read by zarr"
    READ_BY_BACKEND = "read by its backend"
    COMPUTED_HERE = "computed by dask"
    COMPUTED_ON_CLUSTER = "computed on a dask cluster"
    FROM_DISK = "taken from disk"
    SELECTED = "windows selected"
    COPIED = "windows copied"
    SPLIT = "windows split"
    TRANSFORMED = "windows transformed"


class Counts(TypedDict, total=False):
    """Sums over the threads of an iteration; `Stats` says what each of them is."""

    samples: int
    batches: int
    read: float
    preprocess: float
    prepare: float
    transform: float
    gather: float
    wait: float
    bytes_read: int
    bytes_gathered: int
    blocks_read: int
    blocks_cached: int
    retries: int
    skipped: int
    repeated: int
    chunks_missing: int


@dataclass(eq=False)
class Recorder:
    """Adds up what the threads of one iteration do, once a block or batch, not once a sample.

    Made with the iteration, and kept for `stats()` until the next one begins. Any thread may call
    it.
    """

    epoch: int
    _sums: dict[str, float] = field(
        default_factory=lambda: {n: 0.0 if n in STAGES else 0 for n in Counts.__annotations__}
    )
    _ways: Counter[Way] = field(default_factory=Counter)
    _failures: list[Any] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _begun: float = field(default_factory=time.perf_counter)
    _ended: float | None = None

    @contextmanager
    def timed(self, stage: StageName) -> Iterator[None]:
        """Add the time of a block of code to a stage."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            with self._lock:
                self._sums[stage] += seconds

    def add(self, **amounts: Unpack[Counts]) -> None:
        """Add to some sums."""
        with self._lock:
            for name, amount in cast(Mapping[str, float], amounts).items():
                self._sums[name] += amount

    def took(self, ways: Mapping[Way, int]) -> None:
        """Count regions or windows by the way that they went."""
        with self._lock:
            self._ways.update(ways)

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

    def counted(self) -> tuple[Counts, Mapping[Way, int], tuple[Any, ...]]:
        """The sums, the ways, and what could not be read, so far."""
        with self._lock:
            counts = cast(Counts, dict(self._sums))
            return counts, dict(self._ways), tuple(self._failures)
