"""Windows by their labels: compared with a look at every window."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.planning.label_ranks import ends_of_windows, in_stretches, members
from xtorch_data.planning.windows import Windows


@st.composite
def cases(draw):
    """Ranks over one axis or two, windows along them, steps of a window, and stretches."""
    shape = tuple(draw(st.integers(1, 9)) for _ in range(draw(st.integers(1, 2))))
    different = draw(st.integers(1, 9))
    seed = draw(st.integers(0, 2**32 - 1))
    ranks = np.random.default_rng(seed).integers(-1, different, shape).astype(np.int32)
    sizes, overlaps, targets = {}, {}, []
    for dim, length in zip("ab", shape, strict=False):
        sizes[dim] = draw(st.integers(1, length))
        overlaps[dim] = draw(st.integers(0, sizes[dim] - 1))
        steps = draw(st.sets(st.integers(0, sizes[dim] - 1), min_size=1))
        targets.append(np.array(draw(st.permutations(sorted(steps)))))
    edges = sorted(draw(st.lists(st.integers(0, different), max_size=6)))
    if len(edges) % 2:
        edges.pop()
    windows = Windows.from_sizes(dict(zip("ab", shape, strict=False)), sizes, overlaps)
    return ranks, windows.axes, targets, np.array(edges, dtype=np.int64).reshape(-1, 2)


def each_window(ranks, axes, steps):
    """The ranks at some steps of every window, by window number."""
    for numbers in itertools.product(*(range(len(axis)) for axis in axes)):
        places = [axis.start(n) + some for axis, n, some in zip(axes, numbers, steps, strict=True)]
        yield numbers, ranks[np.ix_(*places)].ravel().tolist()


@given(cases())
def test_members_are_the_windows_whose_labels_are_in_the_part(case):
    ranks, axes, targets, stretches = case
    part = {rank for start, stop in stretches for rank in range(start, stop)}
    whole = [np.arange(axis.size) for axis in axes]
    starts, stops = stretches.T
    found = members(ranks, starts, stops, axes, None)
    for numbers, labels in each_window(ranks, axes, whole):
        assert found[numbers] == (set(labels) <= part)

    found = members(ranks, starts, stops, axes, targets)
    windows = dict(each_window(ranks, axes, whole))
    for numbers, labels in each_window(ranks, axes, targets):
        wanted = set(labels) <= part
        if wanted:
            begin = max(start for start, _ in stretches if start <= min(labels))
            wanted = all(rank < begin for rank in set(windows[numbers]) - part)
        assert found[numbers] == wanted
    assert not (members(ranks, starts, stops, axes, None) & ~found).any()


@given(cases())
def test_ends_of_windows_are_those_of_the_labels_that_there_are(case):
    ranks, axes, targets, stretches = case
    low, high = ends_of_windows(ranks, axes, targets)
    for numbers, labels in each_window(ranks, axes, targets):
        there = [rank for rank in labels if rank >= 0] or [-1]
        assert (low[numbers], high[numbers]) == (min(there), max(there))
    inside = in_stretches(ranks, *stretches.T)
    part = {rank for start, stop in stretches for rank in range(start, stop)}
    assert inside.tolist() == np.isin(ranks, list(part)).tolist()
