"""Other sources of samples: what of them lies beside the blocks of the first one."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

from ..common.buffers import Buffers
from ..gathering.assembly import Assembly
from ..gathering.stage import StageInMemory
from ..gathering.views import PieceInMemory
from ..planning.stages import WindowBox
from ..planning.windows import IntArray
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition
from .by_number import Fetcher
from .threads import Threads

__all__ = ["Companions", "cell_nbytes"]

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


class Companions:
    """Reads other sources in cells, each once while memory lasts, and cuts their parts.

    Made by whatever reads the first source, for an epoch if a preprocess is random, and as long
    there; any thread may ask. Sources in `resident`, by their places, are read whole when they are
    first needed, and stay in memory; of the others cells are kept in so many bytes each, `memory`.
    """

    def __init__(
        self,
        samples: SampleDefinition,
        memory: Sequence[int],
        resident: Sequence[int],
        epoch: int,
        retries: int,
    ) -> None:
        self._samples, self._resident = samples, frozenset(resident)
        threads = Threads()
        weakref.finalize(self, threads.end)
        threads.begin()
        self._fetchers = [
            Fetcher(
                each,
                max(1, nbytes),
                epoch,
                retries,
                cell_nbytes=cell_nbytes(nbytes),
                threads=threads,
            )
            for each, nbytes in zip(samples.others, memory, strict=True)
        ]
        self._whole: dict[int, PieceInMemory] = {}
        self._locks = [threading.Lock() for _ in self._fetchers]

    def fetch(self, batch: Batch, epoch: int, buffers: Buffers) -> Batch:
        """A batch that was fetched by number, with the parts of other sources, in their order."""
        numbers = batch.index.numpy()
        found = [each.fetch(numbers, epoch, buffers) for each in self._fetchers]
        return batch.joined(found, self._samples.order)

    @property
    def places(self) -> range:
        """Places of the other sources."""
        return range(len(self._fetchers))

    def pieces(self, place: int, boxes: Sequence[WindowBox]) -> list[PieceInMemory]:
        """What a source has beside boxes of windows of the first one. A blocking call."""
        return [self._piece(place, box) for box in boxes]

    def stages(
        self, pieces: Sequence[Sequence[PieceInMemory]], order: IntArray | range
    ) -> tuple[StageInMemory, ...]:
        """The samples of a stage of the first source, in each of the others."""
        return tuple(
            StageInMemory(each.windows, own, order)
            for each, own in zip(self._samples.others, pieces, strict=True)
        )

    def _piece(self, place: int, box: WindowBox) -> PieceInMemory:
        windows = self._samples.others[place].windows
        if place not in self._resident:
            return self._fetchers[place].piece(WindowBox(box.box, windows.frame))
        with self._locks[place]:
            if place not in self._whole:
                everything = tuple((0, count) for count in windows.shape)
                piece = WindowBox(everything, windows.frame)
                self._whole[place] = self._fetchers[place].piece(piece, keep=False)
        whole = self._whole[place]
        inside = WindowBox(box.box, windows.frame, whole.piece.region)
        return PieceInMemory(inside, whole.views, whole.data)

    def assemblies(self, buffers: Buffers, samples: int, epoch: int) -> list[Assembly]:
        """A batch in the making for each of the other sources."""
        return [Assembly(each, buffers, samples, epoch) for each in self._samples.others]

    def join(self, batch: Batch, assemblies: Sequence[Assembly], single: bool) -> Batch:
        """A batch with the parts of the other sources."""
        return batch.joined([each.finish(single) for each in assemblies], self._samples.order)
