"""Costs of other sources, against counts interval by interval."""

import itertools
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from lines import chunk_of, grids

from xtorch_data.planning.chunks import Layout
from xtorch_data.planning.companions import costs_of, kept_beside, nbytes_once
from xtorch_data.planning.cuts import Cut
from xtorch_data.planning.frames import Frame, SampleAxis, SampleSpace
from xtorch_data.planning.index_maps import IndexMap, term_of


@st.composite
def spaces(draw):
    """Two sample axes, and a source whose dims follow one of them each, or none."""
    counts = [draw(st.integers(1, 12)), draw(st.integers(1, 6))]
    maps = []
    for place in range(draw(st.integers(1, 3))):
        length, size = draw(st.integers(6, 30)), draw(st.integers(1, 5))
        axis = draw(st.sampled_from([None, 0, 1]))
        if axis is None:
            maps.append(IndexMap(f"d{place}", length, length, {}))
            continue
        begins = draw(
            st.lists(st.integers(0, length - size), min_size=counts[axis], max_size=counts[axis])
        )
        begins = sorted(begins) if draw(st.booleans()) else begins
        maps.append(IndexMap(f"d{place}", length, size, {axis: term_of(begins)}))
    dims = draw(st.permutations([each.dim for each in maps]))[: draw(st.integers(1, len(maps)))]
    chunks = {each.dim: draw(grids(each.length)) for each in maps if each.dim in dims}
    layout = Layout("v", draw(st.sampled_from([1, 4])), chunks)
    frame = Frame(tuple(maps), (layout,))
    axes = tuple(SampleAxis(name, count) for name, count in zip("ab", counts, strict=True))
    return SampleSpace(axes, (Frame(()), frame)), frame


def cuts_of(draw, count):
    inner = draw(st.sets(st.integers(1, count - 1))) if count > 1 else set()
    return np.array([0, *sorted(inner), count])


def spans(frame, box):
    """Positions of a box of windows along each dim, window by window."""
    for each in frame.maps:
        if not each.terms:
            yield 0, each.length
            continue
        ((axis, term),) = each.terms.items()
        begins = [int(term.at(np.int64(number))) for number in range(*box[axis])]
        yield min(begins), max(begins) + each.size


def decoded(frame, box):
    """Bytes of the chunks that a box touches, and of its region."""
    (layout,) = frame.layouts
    read = held = layout.itemsize
    for each, (start, stop) in zip(frame.maps, spans(frame, box), strict=True):
        if each.dim in layout.chunks:
            grid = layout.chunks[each.dim]
            of = np.array(chunk_of(grid))
            touched = np.unique(of[start:stop])
            # Regular chunks are stored whole, also where the data begins or ends inside one.
            whole = grid.edges is None
            read *= len(touched) * grid.size if whole else int(np.isin(of, touched).sum())
            held *= stop - start
    return read, held


@given(spaces(), st.data())
def test_costs_are_those_of_each_interval(drawn, data):
    space, frame = drawn
    cuts = [cuts_of(data.draw, count) for count in space.shape]
    options = [[Cut(numbers, len(numbers) - 1, {}, 0, {})] for numbers in cuts]
    read, held = costs_of(frame, space.shape, options)
    boxes = list(
        itertools.product(*(list(itertools.pairwise(numbers.tolist())) for numbers in cuts))
    )
    counted = [decoded(frame, box) for box in boxes]
    axes = {
        axis for each in frame.maps for axis in each.terms if each.dim in frame.layouts[0].chunks
    }
    every = sum(one for one, _ in counted)
    if all(len(cuts[axis]) == 2 for axis in axes):  # the same for all blocks: read once and kept
        every = counted[0][0]
    assert read.item() == every
    assert held.item() == max(math.prod([one]) for _, one in counted)


@given(spaces())
def test_once_are_the_chunks_from_the_first_to_the_last_window(drawn):
    space, frame = drawn
    everything = [(0, count) for count in space.shape]
    assert nbytes_once(frame, space) == decoded(frame, everything)[0]


@given(spaces(), st.booleans(), st.integers(0, 3000), st.data())
def test_what_is_kept_beside_fits(drawn, shuffle, memory, data):
    space, frame = drawn
    cuts = [cuts_of(data.draw, count) for count in space.shape]
    beside = kept_beside([frame, frame], space, cuts, memory, shuffle)
    once = nbytes_once(frame, space)
    assert beside.nbytes <= memory
    assert sum(once for _ in beside.resident) + sum(beside.passing) == beside.nbytes
    assert len(beside.passing) == 2
    assert all(beside.passing[place] == 0 for place in beside.resident)
    if memory >= 2 * once and not any(each.terms for each in frame.maps) and not shuffle:
        assert beside.resident == (0, 1)  # the same for every sample
