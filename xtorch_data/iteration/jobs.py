"""Batches gathered on threads: one, or several small ones, at a time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..common.recorder import Recorder
from ..gathering.assembly import Assembly
from ..gathering.located import Located
from ..gathering.stage import Loaded
from ..samples.batch import Batch
from .read_ahead import Flight, Flights, Portion

__all__ = ["Gathering", "Lookahead", "in_jobs"]

# Of larger batches, fewer are gathered ahead.
LARGE_BATCH_BYTES = 16 * 2**20
# Small batches are gathered several at a time: as many as this, or as make so many bytes.
SMALL_BATCHES, JOB_BYTES = 64, 2**20


@dataclass(frozen=True)
class Lookahead:
    """How far batches are gathered ahead.

    Attributes
    ----------
    jobs : int
        Jobs of gathering that are begun ahead.
    together : int
        Batches gathered in one job.
    """

    jobs: int
    together: int

    @classmethod
    def of(cls, batch_nbytes: int, functions: bool) -> Lookahead:
        """For batches of some bytes, and whether functions of the user take part."""
        small = max(1, min(SMALL_BATCHES, JOB_BYTES // max(1, batch_nbytes)))
        return cls(2 if batch_nbytes > LARGE_BATCH_BYTES else 4, 1 if functions else small)


def in_jobs(batches: Iterator[list[Portion]], together: int) -> Iterator[list[list[Portion]]]:
    """Batches that are gathered in one job: several, if what they take from is in memory."""
    job: list[list[Portion]] = []
    for portions in batches:
        ready = all(portion.flight.loaded.done() for portion in portions)
        if job and (not ready or len(job) == together):
            yield job
            job = []
        job.append(portions)
        if not ready:
            yield job
            job = []
    if job:
        yield job


@dataclass(frozen=True, eq=False)
class Gathering:
    """Makes batches, on any thread.

    Attributes
    ----------
    flights : Flights
        What batches take from.
    assemble : callable
        Begins a batch of so many samples.
    single : bool
        Whether batches are single samples without the batch dimension.
    recorder : Recorder
        What has been done is noted there.
    """

    flights: Flights
    assemble: Callable[[int], Assembly]
    single: bool
    recorder: Recorder

    def run(self, job: list[list[Portion]]) -> list[Batch | Exception]:
        """The batches of a job; what went wrong comes after those before it."""
        # Where samples lie is worked out for all of them at once: their stretches of the stages.
        stretches: dict[Flight, tuple[int, int]] = {}
        for portion in itertools.chain.from_iterable(job):
            start, _ = stretches.get(portion.flight, (portion.start, 0))
            stretches[portion.flight] = start, portion.stop
        located: dict[Flight, Located] = {}

        def locate(portion: Portion, loaded: Loaded) -> Located:
            start, stop = stretches[portion.flight]
            if portion.flight not in located:
                located[portion.flight] = loaded.locate(start, stop)
            return located[portion.flight].part(portion.start - start, portion.stop - start)

        found: list[Batch | Exception] = []
        for portions in job:
            try:
                found.append(self._batch(portions, locate))
            except Exception as error:
                found.append(error)
                break
        return found

    def _batch(
        self, portions: list[Portion], locate: Callable[[Portion, Loaded], Located]
    ) -> Batch:
        """Gather one batch, from one stage after the other."""
        assembly = self.assemble(sum(portion.stop - portion.start for portion in portions))
        row, seconds = 0, 0.0
        skipped: list[int] = []
        for portion in portions:
            loaded = portion.flight.loaded.result()
            self.flights.require_maps()
            begun = time.perf_counter()
            wanted = locate(portion, loaded)
            found = wanted.there()
            skipped += wanted.not_there()
            assembly.add(row, loaded, found)
            row += len(found.numbers)
            if portion is portions[-1] and row == 0:
                self.flights.stand_in(portion.flight, assembly, self.assemble)
            del loaded
            seconds += time.perf_counter() - begun
            self.flights.done(portion, self.assemble)
        begun = time.perf_counter()
        batch = assembly.finish(self.single, skipped)
        seconds += time.perf_counter() - begun
        transform = assembly.transform_seconds
        self.recorder.add(
            gather=seconds - transform,
            transform=transform,
            bytes_gathered=sum(tensor.nbytes for tensor in batch),
            skipped=len(skipped),
        )
        self.recorder.took(assembly.ways)
        return batch
