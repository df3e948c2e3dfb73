"""Failures to read, for messages and for datasets that go on without what is lost."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..common.redact import printable, redacted, words_of
from ..common.retry import is_transient
from ..planning.chunks import Chunks
from ..planning.edges import Laid
from ..planning.intervals import Box
from ..planning.windows import IntArray, Windows
from ..sources.zarr_grids import StoredChunks
from .zarr_chunks import ChunkError

__all__ = [
    "Failure",
    "first_failure",
    "hit",
    "in_data",
    "in_words",
    "reaching",
    "read_by_chunks",
]

logger = logging.getLogger(__name__)

Region = Mapping[Hashable, slice]


@dataclass(frozen=True)
class Failure:
    """A chunk, or the part of it that was wanted, that could not be read.

    Attributes
    ----------
    variable : Hashable
        Name of the variable.
    region : mapping of Hashable to (int, int)
        Positions ``[start, stop)`` along its dims, as ``isel`` counts them.
    message : str
        The error.
    source : str
        Where the data comes from: a file, or the store of a Zarr array.
    chunk : str, optional
        Key of the chunk in its store, such as ``t2m/c/3/0/0``; or the first and the last of those
        of which it is one. Files have no keys, and dask does not tell what its graphs read: there
        it is None.
    """

    variable: Hashable
    region: Mapping[Hashable, tuple[int, int]]
    message: str
    source: str
    chunk: str | None = None
    # The region as windows count it, where they reach beyond the data.
    counted: Mapping[Hashable, tuple[int, int]] = field(kw_only=True, repr=False)

    @classmethod
    def of(
        cls,
        name: Hashable,
        variable: xr.Variable,
        region: Region,
        source: str,
        error: Exception,
        laid: Laid,
    ) -> Failure:
        """The failure of a variable that was to be read over a region, and is still lazy."""
        chunk, notes = None, ""
        if isinstance(error, ChunkError):
            notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
            chunk, source, error = error.chunk, error.store, cause_of(error)
        elif (chunks := StoredChunks.of(variable)) is not None and (keys := chunks.ends()):
            source, chunk = str(chunks.store), " … ".join(keys)
        counted = {dim: (part.start, part.stop) for dim, part in region.items()}
        message = f"{words_of(error)}{redacted(notes)}"
        where = in_data(region, laid)
        return cls(name, where, message, redacted(source), chunk, counted=counted)

    def __str__(self) -> str:
        where = in_words(self.region)
        chunk = "from" if self.chunk is None else f"in chunk {printable(self.chunk)} of"
        return (
            f"{self.variable!r} at isel({where}) {chunk} {printable(self.source)}: {self.message}"
        )


def in_data(region: Region, laid: Laid) -> dict[Hashable, tuple[int, int]]:
    """Positions ``[start, stop)`` in the data of the user between which a region lies."""
    found = {}
    for dim, part in region.items():
        name, steps = laid.get(dim, (dim, None))
        if steps is None or part.start == part.stop:
            found[name] = part.start, part.stop
        else:
            inside = steps[part]
            found[name] = int(inside.min()), int(inside.max()) + 1
    return found


def in_words(region: Mapping[Hashable, tuple[int, int]]) -> str:
    """Positions along dims, as arguments of ``isel``."""
    return ", ".join(f"{printable(dim)}={start}:{stop}" for dim, (start, stop) in region.items())


def cause_of(error: Exception) -> Exception:
    """The error of the store or the decoder."""
    cause = error.__cause__ if isinstance(error, ChunkError) else error
    return cause if isinstance(cause, Exception) else error


def hit(
    failures: Sequence[Failure], windows: Windows, starts: Sequence[IntArray]
) -> npt.NDArray[np.bool_]:
    """Mask of the samples that touch what could not be read; `starts` are along each axis."""
    found = np.zeros(len(starts[0]) if starts else 1, dtype=bool)
    for failure in failures:
        touched = np.ones_like(found)
        for axis, at in zip(windows.axes, starts, strict=True):
            if axis.dim in failure.counted:
                start, stop = failure.counted[axis.dim]
                touched &= (at < stop) & (at + axis.size > start)
        found |= touched
    return found


def reaching(failures: Iterable[Failure], boxes: Sequence[Box], windows: Windows) -> list[Failure]:
    """The failures that lie in some regions of the data."""
    places = {axis.dim: place for place, axis in enumerate(windows.axes)}

    def touches(failure: Failure, box: Box) -> bool:
        return all(
            box[places[dim]][0] < stop and start < box[places[dim]][1]
            for dim, (start, stop) in failure.counted.items()
        )

    return [each for each in failures if any(touches(each, box) for box in boxes)]


async def read_by_chunks(
    name: Hashable,
    variable: xr.Variable,
    region: Region,
    grids: Mapping[Hashable, Chunks],
    load: Callable[[xr.Variable, Region], Awaitable[None]],
    source: str,
    laid: Laid,
) -> list[Failure]:
    """Read a lazy variable chunk by chunk, into it; what fails becomes NaN, or 0 for integers.

    `load` loads a part of it in place, given with where that lies. Returns what could not be read.
    """
    fill = np.nan if variable.dtype.kind in "fc" else 0
    values = np.full(variable.shape, fill, dtype=variable.dtype)
    failures = []
    cuts = _cuts(variable.dims, region, grids)
    for found in itertools.product(*cuts.values()):
        cell = dict(zip(cuts, found, strict=True))
        inside = _inside(cell, region)
        part = variable.isel(inside).copy(deep=False)
        try:
            await load(part, cell)
        except MemoryError:
            raise
        except Exception as error:
            failure = Failure.of(name, part, cell, source, error, laid)
            logger.warning("skipping samples that need %s", failure)
            failures.append(failure)
            continue
        where: tuple[Any, ...] = (*(inside.get(dim, slice(None)) for dim in variable.dims), ...)
        loaded = part.to_numpy()
        if loaded.dtype != values.dtype:  # of more digits than the variable has declared
            values = values.astype(np.result_type(values, loaded))
        values[where] = loaded
    variable.data = values
    return failures


async def first_failure(
    variable: xr.Variable,
    region: Region,
    grids: Mapping[Hashable, Chunks],
    load: Callable[[xr.Variable, Region], Awaitable[None]],
) -> tuple[xr.Variable, Region] | None:
    """A chunk that cannot be read on its own, still lazy, and where it lies; or None.

    It is looked for by halves: all that is read for it is at most once as much as the region, in as
    few reads as there are halvings. The parameters are those of `read_by_chunks`.
    """
    cuts = _cuts(variable.dims, region, grids)
    if not all(cuts.values()):
        return None  # of an empty region

    def of(cuts: Mapping[Hashable, list[slice]]) -> tuple[xr.Variable, Region]:
        box = {dim: slice(some[0].start, some[-1].stop) for dim, some in cuts.items()}
        return variable.isel(_inside(box, region)).copy(deep=False), box

    async def fails(cuts: Mapping[Hashable, list[slice]]) -> bool:
        try:
            await load(*of(cuts))
        except Exception as error:
            return not is_transient(error)  # of which no chunk is to blame
        return False

    known = False  # whether what is left has failed itself, not just all of which it is the rest
    while any(len(some) > 1 for some in cuts.values()):
        dim = max(cuts, key=lambda each: len(cuts[each]))
        middle = len(cuts[dim]) // 2
        first = {**cuts, dim: cuts[dim][:middle]}
        known = await fails(first)
        cuts = first if known else {**cuts, dim: cuts[dim][middle:]}
    return of(cuts) if known or await fails(cuts) else None


def _inside(cell: Region, region: Region) -> dict[Hashable, slice]:
    """A cell of a region, as positions inside it."""
    return {
        dim: slice(part.start - region[dim].start, part.stop - region[dim].start)
        for dim, part in cell.items()
    }


def _cuts(
    dims: Sequence[Hashable], region: Region, grids: Mapping[Hashable, Chunks]
) -> dict[Hashable, list[slice]]:
    """The chunks that a region touches, cut to it, along each dim; along others, all is wanted."""
    found = {}
    for dim in dims:
        if dim not in region:
            continue
        cuts = []
        start, stop = region[dim].start, region[dim].stop
        grid = grids.get(dim)
        while start < stop:
            known = grid is not None and grid.in_chunks
            end = grid.end_of(start) if grid is not None and known else stop
            cuts.append(slice(start, min(end, stop)))
            start = end
        found[dim] = cuts
    return found
