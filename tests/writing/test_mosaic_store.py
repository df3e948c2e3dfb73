"""Predictions that are written chunk by chunk, against those in memory and against plain loops."""

import os
import tempfile

import numpy as np
import pytest
import xarray as xr
import zarr
from helpers import tiny_memory_allowed
from hypothesis import given
from hypothesis import strategies as st
from mosaic_data import cases, expected, lay, made, predictions
from strategies import examples

import xtorch_data as xtd
from xtorch_data.sources.source import UNFINISHED


@given(case=cases(), memory=st.sampled_from([256, 2000, "1 MiB"]), data=st.data())
@examples(13)
def test_what_is_written_is_what_a_plain_loop_adds_up(case, memory, data):
    try:
        dataset, truth, wanted, added, rng = made(case)
    except ValueError as error:
        assert "there is no sample" in str(error)
        return
    most = {dim: truth.times(dim, wanted)[0].max() for dim in truth.axes if dim != case["keep"]}
    options = {"keep": case["keep"], "blend": case["blend"] or "mean"}
    case["blend"] = options["blend"]
    if min(most.values()) == 0:
        return
    kept_dims, values = predictions(case, truth, rng)
    with tiny_memory_allowed():
        dataset = dataset.replace(memory=memory)
    oracle = expected(case, truth, values, kept_dims, added, wanted)
    if case["members"] is None:
        oracle = oracle[0]
    encoding = None
    if data.draw(st.booleans()):
        chunks = tuple(data.draw(st.integers(1, size)) for size in oracle.shape)
        encoding = {"a": {"chunks": chunks}}
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/field.zarr"
        with xtd.Mosaic(dataset, path, encoding=encoding, **options) as mosaic:
            lay(case, mosaic, dataset, values, added)
            if mosaic.explain().set_aside:
                assert os.listdir(folder) == ["field.zarr"]  # the scratch file has no name
        result = mosaic.to_xarray().load()
        np.testing.assert_allclose(result["a"].values, oracle, rtol=1e-4, atol=1e-5)
        opened = xtd.open_zarr(path).load()
        xr.testing.assert_identical(opened, result)
        assert UNFINISHED not in opened.attrs
        assert sorted(zarr.open_group(path).array_keys()) == sorted(map(str, opened.variables))
        if encoding:
            lead = len(oracle.shape) - len(chunks)
            assert zarr.open_group(path)["a"].chunks[lead:] == chunks[lead:] or case["members"]
        assert os.listdir(folder) == ["field.zarr"]
    with xtd.Mosaic(dataset, **options) as mosaic:
        lay(case, mosaic, dataset, values, added)
    in_memory = mosaic.to_xarray()
    xr.testing.assert_allclose(in_memory, result)
    assert in_memory.attrs == result.attrs and in_memory["a"].attrs == result["a"].attrs


def world(folder, **encoding):
    """A store of chunks that windows overlap."""
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {"a": (("time", "y", "x"), rng.normal(size=(12, 8, 8)).astype("float32"), {"units": "K"})},
        coords={"time": xr.date_range("2000-01-01", periods=12), "y": np.arange(8.0)},
        attrs={"title": "made up"},
    )
    ds.to_zarr(
        folder / "source.zarr",
        consolidated=False,
        encoding={"a": {"chunks": (4, 4, 8), **encoding}},
    )
    return xtd.open_zarr(folder / "source.zarr")


def over(ds, **options):
    return xtd.MapDataset(
        ds, {"time": 2, "y": 4, "x": 8}, {"time": 1, "y": 2}, inputs="a", targets="a", **options
    )


def filled(dataset, path, stop=None, batch_size=8, **options):
    """Lay the targets of some batches; an error after `stop` of them."""
    with xtd.Mosaic(dataset, path, blend="hann", **options) as mosaic:
        for number, batch in enumerate(xtd.DataLoader(dataset, batch_size=batch_size)):
            if number == stop:
                raise KeyboardInterrupt
            mosaic.add(batch, batch.y)
    return mosaic


def test_chunks_and_attributes_are_those_of_the_source_and_packing_is_not(tmp_path):
    packed = {"dtype": "int16", "scale_factor": 0.001, "_FillValue": -32768}
    ds = world(tmp_path, **packed)
    result = filled(over(ds), tmp_path / "field.zarr").to_xarray()
    assert result["a"].encoding["chunks"] == (4, 4, 8)
    assert result["a"].encoding["dtype"] == np.float32
    assert "scale_factor" not in result["a"].encoding
    xr.testing.assert_allclose(result.load(), ds.load())
    assert result["a"].attrs == {"units": "K"} and result.attrs == {"title": "made up"}


