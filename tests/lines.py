"""Sample spaces, chunk grids and lines of samples, drawn."""

import itertools

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from xtorch_data.planning.blocks import plan_in_order, plan_shuffled
from xtorch_data.planning.chunks import Chunks, Layout
from xtorch_data.planning.line import Line
from xtorch_data.planning.stages import as_indices
from xtorch_data.planning.windows import Windows


@st.composite
def plans(draw, max_samples=3000):
    """A sample space, the storage of some variables, and a memory budget."""
    names = ["time", "lat", "lon"][: draw(st.integers(1, 3))]
    sizes = {name: draw(st.integers(1, 40)) for name in names}
    windowed = draw(st.permutations(names))[: draw(st.integers(0, len(names)))]
    input_dims = {name: draw(st.integers(1, sizes[name])) for name in windowed}
    overlap = {name: draw(st.integers(0, input_dims[name] - 1)) for name in windowed}
    windows = Windows.from_sizes(sizes, input_dims, overlap)
    if windowed and draw(st.booleans()):  # with breaks
        dim = draw(st.sampled_from(windowed))
        breaks = draw(st.sets(st.integers(1, max(1, sizes[dim] - 1)), max_size=6))
        windows = windows.begun_anew(dim, sorted(breaks - {sizes[dim]}))
    if draw(st.booleans()):  # with holes
        dim = draw(st.sampled_from(names))
        edges = sorted(draw(st.lists(st.integers(0, sizes[dim]), min_size=2, max_size=8)))
        windows = windows.within(dim, list(zip(edges[::2], edges[1::2], strict=False)))
    assume(0 < len(windows) <= max_samples)
    variables = []
    for number in range(draw(st.integers(1, 3))):
        dims = draw(st.permutations(names))[: draw(st.integers(1, len(names)))]
        chunks = {dim: draw(grids(sizes[dim])) for dim in dims}
        variables.append(Layout(f"v{number}", draw(st.sampled_from([1, 4, 8])), chunks))
    budget = draw(st.sampled_from([1, 100, 1000, 10_000, 10**9]))
    return windows, variables, budget


@st.composite
def grids(draw, length):
    """A chunk grid along a dim: regular and perhaps offset, or with any edges."""
    if draw(st.booleans()):
        size = draw(st.integers(1, length + 3))
        return Chunks(length, size, draw(st.integers(0, size - 1)))
    inner = draw(st.sets(st.integers(1, length - 1))) if length > 1 else set()
    return Chunks(length, edges=np.array([0, *sorted(inner), length]))


def chunk_of(grid):
    """The chunk in which each step lies, one by one."""
    if grid.edges is None:
        return [(step + grid.offset) // grid.size for step in range(grid.length)]
    return [
        number
        for number, (start, stop) in enumerate(itertools.pairwise(grid.edges))
        for _ in range(start, stop)
    ]


def samples_of(stage, windows):
    """Sample numbers that a stage yields, in order."""
    pieces = [piece for load in stage.loads for piece in load.pieces]
    numbers = np.concatenate(
        [
            np.arange(len(windows))
            .reshape(windows.shape)[tuple(slice(first, last) for first, last in piece.box)]
            .ravel()
            for piece in pieces
        ]
    )
    expected = numbers[as_indices(stage.order())].tolist()
    assert stage.numbers(windows).tolist() == expected
    return expected


def make_line(plan, shuffle, seed=0, epoch=0, pool_blocks=2):
    windows, variables, budget = plan
    planner = plan_shuffled if shuffle else plan_in_order
    return Line(planner(windows, variables, budget), shuffle, seed, epoch, pool_blocks)
