import re
from pathlib import Path

import dask.array
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

import xtorch_data as xtd
from xtorch_data.sources.source import as_source, layout_of


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A Zarr store with time chunks of 16 and its data."""
    path = tmp_path_factory.mktemp("sources") / "store.zarr"
    ds = xr.Dataset(
        {"v": (("time", "x"), np.arange(100 * 6, dtype="f4").reshape(100, 6))},
        coords={"time": np.arange(100)},
    )
    ds.to_zarr(path, encoding={"v": {"chunks": (16, 4)}}, consolidated=False, zarr_format=3)
    return path, ds


def chunk_of_stored(positions, size):
    return [position // size for position in positions]


indexers = st.one_of(
    st.slices(100).filter(lambda part: len(range(100)[part]) > 0),
    st.lists(st.integers(0, 99), min_size=1, max_size=20, unique=True).map(sorted),
)


@given(first=indexers, data=st.data())
def test_the_grid_of_a_lazily_sliced_array_is_that_of_the_store(store, first, data):
    path, _ = store
    positions = np.arange(100)[first]
    second = data.draw(st.slices(len(positions)).filter(lambda part: len(positions[part]) > 0))
    ds = xr.open_zarr(path, chunks=None, consolidated=False)
    sliced = ds["v"].isel(time=first).isel(time=second, x=1)
    positions = positions[second]
    grid = layout_of(sliced.variable, "v", ["time"]).chunks["time"]
    stored = chunk_of_stored(positions, 16)
    changes = [place for place in range(1, len(stored)) if stored[place] != stored[place - 1]]
    assert grid.length == len(positions)
    assert (
        grid.boundaries(1).tolist() == changes or grid.size == 1 and len(changes) == len(stored) - 1
    )


def test_chunks_come_from_where_the_data_is(store, tmp_path):
    path, ds = store
    lazy = xr.open_zarr(path, chunks=None, consolidated=False)

    def grid(data, dim="time"):
        return layout_of(data["v"].variable, "v", ["time", "x"]).chunks[dim]

    assert (grid(lazy).size, grid(lazy, "x").size) == (16, 4)
    assert grid(lazy.load()).size == 1  # in memory any slice is free
    assert grid(ds.chunk(time=10)).size == 10
    irregular = ds.chunk(time=(10, 30, 60))
    assert grid(irregular).edges.tolist() == [0, 10, 40, 100]
    renamed = xr.open_zarr(path, chunks=None, consolidated=False).rename(time="t")
    assert layout_of(renamed["v"].variable, "v", ["t"]).chunks["t"].size == 16
    ds.to_netcdf(tmp_path / "chunked.nc", encoding={"v": {"chunksizes": (25, 6)}})
    ds.to_netcdf(tmp_path / "contiguous.nc")
    with xr.open_dataset(tmp_path / "chunked.nc") as opened:
        assert grid(opened.isel(time=slice(10, None))).boundaries(1).tolist() == [15, 40, 65]
    with xr.open_dataset(tmp_path / "contiguous.nc") as opened:
        assert grid(opened).size == 1


class OtherBackend(xr.backends.BackendArray):
    """An array of an engine that says no more than `preferred_chunks`."""

    shape, dtype = (100, 6), np.dtype("f4")

    def __getitem__(self, key):
        raise AssertionError("nothing is read to plan")


@pytest.mark.parametrize(
    ("preferred", "first", "edges"),
    [
        ({"time": 40, "x": 6}, slice(None), [40, 80]),
        ({"time": 40, "x": 6}, slice(30, 90), [10, 50]),
        ({"time": (10, 30, 60)}, slice(None), [10, 40]),
        ({"time": (10, 30, 60)}, slice(5, 50), [5, 35]),
        ({"t": 40, "place": 40}, slice(30, 90), [10, 50]),  # dims were renamed
        ({"t": 40, "x": 6}, slice(30, 90), [10, 50]),
        ({"t": 40, "place": 6}, slice(None), []),  # which of them is which?
        ({}, slice(5, 50), []),
    ],
)
def test_chunks_that_an_engine_prefers_are_its_grid(preferred, first, edges):
    lazy = xr.core.indexing.LazilyIndexedArray(OtherBackend())
    variable = xr.Variable(("time", "x"), lazy, encoding={"preferred_chunks": preferred})
    grid = layout_of(variable.isel(time=first), "v", ["time"]).chunks["time"]
    assert grid.chunked == bool(edges)
    if edges:
        assert grid.boundaries(1).tolist() == edges


def test_a_message_of_grib_is_a_chunk():
    class OnDiskArray(OtherBackend):  # as cfgrib has it
        shape, geo_ndim = (10, 3, 100, 6), 2

    lazy = xr.core.indexing.LazilyIndexedArray(OnDiskArray())
    variable = xr.Variable(("time", "level", "y", "x"), lazy)
    chunks = layout_of(variable.isel(time=2), "v", ["level", "y", "x"]).chunks
    assert {dim: grid.size for dim, grid in chunks.items()} == {"level": 1, "y": 100, "x": 6}
    assert chunks["level"].stored


def test_it_is_told_where_the_data_comes_from(store, tmp_path):
    path, ds = store
    array = zarr.open_group(path, mode="r")["v"]
    tree = xr.open_datatree(path, engine="zarr", chunks=None, consolidated=False)
    memory = zarr.storage.MemoryStore()
    ds.to_zarr(memory, consolidated=False)
    for data, origin in [
        (xr.open_zarr(path, chunks=None, consolidated=False), str(path)),
        (tree, str(path)),
        (array, str(array.store_path)),
        (xr.open_zarr(memory, chunks=None, consolidated=False), "MemoryStore"),
        (ds, "data in memory or of a dask graph"),
        (ds.chunk(), "data in memory or of a dask graph"),
    ]:
        assert as_source(data).origin == origin


def test_a_dask_graph_under_lazy_arrays_is_known_for_what_it_is(store):
    _, ds = store
    variable = ds["v"].chunk(time=16).variable
    hidden = xr.core.indexing.MemoryCachedArray(
        xr.core.indexing.CopyOnWriteArray(xr.core.indexing.as_indexable(variable.data))
    )
    lazy = ds.assign(v=xr.Variable(variable.dims, hidden, {"units": "K"}, {"chunks": (16, 6)}))
    for data in (lazy, lazy["v"]):
        found = as_source(data).dataset
        assert found["v"].chunksizes["time"] == (16,) * 6 + (4,)
        assert found["v"].attrs == {"units": "K"} and found["v"].encoding == {"chunks": (16, 6)}
        xr.testing.assert_equal(found["v"].compute(), ds["v"])
        assert "time" in found.coords


def test_bytes_of_dims_outside_the_samples_count():
    variable = xr.Variable(("time", "bnds"), np.zeros((10, 2), "f8"))
    assert layout_of(variable, "v", ["time"]).itemsize == 16


def test_open_zarr_binds_the_fast_codec_pipeline_and_is_lazy(store):
    path, ds = store
    opened = xtd.open_zarr(path, consolidated=False)
    assert opened["v"].chunks is None
    assert not opened["v"].variable._in_memory
    pipeline = opened["v"].variable._data
    while hasattr(pipeline, "array"):
        pipeline = pipeline.array
    assert "Zarrs" in type(pipeline.get_array().async_array.codec_pipeline).__name__
    assert "zarrs" not in zarr.config.get("codec_pipeline.path")
    xr.testing.assert_identical(opened.load().drop_encoding(), ds)
    assert xtd.open_zarr(path, consolidated=False, chunks={})["v"].chunks is not None


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_opens_in_silence_whether_its_metadata_is_in_one_place_or_not(
    store, tmp_path, zarr_format
):
    _, ds = store  # warnings are errors here
    for name, consolidated in (("one", True), ("many", False)):
        ds.to_zarr(tmp_path / name, group="in", zarr_format=zarr_format, consolidated=consolidated)
        local = zarr.storage.LocalStore(tmp_path / name)
        for where in (str(tmp_path / name), local):
            xr.testing.assert_identical(xtd.open_zarr(where, group="in").load(), ds)
    with pytest.raises(ValueError, match="(?i)consolidated|zmetadata"):
        xtd.open_zarr(tmp_path / "many", group="in", consolidated=True)


def test_a_file_is_not_taken_for_a_zarr_store(tmp_path):
    path = tmp_path / "mine.nc"
    path.write_bytes(b"CDF")
    for each in (path, str(path)):
        with pytest.raises(ValueError, match=r"mine\.nc is a file.*xarray\.open_dataset\('"):
            xtd.open_zarr(each)
    with pytest.raises(FileNotFoundError):
        xtd.open_zarr(tmp_path / "none.zarr")


def test_zarr_arrays_and_groups_are_data(store):
    path, ds = store
    group = zarr.open_group(path, mode="r")
    for data in (group, group["v"]):
        dataset = xtd.IterableDataset(data, {"time": 4, "x": 6}, batch_size=7)
        for batch in dataset:
            values = batch.x if data is not group else batch.x[:, 0]
            for place, number in enumerate(batch.index.tolist()):
                expected = ds["v"].isel(dataset.windows[number]).values
                np.testing.assert_array_equal(values[place].numpy(), expected)
        assert batch.to_xarray()["v"].dims == ("sample", "time", "x")


def test_a_zarr_array_without_names_for_its_dims_takes_them_as_an_argument():
    array = zarr.create_array(zarr.storage.MemoryStore(), shape=(10, 3), dtype="i4", chunks=(4, 3))
    array[:] = np.arange(30).reshape(10, 3)
    with pytest.raises(ValueError, match="dims="):
        xtd.IterableDataset(array, {"time": 2})
    dataset = xtd.IterableDataset(array, {"time": 2, "x": -1}, dims=("time", "x"), batch_size=5)
    [batch] = dataset
    np.testing.assert_array_equal(batch.x.numpy(), np.arange(30).reshape(5, 2, 3))
    with pytest.raises(ValueError, match="2 dims"):
        xtd.IterableDataset(array, {"time": 2}, dims=("time",))
    with pytest.raises(TypeError, match="sequence of names"):
        xtd.IterableDataset(array, {"t": 2}, dims="tx")
    with pytest.raises(ValueError, match="differ"):
        xtd.IterableDataset(array, {"time": 2}, dims=("time", "time"))
    with pytest.raises(ValueError, match="zarr.Array"):
        xtd.IterableDataset(xr.DataArray(np.zeros(3), dims="x"), {"x": 1}, dims=("x",))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_of_a_zarr_group_without_names_for_their_dims_are_named(zarr_format):
    group = zarr.create_group(zarr.storage.MemoryStore(), zarr_format=zarr_format)
    group.create_array("v", shape=(10, 3), dtype="i4", chunks=(4, 3))
    with pytest.raises(ValueError, match=r"\['v'\] of this zarr.Group.*dims="):
        xtd.IterableDataset(group, {"time": 2})
    dataset = xtd.IterableDataset(group["v"], {"time": 2, "x": -1}, dims=("time", "x"))
    assert len(dataset.windows) == 5


def test_packed_integers_of_a_zarr_array_are_decoded():
    array = zarr.create_array(
        zarr.storage.MemoryStore(),
        shape=(6,),
        dtype="i2",
        chunks=(4,),
        dimension_names=("time",),
        attributes={"scale_factor": 0.5, "add_offset": 10.0, "_FillValue": -1},
    )
    array[:] = [0, 1, 2, -1, 4, 5]
    [batch] = xtd.IterableDataset(array, {"time": 6})
    np.testing.assert_array_equal(batch.x[0].numpy(), np.float32([10, 10.5, 11, np.nan, 12, 12.5]))


def test_other_data_is_refused():
    with pytest.raises(TypeError, match="ndarray"):
        as_source(np.zeros(3))
    with pytest.raises(TypeError, match="Array"):
        as_source(dask.array.zeros(3))


def test_dask_data_of_unknown_size_is_refused_in_clear_words():
    array = dask.array.arange(20, chunks=5)
    data = xr.DataArray(array[array > 3], dims="time")
    with pytest.raises(ValueError, match="'time' is unknown.*compute_chunk_sizes"):
        xtd.IterableDataset(data, {"time": 2})


TIMES = xr.date_range("2020-01-01", periods=6)


@pytest.mark.parametrize(
    ("data", "written", "as_given"),
    [
        (
            pd.DataFrame({"time": TIMES, "a": range(6)}),
            r"df\.set_index\(\['time', …\]\)\.to_xarray\(\)",
            lambda df: df.set_index(["time"]).to_xarray(),
        ),
        (
            pd.Series(range(6), index=TIMES, name="a"),
            r"series\.rename_axis\('time'\)\.to_xarray\(\)",
            lambda series: series.rename_axis("time").to_xarray(),
        ),
        (
            np.zeros((6, 3)),
            r"xarray\.DataArray\(array, dims=\['y', 'x'\]\)",
            lambda array: xr.DataArray(array, dims=["y", "x"]),
        ),
        (
            np.zeros((1,) * 4),
            r"xarray\.DataArray\(array, dims=\[4 names\]\)",
            lambda array: xr.DataArray(array, dims=list("abcd")),
        ),
        (
            torch.zeros(6),
            r"a torch tensor .* xarray\.DataArray\(tensor\.numpy\(\), dims=\['x'\]\)",
            lambda tensor: xr.DataArray(tensor.numpy(), dims=["x"]),
        ),
        (
            [xr.Dataset({"a": ("time", [1.0])}), xr.Dataset({"a": ("time", [2.0])})],
            r"xarray\.concat\(datasets, dim='time'\), and .* a dataset and a loader each",
            lambda datasets: xr.concat(datasets, dim="time"),
        ),
    ],
)
def test_data_of_another_kind_is_refused_with_what_makes_it_one_that_serves(
    data, written, as_given
):
    with pytest.raises(TypeError, match=f"not {type(data).__name__}: .*{written}") as raised:
        xtd.MapDataset(data, {"time": 2})
    assert "\n" not in str(raised.value)
    assert as_source(as_given(data)).dataset.sizes


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("era5.nc", "xarray.open_dataset('era5.nc')"),
        (Path("folder/era5.GRIB"), "xarray.open_dataset('folder/era5.GRIB')"),
        ("s3://bucket/era5.zarr/", "xtorch_data.open_zarr('s3://bucket/era5.zarr/')"),
        ("era5", "xtorch_data.open_zarr('era5') if it is Zarr, xarray.open_dataset('era5') if"),
        (["a.nc", Path("b.nc")], "xarray.open_mfdataset(paths)"),
        (("a.zarr", "b.zarr"), "concat([xtorch_data.open_zarr(path) for path in paths], dim="),
    ],
)
def test_paths_are_opened_as_their_ending_tells(path, call):
    with pytest.raises(TypeError, match=re.escape(call)):
        xtd.IterableDataset(path, {"time": 2})


def test_what_is_no_data_at_all_is_told_what_is():
    for data in ([], [1, "a.nc"], {"a": 1}, None):
        with pytest.raises(TypeError, match="data must be an xarray Dataset, DataArray or"):
            as_source(data)