def test_encodings_are_given_by_variable(tmp_path):
    ds = world(tmp_path)
    packing = {"dtype": "int16", "scale_factor": 0.001, "_FillValue": -32768}
    encoding = {"a": {"chunks": (6, 8, 8), "shards": (12, 8, 8), **packing}}
    result = filled(over(ds), tmp_path / "field.zarr", encoding=encoding).to_xarray()
    assert result["a"].encoding["shards"] == (12, 8, 8)
    assert result["a"].encoding["dtype"] == np.int16
    np.testing.assert_allclose(result["a"], ds["a"], atol=0.0011)
    with pytest.raises(ValueError, match="encoding names 'b'"):
        xtd.Mosaic(over(ds), tmp_path / "b.zarr", blend="mean", encoding={"b": {}})
    with pytest.raises(ValueError, match="'a' has 3 dims"):
        filled(over(ds), tmp_path / "c.zarr", encoding={"a": {"chunks": (1,)}})


def test_shards_are_those_of_the_source_where_there_is_room_for_them(tmp_path):
    ds = world(tmp_path, chunks=(2, 4, 4), shards=(4, 8, 8))
    dataset = over(ds)
    result = filled(dataset, tmp_path / "field.zarr").to_xarray()
    encoding = result["a"].encoding
    assert (encoding["chunks"], encoding["shards"]) == ((2, 4, 4), (4, 8, 8))
    assert len([*(tmp_path / "field.zarr" / "a" / "c").glob("*/*/*")]) == 3
    xr.testing.assert_allclose(result.load(), ds.compute())
    encoding = {"a": {"chunks": (2, 1, 4, 4), "shards": (4, 2, 8, 8)}}
    high = ds.compute().expand_dims(z=2, axis=1)
    high.to_zarr(tmp_path / "high.zarr", consolidated=False, encoding=encoding)
    one = over(xtd.open_zarr(tmp_path / "high.zarr").isel(z=0))
    again = filled(one, tmp_path / "one.zarr").to_xarray()
    assert again["a"].encoding["shards"] == (4, 8, 8)
    small = filled(over(ds, memory="2 kB"), tmp_path / "small.zarr").to_xarray()
    assert small["a"].encoding["chunks"] == (2, 4, 4) and small["a"].encoding["shards"] is None
    plain = filled(dataset, tmp_path / "plain.zarr", encoding={"a": {"shards": None}}).to_xarray()
    assert plain["a"].encoding["shards"] is None
    for each in (again, small, plain):
        xr.testing.assert_allclose(each.load(), ds.compute())


def test_chunks_begin_at_the_first_step_of_the_result(tmp_path):
    ds = world(tmp_path)
    dataset = xtd.MapDataset(
        ds, {"time": 3, "y": -1, "x": -1}, {"time": 2}, inputs=xtd.Select("a", time=slice(0, 2)),
        targets=xtd.Select("a", time=2),
    )  # fmt: skip
    result = filled(dataset, tmp_path / "field.zarr").to_xarray()
    assert result["time"].size == 10 and result["a"].encoding["chunks"] == (4, 4, 8)
    xr.testing.assert_allclose(result.load(), ds.isel(time=slice(2, None)).load())


def test_of_what_is_packed_places_that_nobody_predicted_are_missing(tmp_path):
    dataset = over(world(tmp_path))
    packing = {"dtype": "int16", "scale_factor": 0.001, "_FillValue": -32768}
    with xtd.Mosaic(
        dataset, tmp_path / "field.zarr", blend="mean", encoding={"a": packing}
    ) as mosaic:
        batch = dataset.fetch([0])
        mosaic.add(batch, batch.y)
    missing = np.isnan(mosaic.to_xarray()["a"].values)
    assert not missing[:2, :4].any() and missing[2:].all() and missing[:, 4:].all()


def test_in_order_few_chunks_are_held_and_memory_is_kept(tmp_path):
    ds = world(tmp_path)
    mosaic = filled(over(ds, memory="3 kB"), tmp_path / "field.zarr", batch_size=1)
    explained = mosaic.explain()
    assert explained.chunks == explained.written == 6
    assert 0 < explained.peak <= 3000
    assert explained.set_aside == 0 and explained.held == 0
    assert "6 of 6 written" in str(explained)
    shuffled = over(ds, memory="1 kB")
    with xtd.Mosaic(shuffled, tmp_path / "shuffled.zarr", blend="mean") as mosaic:
        for batch in xtd.DataLoader(shuffled, batch_size=3, shuffle=True):
            mosaic.add(batch, batch.y)
    assert mosaic.explain().set_aside > 0 and mosaic.explain().peak <= 1000
    xr.testing.assert_allclose(mosaic.to_xarray().load(), ds.load())


