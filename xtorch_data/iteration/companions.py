"""Other sources of samples: what of them lies beside the blocks of the first one."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from ..common.buffers import Buffers
from ..common.recorder import Counts, Recorder, Way
from ..gathering.assembly import Assembly
from ..gathering.stage import StageInMemory
from ..gathering.views import PieceInMemory
from ..planning.companions import frames_of
from ..planning.stages import WindowBox
from ..planning.windows import IntArray
from ..reading.disk_cells import OnDisk
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition
from ..samples.joining import joined
from .by_number import Fetcher
from .threads import Threads

__all__ = ["Beside", "Companions", "cell_nbytes"]

# Chunks of fewer bytes are read several at a time: a block wants many that follow each other.
CELL_BYTES = 2**20
# But so that as many of them fit in memory.
CELLS = 8
# The same where a source is read whole.
ONCE_BYTES = 2**16


def cell_nbytes(memory: int) -> int:
    """Bytes up to which chunks are read together, where there is so much memory for cells.

    Without any, everything is read once: larger cells would only read what no window needs.
    """
    return min(CELL_BYTES, memory // CELLS) if memory else ONCE_BYTES


@dataclass(frozen=True, eq=False)
class Beside:
    """What a source has beside some boxes of windows of the first one.

    Attributes
    ----------
    pieces : list of PieceInMemory
        One beside each box or, where `groups` says so, several.
    groups : list of (ndarray of int64, ndarray of int64), optional
        By box, numbers of its windows along the first axis, and the piece of each.
    """

    pieces: list[PieceInMemory]
    groups: list[tuple[IntArray, IntArray]] | None = None

    def piece_of(self, boxes: IntArray, numbers: IntArray) -> IntArray:
        """The piece of each of some samples, from its box and its number along the first axis."""
        assert self.groups is not None
        found = np.empty(len(numbers), dtype=np.int64)
        for box in np.unique(boxes).tolist():
            own, pieces = self.groups[box]
            here = boxes == box
            order = np.argsort(own)
            found[here] = pieces[order[np.searchsorted(own, numbers[here], sorter=order)]]
        return found


# What is counted of other sources; blocks and samples are those of the first source.
TAKEN: tuple[
    Literal["read", "preprocess", "transform", "bytes_read", "retries", "chunks_missing"], ...
] = ("read", "preprocess", "transform", "bytes_read", "retries", "chunks_missing")


class Companions:
    """Reads other sources in cells, each once while memory lasts, and cuts their parts.

    Made by whatever reads the first source, for an epoch if a preprocess is random, and as long
    there; any thread may ask. Sources in `resident`, by their places, are read whole when they are
    first needed, and stay in memory; of the others cells are kept in so many bytes each, `memory`.
    `counted` has the number along the first axis of each window as blocks count them, where these
    have another order. Around events, `on_disk` says where chunks of the data are kept, and without
    `keep` none are for other samples.
    """

    def __init__(
        self,
        samples: SampleDefinition,
        memory: Sequence[int],
        resident: Sequence[int],
        epoch: int,
        retries: int,
        counted: IntArray | None = None,
        on_disk: OnDisk | None = None,
        keep: bool = True,
    ) -> None:
        self._samples, self._counted = samples, counted
        # What is in memory is not read: windows are cut where it is.
        there = (at for at, each in enumerate(samples.others) if each.in_memory)
        self._resident = frozenset([*resident, *there])
        layouts = [each.layouts for each in samples.others]
        self._frames = frames_of(samples.windows.space, layouts)
        threads = Threads()
        weakref.finalize(self, threads.end)
        threads.begin()
        self._fetchers = [
            Fetcher(
                each,
                max(1, nbytes),
                epoch,
                retries,
                keep=keep or each is not samples.primary,
                on_disk=on_disk if each is samples.primary else None,
                cell_nbytes=cell_nbytes(nbytes),
                threads=threads,
            )
            for each, nbytes in zip(samples.others, memory, strict=True)
        ]
        self._whole: dict[int, PieceInMemory] = {}
        self._locks = [threading.Lock() for _ in self._fetchers]
        self._told = threading.Lock()
        self._reported: list[tuple[Counts, Counter[Way]]] = [(Counts(), Counter())] * len(
            self._fetchers
        )

    def fetch(self, batch: Batch, epoch: int, buffers: Buffers) -> Batch:
        """A batch that was fetched by number, with the parts of other sources, in their order."""
        numbers = batch.index.numpy()
        found = [each.fetch(numbers, epoch, buffers) for each in self._fetchers]
        return joined(batch, found, self._samples.order)

    @property
    def places(self) -> range:
        """Places of the other sources."""
        return range(len(self._fetchers))

    def pieces(self, place: int, boxes: Sequence[WindowBox]) -> Beside:
        """What a source has beside boxes of windows of the first one. A blocking call."""
        frame = self._frames[place]
        if place in self._resident:
            return Beside([self._resident_piece(place, box) for box in boxes])
        if not frame.along_scattered:
            own = self._samples.others[place].windows.frame
            return Beside(self._fetchers[place].pieces([WindowBox(box.box, own) for box in boxes]))
        pieces: list[WindowBox] = []
        tables = []
        for box in boxes:
            windows = self._windows_of(box)
            groups = frame.groups(box.box, windows)
            tables.append((windows, len(pieces) + groups.of))
            for region in frame.regions(box.box, groups):
                around = tuple(region[each.dim] for each in frame.maps)
                pieces.append(WindowBox(box.box, frame, around))
        return Beside(self._fetchers[place].pieces(pieces, copied=True), tables)

    def _windows_of(self, box: WindowBox) -> IntArray:
        """Numbers along the first axis of the windows of a box."""
        numbers = np.arange(*box.box[0])
        return numbers if self._counted is None else self._counted[numbers]

    def stages(self, found: Sequence[Beside], order: IntArray | range) -> tuple[StageInMemory, ...]:
        """The samples of a stage of the first source, in each of the others."""
        stages = []
        for each, own in zip(self._samples.others, found, strict=True):
            stage = StageInMemory(each.windows, own.pieces, order)
            if own.groups is not None:
                stage.grouped = own.piece_of
            stages.append(stage)
        return tuple(stages)

    def _resident_piece(self, place: int, box: WindowBox) -> PieceInMemory:
        windows = self._samples.others[place].windows
        with self._locks[place]:
            if place not in self._whole:
                everything = tuple((0, count) for count in windows.shape)
                piece = WindowBox(everything, windows.frame)
                self._whole[place] = self._fetchers[place].whole(piece)
        whole = self._whole[place]
        inside = WindowBox(box.box, windows.frame, whole.piece.region)
        return PieceInMemory(inside, whole.views, whole.data)

    def report(self, recorder: Recorder) -> None:
        """Add to a recorder what was read since the last time."""
        with self._told:
            for place, fetcher in enumerate(self._fetchers):
                counts, ways, _ = fetcher.recorder.counted()
                before, ways_before = self._reported[place]
                new = {name: counts[name] - before.get(name, 0) for name in TAKEN}
                recorder.add(**cast(Counts, new))
                recorder.took(Counter(ways) - ways_before)
                self._reported[place] = counts, Counter(ways)

    def assemblies(self, buffers: Buffers, samples: int, epoch: int) -> list[Assembly]:
        """A batch in the making for each of the other sources."""
        return [Assembly(each, buffers, samples, epoch) for each in self._samples.others]

    def join(self, batch: Batch, assemblies: Sequence[Assembly], single: bool) -> Batch:
        """A batch with the parts of the other sources."""
        return joined(batch, [each.finish(single) for each in assemblies], self._samples.order)
