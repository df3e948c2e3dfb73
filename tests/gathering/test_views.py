"""Windows of a block as views, compared with plain slicing."""

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.common.buffers import Buffers
from xtorch_data.gathering.views import SplitView, to_array, window_views
from xtorch_data.planning.windows import Windows
from xtorch_data.samples.select import Part

DIMS = ("time", "y", "x")


@st.composite
def blocks(draw):
    """Sizes of a block, its windows, a variable in some of its dims, and a part of it."""
    sizes = {dim: draw(st.integers(1, 5)) for dim in DIMS}
    windowed = [dim for dim in DIMS if draw(st.booleans())]
    input_dims = {dim: draw(st.integers(1, sizes[dim])) for dim in windowed}
    own = draw(st.permutations([dim for dim in DIMS if draw(st.booleans())]))
    indexers = {
        dim: draw(st.sampled_from([slice(None, None, 2), slice(0, 1), 0]))
        for dim in windowed
        if draw(st.booleans())
    }
    return sizes, input_dims, tuple(own), indexers


@given(blocks(), st.booleans(), st.sampled_from(["i2", ">f4", "f8"]))
def test_every_window_is_what_slicing_gives(block, recycled, dtype):
    sizes, input_dims, own, indexers = block
    windows = Windows.from_sizes(sizes, input_dims, {dim: n - 1 for dim, n in input_dims.items()})
    sample_dims = [axis.dim for axis in windows.axes if axis.windowed]
    shape = [sizes[dim] for dim in own]
    values = np.random.default_rng(0).integers(0, 99, shape).astype(dtype)
    kept = tuple(dim for dim in sample_dims if not isinstance(indexers.get(dim), int))
    target = np.dtype("f4") if recycled else values.dtype
    part = Part("x", ("v",), False, indexers, kept, (), target)
    buffers = Buffers(2**20) if recycled else None
    variables = {"v": xr.Variable(own, values)}
    [view] = window_views(windows, sample_dims, [part], variables, buffers=buffers)["x"]
    positions = [range(sizes[axis.dim] - axis.size + 1) for axis in windows.axes]
    for place in itertools.product(*positions):
        # Cut by isel from the variable, broadcast over the dims that it lacks.
        cut = {axis.dim: slice(at, at + axis.size) if axis.windowed else at
               for axis, at in zip(windows.axes, place, strict=True)}  # fmt: skip
        full = xr.DataArray(values, dims=own).isel(cut, missing_dims="ignore")
        lengths = {dim: input_dims[dim] for dim in sample_dims}
        expected = full.broadcast_like(
            xr.DataArray(np.zeros(list(lengths.values())), dims=list(lengths))
        ).transpose(*sample_dims)
        np.testing.assert_array_equal(view[place], expected.isel(indexers).values)
    assert not view.flags.writeable or not view.size


@given(st.data())
def test_a_window_over_several_arrays_is_cut_from_all_of_them(data):
    rows = np.arange(12 * 3).reshape(12, 3)
    cuts = sorted(data.draw(st.sets(st.integers(1, 11), max_size=4)))
    begins = [0, *cuts]
    # One position, and all its steps along the axis.
    views = [rows[start:stop][None] for start, stop in itertools.pairwise([*begins, 12])]
    size, offset = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 2))
    split = SplitView(0, 0, offset, begins, views)
    for first in range(12 - size - offset + 1):
        out = np.full((size, 3), -1)
        split.copy_window(out, (first,))
        np.testing.assert_array_equal(out, rows[first + offset : first + offset + size])


def part_of(*variables, stacked=False, lacking=()):
    shape = {"time": 2, "y": 3}
    return Part("x", variables, stacked, {}, tuple(shape), (2, 3), np.dtype("f4"), lacking)


def test_what_a_transform_returned_is_stacked_and_in_the_order_of_samples():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(2)
    result = xr.Dataset({"a": (("y", "time"), a.T), "b": ("time", b)})
    array, names, dims, stacked = to_array(
        result, part_of("a", "b", stacked=True), (), ("time", "y"), np.dtype("f4")
    )  # noqa: E501
    assert (names, dims, stacked) == (("a", "b"), ("time", "y"), True)
    np.testing.assert_array_equal(array, np.stack([a, np.repeat(b[:, None], 3, 1)]))
    assert array.dtype == "f4"


@pytest.mark.parametrize(
    ("result", "lead", "error"),
    [
        (3, (), TypeError),
        (xr.Dataset(), (), ValueError),
        (xr.DataArray(["a"], dims="time"), (), TypeError),
        (xr.DataArray([1.0], dims="time"), ("sample",), ValueError),
    ],
)
def test_what_is_no_sample_is_refused(result, lead, error):
    with pytest.raises(error, match="transform"):
        to_array(result, part_of("a"), lead, ("time", "y"), np.dtype("f4"))