def test_until_it_is_closed_a_store_is_no_data(tmp_path):
    dataset, path = over(world(tmp_path)), tmp_path / "field.zarr"
    mosaic = xtd.Mosaic(dataset, path, blend="hann")
    with pytest.raises(FileExistsError, match="another Mosaic copies into"):
        xtd.Mosaic(dataset, path, blend="hann", mode="a")
    with pytest.raises(ValueError, match=r"is not complete: close\(\) completes it"):
        mosaic.to_xarray()
    batch = dataset.fetch([0, 1])
    mosaic.add(batch, batch.y)
    unfinished = xr.open_zarr(path, consolidated=False, chunks=None)
    with pytest.raises(ValueError, match=r"a store that xtorch_data\.Mosaic has not finished"):
        xtd.MapDataset(unfinished, {"time": 2})
    mosaic.close()
    mosaic.close()
    xtd.MapDataset(xtd.open_zarr(path), {"time": 2})


@pytest.mark.parametrize("stop", [0, 1, 3, 7])
def test_an_error_leaves_it_incomplete_and_it_goes_on(stop, tmp_path):
    ds = world(tmp_path)
    dataset, path = over(ds), tmp_path / "field.zarr"
    with pytest.raises(KeyboardInterrupt):
        filled(dataset, path, stop, batch_size=4)
    if stop:
        assert UNFINISHED in xr.open_zarr(path, consolidated=False).attrs
        with pytest.raises(FileExistsError, match="mode='a' goes on with it"):
            xtd.Mosaic(dataset, path, blend="hann")
        with pytest.raises(FileExistsError, match="blend differ"):
            with xtd.Mosaic(dataset, path, blend="mean", mode="a") as other:
                other.add(dataset.fetch([0]), dataset.fetch([0]).y)
    asked = []

    def forward(batch):
        asked.append(batch.index)
        return batch.y

    loader = xtd.DataLoader(dataset, batch_size=4)
    result = xtd.predict(None, loader, path, forward=forward, blend="hann", mode="a").load()
    xr.testing.assert_allclose(result, ds.load())
    # Of twelve steps, the first four are complete after three batches, eight after six.
    assert len(asked) == len(loader) - {0: 0, 1: 0, 3: 2, 7: 5}[stop]
    with pytest.raises(FileExistsError, match="is no unfinished result"):
        xtd.Mosaic(dataset, path, blend="hann", mode="a")


def test_what_is_not_added_again_is_told(tmp_path):
    dataset, path = over(world(tmp_path)), tmp_path / "field.zarr"
    with pytest.raises(KeyboardInterrupt):
        filled(dataset, path, 5, batch_size=4)
    with pytest.warns(UserWarning, match="samples of chunks of .* were not added since"):
        with xtd.Mosaic(dataset, path, blend="hann", mode="a") as mosaic:
            batch = dataset.fetch(range(20, len(dataset)))
            assert mosaic.wanted(batch).all()
            mosaic.add(batch, batch.y)


def test_what_is_there_is_kept_or_replaced(tmp_path):
    ds = world(tmp_path)
    dataset, path = over(ds), tmp_path / "field.zarr"
    filled(dataset, path)
    with pytest.raises(FileExistsError, match="exists, and mode='w' replaces it"):
        xtd.Mosaic(dataset, path, blend="hann")
    other = filled(over(ds + 1), path, mode="w").to_xarray().load()
    xr.testing.assert_allclose(other, (ds + 1).load())
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    for mode in ("w-", "w", "a"):
        with pytest.raises(FileExistsError, match="has other files in it"):
            xtd.Mosaic(dataset, tmp_path / "folder", blend="hann", mode=mode)
    unnamed = xtd.MapDataset(ds.rename(a=3), {"time": 2}, inputs=3, targets=3)
    with pytest.raises(ValueError, match="Zarr names variables and dims by text, not 3"):
        xtd.Mosaic(unnamed, tmp_path / "other.zarr", blend="hann")
    with pytest.raises(ValueError, match="mode must be one of"):
        xtd.Mosaic(dataset, path, blend="hann", mode="r")


