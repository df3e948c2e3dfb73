"""Cuts of an axis and what they cost, compared with counting window by window."""

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.planning.chunks import Chunks, Layout
from xtorch_data.planning.cuts import (
    EachWindow,
    candidates,
    consecutive,
    independent,
    interval_of,
    with_whole_chunks,
)
from xtorch_data.planning.windows import Windows


@st.composite
def frames(draw):
    """A frame of windows over one dim, and the chunk boundaries of each of its variables."""
    steps = draw(st.integers(1, 40))
    size = draw(st.integers(1, steps))
    overlap = draw(st.integers(0, size - 1))
    windows = Windows.from_sizes({"time": steps}, {"time": size}, {"time": overlap})
    layouts, boundaries = [], {}
    for name in "ab"[: draw(st.integers(1, 2))]:
        chunk = draw(st.integers(1, steps))
        layouts.append(Layout(name, 8, {"time": Chunks(steps, chunk)}))
        # A store keeps the last chunk whole, too.
        boundaries[name] = range(0, steps + chunk, chunk)
    return windows, tuple(layouts), boundaries


def decoded(begin, stop, boundaries):
    """Steps of the chunks that hold some of ``[begin, stop)``, counted chunk by chunk."""
    return sum(
        last - first
        for first, last in itertools.pairwise(boundaries)
        if first < stop and begin < last
    )


def spans(windows, numbers):
    """Positions that the windows of each interval reach over."""
    [axis] = windows.axes
    return [
        (first * axis.stride, (last - 1) * axis.stride + axis.size)
        for first, last in itertools.pairwise(int(number) for number in numbers)
    ]


@given(frames(), st.booleans())
def test_every_candidate_has_each_window_in_one_interval(frame, by_end):
    windows, layouts, _ = frame
    [axis] = windows.axes
    found = candidates(axis, layouts, by_end)
    assert [0, len(axis)] in [numbers.tolist() for numbers, _ in found]  # not at all
    assert len(axis) + 1 in [len(numbers) for numbers, _ in found]  # window by window
    for numbers, stops in found:
        assert numbers[0] == 0 and numbers[-1] == len(axis)
        assert (np.diff(numbers) > 0).all()
        if not by_end:
            assert stops is None
            continue
        ends = [stop for _, stop in spans(windows, numbers)]
        assert len(stops) == len(ends)
        assert (stops >= ends).all() and (stops <= axis.length).all()
        for window in range(len(axis)):
            place = interval_of(numbers, window)
            assert numbers[place] <= window < numbers[place + 1]


@given(frames())
def test_intervals_read_on_their_own_decode_what_their_windows_touch(frame):
    windows, layouts, boundaries = frame
    [axis] = windows.axes
    for numbers, _ in [*candidates(axis, layouts), (EachWindow(len(axis)), None)]:
        listed = range(len(axis) + 1) if isinstance(numbers, EachWindow) else numbers
        cut = independent(replace(windows.frame, layouts=layouts), 0, numbers)
        reached = spans(windows, listed)
        assert cut.intervals == len(reached)
        assert cut.samples == max(last - first for first, last in itertools.pairwise(listed))
        for name, edges in boundaries.items():
            assert cut.extents[name] == max(stop - begin for begin, stop in reached)
            assert cut.decoded[name] == sum(decoded(*each, edges) for each in reached)


@given(frames())
def test_intervals_that_hand_on_steps_decode_what_the_one_before_has_not_read(frame):
    windows, layouts, boundaries = frame
    [axis] = windows.axes
    for numbers, stops in candidates(axis, layouts, by_end=True):
        cut = consecutive(replace(windows.frame, layouts=layouts), 0, (numbers, stops))
        read, until = [], 0
        for (begin, _), stop in zip(spans(windows, numbers), stops.tolist(), strict=True):
            read.append((max(begin, until), stop))
            until = stop
        for name, edges in boundaries.items():
            assert cut.decoded[name] == sum(decoded(*each, edges) for each in read)
        np.testing.assert_array_equal(cut.stops, stops)


@given(frames())
def test_whole_chunks_are_decoded_once(frame):
    windows, layouts, boundaries = frame
    [axis] = windows.axes
    data = replace(windows.frame, layouts=layouts)
    cuts = [consecutive(data, 0, each) for each in candidates(axis, layouts, by_end=True)]
    reached = {step for begin, stop in spans(windows, range(len(axis) + 1))
               for step in range(begin, stop)}  # fmt: skip
    once = {
        name: sum(
            last - first
            for first, last in itertools.pairwise(edges)
            if reached & set(range(first, last))
        )
        for name, edges in boundaries.items()
    }
    for cut in with_whole_chunks(data, 0, cuts):
        assert cut.whole_chunks
        assert cut.decoded == once
