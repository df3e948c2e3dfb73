import numpy as np
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.common.buffers import Buffers
from xtorch_data.reading.laying import laid_out


@given(st.data())
def test_values_are_laid_out_as_isel_takes_them(data):
    sizes = {dim: data.draw(st.integers(1, 6)) for dim in ("time", "y", "x")}
    values = np.arange(np.prod([*sizes.values()])).reshape([*sizes.values()])
    wanted = {}
    for dim in data.draw(st.lists(st.sampled_from([*sizes]), unique=True)):
        size = sizes[dim]
        before, after = data.draw(st.integers(0, 8)), data.draw(st.integers(0, 8))
        mode = data.draw(st.sampled_from(["wrap", "edge", "reflect", "symmetric"]))
        steps = np.pad(np.arange(size), (before, after), mode=mode)
        wanted[dim] = steps[data.draw(st.integers(0, 2)) :] if len(steps) > 2 else steps
    found = laid_out(xr.Variable([*sizes], values), wanted, Buffers(0))
    np.testing.assert_array_equal(found, xr.DataArray(values, dims=[*sizes]).isel(wanted))
