"""The chunks that hold parts of a lazy variable, compared with those of each of its positions."""

import itertools

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.sources.lazy_arrays import lazily
from xtorch_data.sources.zarr_grids import StoredChunks

SHAPE, CHUNKS, SHARDS = (13, 8), (3, 2), (6, 4)


@pytest.fixture(scope="module", params=[None, SHARDS], ids=["chunks", "shards"])
def stored(request):
    array = zarr.create_array({}, shape=SHAPE, chunks=CHUNKS, shards=request.param, dtype="i4")
    return lazily(("time", "x"), array), request.param or CHUNKS


def keys(times, places, sizes):
    """Of the chunk of each value."""
    numbers = itertools.product(np.unique(times) // sizes[0], np.unique(places) // sizes[1])
    return list(dict.fromkeys(f"c/{time}/{place}" for time, place in sorted(numbers)))


@given(data=st.data())
def test_chunks_of_a_box_are_those_of_its_values(stored, data):
    variable, sizes = stored
    where = data.draw(
        st.sampled_from(
            [slice(None), slice(2, 11, 2), slice(12, 1, -3), np.array([7, 0, 12, 5]), 4]
        )
    )
    part = variable[where, 1:7]
    times, places = np.arange(SHAPE[0])[where], np.arange(1, 7)
    box = []
    for size in part.shape:
        start = data.draw(st.integers(0, size - 1))
        box.append((start, data.draw(st.integers(start + 1, size))))
    inside = [slice(*each) for each in box]
    if part.ndim == 2:
        times = times[inside[0]]
    found = list(StoredChunks.of(part).within(box))
    assert len(set(found)) == len(found)
    wanted = keys(times, places[inside[-1]], sizes)
    if isinstance(where, slice) and where.step is not None:  # all between the ends are looked at
        assert set(wanted) <= set(found)
        assert set(found) <= set(keys(np.arange(min(times), max(times) + 1), places, sizes))
    else:
        assert sorted(found) == sorted(wanted)


def test_the_ends_are_the_first_and_the_last_chunk(stored):
    variable, sizes = stored
    for part, times in [(variable, [0, 12]), (variable[::-2], [0, 12]), (variable[[8, 2]], [2, 8])]:
        first, *_, last = keys(times, [0, 7], sizes)
        assert StoredChunks.of(part).ends() == [first, last]
    assert StoredChunks.of(variable[4, 1]).ends() == keys([4], [1], sizes)
    assert StoredChunks.of(variable[3:3]).ends() == []


def test_there_are_none_of_what_is_no_lazy_zarr_array(stored):
    variable, _ = stored
    assert StoredChunks.of(variable.chunk()) is None
    assert StoredChunks.of(xr.Variable("x", [1, 2])) is None
