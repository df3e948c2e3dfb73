"""Partial sums of several ranks: exchanged in the store, and each made one by one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .mosaic_store import MosaicStore
from .partial_sums import PartialSums, Tile, Values
from .ranks import Ranks

__all__ = ["Exchange", "keep_sums"]

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Exchange:
    """The tiles that are left when all samples were added; made by a `Mosaic` that is closed.

    Attributes
    ----------
    ranks : Ranks
        Those that fill the mosaic, each with one of these; or this one finishes it for all.
    store : MosaicStore
        Where sums are kept for other ranks.
    sums : PartialSums
        The sums of this rank.
    added_by : list of ndarray of bool
        By rank, the samples that it has added.
    tiles_of : list of list of Tile
        By rank, the tiles of which it has sums.
    """

    ranks: Ranks
    store: MosaicStore
    sums: PartialSums
    added_by: list[BoolArray]
    tiles_of: list[list[Tile]]

    @classmethod
    def of(cls, ranks: Ranks, store: MosaicStore, sums: PartialSums, mine: BoolArray) -> Exchange:
        """The exchange of what all ranks have; `mine` are the samples that this one has added."""
        if ranks.size == 1:
            return cls(ranks, store, sums, [mine], [sums.tiles])
        if ranks.apart:  # all have kept theirs before
            tiles = [store.left(rank) for rank in range(ranks.size)]
        else:
            tiles = ranks.together(lambda: keep_sums(store, sums, mine))
        bits = (store.kept(rank, "added") for rank in range(ranks.size))
        added = [np.unpackbits(each, count=mine.size).astype(bool) for each in bits]
        return cls(ranks, store, sums, added, tiles)

    def added(self) -> BoolArray:
        """Samples that any rank has added; ValueError if two have added the same."""
        found = np.zeros_like(self.added_by[0])
        for each in self.added_by:
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
        if self.ranks.size == 1:
            for tile in self.tiles_of[0]:
                yield tile, self.sums.taken(tile)
            return
        having: dict[Tile, list[int]] = {}
        for rank, tiles in enumerate(self.tiles_of):
            for tile in tiles:
                having.setdefault(tile, []).append(rank)
        for number, (tile, ranks) in enumerate(sorted(having.items())):
            if self.ranks.apart or ranks[number % len(ranks)] == self.ranks.rank:
                yield tile, self._together(tile, ranks)

    def _together(self, tile: Tile, ranks: list[int]) -> Values:
        field = self.sums.field
        found = np.zeros(self.sums.shape(tile), self.sums.dtype)
        for rank in ranks:
            part = self.store.kept(rank, _name(tile))
            if field.overlaps:
                found += part
                continue
            (there,) = field.weights_in(tile, self.added_by[rank].reshape(field.shape))
            np.copyto(found, part, where=there > 0)
        return found


def keep_sums(store: MosaicStore, sums: PartialSums | None, mine: BoolArray) -> list[Tile]:
    """Keep what this rank has for others, and tell which tiles these are."""
    tiles = [] if sums is None else sums.tiles
    store.keep("added", np.packbits(mine))
    for tile in tiles:
        assert sums is not None
        store.keep(_name(tile), sums.taken(tile))
    return tiles


def _name(tile: Tile) -> str:
    return "-".join(map(str, tile))
