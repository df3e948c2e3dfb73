"""Regions, cells and shortened axes, each compared with a loop over samples."""

import dataclasses
import hashlib
import itertools
import math
import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from lines import chunk_of, plans

from xtorch_data.planning.chunks import Layout
from xtorch_data.planning.frames import Frame, SampleAxis, SampleSpace
from xtorch_data.planning.index_maps import IndexMap, runs_of, term_of
from xtorch_data.planning.plan import Plan
from xtorch_data.planning.windows import Windows


@st.composite
def boxes(draw, shape):
    firsts = [draw(st.integers(0, count - 1)) for count in shape]
    return tuple(
        (first, draw(st.integers(first + 1, count)))
        for first, count in zip(firsts, shape, strict=True)
    )


@given(plans(max_samples=400), st.data())
def test_a_region_has_the_steps_and_chunks_of_the_samples_of_its_box(plan, data):
    windows, variables, _ = plan
    frame = dataclasses.replace(windows.frame, layouts=tuple(variables))
    box = data.draw(boxes(windows.shape))
    steps = {axis.dim: set() for axis in windows.axes}
    for numbers in itertools.product(*(range(*along) for along in box)):
        sample = windows[int(np.ravel_multi_index(numbers, windows.shape))]
        for dim, cut in sample.items():
            steps[dim] |= {*range(cut.start, cut.stop)} if isinstance(cut, slice) else {cut}
    region = frame.region(box)
    assert region == tuple((min(own), max(own) + 1) for own in steps.values())
    named = frame.named(region)
    assert named == dict(zip(steps, region, strict=True))
    sizes = {dim: max(own) + 1 - min(own) for dim, own in steps.items()}
    assert frame.sizes(region) == sizes
    assert frame.nbytes(region) == sum(
        each.itemsize * math.prod(sizes[dim] for dim in each.chunks) for each in variables
    )
    for layout in variables:
        chunks, decoded = 1, 1
        for (dim, grid), (first, last) in zip(
            layout.chunks.items(), frame.cells(layout, named), strict=True
        ):
            of_step = chunk_of(grid)
            touched = {of_step[step] for step in range(*named[dim])}
            assert touched == set(range(first, last))
            chunks *= len(touched)
            whole = grid.edges is None  # at the ends, a regular chunk is decoded whole as well
            decoded *= (
                len(touched) * grid.size if whole else sum(chunk in touched for chunk in of_step)
            )
        assert frame.decoded(layout, named) == (chunks, decoded)


@given(plans(max_samples=400), st.data())
def test_boxes_of_places_are_their_regions(plan, data):
    windows = plan[0]
    box = data.draw(boxes([axis.length for axis in windows.axes]))
    assert windows.frame.places.region(box) == box


@given(st.data())
def test_a_restricted_axis_has_the_samples_that_filtering_a_list_leaves(data):
    """In every frame: one term, none and two over the same axes."""
    draw = data.draw
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    terms = [
        term_of(draw(st.lists(st.integers(0, 30), min_size=count, max_size=count)))
        for count in shape
    ]
    frames = (
        Frame(tuple(IndexMap("xy"[axis], 99, 2, {axis: term}) for axis, term in enumerate(terms))),
        Frame((IndexMap("static", 9, 3, {}),)),
        Frame((IndexMap("valid", 99, 1, dict(enumerate(terms))),)),
    )
    space = SampleSpace(tuple(SampleAxis("ab"[axis], n) for axis, n in enumerate(shape)), frames)

    def samples(space):
        """Where each sample begins in every frame, in their order."""
        return [
            [[int(each.start(numbers)) for each in frame.maps] for frame in space.frames]
            for numbers in np.ndindex(space.shape)
        ]

    axis = draw(st.integers(0, 1))
    if draw(st.booleans()):
        kept = sorted(draw(st.sets(st.integers(0, shape[axis] - 1))))
        numbers = kept
    else:
        first, last = draw(boxes([shape[axis]]))[0]
        kept, numbers = (
            [*range(first, last)],
            runs_of(np.array([first]), np.array([last - first]), 1),
        )
    found = space.restrict(axis, numbers)
    expected = [
        sample
        for number, sample in zip(np.ndindex(shape), samples(space), strict=True)
        if number[axis] in kept
    ]
    assert len(found) == len(expected)
    assert samples(found) == expected
    assert [each.name for each in found.axes] == ["a", "b"]


def test_an_axis_of_a_trillion_windows_is_restricted_at_once():
    windows = Windows.from_sizes({"time": 10**12, "x": 3}, {"time": 8}, {"time": 7})
    numbers = runs_of(np.array([7, 10**11]), np.array([10, 10**11]), 1)
    assert len(windows.space.restrict(1, numbers)) == 3 * (10**11 + 10)


def packed(numbers):
    return struct.pack(f"<{len(numbers)}q", *numbers)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(-3, 8), st.data())
def test_the_fingerprint_of_windows_has_the_bytes_that_states_have_always_had(
    extra, size, overlap, data
):
    """Of each dim its name and sizes, and of starts the numbers of a range or of runs."""
    length, stride = size + extra, max(1, size - overlap)
    windows = Windows.from_sizes({"x": 3, "time": length}, {"time": size}, {"time": size - stride})
    begins = range(0, length - size + 1, stride)
    numbers = [begins.start, begins.stop, begins.step]
    if data.draw(st.booleans()):
        edges = sorted(data.draw(st.sets(st.integers(0, length), min_size=2, max_size=8)))
        intervals = list(zip(edges[::2], edges[1::2], strict=False))
        windows = windows.within("time", intervals)
        inside = [
            begin
            for begin in begins
            if any(start <= begin and begin + size <= stop for start, stop in intervals)
        ]
        runs = []
        for begin in inside:
            if runs and begin == runs[-1][-1] + stride:
                runs[-1].append(begin)
            else:
                runs.append([begin])
        numbers = [run[0] for run in runs]
        numbers += itertools.accumulate(map(len, runs))
        numbers += [stride]
        if len(runs) < 2:
            numbers = [runs[0][0], runs[0][-1] + stride, stride] if runs else [0, 0, 1]
    expected = hashlib.sha256()
    expected.update(repr(("x", 3, 1, False)).encode() + packed([0, 3, 1]))
    expected.update(repr(("time", length, size, True)).encode() + packed(numbers))
    found = hashlib.sha256(b"".join(each.digest() for each in windows.frame.maps))
    assert found.hexdigest() == expected.hexdigest()
    if len(windows):
        plan = Plan.of(windows, [Layout("v", 4, {})], memory=1000)
        assert plan.fingerprint()["windows"] == expected.hexdigest()[:16]
