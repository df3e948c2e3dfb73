"""Counts over windows are the sums that plain slicing gives."""

import numpy as np
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from xtorch_data.gathering.counts import counts
from xtorch_data.planning.windows import Windows
from xtorch_data.samples.making_parts import make_part
from xtorch_data.samples.not_null import NotNull
from xtorch_data.samples.presence import Presence
from xtorch_data.samples.select import Select

DIMS = ("a", "b", "c")


@st.composite
def cases(draw):
    """Booleans over some dims, windows over all of them, and what is taken of a window."""
    sizes = {dim: draw(st.integers(1, 7)) for dim in draw(st.permutations(DIMS))}
    windowed = draw(st.lists(st.sampled_from(DIMS), unique=True))
    input_dims = {dim: draw(st.integers(1, sizes[dim])) for dim in windowed}
    own = draw(st.lists(st.sampled_from(DIMS), unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    values = rng.random([sizes[dim] for dim in own]) < 0.6
    indexers = {}
    for dim, size in input_dims.items():
        steps = st.integers(-size, size - 1)
        kind = draw(st.sampled_from(["all", "step", "slice", "list"]))
        if kind == "step":
            indexers[dim] = draw(steps)
        elif kind == "slice":
            start = draw(st.integers(0, size - 1))
            stop = draw(st.integers(start + 1, size))
            indexers[dim] = slice(start, stop, draw(st.integers(1, 3)))
        elif kind == "list":
            some = draw(st.sets(st.integers(0, size - 1), min_size=1))
            indexers[dim] = draw(st.permutations(sorted(some)))
    return sizes, input_dims, xr.Variable(own, values), indexers


@examples(75)
@given(case=cases())
def test_counts_are_the_sums_over_what_isel_takes_of_each_window(case):
    sizes, input_dims, present, indexers = case
    windows = Windows.from_sizes(sizes, input_dims, {d: n - 1 for d, n in input_dims.items()})
    select = NotNull(Select("v", indexers))._of("v", "count")
    data = xr.Dataset({"v": present})
    part = make_part("x", select, data, windows, tuple(input_dims), np.dtype("f4"))
    found = counts(windows, tuple(input_dims), part, {Presence("v"): present}, Presence("v"))
    assert found.shape == windows.shape
    for number in range(len(windows)):
        window = windows[number]
        own = {dim: cut for dim, cut in window.items() if dim in present.dims}
        lacking = {dim: size for dim, size in input_dims.items() if dim not in present.dims}
        taken = xr.DataArray(present).isel(own).expand_dims(lacking).isel(indexers)
        assert found.flat[number] == taken.values.sum()
        assert part.values == taken.size
