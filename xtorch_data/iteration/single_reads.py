"""Samples read one by one, to find one that can be read where no stage had any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ..common.recorder import Recorder
from ..gathering.halo import Preparer
from ..gathering.located import Located
from ..gathering.stage import Loaded
from ..planning.stages import BlockRead, Stage
from ..planning.windows import IntArray, Windows
from ..reading.failures import Failure, hit
from ..reading.regions import Reader
from ..sources.source import layout_of

__all__ = ["first_that_is_there"]

# Reads that fail until there is nothing to be hoped for: of a store without anything that can be
# read, each costs its time.
ATTEMPTS = 200
# Samples whose places are worked out at a time.
TOGETHER = 1024


async def first_that_is_there(
    stages: Callable[[], Iterator[Stage]], reader: Reader, preparer: Preparer
) -> tuple[Loaded, Located] | None:
    """The first sample of some stages that can be read, read alone; None if none was found.

    Which one it is depends on the data alone. Of a chunk that cannot be read no second sample is
    tried.

    Parameters
    ----------
    stages : callable
        Begins them anew.
    reader : Reader
        What reads the iteration; it is asked for nothing, and told of no failure.
    preparer : Preparer
        Makes what was read ready to be gathered.
    """
    source = replace(reader.source, recorder=Recorder(0), failures=[], retries=0, skipping=True)
    alone = replace(reader, source=source, _last={})
    windows = source.windows
    known: list[Failure] = []
    attempts = 0
    for stage in stages():
        for numbers in _in_parts(stage.numbers(windows)):
            left = numbers
            while len(left) and attempts < ATTEMPTS:
                if known:
                    left = left[~hit(known, windows, _starts(windows, left))]
                    if not len(left):
                        break
                loaded = await _loaded(int(left[0]), alone, preparer)
                found = loaded.one_that_is_there()
                if found is not None:
                    return loaded, found
                known += [_whole(alone, failure) for failure in source.failures]
                source.failures.clear()
                left, attempts = left[1:], attempts + 1
    return None


def _in_parts(numbers: IntArray) -> Iterator[IntArray]:
    for start in range(0, len(numbers), TOGETHER):
        yield numbers[start : start + TOGETHER]


def _starts(windows: Windows, numbers: IntArray) -> list[IntArray]:
    return list(windows.starts(numbers)) if windows.axes else []


async def _loaded(number: int, reader: Reader, preparer: Preparer) -> Loaded:
    """One sample in memory."""
    windows = reader.windows
    places = np.unravel_index(number, windows.shape) if windows.axes else ()
    box = tuple((int(place), int(place) + 1) for place in places)
    load = BlockRead.whole(number, box, windows.frame)
    found = await reader.read(load)
    block = await reader.preprocessed(load, found.block)
    pieces, _ = await reader.source.on_thread(preparer.pieces, load, block, ())
    return Loaded(windows, pieces, range(1), list(reader.source.failures))


def _whole(reader: Reader, failure: Failure) -> Failure:
    """A failure of all of the chunks of which a part was wanted."""
    dims = [axis.dim for axis in reader.windows.axes]
    name = failure.variable
    grids = layout_of(reader.dataset.variables[name], name, dims).chunks
    region = dict(failure.region)
    for dim, (start, stop) in failure.region.items():
        if dim in grids and grids[dim].in_chunks and start < stop:
            first, last = grids[dim].number([start, stop - 1]).tolist()
            region[dim] = grids[dim].bounds(first)[0], grids[dim].bounds(last)[1]
    return replace(failure, region=region)
