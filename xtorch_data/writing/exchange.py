"""Partial sums of several ranks: exchanged in the store, and each made one by one of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .mosaic_store import MosaicStore
from .partial_sums import PartialSums, Tile, Values
from .ranks import Ranks

__all__ = ["Exchange"]


class Exchange:
    """The tiles that are left when all samples were added; made by a `Mosaic` that is closed.

    Parameters
    ----------
    ranks : Ranks
        Those that fill the mosaic, each with one of these.
    store : MosaicStore
        Where sums are kept for other ranks.
    sums : PartialSums
        The sums of this rank.
    mine : ndarray of bool
        The samples that this rank has added.
    """

    def __init__(
        self, ranks: Ranks, store: MosaicStore, sums: PartialSums, mine: npt.NDArray[np.bool_]
    ) -> None:
        self._ranks, self._store, self._sums = ranks, store, sums
        self._added = [mine]
        self._of_ranks: list[list[Tile]] = [sums.tiles]
        if ranks.size > 1:
            self._of_ranks = ranks.together(self._kept)
            self._added = [
                np.unpackbits(store.kept(rank, "added"), count=mine.size).astype(bool)
                for rank in range(ranks.size)
            ]

    def _kept(self) -> list[Tile]:
        """Keep what this rank has for others, and tell which tiles these are."""
        (mine,), tiles = self._added, self._sums.tiles
        self._store.keep("added", np.packbits(mine))
        for tile in tiles:
            self._store.keep(_name(tile), self._sums.taken(tile))
        return tiles

    def added(self) -> npt.NDArray[np.bool_]:
        """Samples that any rank has added; ValueError if two have added the same."""
        found = np.zeros_like(self._added[0])
        for each in self._added:
            both = np.flatnonzero(found & each)
            if len(both):
                raise ValueError(
                    f"sample {both[0]} was added by two ranks; a loader of xtorch_data hands out "
                    "each once, or marks it as repeated, which samplers of torch do not"
                )
            found |= each
        return found

    def tiles(self) -> Iterator[tuple[Tile, Values]]:
        """The tiles that this rank finishes, with the sums of all ranks."""
        if self._ranks.size == 1:
            for tile in self._of_ranks[0]:
                yield tile, self._sums.taken(tile)
            return
        having: dict[Tile, list[int]] = {}
        for rank, tiles in enumerate(self._of_ranks):
            for tile in tiles:
                having.setdefault(tile, []).append(rank)
        for number, (tile, ranks) in enumerate(sorted(having.items())):
            if ranks[number % len(ranks)] == self._ranks.rank:
                yield tile, self._together(tile, ranks)

    def _together(self, tile: Tile, ranks: list[int]) -> Values:
        field = self._sums.field
        found = np.zeros(self._sums.shape(tile), self._sums.dtype)
        for rank in ranks:
            part = self._store.kept(rank, _name(tile))
            if field.overlaps:
                found += part
                continue
            (there,) = field.weights_in(tile, self._added[rank].reshape(field.shape))
            np.copyto(found, part, where=there > 0)
        return found


def _name(tile: Tile) -> str:
    return "-".join(map(str, tile))
