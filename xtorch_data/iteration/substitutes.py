"""Samples in the place of batches of which nothing could be read.

Such a batch cannot be left out: all ranks must have as many, and a state counts them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace

import numpy as np

from ..common.recorder import Recorder
from ..gathering.assembly import Assembly
from ..gathering.halo import HaloJoiner
from ..gathering.sample_indices import SampleIndices
from ..gathering.stage import StageInMemory
from ..planning.stages import BlockRead, Stage
from ..planning.windows import IntArray, Windows
from ..reading.failures import Failure, hit
from ..reading.regions import Reader
from ..reading.variables import ReadError
from ..sources.source import layout_of

__all__ = ["Found", "Substitute", "Substitutes", "first_that_is_there"]

logger = logging.getLogger(__name__)

# Reads that fail until there is nothing to be hoped for: of a store without anything that can be
# read, each costs its time.
ATTEMPTS = 200
# Samples whose places are worked out at a time.
TOGETHER = 1024

# A sample that could be read, and what it is gathered from.
Found = tuple[StageInMemory, SampleIndices]


class Substitutes:
    """Finds substitutes for one iteration, on the threads that gather.

    Which sample it is depends on the data alone, so that the same data gives the same batches.
    `search` begins to look for a sample anywhere in the epoch.
    """

    def __init__(
        self,
        assemble: Callable[[int], Assembly],
        search: Callable[[], Future[Found | None]],
        failures: list[Failure],
    ) -> None:
        self._assemble, self._search, self._failures = assemble, search, failures
        self._last: Substitute | None = None
        self._searching = threading.Lock()
        self._searched = False
        self._found: Found | None = None

    def of(self, stage: Future[StageInMemory]) -> Substitute:
        """The substitute that a stage leaves; stages come in their order."""
        self._last = Substitute(stage, self._last, self._assemble)
        return self._last

    def put(self, substitute: Substitute, assembly: Assembly) -> None:
        """Put a sample into a batch of which nothing could be read; ReadError if there is none."""
        found = substitute.find() or self._later()
        if found is None:
            what = "; ".join(map(str, self._failures[:3]))
            raise ReadError(f"no sample of a whole batch could be read, nor any other: {what}")
        assembly.add(0, *found, repeated=True)  # it comes in its own place, too
        number = int(found[1].numbers[0])
        logger.warning("sample %d stands in for a batch of which nothing could be read", number)

    def _later(self) -> Found | None:
        """A sample that can be read where there was none so far; looked for once."""
        with self._searching:
            if not self._searched:
                found = self._search().result()
                if found is not None:  # without the memory that it was read into
                    self._found = self._assemble(1).alone(*found), found[1]
                self._searched = True
            return self._found


class Substitute:
    """One sample of a stage, or of the last one before that has any.

    Made by `Substitutes` for each stage; any thread may look, and stages end in any order.
    """

    def __init__(
        self,
        stage: Future[StageInMemory],
        before: Substitute | None,
        assemble: Callable[[int], Assembly],
    ) -> None:
        # What is asked for a sample and what after it; one value, because any thread may look.
        self._found_in: tuple[Callable[[], StageInMemory] | None, Substitute | None]
        self._found_in = stage.result, before
        self._assemble = assemble

    def find(self) -> Found | None:
        """A sample that could be read, and what it is gathered from; None if there was none yet."""
        each: Substitute | None = self
        while each is not None:
            ask, each = each._found_in
            if ask is not None:
                stage = ask()
                found = stage.one_that_is_there()
                if found is not None:
                    return stage, found
        return None

    def end(self) -> None:
        """Hold on to a single sample, in memory of its own: that of the stage is given back."""
        ask, before = self._found_in
        assert ask is not None, "a stage ends once"
        stage = ask()
        found = stage.one_that_is_there()
        if found is not None:
            alone = self._assemble(1).alone(stage, found)
            self._found_in = lambda: alone, None
            return
        while before is not None and before._found_in[0] is None:  # nor is there any in that one
            before = before._found_in[1]
        self._found_in = None, before


# Samples read one by one, to find one that can be read where no stage had any.


async def first_that_is_there(
    stages: Callable[[], Iterator[Stage]], reader: Reader, joiner: HaloJoiner
) -> Found | None:
    """The first sample of some stages that can be read, read alone; None if none was found.

    Which one it is depends on the data alone. Of a chunk that cannot be read no second sample is
    tried. `reader` is asked for nothing, and told of no failure.
    """
    source = replace(reader.source, recorder=Recorder(0), failures=[], retries=0, skipping=True)
    alone = replace(reader, source=source, _last={})
    windows = source.windows
    known: list[Failure] = []
    attempts = 0
    for planned in stages():
        for numbers in _in_parts(planned.numbers(windows)):
            left = numbers
            while len(left) and attempts < ATTEMPTS:
                if known:
                    left = left[~hit(known, windows, _starts(windows, left))]
                    if not len(left):
                        break
                stage = await _in_memory(int(left[0]), alone, joiner)
                found = stage.one_that_is_there()
                if found is not None:
                    return stage, found
                known += [_whole(alone, failure) for failure in source.failures]
                source.failures.clear()
                left, attempts = left[1:], attempts + 1
    return None


def _in_parts(numbers: IntArray) -> Iterator[IntArray]:
    for start in range(0, len(numbers), TOGETHER):
        yield numbers[start : start + TOGETHER]


def _starts(windows: Windows, numbers: IntArray) -> list[IntArray]:
    return list(windows.starts(numbers)) if windows.axes else []


async def _in_memory(number: int, reader: Reader, joiner: HaloJoiner) -> StageInMemory:
    """One sample in memory."""
    windows = reader.windows
    places = np.unravel_index(number, windows.shape) if windows.axes else ()
    box = tuple((int(place), int(place) + 1) for place in places)
    load = BlockRead.whole(number, box, windows.frame)
    found = await reader.read(load)
    block = await reader.preprocessed(load, found.block)
    pieces, _ = await reader.source.on_thread(joiner.pieces, load, block, ())
    return StageInMemory(windows, pieces, range(1), list(reader.source.failures))


def _whole(reader: Reader, failure: Failure) -> Failure:
    """A failure of all of the chunks of which a part was wanted."""
    dims = [axis.dim for axis in reader.windows.axes]
    name = failure.variable
    grids = layout_of(reader.dataset.variables[name], name, dims).chunks
    counted = dict(failure.counted)
    for dim, (start, stop) in failure.counted.items():
        if dim in grids and grids[dim].in_chunks and start < stop:
            first, last = grids[dim].number([start, stop - 1]).tolist()
            counted[dim] = grids[dim].bounds(first)[0], grids[dim].bounds(last)[1]
    return replace(failure, counted=counted)
