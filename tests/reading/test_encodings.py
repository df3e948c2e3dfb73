"""Whatever a file says of how its values are encoded, samples are what xarray makes of it."""

import json
import warnings

import dask.array
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from helpers import assert_once, samples_of

import xtorch_data as xtd
from xtorch_data.reading import recycled as lazy

TIME, X = 30, 7
PACKED = {"scale_factor": 0.01, "add_offset": 280.0}

# What is written: the dtype and range of the values, and how they are to be encoded.
ENCODINGS = {
    "float32": ("f4", {}),
    "float64": ("f8", {}),
    "float64 with a fill value": ("f8", {"_FillValue": -999.0}),
    "float32 with a missing value": ("f4", {"missing_value": -999.0}),
    "packed": ("f8", {"dtype": "int16", "_FillValue": -32768, **PACKED}),
    "packed without a fill value": ("f8 whole", {"dtype": "int16", "_FillValue": None, **PACKED}),
    "packed in bytes": ("f8 small", {"dtype": "int8", "scale_factor": 0.5, "_FillValue": -128}),
    "packed as unsigned": ("f8", {"dtype": "i2", "_Unsigned": "true", "_FillValue": -1, **PACKED}),
    "integers with a fill value": ("f8 small", {"dtype": "int32", "_FillValue": -99}),
    "int8": ("i1", {}),
    "int16": ("i2", {}),
    "int32": ("i4", {}),
    "int64": ("i8", {}),
    "uint8": ("u1", {}),
    "uint16": ("u2", {}),
    "uint32": ("u4", {}),
    "uint64": ("u8", {}),
    "bool": ("?", {}),
    "big-endian float32": (">f4", {"dtype": ">f4"}),
    "big-endian float64": (">f8", {"dtype": ">f8"}),
    "big-endian packed": ("f8", {"dtype": ">i2", "_FillValue": -32768, **PACKED}),
    "big-endian integers": (">i4", {"dtype": ">i4"}),
    "float16": ("f2", {}),
    "complex": ("c8", {}),
}  # fmt: skip
NOT_IN = {
    "netcdf4": {"float16", "complex"},
    "netcdf3": {"float16", "complex", "int64", "uint8", "uint16", "uint32", "uint64", "bool"},
}
STORES = ("zarr 2", "zarr 3", "netcdf4", "netcdf3")
MATRIX = [
    (store, encoding)
    for store in STORES
    for encoding in ENCODINGS
    if encoding not in NOT_IN.get(store, ())
]


def values_of(kind):
    rng = np.random.default_rng(0)
    dtype, _, spread = kind.partition(" ")
    dtype = np.dtype(dtype)
    if dtype.kind in "fc":
        values = 280 + rng.normal(size=(TIME, X)) * (40 if spread != "small" else 9)
        values -= 280 if spread == "small" else 0
        if spread != "whole":
            values[3:5] = np.nan
        return (values + 1j * values if dtype.kind == "c" else values).astype(dtype)
    if dtype.kind == "b":
        return rng.random((TIME, X)) < 0.5
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    return rng.integers(least, most, (TIME, X), dtype.newbyteorder("=")).astype(dtype)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """All of them in one store of each kind, in chunks of 7 steps."""
    with warnings.catch_warnings():  # that packed data has no fill value
        warnings.simplefilter("ignore", xr.SerializationWarning)
        opened = written(tmp_path_factory.mktemp("encodings"))
    yield opened
    for ds in opened.values():
        ds.close()


def written(folder):
    opened = {}
    for store in STORES:
        names = [name for kind, name in MATRIX if kind == store]
        ds = xr.Dataset({name: (("time", "x"), values_of(ENCODINGS[name][0])) for name in names})
        path = folder / store
        encoding = {name: dict(ENCODINGS[name][1]) for name in names}
        kind, _, version = store.partition(" ")
        for each in encoding.values():
            if kind == "zarr":
                each["chunks"] = (7, X)
            elif store == "netcdf4":
                each["chunksizes"] = (7, X)
        if kind == "zarr":
            ds.to_zarr(path, zarr_format=int(version), consolidated=False, encoding=encoding)
            opened[store] = xtd.open_zarr(path, consolidated=False)
        elif store == "netcdf4":
            ds.to_netcdf(path, engine="netcdf4", encoding=encoding)
            opened[store] = xr.open_dataset(path, engine="netcdf4")
        else:
            ds.to_netcdf(path, engine="scipy", encoding=encoding)
            opened[store] = xr.open_dataset(path, engine="scipy")
    return opened