def test_inverse_works_chunk_by_chunk_and_keeps_the_shape(tmp_path):
    ds = world(tmp_path)
    dataset = over(ds)
    seen = []

    def double(dataset):
        seen.append(dict(dataset.sizes))
        return 2.0 * dataset.astype("float64").assign_attrs(a=1)

    result = filled(dataset, tmp_path / "field.zarr", inverse=double).to_xarray()
    assert result["a"].dtype == np.float64
    assert max(each["time"] for each in seen) == 4
    xr.testing.assert_allclose(result.load(), 2.0 * ds.load())
    with pytest.raises(ValueError, match="inverse must keep variable 'a' with its dims"):
        filled(dataset, tmp_path / "other.zarr", inverse=lambda d: d.mean("time"))


def test_integers_are_written_where_none_can_be_missing(tmp_path):
    kinds = xr.Dataset({"kind": (("y", "x"), np.arange(32).reshape(4, 8))})
    dataset = xtd.MapDataset(kinds, {"y": 2, "x": 4}, inputs="kind", targets="kind")
    result = xtd.predict(None, xtd.DataLoader(dataset), tmp_path / "a.zarr", forward=lambda b: b.y)
    assert result["kind"].dtype == np.int64
    xr.testing.assert_equal(result.load(), kinds)
    with pytest.raises(ValueError, match="not added: 1 sample, and int64 has no value"):
        with xtd.Mosaic(dataset, tmp_path / "b.zarr") as mosaic:
            batch = dataset.fetch([0, 1, 2])
            mosaic.add(batch, batch.y)
    some = dataset.replace(where=np.array([True, True, False, True]))
    result = xtd.predict(None, xtd.DataLoader(some), tmp_path / "c.zarr", forward=lambda b: b.y)
    assert result["kind"].dtype == np.float64 and np.isnan(result["kind"][2:, :4]).all()


def short(name="a", **coords):
    values = np.arange(16, dtype="float32").reshape(4, 4)
    return xr.Dataset({name: (("y", "x"), values)}, coords)


def patches(ds, name="a", **options):
    return xtd.MapDataset(ds, {"y": 2, "x": 2}, inputs=name, targets=name, **options)


def written(dataset, path, numbers=range(4), model=lambda batch: batch.y, **options):
    with xtd.Mosaic(dataset, path, **options) as mosaic:
        for number in numbers:
            batch = dataset.fetch([number])
            mosaic.add(batch, model(batch))
    return mosaic.to_xarray().load()


@pytest.mark.parametrize("name", ["u/v", "zarr.json", "..", "", "rechunk_record"])
def test_names_that_zarr_cannot_hold_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match="Zarr cannot hold a variable of the name"):
        xtd.Mosaic(patches(short(name), name), tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="Zarr cannot hold a variable of the name"):
        xtd.Mosaic(patches(short().assign_coords({name: 1})), tmp_path / "a.zarr")
    assert not os.listdir(tmp_path)


def test_coordinates_that_zarr_cannot_hold_are_refused(tmp_path):
    with pytest.raises(ValueError, match="names variables and dims by text, not 3"):
        xtd.Mosaic(patches(short().assign_coords({3: 1})), tmp_path / "a.zarr")
    levels = short(p=("y", list("aabb")), q=("y", [0, 1, 0, 1])).set_index(y=["p", "q"])
    dataset = xtd.MapDataset(levels, {"x": 2}, inputs="a", targets="a")
    with pytest.raises(ValueError, match="the MultiIndex of 'y': ds.reset_index"):
        xtd.Mosaic(dataset, tmp_path / "a.zarr")
    dataset = patches(short())
    batch = dataset.fetch([0])
    with (
        pytest.raises(ValueError, match="by text, not 3"),
        xtd.Mosaic(dataset, tmp_path / "a.zarr") as mosaic,
    ):
        mosaic.add(batch, batch.y[None], (3, ...))


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ({"chunks": (0, 2)}, "sizes are positive integers"),
        ({"chunks": 2}, "'a' has 2 dims"),
        ({"chunks": "auto"}, "'a' has 2 dims"),
        ({"chunks": (2, 2), "shards": (3, 2)}, "divisible"),
        ({"bogus": 1}, "unexpected encoding parameters"),
        ({"dtype": "int16", "scale_factor": 0.1}, "no value for what is missing"),
        ({"dtype": "int8", "_FillValue": -1, "scale_factor": 0.1}, "has the value 15, which"),
        (3, "is a mapping of options"),
    ],
)
def test_encodings_that_do_not_fit_are_refused_before_anything_is_there(
    encoding, message, tmp_path
):
    with pytest.raises((TypeError, ValueError), match=message):
        written(patches(short()), tmp_path / "a.zarr", encoding={"a": encoding})
    if "value 15" not in message:  # which is found in the last chunk
        assert not os.listdir(tmp_path)


