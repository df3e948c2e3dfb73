"""Chunk grids, compared with a list of the chunk in which each step lies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lines import chunk_of, grids

from xtorch_data.planning.chunks import Chunks, Layout, merged


@st.composite
def grids_and_lists(draw):
    grid = draw(grids(draw(st.integers(1, 40))))
    return grid, chunk_of(grid)


def steps_of(chunk, of):
    """The steps of a chunk that are there."""
    return [step for step, number in enumerate(of) if number == chunk]


def whole_size(grid, chunk, of):
    """Steps of a chunk, also those that a lazy slice has cut off."""
    return grid.size if grid.edges is None else len(steps_of(chunk, of))


@given(grids_and_lists(), st.data())
def test_what_a_slice_touches_and_decodes(drawn, data):
    grid, of = drawn
    start = data.draw(st.integers(0, grid.length - 1))
    stop = data.draw(st.integers(start + 1, grid.length))
    touched = set(of[start:stop])
    assert int(grid.touched(start, stop)) == len(touched)
    assert int(grid.decoded(start, stop)) == sum(whole_size(grid, each, of) for each in touched)


@given(grids_and_lists())
def test_numbers_bounds_and_ends_are_those_of_the_list(drawn):
    grid, of = drawn
    assert grid.number(np.arange(grid.length)).tolist() == of
    assert grid.count == len(set(of))
    for step, number in enumerate(of):
        inside = steps_of(number, of)
        assert grid.bounds(number) == (inside[0], inside[-1] + 1)
        assert grid.end_of(step) == inside[-1] + 1


@given(grids_and_lists(), st.integers(1, 5))
def test_boundaries_and_joined_grids_are_at_every_so_many_th_chunk(drawn, every):
    grid, of = drawn
    begins = [step for step in range(1, grid.length) if of[step] != of[step - 1]]
    # A grid that begins in the middle of a chunk counts from the begin of that chunk.
    wanted = [step for step in begins if (of[step] - of[0]) % every == 0]
    assert grid.boundaries(every).tolist() == wanted
    joined = chunk_of(grid.joined(every))
    assert [step for step in range(1, grid.length) if joined[step] != joined[step - 1]] == wanted


def test_what_any_slice_of_can_be_read_is_not_chunked():
    assert not Chunks(10).chunked and not Chunks(10).in_chunks
    assert Chunks(10, stored=True).in_chunks and not Chunks(10, stored=True).chunked
    assert Chunks(10, 2).chunked and Chunks(3, edges=np.array([0, 1, 3])).in_chunks


@pytest.mark.parametrize("offset", [0, 1])
def test_equal_grids_plan_as_one_layout_as_large_as_all(offset):
    def layout(name, size, itemsize, offset=0):
        return Layout(name, itemsize, {"time": Chunks(12, size, offset)})

    layouts = [layout("a", 4, 8), layout("b", 3, 2), layout("c", 4, 1, offset)]
    found = {each.itemsize for each in merged(layouts)}
    assert found == ({9, 2} if offset == 0 else {8, 2, 1})