def expected_of(decoded, floating):
    dtype = decoded.dtype.newbyteorder("=")
    return decoded.values.astype(floating if dtype.kind == "f" else dtype)


@pytest.mark.parametrize(("store", "encoding"), MATRIX)
def test_samples_are_what_xarray_decodes(stores, monkeypatch, store, encoding):
    monkeypatch.setattr(lazy, "PIECE", 50)  # decoded in many pieces, the last one smaller
    ds = stores[store]
    whole = ds[encoding].compute()
    for dtype in (None, torch.float64)[: 2 if whole.dtype.kind == "f" else 1]:
        expected = expected_of(whole, np.float64 if dtype else np.float32)
        options = {"inputs": encoding, "dtype": dtype}
        dataset = xtd.IterableDataset(ds, {"time": 6, "x": -1}, batch_size=2, **options)
        batches = list(dataset)
        assert_once(samples_of(batches), TIME // 6)
        directly = store == "zarr 3" or (store == "zarr 2" and "big-endian" not in encoding)
        assert directly == ("read directly" in dataset.stats().paths)
        found = np.concatenate([batch.x.numpy() for batch in batches])
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected.reshape(-1, 6, X))
    sample, *_ = xtd.MapDataset(ds, {"time": 6, "x": -1}, **options)[3]
    np.testing.assert_array_equal(sample.numpy(), expected[18:24])


@pytest.mark.parametrize("store", STORES)
def test_what_is_stacked_has_the_dtype_that_numpy_promotes_to(stores, store):
    ds = stores[store]
    for names, dtype in [
        (["int8", "int16"], "i2"),
        (["int8", "int32"], "i4"),
        (["int32", "float32"], "f4"),  # as any floating one makes all of them
        (["packed", "int8"], "f4"),
    ]:
        [batch] = xtd.IterableDataset(ds, {"time": TIME, "x": X}, inputs=names)
        assert batch.x.numpy().dtype == dtype
        for place, name in enumerate(names):
            expected = ds[name].compute().values.astype(dtype)  # what is shared stays lazy
            np.testing.assert_array_equal(batch.x[0, place].numpy(), expected)


def test_integers_that_fit_no_common_dtype_are_not_stacked():
    ds = xr.Dataset({"a": ("x", np.arange(4, dtype="i8")), "b": ("x", np.arange(4, dtype="u8"))})
    with pytest.raises(TypeError, match="no integer dtype for all values of .'int64', 'uint64'."):
        xtd.IterableDataset(ds, {"x": 2})
    [batch] = xtd.IterableDataset(ds, {"x": 4}, inputs="a", targets="b")
    assert (batch.x.dtype, batch.y.dtype) == (torch.int64, torch.uint64)


def test_wider_than_any_tensor_is_refused_or_cast():
    wide = xr.Dataset({"f": ("x", np.arange(4, dtype="g")), "c": ("x", np.arange(4, dtype="G"))})
    [batch] = xtd.IterableDataset(wide, {"x": 4}, inputs="f")
    assert batch.x.dtype == torch.float32
    if wide["c"].dtype.itemsize > 16:
        with pytest.raises(TypeError, match=r"no tensors: .*block\['c'\].astype\(complex\)"):
            xtd.IterableDataset(wide, {"x": 4})


# Dates, durations and text


DATES = xr.date_range("2000-01-28", periods=TIME, freq="6h")
OTHER = xr.date_range("2000-02-28", periods=TIME, freq="6h", calendar="360_day", use_cftime=True)
NUMBERS = {
    # name: values, what makes numbers of them, the numbers
    "dates": (DATES.values, lambda v: v.dt.hour, DATES.hour),
    "dates of 360 days": (OTHER.values, lambda v: v.dt.dayofyear, [d.dayofyr for d in OTHER]),
    "durations": (
        np.arange(TIME) * np.timedelta64(90, "m").astype("m8[ns]"),
        lambda v: v / np.timedelta64(1, "h"),
        np.arange(TIME) * 1.5,
    ),
    "text": (
        np.array([f"{n % 3}" for n in range(TIME)], dtype=object),
        lambda v: v == "1",
        np.arange(TIME) % 3 == 1,
    ),
}