@pytest.mark.parametrize("given", [{"fill_value": 0.0}, {"_FillValue": -9.0}, {"missing_value": 5}])
def test_what_nobody_predicted_is_missing_whatever_fills_a_store(given, tmp_path):
    encoding = {"a": {"chunks": (2, 2), **given}}
    result = written(patches(short()), tmp_path / "a.zarr", [0, 3], encoding=encoding)
    expected = short()["a"].values.copy()
    expected[:2, 2:] = expected[2:, :2] = np.nan
    if "missing_value" in given:
        expected[expected == 5] = np.nan
    np.testing.assert_array_equal(result["a"], expected)


def test_the_data_that_is_read_is_not_written_over(tmp_path):
    short().to_zarr(tmp_path / "inner" / "source.zarr", consolidated=False)
    for ds in (
        xtd.open_zarr(tmp_path / "inner" / "source.zarr"),
        xr.open_zarr(tmp_path / "inner" / "source.zarr", consolidated=False) + 1,
    ):
        for path in (tmp_path / "inner" / "source.zarr", tmp_path / "inner"):
            with pytest.raises(ValueError, match="is the data that is read"):
                xtd.Mosaic(patches(ds), path, mode="w")
    written(patches(ds), tmp_path / "inner" / "other.zarr")


def test_what_inverse_makes_more_is_refused_where_it_would_be_lost(tmp_path):
    dataset = patches(short(x=np.arange(4.0)))
    for inverse in (
        lambda d: d.assign(b=2 * d["a"]),
        lambda d: d.assign_coords(x=2 * d["x"]),
        lambda d: d.assign_coords(more=1),
    ):
        with pytest.raises(ValueError, match="inverse made .* with a path only predictions"):
            written(dataset, tmp_path / "a.zarr", inverse=inverse)
        assert not os.listdir(tmp_path)


def test_variables_that_attributes_name_stay_coordinates(tmp_path):
    ds = short(crs=0)
    ds["a"].attrs["grid_mapping"] = "crs"
    result = written(patches(ds), tmp_path / "a.zarr")
    assert list(result) == ["a"] and list(result.coords) == ["crs"]
    assert result["a"].attrs["grid_mapping"] == "crs"


@pytest.mark.parametrize("change", ["windows", "where"])
def test_a_store_does_not_go_on_with_other_samples(change, tmp_path):
    ds, path = short(), tmp_path / "a.zarr"
    dataset = patches(ds)
    with pytest.raises(KeyboardInterrupt), xtd.Mosaic(dataset, path) as mosaic:
        mosaic.add(dataset.fetch([0]), dataset.fetch([0]).y)
        raise KeyboardInterrupt
    other = (
        dataset.replace(where=np.array([True, True, False, True]))
        if change == "where"
        else dataset.replace(input_dims={"y": 4, "x": 2})
    )
    with pytest.raises(FileExistsError, match="unfinished result of something else: samples"):
        xtd.Mosaic(other, path, mode="a")


def test_files_that_were_being_written_are_removed_by_what_goes_on(tmp_path):
    ds, path = short(), tmp_path / "a.zarr"
    dataset, encoding = patches(ds), {"a": {"chunks": (2, 2)}}
    with pytest.raises(KeyboardInterrupt), xtd.Mosaic(dataset, path, encoding=encoding) as mosaic:
        mosaic.add(dataset.fetch([0]), dataset.fetch([0]).y)
        raise KeyboardInterrupt
    (path / "a" / "c" / "1.0123.partial").touch()  # as Zarr names them
    result = written(dataset, path, [1, 2, 3], mode="a", encoding=encoding)
    xr.testing.assert_equal(result, ds)
    assert not [each for each in path.rglob("*") if each.name.endswith(".partial")]
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "zarr.0123.partial").touch()  # before anything else was there
    written(dataset, tmp_path / "b.zarr", mode="a")
    assert sorted(os.listdir(tmp_path / "b.zarr")) == ["a", "zarr.json"]


def test_arrays_and_files_are_refused_and_folders_not_left_behind(tmp_path):
    zarr.create_array(tmp_path / "array.zarr", shape=(3,), dtype="f4")
    for mode in ("w-", "w", "a"):
        with pytest.raises(FileExistsError, match="is a Zarr array, and a result is a group"):
            xtd.Mosaic(patches(short()), tmp_path / "array.zarr", mode=mode)
    with pytest.raises(KeyboardInterrupt), xtd.Mosaic(patches(short()), tmp_path / "b" / "c" / "d"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["array.zarr"]
