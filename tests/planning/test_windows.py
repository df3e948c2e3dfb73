import itertools
import pickle

import numpy as np
import pytest
import xarray as xr
import xbatcher
from hypothesis import assume, given
from hypothesis import strategies as st

from xtorch_data.planning.index_maps import Regular, runs_of
from xtorch_data.planning.windows import Axis, Windows


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


@st.composite
def intervals_of(draw, length):
    """Some intervals of a dim, ascending and apart; some of them may be empty or touch."""
    edges = sorted(draw(st.lists(st.integers(0, length), max_size=8)))
    return list(zip(edges[::2], edges[1::2], strict=False))


@given(layouts(), st.data())
def test_windows_within_intervals_are_those_that_lie_inside_one(layout, data):
    """Also of windows that are within others."""
    windows = Windows.from_sizes(*layout)
    assume(len(windows) <= 2000)
    axis = data.draw(st.sampled_from(windows.axes))
    expected = np.arange(len(windows))
    part = windows
    for _ in range(data.draw(st.integers(1, 3))):
        intervals = data.draw(intervals_of(axis.length))
        lead = data.draw(st.integers(0, axis.size - 1))
        part = part.within(axis.dim, intervals, lead)
        starts = windows.starts(expected)[windows.axes.index(axis)]
        inside = [
            any(begin <= start + lead and start + axis.size <= end for begin, end in intervals)
            for start in starts
        ]
        expected = expected[np.array(inside, dtype=bool)]
    assert len(part) == len(expected)
    assert [part[i] for i in range(len(part))] == [windows[int(i)] for i in expected]
    np.testing.assert_array_equal(part.starts(np.arange(len(part))), windows.starts(expected))
    cut = part.axis(axis.dim)
    if len(cut):
        begins = cut.start(np.arange(len(cut)))
        positions = np.arange(-2, axis.length + 3)
        np.testing.assert_array_equal(
            cut.first_from(positions), [(begins < position).sum() for position in positions]
        )
        covered = {step for begin in begins for step in range(begin, begin + axis.size)}
        starts, stops = cut.stretches
        assert covered <= {
            step for start, stop in zip(starts, stops, strict=True) for step in range(start, stop)
        }
        assert {*starts, *(stops - 1)} <= covered
        assert steps_in(cut.covered_stretches) == sorted(covered)
        assert len(cut.starts.runs[0]) == 1 + (np.diff(begins) != axis.stride).sum()


@given(layouts(), st.data())
def test_windows_begun_anew_are_those_of_each_stretch(layout, data):
    """Laid by xbatcher's rules on each stretch between breaks, as if it were all of the data."""
    sizes, input_dims, overlap = layout
    windows = Windows.from_sizes(*layout)
    axis = data.draw(st.sampled_from([axis for axis in windows.axes if axis.windowed]))
    breaks = sorted(data.draw(st.sets(st.integers(1, axis.length), max_size=8)) - {axis.length})
    edges = [0, *breaks, axis.length]
    begins = [
        start + begin
        for start, stop in itertools.pairwise(edges)
        for begin in range(0, stop - start - axis.size + 1, axis.stride)
    ]
    anew = windows.begun_anew(axis.dim, breaks)
    cut = anew.axis(axis.dim)
    assert cut.start(np.arange(len(cut))).tolist() == begins
    assert [len(each) for each in anew.axes if each.dim != axis.dim] == [
        len(each) for each in windows.axes if each is not axis
    ]
    # Where they lie as they would without breaks, states of before hold.
    assert anew.same_as(windows) == (begins == axis.start(np.arange(len(axis))).tolist())
    assert len(cut.starts.runs[0]) <= len(breaks) + 1


def steps_in(stretches):
    """The steps of some stretches, one after the other."""
    return [step for start, stop in zip(*stretches, strict=True) for step in range(start, stop)]


@given(st.integers(1, 9), st.integers(1, 7), st.integers(1, 6), st.integers(1, 9))
def test_windows_of_runs_that_overlap_cover_each_step_once(size, step, count, ahead):
    """The last item of a generator begins less than a stride after the one before it."""
    last = (count - 1) * step + min(ahead, step)
    axis = Axis(
        "x", 100, size, runs_of(np.array([0, last]), np.array([count, 1]), step), windowed=True
    )
    begins = [*range(0, count * step, step), last]
    covered = {place for begin in begins for place in range(begin, begin + size)}
    assert steps_in(axis.covered_stretches) == sorted(covered)
    assert sorted({*steps_in(axis.stretches)}) == steps_in(axis.stretches)
    assert covered <= {*steps_in(axis.stretches)}


