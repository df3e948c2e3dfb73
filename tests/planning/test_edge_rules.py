import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.planning.edges import NOTHING, EdgeRule, ExtendedDim
from xtorch_data.planning.windows import Windows

BOUNDARIES = ("wrap", "edge", "reflect", "constant")


@st.composite
def rules(draw):
    boundary = draw(st.sampled_from([None, *BOUNDARIES]))
    remainders = ["drop", "shift"] if boundary is None else ["drop", "pad", "shift"]
    halo = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    return EdgeRule(boundary, draw(st.sampled_from(remainders)), *halo)


@st.composite
def dims(draw, boundary=None):
    length = draw(st.integers(1, 30))
    size = draw(st.integers(1, length))
    stride = draw(st.integers(1, size + 3))
    breaks = draw(st.lists(st.integers(1, max(1, length - 1)), unique=True, max_size=3))
    return length, size, stride, sorted(each for each in breaks if each < length)


def begins_one_by_one(rule, length, size, stride, breaks):
    """Where windows begin, each looked at by itself."""
    found = []
    edges = [0, *breaks, length]
    for start, stop in zip(edges, edges[1:], strict=False):
        cores = [at for at in range(start, stop, stride) if at + size <= stop]
        partial = [at for at in range(start, stop, stride) if at + size > stop]
        left = (cores[-1] + size if cores else start) < stop
        ends = rule.boundary is not None and stop == length
        if rule.boundary == "wrap" and rule.remainder == "pad":
            cores = list(range(start, stop, stride)) if ends else cores
        elif rule.remainder == "pad" and ends and left and partial:
            cores.append(partial[0])
        elif rule.remainder == "shift" and left and partial and stop - start >= size:
            cores.append(stop - size)
        # What is turned back at an end must not lie beyond a break.
        reach = stop - start - 1 if rule.boundary == "reflect" and breaks else 1000
        low = start - reach if rule.boundary is not None and start == 0 else start
        high = stop + reach if ends else stop
        found += [
            at - rule.before
            for at in cores
            if at - rule.before >= low and at + size + rule.after <= high
        ]
    return found


@given(rules(), dims())
def test_windows_begin_where_each_by_itself_does(rule, dim):
    if rule.boundary == "wrap":
        dim = (*dim[:3], [])  # a circle has no breaks
    begins = rule.begins(*dim)
    expected = begins_one_by_one(rule, *dim)
    assert begins.at(np.arange(len(begins))).tolist() == expected


@given(
    st.sampled_from(["wrap", "edge", "reflect"]),
    st.integers(1, 12),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_steps_beyond_the_ends_are_those_of_numpy(boundary, length, before, after):
    extended = ExtendedDim(boundary, length, before, after)
    padded = np.pad(np.arange(length), (before, after), mode=boundary)
    np.testing.assert_array_equal(extended.steps, padded)
    np.testing.assert_array_equal(extended.nearest, padded)
    assert len(extended) == len(padded)


@given(st.integers(1, 12), st.integers(0, 20), st.integers(0, 20))
def test_nothing_lies_beyond_where_it_is_constant(length, before, after):
    extended = ExtendedDim("constant", length, before, after)
    padded = np.pad(np.arange(length), (before, after), constant_values=NOTHING)
    np.testing.assert_array_equal(extended.steps, padded)
    np.testing.assert_array_equal(
        extended.nearest, np.pad(np.arange(length), (before, after), mode="edge")
    )


@given(
    st.sampled_from(BOUNDARIES),
    st.integers(1, 12),
    st.integers(0, 20),
    st.integers(0, 20),
    st.data(),
)
def test_parts_of_the_data_are_found_beyond_its_ends(boundary, length, before, after, data):
    extended = ExtendedDim(boundary, length, before, after)
    of_part = np.array(data.draw(st.lists(st.booleans(), min_size=length, max_size=length)))
    edges = np.flatnonzero(np.diff(of_part, prepend=False, append=False)).reshape(-1, 2)
    steps = extended.steps.tolist()

    laid = {at for start, stop in extended.laid(edges.tolist()) for at in range(start, stop)}
    assert laid == {at for at, step in enumerate(steps) if step == NOTHING or of_part[step]}

    wanted = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(extended), max_size=len(extended)))
    )
    folded = extended.folded(wanted)
    expected = {step for step, there in zip(steps, wanted, strict=True) if there} - {NOTHING}
    assert set(np.flatnonzero(folded)) == expected


@given(rules(), dims())
def test_windows_reach_beyond_the_data_only_where_there_is_something(rule, dim):
    length, size, stride, breaks = dim
    if rule.boundary == "wrap":
        breaks = []
    before = Windows.from_sizes({"x": length}, {"x": size}, {"x": size - stride})
    windows, extended = before.at_edges("x", rule, breaks)
    found = [windows[number]["x"] for number in range(len(windows))]
    expected = begins_one_by_one(rule, length, size, stride, breaks)
    moved = 0 if extended is None else extended.before
    total = length if extended is None else len(extended)
    assert [cut.start - moved for cut in found] == expected
    assert all(0 <= cut.start < cut.stop <= total for cut in found)
    assert all(cut.stop - cut.start == size + rule.halo for cut in found)
    if extended is not None:  # and no further than a window does
        assert min(cut.start for cut in found) == 0 or not extended.before
        assert max(cut.stop for cut in found) == total or not extended.after


def test_a_window_may_be_longer_than_the_data_where_there_is_more():
    windows = Windows.from_sizes({"x": 3}, {"x": 5}, None, longer=["x"])
    windows, extended = windows.at_edges("x", EdgeRule("edge", "pad"))
    assert [windows[0]["x"]] == [slice(0, 5)]
    assert extended.steps.tolist() == [0, 1, 2, 2, 2]
    with pytest.raises(ValueError, match="larger than the dim"):
        Windows.from_sizes({"x": 3}, {"x": 5})