@pytest.mark.parametrize("how", ["memory", "dask", "zarr 2", "zarr 3", "netcdf4"])
@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.filterwarnings("ignore:The data type .* does not have a Zarr V3 specification")
def test_what_is_no_number_is_refused_and_preprocess_makes_numbers_of_it(tmp_path, name, how):
    values, function, numbers = NUMBERS[name]
    ds = xr.Dataset({name: ("time", values)})
    kind, _, version = how.partition(" ")
    chunks = {name: {"chunksizes" if kind == "netcdf4" else "chunks": (7,)}}
    if kind == "zarr":
        ds.to_zarr(tmp_path / "a", zarr_format=int(version), consolidated=False, encoding=chunks)
        ds = xtd.open_zarr(tmp_path / "a", consolidated=False, decode_timedelta=True)
    elif kind == "netcdf4":
        ds.to_netcdf(tmp_path / "a", encoding=chunks)
        ds = xr.open_dataset(tmp_path / "a", decode_timedelta=True)
    elif kind == "dask":
        ds = ds.chunk(time=7)
    with pytest.raises(TypeError, match=f"'{name}' of part 'x' has dtype .*preprocess=lambda"):
        xtd.IterableDataset(ds, {"time": 3})
    with ds:
        dataset = xtd.IterableDataset(
            ds,
            {"time": 3},
            inputs=name,
            preprocess=lambda block: block.assign({name: function(block[name])}),
            batch_size=4,
            memory="200 B",
        )
        found = np.concatenate([batch.x.numpy().ravel() for batch in dataset])
    np.testing.assert_array_equal(found, np.asarray(numbers, found.dtype))


def test_the_message_says_how_numbers_are_made():
    ds = xr.Dataset({name: ("time", values) for name, (values, _, _) in NUMBERS.items()})
    for name, recipe in {
        "dates": "block.assign({'dates': block['dates'].dt.dayofyear})",
        "durations": "block.assign({'durations': block['durations'] / np.timedelta64(1, \"h\")})",
    }.items():
        for kind in (xtd.IterableDataset, xtd.MapDataset):
            with pytest.raises(TypeError) as caught:
                kind(ds, {"time": 3}, inputs=name)
            assert f"preprocess=lambda block: {recipe}" in str(caught.value)
        preprocess = eval(f"lambda block: {recipe}", {"np": np})  # as it stands there
        [batch] = xtd.IterableDataset(ds, {"time": TIME}, inputs=name, preprocess=preprocess)
        assert batch.x.shape == (1, TIME)


@pytest.mark.parametrize("calendar", ["360_day", "noleap", "proleptic_gregorian"])
@pytest.mark.parametrize("kind", ["zarr", "netcdf4"])
def test_dates_of_any_calendar_are_labels(tmp_path, calendar, kind):
    time = xr.date_range("2000-02-27", periods=TIME, calendar=calendar, use_cftime=True)
    ds = xr.Dataset({"a": ("time", np.arange(TIME, dtype="f4"))}, {"time": time})
    if kind == "zarr":
        ds.to_zarr(tmp_path / "a", consolidated=False, encoding={"a": {"chunks": (7,)}})
        ds = xtd.open_zarr(tmp_path / "a", consolidated=False)
    elif kind == "netcdf4":
        ds.to_netcdf(tmp_path / "a")
        ds = xr.open_dataset(tmp_path / "a")
    with ds:
        for batch in xtd.IterableDataset(ds, {"time": 4}, {"time": 2}, batch_size=3, shuffle=True):
            labels = batch.to_xarray()["time"].values
            for number, found in zip(batch.index.tolist(), labels, strict=True):
                assert list(found) == list(ds["time"].values[2 * number : 2 * number + 4])


