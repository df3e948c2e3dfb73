import numpy as np
import pytest
import xarray as xr
import xbatcher
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.windows import Axis, Windows


@st.composite
def layouts(draw):
    """Sizes of a dataset, and input_dims and input_overlap that fit them."""
    names = draw(st.permutations(["time", "lat", "lon", "level"]))[: draw(st.integers(1, 4))]
    sizes = {name: draw(st.integers(1, 40)) for name in names}
    windowed = draw(st.permutations(names))[: draw(st.integers(1, len(names)))]
    input_dims = {name: draw(st.integers(1, sizes[name])) for name in windowed}
    overlap = {
        name: draw(st.integers(-2, input_dims[name] - 1))
        for name in windowed
        if draw(st.booleans())
    }
    return sizes, input_dims, overlap


@given(layouts())
def test_windows_are_those_of_xbatcher(layout):
    sizes, input_dims, overlap = layout
    data = xr.DataArray(np.broadcast_to(0, tuple(sizes.values())), dims=list(sizes))
    others = {dim: 1 for dim in sizes if dim not in input_dims}
    if np.prod([size for dim, size in sizes.items()]) > 20_000:
        return
    schema = xbatcher.BatchGenerator(
        data, input_dims=input_dims, input_overlap=overlap, batch_dims=others
    )._batch_selectors.selectors
    windows = Windows.from_sizes(sizes, input_dims, overlap)
    assert len(windows) == len(schema)
    for number, [selector] in schema.items():
        expected = {dim: part.start if dim in others else part for dim, part in selector.items()}
        assert windows[number] == expected
        assert list(windows[number]) == list(expected)


@given(layouts(), st.data())
def test_starts_of_many_samples_are_those_of_each(layout, data):
    windows = Windows.from_sizes(*layout)
    samples = data.draw(st.lists(st.integers(0, len(windows) - 1), max_size=20))
    starts = windows.starts(samples)
    assert starts.shape == (len(windows.axes), len(samples))
    for place, sample in enumerate(samples):
        indexers = windows[sample].values()
        assert starts[:, place].tolist() == [
            indexer.start if isinstance(indexer, slice) else indexer for indexer in indexers
        ]


@given(layouts(), st.data())
def test_a_subset_keeps_the_chosen_windows_in_order(layout, data):
    windows = Windows.from_sizes(*layout)
    place = data.draw(st.integers(0, len(windows.axes) - 1))
    axis = windows.axes[place]
    keep = sorted(data.draw(st.sets(st.integers(0, len(axis) - 1), min_size=1)))
    as_slice = slice(keep[0], keep[-1] + 1)
    for chosen, numbers in ((keep, keep), (as_slice, range(len(axis))[as_slice])):
        subset = windows.subset(axis.dim, chosen)
        expected = np.arange(len(windows)).reshape(windows.shape).take(list(numbers), axis=place)
        assert [subset[i] for i in range(len(subset))] == [windows[i] for i in expected.ravel()]


@given(st.integers(0, 9), st.integers(1, 7), st.integers(1, 30), st.lists(st.integers(-5, 300)))
def test_first_from_counts_windows_that_begin_before(start, step, count, positions):
    starts = range(start, start + step * count, step)
    for axis in (
        Axis("x", 400, 1, starts, True),
        Axis("x", 400, 1, np.array(starts, dtype=np.int64), True),
    ):
        expected = [sum(begin < position for begin in starts) for position in positions]
        assert axis.first_from(positions).tolist() == expected


def test_a_trillion_samples_are_a_few_numbers():
    windows = Windows.from_sizes({"time": 10**6 + 23, "station": 10**6}, {"time": 24}, {"time": 23})
    assert len(windows) == 10**12
    assert windows[10**12 - 1] == {
        "station": 10**6 - 1,
        "time": slice(10**6 - 1, 10**6 + 23),
    }
    assert windows[-1] == windows[10**12 - 1]


def test_a_whole_dim_is_one_window():
    windows = Windows.from_sizes({"time": 5, "x": 3}, {"x": -1})
    assert [windows[i] for i in range(2)] == [
        {"time": 0, "x": slice(0, 3)},
        {"time": 1, "x": slice(0, 3)},
    ]


@pytest.mark.parametrize(
    ("sizes", "input_dims", "overlap", "error", "message"),
    [
        ({"x": 4}, {"y": 2}, {}, ValueError, "'y'"),
        ({"x": 4}, {"x": 2}, {"y": 1}, ValueError, "'y'.*not in input_dims"),
        ({"x": 4}, {"x": 5}, {}, ValueError, "5, larger than the dim, which has 4"),
        ({"x": 4}, {"x": 2}, {"x": 2}, ValueError, "less than the window"),
        ({"x": 4}, {"x": 0}, {}, ValueError, "1 step or more"),
        ({"x": 4}, {"x": -2}, {}, ValueError, "1 step or more"),
        ({"x": 0}, {}, {}, ValueError, "size 0"),
        ({"x": 4}, {"x": 2.0}, {}, TypeError, "integer"),
        ({"x": 4}, {"x": True}, {}, TypeError, "integer"),
    ],
)
def test_what_does_not_fit_is_refused(sizes, input_dims, overlap, error, message):
    with pytest.raises(error, match=message):
        Windows.from_sizes(sizes, input_dims, overlap)


def test_a_subset_without_windows_is_refused():
    windows = Windows.from_sizes({"x": 9}, {"x": 3})
    with pytest.raises(ValueError, match="no window is left"):
        windows.subset("x", slice(3, 3))
    with pytest.raises(ValueError, match="ascending"):
        windows.subset("x", [2, 1])


@pytest.mark.parametrize("index", [3, -4])
def test_a_sample_out_of_range_is_refused(index):
    with pytest.raises(IndexError, match="out of range for 3"):
        Windows.from_sizes({"x": 9}, {"x": 3})[index]
