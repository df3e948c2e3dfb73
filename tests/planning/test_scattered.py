"""Scattered windows, and what of the data they want, against loops over them."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from xtorch_data.planning.chunks import Chunks, Layout
from xtorch_data.planning.companions import frames_of, nbytes_used
from xtorch_data.planning.frames import Frame, SampleAxis, SampleSpace
from xtorch_data.planning.index_maps import IndexMap, Regular, term_of
from xtorch_data.planning.plan import Plan
from xtorch_data.planning.selection import SampleTable
from xtorch_data.planning.windows import Windows


@st.composite
def spaces(draw):
    """Windows at random places of two or three dims, another axis perhaps, and how it is stored."""
    count, dims = draw(st.integers(1, 30)), draw(st.integers(1, 3))
    others = draw(st.integers(1, 3))
    maps, grids = [], {}
    for dim in "tyx"[:dims]:
        length, size = draw(st.integers(3, 20)), draw(st.integers(1, 3))
        starts = draw(st.lists(st.integers(0, length - size), min_size=count, max_size=count))
        maps.append(IndexMap(dim, length, size, {0: term_of(starts)}))
        edges = None
        if draw(st.booleans()):
            inner = draw(st.sets(st.integers(1, length - 1), max_size=3))
            edges = np.array([0, *sorted(inner), length])
        size = draw(st.integers(1, length))
        grids[dim] = Chunks(length, size, draw(st.integers(0, size - 1)), edges, stored=True)
    maps.append(IndexMap("z", others, 1, {1: Regular(0, others)}, windowed=False))
    grids["z"] = Chunks(others, draw(st.integers(1, others)), stored=True)
    layouts = [Layout("a", 4, grids), Layout("b", 8, {"t": grids["t"]})]
    axes = SampleAxis("event", count, scattered=True), SampleAxis("z", others)
    main = Frame(
        (
            IndexMap("event", count, 1, {0: Regular(0, count)}, windowed=False),
            IndexMap("z", others, 1, {1: Regular(0, others)}, windowed=False),
        )
    )
    return Windows(SampleSpace(axes, (main, Frame(tuple(maps))))), layouts


def chunks_of(frame, layout, numbers):
    """The chunks of a variable that windows touch."""
    found = set()
    for each in numbers:
        ranges = []
        for dim, grid in layout.chunks.items():
            along = next(each for each in frame.maps if each.dim == dim)
            begin = int(along.start(each))
            first, last = int(grid.number(begin)), int(grid.number(begin + along.size - 1))
            ranges.append(range(first, last + 1))
        found.update(itertools.product(*ranges))
    return found


@given(space=spaces(), data=st.data())
@examples(30)
def test_groups_hold_every_window_and_bytes_are_those_of_chunks(space, data):
    windows, layouts = space
    (frame,) = frames_of(windows.space, [layouts])
    assert frame.along_scattered
    count, others = windows.shape
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count))
    groups = frame.scattered.groups(start, stop)
    for number in range(start, stop):
        region = groups.region(int(groups.of[number - start]))
        for along in frame.maps[:-1]:
            begin = int(along.start([number, 0]))
            low, high = region[along.dim]
            assert low <= begin and begin + along.size <= high
    cells = frame.scattered.cells[start:stop]
    assert len(groups) == len(set(cells.tolist()))
    # Windows of a group begin in the same chunk, of variables that have all dims.
    for first, second in itertools.combinations(range(start, stop), 2):
        alike = all(
            layouts[0].chunks[along.dim].number(int(along.start([first, 0])))
            == layouts[0].chunks[along.dim].number(int(along.start([second, 0])))
            for along in frame.maps[:-1]
        )
        assert alike == (groups.of[first - start] == groups.of[second - start])
    every = [np.array(each) for each in itertools.product(range(count), range(others))]
    expected = 0
    for layout in layouts:
        for chunk in chunks_of(frame, layout, every):
            grids = zip(chunk, layout.chunks.values(), strict=True)
            steps = [int(grid.steps(number, number + 1)) for number, grid in grids]
            expected += layout.itemsize * math.prod(steps)
    # Of a group all chunks between its windows count, which may be some more.
    found = nbytes_used(frame, windows.space)
    assert found >= expected
    if all(each.size == 1 for each in frame.maps):
        assert found == expected


@given(space=spaces(), data=st.data())
@examples(30)
def test_shuffled_blocks_are_whole_cells_and_numbers_stay(space, data):
    windows, layouts = space
    where = None
    if data.draw(st.booleans()):
        flags = st.lists(st.booleans(), min_size=windows.shape[0], max_size=windows.shape[0])
        values = np.array(data.draw(flags))
        where = SampleTable((0,), values) if values.any() else None
    plan = Plan.of(
        windows, (), memory=data.draw(st.sampled_from([1, 500, 5000, 2**20])), shuffle=True,
        where=where, others=[layouts], batch_size=3, warn=False,
    )  # fmt: skip
    (frame,) = frames_of(windows.space, [layouts])
    assert sorted(plan.order) == list(range(windows.shape[0]))
    cells = frame.scattered.cells[plan.order]
    assert (np.diff(cells) >= 0).all()
    for cut in plan.grid.cuts[0][1:-1]:
        assert cells[cut - 1] < cells[cut] or not plan.passing
    seen = []
    for stage in plan.stages(1, plan.intervals(1, 0, 1)):
        seen += plan.numbers(stage).tolist()
    kept = np.ones(windows.shape, bool) if where is None else where.full((0, 1), windows.shape)
    assert sorted(seen) == np.flatnonzero(kept).tolist()


@given(space=spaces())
@examples(30)
def test_cuts_lie_between_cells_where_windows_come_in_another_order(space):
    windows, layouts = space
    (frame,) = frames_of(windows.space, [layouts])
    count, cells = windows.shape[0], frame.scattered.cells
    between = np.flatnonzero(np.diff(cells)) + 1
    for cuts in frame.scattered.cuts:
        assert (cuts[0], cuts[-1]) == (0, count)
        assert (np.diff(cuts) > 0).all()
        assert set(cuts[1:-1]) <= set(between)
    assert len(frame.scattered.cuts[-1]) == len(between) + 2


def test_very_many_events_are_planned_at_once():
    rng, count = np.random.default_rng(0), 300_000
    lengths, sizes = {"t": 20_000, "y": 721, "x": 1440}, {"t": 8, "y": 16, "x": 16}
    chunks = {"t": 24, "y": 120, "x": 120}
    maps = tuple(
        IndexMap(dim, length, sizes[dim],
                 {0: term_of(rng.integers(0, length - sizes[dim], count))})
        for dim, length in lengths.items()
    )  # fmt: skip
    main = Frame((IndexMap("event", count, 1, {0: Regular(0, count)}, windowed=False),))
    axes = (SampleAxis("event", count, scattered=True),)
    windows = Windows(SampleSpace(axes, (main, Frame(maps))))
    layout = Layout("a", 4, {dim: Chunks(lengths[dim], chunks[dim]) for dim in lengths})
    plan = Plan.of(windows, (), memory=2**32, shuffle=True, others=[[layout]])
    assert plan.samples == count
    assert plan.amplification == pytest.approx(1.0, abs=0.5)
