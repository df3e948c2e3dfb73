"""Moments of blocks, compared with numpy's of the whole in extended precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xtorch_data.normalization.moments import PIECE, Moments


def assert_are_those_of(found, values, axes):
    """Compare with numpy in longer numbers; NaN left out."""
    axes = tuple(range(axes))
    exact = values.astype(np.longdouble)
    valid = ~np.isnan(exact)
    count = valid.sum(axis=axes)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(valid, exact, 0).sum(axis=axes) / count
        squares = np.where(valid, (exact - mean) ** 2, 0).sum(axis=axes)
        std = np.sqrt(squares / count)
    np.testing.assert_array_equal(found.count, count)
    scale = np.where(valid, abs(exact), 0).max(axis=axes)
    assert np.all(abs(found.mean - mean) <= 1e-15 * scale, where=count > 0)
    # However large the mean is, the deviation has all digits that values have.
    assert np.all(abs(found.std - std) <= 1e-13 * std + 1e-300 * scale, where=count > 0)
    assert np.isnan(found.mean[count == 0]).all() and np.isnan(found.std[count == 0]).all()


@st.composite
def blocks(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=6))
    offset = draw(st.sampled_from([0.0, 1e8, -3e4, 1e-8]))
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    values = (offset + rng.normal(size=shape)).astype(draw(st.sampled_from(["f4", "f8", "i4"])))
    if values.dtype.kind == "f":
        values[rng.random(shape) < draw(st.sampled_from([0, 0.3, 0.9]))] = np.nan
    return values


@settings(max_examples=30)
@given(values=blocks(), data=st.data())
def test_blocks_in_any_cut_give_the_moments_of_the_whole(values, data):
    axes = data.draw(st.integers(0, values.ndim))
    found = Moments.none(values.shape[axes:])
    cuts = sorted(data.draw(st.lists(st.integers(0, values.shape[0]), max_size=3)))
    edges = [0, *cuts, values.shape[0]]
    for start, stop in zip(edges, edges[1:], strict=False):
        if start < stop:
            place = () if axes else (slice(start, stop),)
            found.update(place, Moments.of(values[start:stop], axes))
    assert_are_those_of(found, values, axes)


@pytest.mark.parametrize("axes", [0, 1, 2, 3])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_arrays_that_are_taken_piece_by_piece(axes, order):
    rng = np.random.default_rng(0)
    values = (1e8 + rng.normal(size=(30, 90, 110))).transpose(order)
    values[rng.random(values.shape) < 0.2] = np.nan
    assert values.size > 4 * PIECE
    assert_are_those_of(Moments.of(values, axes), values, axes)


def test_equal_values_have_no_deviation_at_all():
    values = np.full((500, 400), 280.1)
    found = Moments.of(values, 2)
    assert found.std == 0 and found.mean == 280.1
    found.update((), Moments.of(values[:7].astype("f8"), 2))
    assert found.std == 0 and found.mean == 280.1