# Shapes and coordinates that are rare


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
def test_masked_values_of_dask_are_nan(dtype):
    mask = np.arange(TIME) % 3 == 0
    values = np.arange(TIME, dtype=dtype)
    masked = dask.array.ma.masked_array(dask.array.from_array(values, chunks=7), mask=mask)
    ds = xr.Dataset({"a": ("time", masked)})
    if ds["a"].dtype.kind == "i":
        pytest.skip("older releases of xarray declare that masked integers of dask stay integers")
    expected = np.where(mask, np.nan, values).astype("f4")
    batches = list(xtd.IterableDataset(ds, {"time": 5}, inputs="a", batch_size=4))
    np.testing.assert_array_equal(np.concatenate([b.x.numpy() for b in batches]).ravel(), expected)
    np.testing.assert_array_equal(
        xtd.MapDataset(ds, {"time": 5}, inputs="a")[2][0], expected[10:15]
    )


@pytest.mark.parametrize("lazy", [False, True])
def test_variables_without_dims_are_broadcast_and_may_be_all_there_is(tmp_path, lazy):
    ds = xr.Dataset({"a": ("time", np.arange(8, dtype="f4")), "scalar": 3.0})
    if lazy:
        ds.to_zarr(tmp_path / "a", consolidated=False)
        ds = xtd.open_zarr(tmp_path / "a", consolidated=False)
    for shuffle in (False, True):
        batches = list(
            xtd.IterableDataset(ds, {"time": 2}, inputs=["a", "scalar"], shuffle=shuffle)
        )
        assert_once(samples_of(batches), 4)
        for batch in batches:
            k = 2 * batch.index.item()
            np.testing.assert_array_equal(batch.x[0].numpy(), [[k, k + 1], [3, 3]])
        [batch] = xtd.IterableDataset(ds, {}, inputs="scalar", shuffle=shuffle)
        assert batch.x.tolist() == [3.0]
    each = list(xtd.IterableDataset(ds, {}, inputs="a", batch_size=None))
    assert [batch.x.item() for batch in each] == list(range(8))
    assert xtd.MapDataset(ds, {}, inputs="scalar")[0][0].item() == 3.0


@pytest.mark.filterwarnings("ignore:Duplicate dimension names")
def test_a_dim_twice_in_a_variable_is_refused_and_does_no_harm_elsewhere():
    covariance = xr.Variable(("time", "time"), np.zeros((6, 6)))
    ds = xr.Dataset({"a": ("time", np.arange(6.0)), "c": covariance})
    for kind in (xtd.IterableDataset, xtd.MapDataset):
        for data, inputs in [(ds, None), (ds, ["a", "c"]), (ds["c"], None)]:
            with pytest.raises(ValueError, match="variable 'c' has the dim 'time' twice"):
                kind(data, {"time": 2}, inputs=inputs)
        with pytest.raises(ValueError, match="variable 'c' has the dim 'time' twice"):
            kind(ds.set_coords("c"), {"time": 2})
    found = [batch.x.tolist() for batch in xtd.IterableDataset(ds, {"time": 3}, inputs="a")]
    assert found == [[[0, 1, 2]], [[3, 4, 5]]]


@pytest.mark.parametrize("function", ["preprocess", "transform", "batch_transform"])
def test_an_index_of_several_levels_is_labels(function):
    index = pd.MultiIndex.from_product([["a", "b"], range(6)], names=["station", "step"])
    ds = xr.Dataset({"v": ("time", np.arange(12, dtype="f4"))})
    ds = ds.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "time"))
    dataset = xtd.IterableDataset(
        ds,
        {"time": 4},
        {"time": 2},
        inputs="v",
        batch_size=2,
        memory=150,
        **{function: lambda data: data * 2},
    )
    windows = dataset.windows
    for batch in dataset:
        labels = batch.to_xarray()
        for place, number in enumerate(batch.index.tolist()):
            plain = ds.isel(windows[number])
            np.testing.assert_array_equal(batch.x[place].numpy(), 2 * plain["v"].values)
            for name in ("station", "step", "time"):
                found = labels[name].isel(sample=place).values
                assert list(found) == list(plain[name].values)
    xr.testing.assert_equal(windows.coords(1).to_dataset(), ds.isel(windows[1]).coords.to_dataset())
    samples = xtd.MapDataset(ds, {"time": 4}, inputs="v", preprocess=lambda data: data * 2)
    np.testing.assert_array_equal(samples[1][0].numpy(), 2 * ds["v"].values[4:8])