def test_holes_of_a_huge_dim_are_a_few_numbers():
    windows = Windows.from_sizes({"time": 10**12}, {"time": 8}, {"time": 7})
    part = windows.within("time", [(0, 10**11), (2 * 10**11, 10**12)])
    assert len(part) == 9 * 10**11 - 14
    assert part[10**11 - 8] == {"time": slice(10**11 - 8, 10**11)}
    assert part[10**11 - 7] == {"time": slice(2 * 10**11, 2 * 10**11 + 8)}
    assert len(pickle.dumps(part)) < 2000


@given(st.integers(0, 9), st.integers(1, 7), st.integers(1, 30), st.lists(st.integers(-5, 300)))
def test_first_from_counts_windows_that_begin_before(start, step, count, positions):
    starts = range(start, start + step * count, step)
    axis = Axis("x", 400, 1, Regular(start, starts.stop, step), windowed=True)
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


def test_intervals_that_overlap_and_dims_that_are_not_there_are_refused():
    windows = Windows.from_sizes({"x": 9}, {"x": 3})
    for intervals in ([(0, 5), (4, 9)], [(5, 9), (0, 3)], [(5, 2)]):
        with pytest.raises(ValueError, match="ascending and apart"):
            windows.within("x", intervals)
    with pytest.raises(ValueError, match=r"no dim 'y' in the samples; theirs are \['x'\]"):
        windows.within("y", [(0, 5)])
    assert len(windows.within("x", [])) == 0


@pytest.mark.parametrize("index", [3, -4])
def test_a_sample_out_of_range_is_refused(index):
    with pytest.raises(IndexError, match="out of range for 3"):
        Windows.from_sizes({"x": 9}, {"x": 3})[index]


@pytest.mark.parametrize(
    ("sizes", "overlap", "order"),
    [
        ({"time": 30, "station": 1}, {"time": 29}, ("station", "time")),
        ({"time": 4, "y": 3, "station": 1, "level": 1}, {}, ("time", "y", "station", "level")),
        ({"time": 4, "station": 1, "y": 3}, {"time": 3, "y": 2}, ("time", "station", "y")),
        ({"station": 1, "time": 8, "level": 1}, {"time": 6}, ("station", "level", "time")),
    ],
)
def test_windows_that_share_steps_are_in_one_piece_in_memory(sizes, overlap, order):
    windows = Windows.from_sizes(dict.fromkeys(sizes, 50), sizes, overlap)
    assert windows.order_in_memory == order


@given(st.integers(1, 40), st.data())
def test_steps_that_are_left_over_lie_outside_the_first_and_the_last_window(length, data):
    size = data.draw(st.integers(1, length))
    stride = data.draw(st.integers(1, size))
    cuts = sorted(data.draw(st.sets(st.integers(0, length), min_size=2)) | {0})
    intervals = list(zip(cuts[::2], cuts[1::2], strict=False))
    lead = data.draw(st.integers(0, size - 1))
    axis = Windows.from_sizes({"x": length}, {"x": size}, {"x": size - stride}).axis("x")
    begins = range(0, length - size + 1, stride)
    expected = 0
    for start, stop in intervals:
        inside = [begin for begin in begins if start <= begin + lead and begin + size <= stop]
        covered = {step for begin in inside for step in range(begin, begin + size)}
        expected += len(set(range(start, stop)) - covered)
    assert axis.left_over(intervals, lead) == expected


@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(0, 11)),
        min_size=1, max_size=3,
    ),
    st.data(),
)  # fmt: skip
def test_fixed_dims_have_the_same_steps_in_every_sample_and_also_in_parts(dims, more):
    sizes = {f"d{place}": length for place, (length, _, _) in enumerate(dims)}
    inputs = {f"d{place}": min(size, length) for place, (length, size, _) in enumerate(dims)}
    shared = {f"d{p}": min(lap, inputs[f"d{p}"] - 1) for p, (_, _, lap) in enumerate(dims)}
    windows = Windows.from_sizes({"other": 2, **sizes}, inputs, shared)
    places = {dim: {windows[i][dim].start for i in range(len(windows))} for dim in inputs}
    assert windows.fixed == {dim for dim, found in places.items() if len(found) == 1}
    dim = more.draw(st.sampled_from(sorted(inputs)))
    begin = more.draw(st.integers(0, sizes[dim]))
    part = windows.within(dim, [(begin, sizes[dim])])
    if len(part):
        assert part.fixed == windows.fixed
