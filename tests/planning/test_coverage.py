"""Which places lie in a window that is wanted, compared with a plain loop over windows."""

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.planning.coverage import places_covered, wanted_along
from xtorch_data.planning.selection import SampleTable
from xtorch_data.planning.windows import Windows


@given(st.data())
def test_places_are_those_in_a_window_that_is_wanted(data):
    draw = data.draw
    sizes = {dim: draw(st.integers(1, 6)) for dim in "abc"}
    input_dims = {dim: draw(st.integers(1, size)) for dim, size in sizes.items()}
    overlap = {dim: draw(st.integers(-1, size - 1)) for dim, size in input_dims.items()}
    windows = Windows.from_sizes(sizes, input_dims, overlap)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    axes = tuple(sorted(draw(st.sets(st.integers(0, 2)))))
    wanted = rng.random([windows.shape[axis] for axis in axes]) < 0.3
    own = {windows.axes[axis].dim for axis in draw(st.sets(st.integers(0, 2)))}
    # the dims of a variable
    counts = np.zeros([size if dim in own else 1 for dim, size in sizes.items()], bool)
    for number in np.ndindex(windows.shape):
        if wanted[tuple(number[axis] for axis in axes)]:
            window = windows[int(np.ravel_multi_index(number, windows.shape))]
            counts[tuple(window[dim] if dim in own else 0 for dim in sizes)] = True

    positions = {dim: np.arange(sizes[dim]) for dim in sizes if dim in own}
    table = wanted_along(SampleTable(axes, wanted), windows, own)
    dims, found = places_covered(table, windows, positions)

    assert dims == [dim for place, dim in enumerate(sizes) if place in axes and dim in own]
    shape = [sizes[dim] if dim in dims else 1 for dim in sizes]
    windowed = np.ones(counts.shape, bool)  # places in no window at all are not asked about
    for place, dim in enumerate(sizes):
        if dim in own:
            axis = windows.axes[place]
            inside = np.zeros(sizes[dim], bool)
            for number in range(len(axis)):
                inside[axis.cut(int(axis.starts.at(number)))] = True
            windowed &= inside.reshape([-1 if dim == other else 1 for other in sizes])
    np.testing.assert_array_equal(found.reshape(shape) & windowed, counts)


def test_a_large_table_is_not_copied_for_a_few_places():
    windows = Windows.from_sizes({"time": 10**7}, {"time": 5}, {"time": 4})
    table = SampleTable((0,), np.arange(len(windows)) % 100 == 0)
    few = wanted_along(table, windows, {"time"})
    tracemalloc.start()
    try:
        _, found = places_covered(few, windows, {"time": np.arange(200, 300)})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.tolist() == [step % 100 < 5 for step in range(200, 300)]
    assert peak < 100_000 < table.values.nbytes
