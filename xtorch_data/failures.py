"""What could not be read, for datasets that go on without it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from .chunks import Chunks
from .epoch import Box
from .redact import words_of
from .windows import IntArray, Windows

__all__ = ["Failure", "hit", "reaching", "read_by_chunks"]

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
        The error, and where the backend says so, the chunk's key.
    """

    variable: Hashable
    region: Mapping[Hashable, tuple[int, int]]
    message: str

    def __str__(self) -> str:
        where = ", ".join(f"{dim}={start}:{stop}" for dim, (start, stop) in self.region.items())
        return f"{self.variable!r} at isel({where}): {self.message}"


def hit(
    failures: Sequence[Failure], windows: Windows, starts: Sequence[IntArray]
) -> npt.NDArray[np.bool_]:
    """Which samples touch what could not be read.

    Parameters
    ----------
    failures : sequence of Failure
        One or more.
    windows : Windows
        The sample space.
    starts : sequence of ndarray of int64
        Per axis, the position where each sample begins.
    """
    found = np.zeros(len(starts[0]) if starts else 1, dtype=bool)
    for failure in failures:
        touched = np.ones_like(found)
        for axis, at in zip(windows.axes, starts, strict=True):
            if axis.dim in failure.region:
                start, stop = failure.region[axis.dim]
                touched &= (at < stop) & (at + axis.size > start)
        found |= touched
    return found


def reaching(failures: Iterable[Failure], boxes: Sequence[Box], windows: Windows) -> list[Failure]:
    """The failures that lie in some regions of the data."""
    places = {axis.dim: place for place, axis in enumerate(windows.axes)}

    def touches(failure: Failure, box: Box) -> bool:
        return all(
            box[places[dim]][0] < stop and start < box[places[dim]][1]
            for dim, (start, stop) in failure.region.items()
        )

    return [each for each in failures if any(touches(each, box) for box in boxes)]


async def read_by_chunks(
    name: Hashable,
    variable: xr.Variable,
    region: Region,
    grids: Mapping[Hashable, Chunks],
    load: Callable[[xr.Variable], Awaitable[None]],
) -> list[Failure]:
    """Read a lazy variable chunk by chunk, into it; what fails becomes NaN, or 0 for integers.

    Parameters
    ----------
    name : Hashable
        Name of the variable.
    variable : xarray.Variable
        The region of it that is wanted.
    region : mapping of Hashable to slice
        Where the region lies.
    grids : mapping of Hashable to Chunks
        Its chunk grid along dims.
    load : callable
        Loads a variable, in place.

    Returns
    -------
    list of Failure
        What could not be read.
    """
    fill = np.nan if variable.dtype.kind in "fc" else 0
    values = np.full(variable.shape, fill, dtype=variable.dtype)
    failures = []
    for cell in _cells(variable.dims, region, grids):
        inside = {
            dim: slice(start - region[dim].start, stop - region[dim].start)
            for dim, (start, stop) in cell.items()
        }
        part = variable.isel(inside).copy(deep=False)
        try:
            await load(part)
        except MemoryError:
            raise
        except Exception as error:
            failure = Failure(name, cell, words_of(error))
            logger.warning("skipping samples that need %s", failure)
            failures.append(failure)
            continue
        where: tuple[Any, ...] = (*(inside.get(dim, slice(None)) for dim in variable.dims), ...)
        values[where] = part.to_numpy()
    variable.data = values
    return failures


def _cells(
    dims: Sequence[Hashable], region: Region, grids: Mapping[Hashable, Chunks]
) -> Iterator[dict[Hashable, tuple[int, int]]]:
    """The chunks that a region touches, cut to it."""
    along = []
    dims = [dim for dim in dims if dim in region]  # along others, all of it is wanted
    for dim in dims:
        cuts = []
        start, stop = region[dim].start, region[dim].stop
        grid = grids.get(dim)
        while start < stop:
            known = grid is not None and (grid.chunked or grid.stored)
            end = grid.end_of(start) if grid is not None and known else stop
            cuts.append((start, min(end, stop)))
            start = end
        along.append(cuts)
    for found in itertools.product(*along):
        yield dict(zip(dims, found, strict=True))
