"""Windows gathered from memory of any layout, compared with plain slicing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from xtorch_data.common.recorder import Way
from xtorch_data.gathering import gatherers
from xtorch_data.gathering.gatherers import gatherer_of
from xtorch_data.gathering.sample_indices import SampleIndices


def between_others(values):
    found = np.zeros([2 * size for size in values.shape], values.dtype)[::2, 1::2]
    found[...] = values
    return found


def in_records(values):
    found = np.zeros(values.shape, [("pad", "i1"), ("value", values.dtype)])["value"]
    found[...] = values
    return found


def behind_four_bytes(values):
    """Where complex64 is aligned for numpy, but not as an integer of eight bytes."""
    memory = bytearray(4 + values.nbytes)
    found = np.frombuffer(memory, values.dtype, offset=4).reshape(values.shape)
    found[...] = values
    return found


LAYOUTS = {
    "plain": np.ascontiguousarray,
    "transposed": np.asfortranarray,
    "broadcast": lambda values: np.broadcast_to(values[:, :1], values.shape),
    "between others": between_others,
    "in records": in_records,
    "behind four bytes": behind_four_bytes,
    "backwards": lambda values: values[::-1].copy()[::-1],
}


@st.composite
def cases(draw):
    """Arrays with windows of one size, and samples: which array, and where in it."""
    dtype = np.dtype(draw(st.sampled_from(["?", "i1", "i2", "f4", ">f4", "u4", "f8", "c8", "c16"])))
    window = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    arrays = []
    for layout in draw(st.lists(st.sampled_from([*LAYOUTS]), min_size=1, max_size=3)):
        shape = [size + draw(st.integers(0, 3)) for size in window]
        arrays.append(LAYOUTS[layout](rng.integers(0, 100, shape).astype(dtype)))
    samples = []
    for piece in draw(st.lists(st.integers(0, len(arrays) - 1), min_size=1, max_size=9)):
        last = [size - each for size, each in zip(arrays[piece].shape, window, strict=True)]
        samples.append((piece, *(draw(st.integers(0, most)) for most in last)))
    return arrays, window, samples


# The bytes up to which windows are selected.
HOW = {"selected": 10**9, "one by one": -1}


@given(cases(), st.booleans(), st.sampled_from([*HOW]))
def test_windows_are_those_that_slicing_gives(case, cast, how):
    arrays, window, samples = case
    given, native = arrays[0].dtype, arrays[0].dtype.newbyteorder("=")
    target = np.dtype("f8") if cast and given.kind in "if" else native
    pieces, *places = np.array(samples).T
    nothing = np.zeros(len(samples), dtype=np.int64)
    indices = SampleIndices(nothing, pieces, tuple(places))
    out = np.zeros((len(samples), 2, *window), target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gatherers, "SELECTED_BYTES", HOW[how])
        patch.setattr(gatherers, "CACHED_BYTES", 64)  # in several calls
        gatherer = gatherer_of([sliding_window_view(each, window) for each in arrays], 2)
        way = gatherer.copy("v", indices, out[:, 1])
    expected = [
        arrays[piece][first : first + window[0], second : second + window[1]]
        for piece, first, second in samples
    ]
    np.testing.assert_array_equal(out[:, 1], expected)
    assert not out[:, 0].any()  # where another variable is
    backwards = any(step < 0 for each in arrays for step in each.strides)
    assert way is (Way.SELECTED if how != "one by one" and not backwards else Way.COPIED)


@pytest.mark.parametrize("how", HOW)
def test_bits_stay_those_that_they_were(monkeypatch, how):
    monkeypatch.setattr(gatherers, "SELECTED_BYTES", HOW[how])
    values = np.random.default_rng(0).integers(0, 2**32, (4, 5), dtype="u4").view("f4")
    values.view("u4")[0, :] = 0x7FA00001  # a signaling NaN, which arithmetic would make quiet
    nothing, rows = np.zeros(3, dtype=np.int64), np.arange(3)
    out = np.zeros((3, 2, 5), "f4")
    indices = SampleIndices(nothing, nothing, (rows, nothing))
    gatherer_of([sliding_window_view(values, (2, 5))], 2).copy("v", indices, out)
    expected = [values.view("u4")[row : row + 2] for row in rows]
    np.testing.assert_array_equal(out.view("u4"), expected)


def test_many_small_windows_may_begin_anywhere():
    values = np.arange(30_000.0)
    rng, nothing = np.random.default_rng(0), np.zeros(5_000, dtype=np.int64)
    begins = rng.integers(0, len(values) - 29, 5_000)
    out = np.zeros((5_000, 30))
    indices = SampleIndices(nothing, nothing, (begins,))
    gatherer_of([sliding_window_view(values, 30)], 1).copy("v", indices, out)
    np.testing.assert_array_equal(out, begins[:, None] + np.arange(30))
