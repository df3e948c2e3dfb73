"""Which parts of which chunks make a region, put together and compared with numpy's slices."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.reading.shards import chunks_along, chunks_of, shards_of


@st.composite
def regions(draw):
    dims = draw(st.integers(1, 3))
    shape = [draw(st.integers(1, 9)) for _ in range(dims)]
    sizes = [draw(st.integers(1, 4)) for _ in range(dims)]
    starts = [draw(st.integers(0, length - 1)) for length in shape]
    stops = [draw(st.integers(start, length)) for start, length in zip(starts, shape, strict=True)]
    counts = [draw(st.integers(1, 3)) for _ in range(dims)]
    return shape, sizes, starts, stops, counts


def put_together(chunks, shape, sizes, starts, stops):
    """The region, from chunks as they lie in the store; -1 where nothing was put."""
    array = np.arange(np.prod(shape)).reshape(shape)
    padded = np.pad(array, [(0, size) for size in sizes], constant_values=-2)
    out = np.full([stop - start for start, stop in zip(starts, stops, strict=True)], -1)
    for numbers, inside, target in chunks:
        chunk = padded[
            tuple(slice(n * size, (n + 1) * size) for n, size in zip(numbers, sizes, strict=True))
        ]
        assert (out[target] == -1).all(), "twice"
        out[target] = chunk[inside]
    return out, array[tuple(map(slice, starts, stops))]


@given(regions())
def test_chunks_hold_every_value_of_a_region_once(region):
    shape, sizes, starts, stops, _ = region
    along = list(map(chunks_along, starts, stops, sizes))
    found, expected = put_together(chunks_of(along), shape, sizes, starts, stops)
    np.testing.assert_array_equal(found, expected)


@given(regions(), st.data())
def test_shards_hold_the_same_chunks_and_may_be_cut_anywhere(region, data):
    shape, sizes, starts, stops, counts = region
    along = list(map(chunks_along, starts, stops, sizes))
    whole = [chunk for shard in shards_of(along, counts) for chunk in shard.chunks()]
    found, expected = put_together(whole, shape, sizes, starts, stops)
    np.testing.assert_array_equal(found, expected)
    for shard in shards_of(along, counts):
        for numbers, _, _ in shard.chunks():
            assert shard.shard == tuple(n // c for n, c in zip(numbers, counts, strict=True))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    parts = [
        chunk
        for start, stop in itertools.pairwise([0, *cuts, len(whole)])
        for shard in shards_of(along, counts, start, stop)
        for chunk in shard.chunks()
    ]
    assert parts == whole
