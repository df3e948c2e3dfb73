"""What is asked of xarray's lazy arrays, compared with NumPy's indexing and with public ways."""

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.sources.lazy_arrays import (
    in_memory,
    is_lazy,
    layers,
    lazily,
    must_be_read,
    opened_file,
    stored_dtype,
    stored_positions,
    zarr_array,
)

SHAPE = (7, 5, 6)


@pytest.fixture(scope="module")
def numbered():
    """A lazy variable whose values are the places of these in the store."""
    array = zarr.create_array({}, shape=SHAPE, chunks=(3, 5, 4), dtype="i4")
    array[...] = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    return lazily(("time", "y", "x"), array)


@st.composite
def indexers(draw, size):
    if draw(st.booleans()):
        return draw(st.integers(-size, size - 1))
    if draw(st.booleans()):
        return np.array(draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=4)))
    places = st.none() | st.integers(-size, size)
    return slice(draw(places), draw(places), draw(st.sampled_from([None, 1, 2, -1, -3])))


@given(data=st.data())
def test_stored_positions_are_those_of_the_values(numbered, data):
    variable = numbered
    for _ in range(data.draw(st.integers(0, 3))):
        sizes = {dim: size for dim, size in variable.sizes.items() if size}
        if not sizes:
            break
        dim = data.draw(st.sampled_from(list(sizes)))
        variable = variable.isel({dim: data.draw(indexers(sizes[dim]))})
    positions = stored_positions(variable)
    assert is_lazy(variable) and not in_memory(variable)
    every = np.ix_(*(np.atleast_1d(np.asarray(along, int)) for along in positions))
    gone = tuple(axis for axis, along in enumerate(positions) if isinstance(along, int))
    expected = np.arange(np.prod(SHAPE)).reshape(SHAPE)[every].squeeze(gone)
    assert variable.shape == expected.shape
    if variable.size:  # else xarray may fail, where a step is negative
        np.testing.assert_array_equal(variable.values, expected)


def test_what_lazy_arrays_do_not_slice_has_no_positions(numbered):
    points = {"y": xr.Variable("point", [1, 2]), "x": xr.Variable("point", [3, 0])}
    assert stored_positions(numbered.isel(points)) is None
    assert stored_positions(numbered.transpose("x", "time", "y")) is None


def test_variables_are_read_that_are_neither_in_memory_nor_indexes(tmp_path):
    ds = xr.Dataset({"a": ("x", [1.0, 2, 3])}, {"x": [5, 6, 7]})
    ds.to_netcdf(tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as opened:
        assert [must_be_read(opened.variables[name]) for name in "ax"] == [True, False]
        assert must_be_read(opened.chunk()["a"].variable) and not is_lazy(
            opened.chunk()["a"].variable
        )
        assert is_lazy(opened["a"].variable)
        opened.load()
        assert [in_memory(opened.variables[name]) for name in "ax"] == [True, True]
        assert not must_be_read(opened["a"].variable)


def test_the_array_and_dtype_in_the_store_are_known_below_slices_and_decoders(tmp_path):
    packed = {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1}
    ds = xr.Dataset({"a": ("x", [1.0, np.nan, 3]), "b": ("x", [1.0, 2, 3])})
    ds.to_zarr(tmp_path / "a.zarr", encoding={"a": packed}, consolidated=False)
    opened = xr.open_zarr(tmp_path / "a.zarr", chunks=None, consolidated=False)
    part = opened["a"].variable[1:]
    assert stored_dtype(part) == "i2"
    np.testing.assert_array_equal(zarr_array(part)[...], [2, -1, 6])
    assert zarr_array(opened["a"].load().variable) is None
    assert len(layers(ds["b"].variable)) == 1 and zarr_array(ds["b"].variable) is None


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf", "scipy"])
def test_the_file_of_a_variable_is_found(engine, tmp_path):
    ds = xr.Dataset({"a": ("x", [1.0, 2, 3])})
    ds.to_netcdf(tmp_path / "a.nc", engine=engine)
    with xr.open_dataset(tmp_path / "a.nc", engine=engine) as opened:
        found = opened_file(layers(opened["a"].variable[1:])[-1])
        assert str(found.file) == str(tmp_path / "a.nc")
        assert found.name[0] == "a"
    assert opened_file(layers(ds["a"].variable)[-1]) is None
