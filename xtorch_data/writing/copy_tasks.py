"""Regions of variables, of whole chunks or shards, that are copied into a store at once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

from ..common.redact import printable
from ..planning.chunk_fitting import regions

__all__ = ["Task", "VariableCopy", "tasks"]


@dataclass(frozen=True)
class VariableCopy:
    """Layout of the copy of a variable: steps of a chunk and of a shard along each dim.

    `cuts` are, along each dim, where the regions begin that are copied at once, and the last one
    ends.
    """

    name: str
    chunks: Mapping[Hashable, int]
    shards: Mapping[Hashable, int] | None
    cuts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Task:
    """A region of a variable, of whole chunks or shards, that is copied at once.

    `number` is its place in the record.
    """

    number: int
    name: str
    region: Mapping[Hashable, slice]

    def __str__(self) -> str:
        where = ", ".join(
            f"{printable(dim)}={part.start}:{part.stop}" for dim, part in self.region.items()
        )
        return f"{self.name!r} at isel({where})"


def tasks(copies: Sequence[VariableCopy], ds: xr.Dataset) -> Iterator[Task]:
    """Regions that are copied at once, in the order of the record."""
    number = 0
    for copy in copies:
        variable = ds.variables[copy.name]
        for region in regions(variable.sizes, copy.cuts):
            yield Task(number, copy.name, region)
            number += 1