@pytest.mark.parametrize("store", ["zarr 2", "zarr 3", "sharded", "netcdf4", "dask"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_one_chunk_larger_than_the_memory_works_with_a_warning(tmp_path, store, shuffle):
    values = np.random.default_rng(0).normal(size=(40, 500)).astype("f4")
    ds = xr.Dataset({"a": (("time", "x"), values)})
    if store == "netcdf4":
        ds.to_netcdf(tmp_path / "a", encoding={"a": {"chunksizes": (40, 500), "zlib": True}})
        opened = xr.open_dataset(tmp_path / "a")
    elif store == "dask":
        opened = ds.chunk()
    else:
        encoding = {"chunks": (40, 500)} | ({"shards": (40, 500)} if store == "sharded" else {})
        version = 2 if store == "zarr 2" else 3
        ds.to_zarr(
            tmp_path / "a", zarr_format=version, consolidated=False, encoding={"a": encoding}
        )
        opened = xtd.open_zarr(tmp_path / "a", consolidated=False)
    with pytest.warns(UserWarning, match="memory"):
        dataset = xtd.IterableDataset(
            opened, {"time": 4, "x": -1}, inputs="a", memory="6 kB", shuffle=shuffle
        )
    with opened:
        batches = list(dataset)
    assert_once(samples_of(batches), 10)
    for batch in batches:
        k = 4 * batch.index.item()
        np.testing.assert_array_equal(batch.x[0].numpy(), values[k : k + 4])


@pytest.mark.parametrize("made", [xtd.IterableDataset, xtd.MapDataset])
def test_a_dim_named_none_is_refused_and_its_remedy_works(made):
    values = np.arange(40, dtype="f4").reshape(20, 2)
    ds = xr.Dataset({"v": ((None, "x"), values), "w": ("x", values[0])})
    for dims in ({None: 4, "x": -1}, {"x": -1}):
        with pytest.raises(ValueError, match=r"named None.*ds.rename_dims\({None: 'NAME'}\)"):
            made(ds, dims, inputs="v")
    made(ds, {"x": -1}, inputs="w")  # which has no such dim
    dataset = xtd.MapDataset(ds.rename_dims({None: "NAME"}), {"NAME": 4, "x": -1}, inputs="v")
    np.testing.assert_array_equal(dataset[1][0], values[4:8])


@pytest.mark.parametrize(
    ("dim", "name"),
    [(("a", "b"), ("p", "q")), (3, 5), ("", "index"), ("variable", "variable_"), ("t", "")],
)
def test_names_may_be_any_other_hashable(dim, name):
    values = np.arange(40, dtype="f4").reshape(20, 2)
    ds = xr.Dataset({name: ((dim, "x"), values)})
    if isinstance(dim, str):  # along others xarray makes no index
        ds = ds.assign_coords({dim: (dim, np.arange(20.0))})
    dataset = xtd.IterableDataset(
        ds,
        {dim: 4, "x": -1},
        inputs=xtd.Select([name], {dim: slice(0, 3)}),
        targets=xtd.Select(name, {dim: 3}),
        batch_size=2,
        memory="100 B",
    )
    for batch in dataset:
        labeled = batch.to_xarray()
        assert len(labeled.data_vars) == 2
        for number, x, y in zip(batch.index.tolist(), batch.x, batch.y, strict=True):
            sample = ds[name].isel(dataset.windows[number])
            np.testing.assert_array_equal(x[0], sample.isel({dim: slice(0, 3)}))
            np.testing.assert_array_equal(y, sample.isel({dim: 3}))
    dataset.load_state_dict(json.loads(json.dumps(dataset.state_dict())))
    repr(dataset), dataset._repr_html_(), str(dataset.explain()), xtd.Normalize.fit(dataset)
    assert "0 missing" in str(xtd.verify(dataset))
    assert sum(len(list(part)) for part in xtd.split(dataset, dim, fractions=(0.5, 0.5)))
