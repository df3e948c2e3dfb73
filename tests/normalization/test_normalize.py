"""Normalization, compared with numpy's nanmean and nanstd of what windows cover."""

import json
import sys
import threading
import tracemalloc
import warnings
from pathlib import Path

import dask
import iris_sample_data
import numpy as np
import pytest
import torch
import torch.utils.data
import xarray as xr
import xbatcher
import zarr
from helpers import counted, reads, tiny_memory_allowed, twice_plus_one
from hypothesis import assume, given
from hypothesis import strategies as st
from normalize_data import SIZES, WINDOW, fields, known
from strategies import examples
from xbatcher_cases import grouped, true_items

import xtorch_data as xtd


def expected(ds, name, windows, per=()):
    """Mean and deviation by numpy, of all places that lie in a window, per some dims."""
    array = ds[name]
    touched = np.zeros(array.shape, bool)
    for window in windows:
        touched[tuple(window.get(dim, slice(None)) for dim in array.dims)] = True
    values = np.where(touched, array.values.astype("f8"), np.nan)
    reduced = tuple(place for place, dim in enumerate(array.dims) if dim not in per)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # places without a value
        found = np.nanmean(values, axis=reduced), np.nanstd(values, axis=reduced)
    kept = [dim for dim in array.dims if dim in per]
    return [xr.DataArray(each, {dim: array[dim] for dim in kept}, kept) for each in found]


def windows_of(dataset):
    return [dataset.windows[number] for number in range(len(dataset.windows))]


def assert_statistics(normalize, ds, windows, per=(), rtol=1e-9):
    for name in normalize.mean.data_vars:
        mean, std = expected(ds, name, windows, per)
        found = normalize.mean[name], normalize.std[name]
        for dim in found[0].dims:  # labels are those of the places that are touched
            covered = {place for window in windows for place in np.r_[window[dim]].tolist()}
            assert found[0].indexes[dim].equals(ds.indexes[dim][sorted(covered)])
        for each, plain in zip(found, (mean, std), strict=True):
            plain = plain.sel({dim: each[dim] for dim in each.dims}).transpose(*each.dims)
            assert each.dtype == "f8"
            np.testing.assert_allclose(each.values, plain.values, rtol, atol=rtol)


def backed(ds, how, chunks):
    """The same data in memory, in a lazy store or as dask arrays."""
    if how == "numpy":
        return ds
    if how == "dask":
        return ds.chunk(chunks)
    store = zarr.storage.MemoryStore()
    sizes = {
        name: {"chunks": [chunks.get(dim, ds.sizes[dim]) for dim in ds[name].dims]}
        for name in ds.data_vars
    }
    ds.to_zarr(store, encoding=sizes, consolidated=False)
    return xr.open_zarr(store, chunks=None, consolidated=False)


# ---------------------------------------------------------------------------------------------
# Fit


@examples(4, 80)
@given(data=st.data())
def test_statistics_are_those_of_numpy_over_what_windows_cover(data):
    draw = data.draw
    plain = fields(nan=draw(st.sampled_from([0, 0.3])), seed=draw(st.integers(0, 9)))
    chunks = {dim: draw(st.integers(1, size)) for dim, size in SIZES.items()}
    ds = backed(plain, draw(st.sampled_from(["numpy", "dask", "zarr"])), chunks)
    sizes = {dim: draw(st.integers(1, min(size, 6))) for dim, size in SIZES.items()}
    windowed = draw(st.lists(st.sampled_from(sorted(SIZES)), unique=True, max_size=3))
    names = draw(st.sampled_from([["u", "surface", "height"], ["surface"], ["height", "v"]]))
    dims = {dim for name in names for dim in plain[name].dims}
    input_dims = {dim: sizes[dim] for dim in windowed if dim in dims}
    overlap = {dim: draw(st.integers(-2, size - 1)) for dim, size in input_dims.items()}
    make = draw(st.sampled_from([xtd.IterableDataset, xtd.MapDataset]))
    dataset = make(
        ds,
        input_dims,
        overlap,
        inputs=names,
        memory=draw(st.sampled_from([4000, "1 GiB"])),
        preprocess=draw(st.sampled_from([None, twice_plus_one])),
    )
    if draw(st.booleans()):
        dim = draw(st.sampled_from(sorted(dims)))
        try:
            (dataset, _) = next(iter(xtd.kfold(dataset, dim, n_splits=3, gap=1)))
        except ValueError:  # no room
            pass
    per = draw(st.lists(st.sampled_from(sorted(dims)), unique=True, max_size=2))

    normalize = xtd.Normalize.fit(dataset, per=per)

    made = (
        plain[names]
        if dataset._inside.definition.preprocess is None
        else twice_plus_one(plain[names])
    )
    assert list(normalize.mean.data_vars) == names
    assert_statistics(normalize, made, windows_of(dataset), per)


@pytest.mark.parametrize("how", ["numpy", "zarr", "dask"])
@pytest.mark.parametrize("preprocess", [None, twice_plus_one])
def test_values_outside_of_the_training_part_have_no_influence(how, preprocess):
    def fit(ds):
        dataset = xtd.IterableDataset(
            backed(ds, how, {"time": 4, "x": 2}),
            {"time": 3, "y": -1},
            {"time": 2},
            inputs=["u", "surface"],
            preprocess=preprocess,
            shuffle=True,
        )
        train, _, _ = xtd.split(dataset, "time", at=["2001-01-10", "2001-01-15"], gap=2)
        train, _ = xtd.split(train, "x", fractions=(0.6, 0.4))
        return xtd.Normalize.fit(train, per="level")

    ds = fields()
    inside = (ds.time < np.datetime64("2001-01-08")) & (ds.x < 0.25)
    assert 0 < inside.sum() < inside.size
    normalize = fit(ds)
    for other in {"numpy": (np.nan, 1e30, np.inf), "zarr": (np.inf,), "dask": (np.nan,)}[how]:
        damaged = fit(ds.where(inside, other).transpose(*ds.dims))
        xr.testing.assert_identical(damaged.mean, normalize.mean)
        xr.testing.assert_identical(damaged.std, normalize.std)
    moved = fit(ds.where(~inside, ds + 1))  # what lies inside has
    assert (moved.mean - normalize.mean > 0.9).to_dataarray().all()


@examples(4, 80)
@given(data=st.data())
def test_windows_that_are_left_out_do_not_count(data):
    draw = data.draw
    ds = backed(fields(), draw(st.sampled_from(["numpy", "dask", "zarr"])), {"time": 5, "y": 3})
    size = {"time": draw(st.integers(1, 5)), "y": 2, "x": draw(st.integers(1, 5))}
    overlap = {"time": draw(st.integers(-1, size["time"] - 1)), "y": 1}
    how = {
        "inputs": ["u", "surface", "height"],
        "memory": draw(st.sampled_from([4000, "1 GiB"])),
        "preprocess": draw(st.sampled_from([None, twice_plus_one])),
        "shuffle": True,
    }
    everything = xtd.IterableDataset(ds, size, overlap, **how)
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    wanted = rng.random(len(everything.windows)) < draw(st.sampled_from([0.05, 0.5]))
    wanted[[0, -1]] = True  # so that each part has some
    way = draw(st.sampled_from(["where", "weights", "along time", "part"]))
    if way == "along time":
        times = len(everything.plan.windows.axis("time"))
        along = np.resize(
            [False, True, True, False, False, True][:: draw(st.sampled_from([1, -1]))], times
        )
        along[0] = True
        where = xr.DataArray(along, dims="time")
        dataset = xtd.IterableDataset(ds, size, overlap, where=where, **how)
        wanted = np.broadcast_to(along[None, :, None, None], dataset.plan.windows.shape).ravel()
    elif way == "weights":
        dataset = xtd.IterableDataset(ds, size, overlap, weights=wanted * 2.5, **how)
    else:
        dataset = xtd.IterableDataset(ds, size, overlap, where=wanted, **how)
    windows = [everything.windows[number] for number in np.flatnonzero(wanted)]
    if way == "part":
        windows = [window for window in windows if window["time"].stop <= 12]
        dataset, _ = xtd.split(dataset, "time", at=["2001-01-13"])

    normalize = xtd.Normalize.fit(dataset)

    made = fields() if how["preprocess"] is None else twice_plus_one(fields())
    assert_statistics(normalize, made, windows)


@examples(4, 60)
@given(generator=grouped(), chunk=st.sampled_from([None, 2]))
def test_items_of_a_generator_that_overlap_count_once(generator, chunk):
    try:
        items = true_items(generator)
    except ValueError:  # of an item without a window
        assume(False)
    if chunk is not None:
        generator.ds = generator.ds.chunk(chunk)
    with tiny_memory_allowed():
        dataset = xtd.IterableDataset(generator, batch_size=None, memory=40)
    normalize = xtd.Normalize.fit(dataset)
    for name, found in normalize.mean.data_vars.items():
        arrays = [each if isinstance(each, xr.DataArray) else each[name] for each in items]
        values = np.unique(np.concatenate([each.values.ravel() for each in arrays]))
        np.testing.assert_allclose(found, values.mean(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(normalize.std[name], values.std(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("length", "batch", "chunk"), [(400, 133, None), (10, 5, 2)])
def test_a_last_item_that_overlaps_gives_no_label_twice(length, batch, chunk):
    ds = xr.Dataset({"a": ("time", np.arange(length) ** 1.5)}, {"time": np.arange(length)})
    generator = xbatcher.BatchGenerator(
        ds if chunk is None else ds.chunk(time=chunk),
        {"time": 3},
        {"time": 1},
        {"time": batch},
        concat_input_dims=True,
    )
    places = np.unique(np.concatenate([item["time"].values.ravel() for item in generator]))
    with tiny_memory_allowed():
        dataset = xtd.IterableDataset(generator, batch_size=None, memory=600 if length > 10 else 40)
    mean = xtd.Normalize.fit(dataset).mean["a"]
    np.testing.assert_allclose(mean, ds["a"][places].mean(), rtol=1e-12)
    mean = xtd.Normalize.fit(dataset, per="time").mean["a"]
    xr.testing.assert_equal(mean, ds["a"][places])


def test_blocks_without_a_window_that_is_wanted_are_not_read():
    ds, counts = counted(fields()[["u", "height"]], {"u": (2, 3, 4, 5), "height": (4, 5)})
    where = xr.DataArray([3 <= step < 9 for step in range(20)], dims="time")
    dataset = xtd.IterableDataset(ds, WINDOW, {"time": 3}, where=where, memory="4 kB")
    counts.clear()
    xtd.Normalize.fit(dataset, progress=True)
    assert {key: count for key, count in counts.items() if key.startswith("u/")} == {
        f"u/c/{chunk}/0/0/0": 1 for chunk in range(1, 6)
    }


@pytest.mark.parametrize(
    ("file", "name"),
    [("A1B_north_america.nc", "air_temperature"), ("ostia_monthly.nc", "surface_temperature")],
)
def test_statistics_of_training_parts_of_a_real_file(file, name):
    with xr.open_dataset(Path(iris_sample_data.path) / file) as ds:
        dataset = xtd.MapDataset(
            ds,
            {"time": 9, "latitude": -1, "longitude": 30},
            {"time": 8},
            inputs=name,
            memory="2 MB",
        )
        for train, _ in xtd.kfold(dataset, "time", 3, gap=2):
            for per in [(), "latitude", ("longitude", "latitude")]:
                normalize = xtd.Normalize.fit(train, per=per)
                assert_statistics(normalize, ds, windows_of(train), np.ravel(per))
                assert normalize.mean[name].attrs["units"] == "K"


@pytest.mark.parametrize("preprocess", [None, twice_plus_one])
@pytest.mark.parametrize("memory", ["20 kB", "1 GiB"])
def test_each_chunk_of_the_training_part_is_read_once_and_no_other(memory, preprocess):
    chunks = {"u": (4, 3, 2, 5), "surface": (5, 4, 2), "height": (2, 2)}
    ds, counts = counted(fields()[list(chunks)], chunks)
    dataset = xtd.IterableDataset(
        ds,
        {"time": 6, "y": -1, "x": 3},
        {"time": 5, "x": 2},
        memory=memory,
        preprocess=preprocess,
        shuffle=True,
    )
    train, _ = xtd.split(dataset, "time", at=["2001-01-13"])
    counts.clear()
    xtd.Normalize.fit(train, per="level")
    found = reads(counts, chunks)
    assert {name: sum(key.split("/")[0] == name for key in found) for name in chunks} == {
        "u": 3 * 2,
        "surface": 3 * 3,
        "height": 2 * 3,
    }
    if preprocess is None or memory == "1 GiB":  # else variables that lack time come with others
        assert set(found.values()) == {1}


@pytest.mark.parametrize("preprocess", [None, twice_plus_one])
def test_no_more_is_held_than_the_memory_of_the_dataset(preprocess):
    rng = np.random.default_rng(0)
    ds = xr.Dataset({"a": (("time", "x"), rng.normal(size=(2000, 2000)).astype("f4"))})
    opened, _ = counted(ds, {"a": (20, 2000)})
    dataset = xtd.MapDataset(opened, {"time": 10}, memory="2 MiB", preprocess=preprocess)
    tracemalloc.start()
    try:
        xtd.Normalize.fit(dataset, per=[])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**21 < ds.nbytes / 7


def test_dask_computes_each_chunk_once_and_only_moments_leave_it():
    computed, left = [], []

    def noted(values, block_info=None):
        computed.append(block_info[0]["chunk-location"])
        return values

    def scheduler(graph, keys, **kwargs):
        results = dask.get(graph, keys, **kwargs)
        left.extend(dask.core.flatten([results], container=(list, tuple, dict)))
        return results

    ds = fields()[["u"]].chunk(time=5, level=1, y=2)
    ds["u"].data = ds["u"].data.map_blocks(noted, dtype="f4", meta=np.empty((0,) * 4, "f4"))
    dataset = xtd.IterableDataset(ds, {"time": 6, "y": -1, "x": -1}, {"time": 5})
    (train, _) = xtd.split(dataset, "time", at=["2001-01-11"])
    computed.clear()
    with dask.config.set(scheduler=scheduler):
        normalize = xtd.Normalize.fit(train)
    assert sorted(computed) == [
        (time, level, y, 0) for time in range(2) for level in range(3) for y in range(2)
    ]
    assert left and not any(isinstance(each, (np.ndarray, xr.Dataset)) for each in left)
    assert_statistics(normalize, fields(), windows_of(train))


def test_no_threads_are_left_when_dask_has_computed(no_new_threads):
    xtd.Normalize.fit(fields().chunk(time=4))
    no_new_threads()


def test_dask_gives_what_memory_gives_also_through_its_threads():
    ds = fields()
    ways = [ds, ds.chunk(time=3), ds.chunk(time=3).assign(surface=ds["surface"])]
    found = [
        xtd.Normalize.fit(
            xtd.MapDataset(each, WINDOW, preprocess=preprocess, inputs=["u", "surface", "height"]),
            per="level",
        )
        for each in ways
        for preprocess in (None, twice_plus_one)
    ]
    for number, each in enumerate(found):
        xr.testing.assert_allclose(each.mean, found[number % 2].mean, rtol=1e-13)
        xr.testing.assert_allclose(each.std, found[number % 2].std, rtol=1e-13)


def test_a_function_that_works_in_place_leaves_the_data_alone():
    def in_place(block):
        for array in block.data_vars.values():
            array.values += 1
        return block

    ds = fields()
    for each in (ds.copy(deep=True), ds.chunk(time=5).assign(height=ds["height"].copy(deep=True))):
        dataset = xtd.IterableDataset(each, WINDOW, inputs=["u", "height"], preprocess=in_place)
        xtd.Normalize.fit(dataset)
        xr.testing.assert_identical(each.compute(), ds)


@pytest.mark.parametrize("how", ["numpy", "zarr", "dask"])
def test_a_small_deviation_around_a_large_mean_keeps_its_digits(how):
    rng = np.random.default_rng(0)
    noise = rng.integers(-8, 9, (600, 70)) / 8.0  # sums of these are exact
    ds = backed(xr.Dataset({"p": (("time", "x"), 1e8 + noise)}), how, {"time": 70, "x": 9})
    normalize = xtd.Normalize.fit(xtd.MapDataset(ds, {"time": 1}, memory="100 kB"))
    assert float(normalize.mean["p"]) == pytest.approx(1e8 + noise.mean(), rel=1e-15)
    assert float(normalize.std["p"]) == pytest.approx(noise.std(), rel=1e-11)


def test_packed_integers_and_dates_of_other_calendars(tmp_path):
    ds = fields(nan=0.1)[["surface"]]
    ds["time"] = xr.date_range("2001-02-20", periods=23, calendar="360_day", use_cftime=True)
    packed = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -9999}
    for path, engine in [(tmp_path / "packed.nc", "netcdf4"), (tmp_path / "packed.zarr", "zarr")]:
        if engine == "zarr":
            ds.to_zarr(path, encoding={"surface": packed}, consolidated=False)
            opened = xtd.open_zarr(path, consolidated=False)
        else:
            ds.to_netcdf(path, encoding={"surface": packed})
            opened = xr.open_dataset(path)
        with opened:
            train, _ = xtd.split(
                xtd.IterableDataset(opened, WINDOW, {"time": 3}, inputs="surface"),
                "time",
                at=["2001-03-01"],
                gap="2D",
            )
            normalize = xtd.Normalize.fit(train)
            assert_statistics(normalize, opened.load(), windows_of(train))
            # what comes out of it is normalized whatever way it goes in
            for place in ("preprocess", "transform"):
                again = xtd.IterableDataset(
                    opened, WINDOW, inputs="surface", batch_size=99, **{place: normalize}
                )
                (x,) = next(iter(again))
                assert x.dtype == torch.float32
                plain = ((opened - normalize.mean) / normalize.std)["surface"]
                plain = plain.values[:20].reshape(x.shape)
                np.testing.assert_allclose(x, plain, atol=1e-5)


def test_statistics_are_of_what_preprocess_makes():
    def derived(block):
        speed = np.hypot(block["u"], block["v"])
        return block.assign(speed=speed.assign_attrs(units="m/s"), v=block["v"] - 273.15)

    ds = fields()
    dataset = xtd.IterableDataset(ds, WINDOW, inputs=["speed", "v"], preprocess=derived)
    normalize = xtd.Normalize.fit(dataset)
    assert_statistics(normalize, derived(ds), windows_of(dataset))
    assert normalize.mean["speed"].attrs == {"units": "m/s"}
    after = xtd.IterableDataset(
        ds, WINDOW, inputs=["speed", "v"], preprocess=xtd.Compose([derived, normalize])
    )
    renewed = xtd.Normalize.fit(after)
    for name in ("speed", "v"):
        assert float(renewed.mean[name]) == pytest.approx(0, abs=1e-6)
        assert float(renewed.std[name]) == pytest.approx(1, abs=1e-6)


def test_random_preprocess_draws_the_same_numbers_in_every_fit():
    def noisy(block, rng):
        return block + rng.normal(size=1)

    for ds in (fields(), fields().chunk(time=4)):
        dataset = xtd.IterableDataset(ds, WINDOW, inputs="u", preprocess=noisy, seed=5)
        first, second = xtd.Normalize.fit(dataset), xtd.Normalize.fit(dataset)
        xr.testing.assert_identical(first.mean, second.mean)
        assert float(first.mean["u"]) != pytest.approx(float(fields()["u"].mean()), abs=1e-4)


def test_plain_data_serves_as_well():
    ds = fields()
    normalize = xtd.Normalize.fit(ds, per="level")
    assert list(normalize.mean.data_vars) == ["u", "v", "surface", "height"]  # "kind" is integers
    np.testing.assert_allclose(normalize.std["u"], ds["u"].std(["time", "y", "x"]), 1e-6)
    np.testing.assert_allclose(xtd.Normalize.fit(ds["u"]).mean["u"], ds["u"].mean(), 1e-6)
    assert list(xtd.Normalize.fit(ds["u"].rename(None)).mean.data_vars) == ["x_"]
    found = xtd.Normalize.fit(ds, variables=["kind"])
    assert float(found.mean["kind"]) == ds["kind"].values.mean()
    found = xtd.Normalize.fit(xr.Dataset({"a": 3.0, "b": ((), 4)}))
    assert float(found.mean["a"]) == 3 and list(found.mean.data_vars) == ["a"]
    array = zarr.array(np.arange(12.0).reshape(3, 4), dimension_names=("t", "x"))
    (mean,) = xtd.Normalize.fit(array).mean.data_vars.values()
    assert float(mean) == 5.5


def test_variables_that_are_left_out_need_not_be_numbers():
    ds = xr.Dataset({"a": ("x", [1.0, 2.0, 3.0, 9.0]), "kind": ("x", list("abcd"))})
    for data in (ds, xbatcher.BatchGenerator(ds, {"x": 3})):
        for variables in (["a"], None):
            mean = xtd.Normalize.fit(data, variables=variables).mean
            assert list(mean.data_vars) == ["a"]
            assert float(mean["a"]) == (3.75 if data is ds else 2)
    array = xbatcher.BatchGenerator(ds["a"].rename(None), {"x": 3})
    (mean,) = xtd.Normalize.fit(array).mean.data_vars.values()
    assert float(mean) == 2


def test_a_bar_shows_blocks_and_is_missed_with_a_clear_error(capsys, monkeypatch):
    dataset = xtd.IterableDataset(fields(), WINDOW, inputs=["u"])
    xtd.Normalize.fit(dataset)
    assert not capsys.readouterr().err
    xtd.Normalize.fit(dataset, progress=True)
    assert "fitting: 100%" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="pip install tqdm"):
        xtd.Normalize.fit(dataset, progress=True)


def test_what_cannot_be_read_is_an_error_and_leaves_no_threads():
    class Broken(zarr.storage.WrapperStore):
        async def get(self, key, prototype, byte_range=None):
            if key.endswith("u/c/3/0/0/0"):
                raise OSError("disk on fire")
            return await super().get(key, prototype, byte_range)

    store = zarr.storage.MemoryStore()
    fields().to_zarr(store, encoding={"u": {"chunks": (2, 3, 4, 5)}}, consolidated=False)
    ds = xr.open_zarr(Broken(store), chunks=None, consolidated=False)
    dataset = xtd.IterableDataset(ds, WINDOW, inputs="u", retries=0, memory="20 kB")
    before = set(threading.enumerate())
    with pytest.raises(xtd.ReadError, match="'u' at isel.*disk on fire"):
        xtd.Normalize.fit(dataset)
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name.startswith("xtorch_data")]


def test_what_a_function_refuses_says_so_wherever_it_runs():
    def refuses(block):
        if float(block["u"].max()) > 1:  # not on a block of ones
            raise ArithmeticError("too warm")
        return block

    for ds in (fields(), fields().chunk(time=4)):
        dataset = xtd.IterableDataset(ds, WINDOW, inputs="u", preprocess=refuses)
        with pytest.raises(ArithmeticError, match="too warm") as caught:
            xtd.Normalize.fit(dataset)
        assert caught.value.__notes__ == ["in preprocess of block 0"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"per": "pressure"}, ValueError, "per='pressure' is no dim"),
        ({"per": "member"}, ValueError, "per='member' needs a coordinate.*assign_coords"),
        ({"per": "x"}, ValueError, "per='x' needs a plain coordinate"),
        ({"variables": ["t2m"]}, ValueError, "no variable 't2m'"),
        ({"variables": []}, ValueError, "names none"),
        ({"variables": ["flag"]}, TypeError, "'flag' has dtype bool"),
        ({"variables": ["empty"]}, ValueError, "'empty' has no value but NaN"),
        ({"variables": ["endless"]}, ValueError, "'endless' has infinite values"),
    ],
)
def test_bad_arguments_of_fit(arguments, error, message):
    ds = xr.Dataset(
        {
            "a": (("member", "x"), np.ones((2, 3))),
            "flag": ("x", [True, False, True]),
            "empty": ("x", [np.nan] * 3),
            "endless": ("x", [1.0, np.inf, 2.0]),
        },
        coords={"x": [0, 1, 1]},
    )
    with pytest.raises(error, match=message):
        xtd.Normalize.fit(xtd.IterableDataset(ds, {"x": 1}), **arguments)


def test_what_is_no_dataset_is_refused():
    dataset = xtd.MapDataset(fields(), WINDOW, inputs="u")
    for other in (
        torch.utils.data.Subset(dataset, [1]),
        xtd.DataLoader(dataset),
        "era5.zarr",
        np.ones(3),
    ):
        with pytest.raises(TypeError):
            xtd.Normalize.fit(other)
    with pytest.raises(ValueError, match="is floating"):
        xtd.Normalize.fit(fields()[["kind"]])


# ---------------------------------------------------------------------------------------------
# Apply and undo


def oracle(normalize, ds, name):
    """What a variable becomes, by xarray's own arithmetic in float64."""
    std = normalize.std[name].where(normalize.std[name] != 0, 1)
    return ((ds[name].astype("f8") - normalize.mean[name]) / std).transpose(*ds[name].dims)


@pytest.mark.parametrize("per", [(), "level", ("x", "y"), ("time", "level")])
@pytest.mark.parametrize("dask_backed", [False, True])
def test_values_are_normalized_and_come_back(per, dask_backed):
    normalize, ds = known(per)
    given = ds.chunk(time=5) if dask_backed else ds
    found = normalize(given)
    back = normalize.inverse(found)
    assert list(found.data_vars) == list(ds.data_vars)
    for name in ("u", "v", "surface", "height"):
        assert found[name].dtype == back[name].dtype == "f4"
        assert (found[name].chunks is not None) == dask_backed == (back[name].chunks is not None)
        np.testing.assert_allclose(found[name], oracle(normalize, ds, name), atol=3e-6)
        np.testing.assert_allclose(back[name], ds[name], rtol=3e-7)
        assert found[name].attrs["units"] == "1" and back[name].attrs == ds[name].attrs
        xr.testing.assert_identical(found[name].coords, ds[name].coords)
    xr.testing.assert_identical(found["kind"].compute(), ds["kind"])  # it has no statistics
    xr.testing.assert_identical(given.compute(), fields())  # nothing is changed in place
    for name in ("u", "height"):  # arrays are as good as datasets
        xr.testing.assert_identical(normalize(given[name]), found[name])
        xr.testing.assert_identical(normalize.inverse(found[name]), back[name])


@pytest.mark.parametrize(
    ("given", "result"),
    [("f4", "f4"), ("f8", "f8"), (">f4", "f4"), (">f8", "f8"), ("f2", "f4"), ("i2", "f4"),
     ("i8", "f4"), ("u1", "f4")],
)  # fmt: skip
def test_dtypes_are_float32_or_what_they_were(given, result):
    values = xr.DataArray(np.arange(12).astype(given), dims="x", name="a")
    normalize = xtd.Normalize.fit(values.to_dataset(), variables=["a"])
    found = normalize(values)
    assert found.dtype == np.dtype(result) and found.dtype.isnative
    np.testing.assert_allclose(found, (np.arange(12) - 5.5) / np.arange(12).std(), rtol=1e-6)
    assert normalize.inverse(found).dtype == np.dtype(result)
    np.testing.assert_allclose(normalize.inverse(found), np.arange(12), atol=1e-5)


def test_a_large_mean_costs_float32_no_digits_that_it_has():
    rng = np.random.default_rng(0)
    pressure = xr.DataArray(
        (101325.3 + 0.5 * rng.normal(size=100_000)).astype("f4"), dims="x", name="p"
    )
    normalize = xtd.Normalize.fit(pressure)
    found = normalize(pressure).astype("f8")
    assert float(found.mean()) == pytest.approx(0, abs=1e-6)
    integers = xr.DataArray(2**30 + rng.integers(0, 9, 1000), dims="x", name="p")
    found = xtd.Normalize.fit(integers.to_dataset(), variables=["p"])(integers)
    plain = (integers - integers.mean()) / integers.std()
    np.testing.assert_allclose(found, plain, atol=1e-6)


def test_constant_data_becomes_zero_and_comes_back():
    ds = xr.Dataset({"a": (("level", "x"), [[0.1, 0.1, 0.1], [1.0, 2.0, 3.0]])})
    ds["level"] = [500, 850]
    normalize = xtd.Normalize.fit(ds, per="level")
    assert float(normalize.std["a"][0]) == 0
    assert (normalize(ds)["a"][0] == 0).all() and np.isfinite(normalize(ds)["a"]).all()
    xr.testing.assert_allclose(normalize.inverse(normalize(ds)), ds)
    assert float(normalize(ds + 1)["a"][0, 0]) == pytest.approx(1)


def test_places_without_a_value_have_no_statistics():
    ds = xr.Dataset({"a": (("time", "x"), [[np.nan, 1.0], [np.nan, 3.0]])}, {"x": [0, 1]})
    normalize = xtd.Normalize.fit(ds, per="x")
    assert normalize.mean["a"].isnull().values.tolist() == [True, False]
    found = normalize(ds.fillna(7.0))
    assert found["a"].values.tolist()[1][1] == 1 and found["a"][:, 0].isnull().all()


@pytest.mark.parametrize("place", ["preprocess", "transform", "batch_transform"])
@pytest.mark.parametrize("input_dims", [WINDOW, {"time": 4, "level": -1, "y": 2}])
@pytest.mark.parametrize("make", [xtd.IterableDataset, xtd.MapDataset])
def test_labels_find_their_statistics_wherever_it_runs(place, input_dims, make):
    if make is xtd.MapDataset and place == "batch_transform":
        pytest.skip("a MapDataset makes no batches")
    normalize, ds = known(["level", "y"])
    ds = ds.chunk(time=7) if make is xtd.IterableDataset else ds
    how = {"inputs": ["u", "kind", "height"], **{place: normalize}}
    plain = make(
        xr.Dataset(
            {
                "u": oracle(normalize, ds, "u").compute(),
                "height": oracle(normalize, ds, "height").compute(),
                "kind": ds["kind"],
            }
        ),
        input_dims,
        inputs=["u", "kind", "height"],
    )
    dataset = make(ds, input_dims, **how)
    for (x, *_), (y, *_) in zip(dataset, plain, strict=True):
        np.testing.assert_allclose(x, y, atol=3e-6)


def test_inputs_and_targets_in_transforms_and_predictions_back():
    normalize, ds = known(["level", "y"])
    dataset = xtd.IterableDataset(
        ds,
        {"time": 4, "y": 2, "x": -1},
        inputs=xtd.Select(["u", "surface"], time=slice(0, 3)),
        targets=xtd.Select("u", time=3),
        transform=normalize,
        target_transform=xtd.Compose([normalize]),
        batch_size=7,
        shuffle=True,
    )
    for batch in dataset:
        for part in ("x", "y"):
            labels = normalize.inverse(batch.to_xarray(part))
            assert labels["u"].attrs["units"] == "K"
            for place, number in enumerate(batch.index.tolist()):
                window = ds.isel(dataset.windows[number])
                window = window.isel(time=slice(0, 3) if part == "x" else 3)
                for name in labels.data_vars:
                    plain = window[name].transpose(*labels[name].dims[1:])
                    np.testing.assert_allclose(labels[name][place], plain, rtol=3e-7)
        with pytest.raises(ValueError, match="'u_x' is the 'u' of one of several parts"):
            normalize.inverse(batch.to_xarray())


def test_an_array_of_several_variables_is_taken_apart():
    normalize, ds = known("level")
    array = ds[["u", "v", "kind"]].to_dataarray(name="all").transpose("time", "variable", ...)
    found = normalize(array)
    assert found.dims == array.dims and found.name == "all" and found.dtype == array.dtype
    assert found["variable"].values.tolist() == ["u", "v", "kind"]
    for name in ("u", "v"):
        plain = oracle(normalize, ds, name)
        np.testing.assert_allclose(found.sel(variable=name), plain, atol=1e-5)
    np.testing.assert_allclose(normalize.inverse(found), array, rtol=1e-6)
    # as a transform it may come from a function before
    dataset = xtd.IterableDataset(
        ds, WINDOW, inputs=["u", "v"], transform=xtd.Compose([xr.Dataset.to_dataarray, normalize])
    )
    assert next(iter(dataset)).x.shape == (1, 2, 4, 4, 5)


def test_the_only_variable_is_meant_where_there_is_no_name():
    array = fields()["u"].rename(None)
    normalize = xtd.Normalize.fit(fields()["u"])
    np.testing.assert_array_equal(normalize(array), normalize(fields()["u"]))
    dataset = xtd.IterableDataset(array, WINDOW)
    again = xtd.Normalize.fit(dataset)
    x = next(iter(xtd.IterableDataset(array, WINDOW, preprocess=again))).x
    assert x.shape == (1, 4, 4, 5)


def test_other_variables_of_an_array_without_a_name_stay_as_they_are():
    ds = fields()
    normalize = xtd.Normalize.fit(ds, variables="u")
    found = normalize(ds[["u", "v"]].to_dataarray())
    np.testing.assert_array_equal(found.sel(variable="u"), normalize(ds["u"]))
    np.testing.assert_array_equal(found.sel(variable="v"), ds["v"])
    with pytest.raises(ValueError, match=r"no statistics of any of \['v'\]"):
        normalize(ds[["v"]].to_dataarray())
    with pytest.raises(ValueError, match="no statistics of None"):
        normalize(ds[["u", "v"]].to_dataarray().sel(variable="v"))
    # they may be one variable whose statistics are per variable
    array = ds[["u", "v"]].to_dataarray()
    found = xtd.Normalize.fit(array, per="variable")(array)
    np.testing.assert_allclose(found.mean(["time", "level", "y", "x"]), [0, 0], atol=1e-6)


def test_what_cannot_be_normalized_is_an_error():
    normalize, ds = known("level")
    with pytest.raises(ValueError, match=r"for level=1000.*3 labels, 850 to 250"):
        normalize(ds.assign_coords(level=[850, 1000, 250]))
    with pytest.raises(ValueError, match="no coordinate 'level'"):
        normalize(ds.drop_vars("level"))
    with pytest.raises(ValueError, match="no coordinate 'level'"):
        normalize(ds["u"].isel(level=0, drop=True))
    with pytest.raises(ValueError, match=r"no statistics of any of \['kind'\]"):
        normalize(ds[["kind"]])
    with pytest.raises(ValueError, match="no statistics of 'kind'"):
        normalize(ds["kind"])
    with pytest.raises(ValueError, match="no statistics of 'level'"):
        normalize(ds["level"])  # a label of statistics has none itself
    with pytest.raises(ValueError, match="no statistics of None"):
        normalize(ds["u"].rename(None))
    with pytest.raises(TypeError, match="ndarray"):
        normalize(ds["u"].values)
    with pytest.raises(TypeError, match="'u' has dtype bool"):
        normalize(ds["u"] > 0)
    # a dataset says so when it is made
    with pytest.raises(ValueError, match="no statistics"):
        xtd.IterableDataset(ds[["kind"]], {"y": 1}, preprocess=normalize)
    with pytest.raises(ValueError, match="for level=1000"):
        other = ds.assign_coords(level=[1000, 850, 250])
        xtd.IterableDataset(other, WINDOW, inputs="u", preprocess=normalize)
    # an index of another variable does not stand for that of this one
    with pytest.raises(ValueError, match="no coordinate 'level'"):
        normalize(ds.assign(u=ds["u"].mean("level")))


# ---------------------------------------------------------------------------------------------
# Made by hand, saved, sent


def test_statistics_may_have_no_values():
    empty = xr.Dataset({"t": ("level", np.zeros(0))}, {"level": np.zeros(0)})
    assert xtd.Normalize(empty, empty)(empty)["t"].shape == (0,)


def test_statistics_can_be_given():
    normalize = xtd.Normalize({"u": 280, "height": 1000.0}, std={"height": 500.0, "u": 20})
    np.testing.assert_allclose(normalize(fields())["u"], (fields()["u"] - 280) / 20, rtol=1e-5)
    # units that it has not been told are not made up
    assert "units" not in normalize.inverse(normalize(fields()))["u"].attrs
    fitted, _ = known("level")
    again = xtd.Normalize(fitted.mean, fitted.std)
    xr.testing.assert_identical(again(fields()), fitted(fields()))


@pytest.mark.parametrize(
    ("mean", "std", "error", "message"),
    [
        ({}, {}, ValueError, "one or more"),
        (280.0, 20.0, TypeError, "mean must be a mapping"),
        ({"u": 1.0}, {"v": 1.0}, ValueError, "same variables"),
        ({"u": 1.0}, {"u": -1.0}, ValueError, "std of 'u' is negative"),
        ({"u": 1.0}, {"u": np.inf}, ValueError, "std of 'u' is infinite"),
        ({"u": [1.0, 2.0]}, {"u": [1.0, 2.0]}, ValueError, "needs a coordinate along 'dim_0'"),
        (
            {"u": xr.DataArray([1.0, 2.0], {"level": [1, 2]})},
            {"u": xr.DataArray([1.0, 2.0], {"level": [1, 3]})},
            ValueError,
            "same dims and labels",
        ),
        (
            {
                "u": xr.DataArray([1.0, 2.0], {"level": [1, 2]}),
                "v": xr.DataArray([1.0, 2.0], {"level": [1, 3]}),
            },
            {"u": 1.0, "v": 1.0},
            ValueError,
            "mean of 'v' has other labels along 'level' than that of 'u'",
        ),
    ],
)
def test_statistics_that_do_not_fit_are_refused(mean, std, error, message):
    with pytest.raises(error, match=message):
        xtd.Normalize(mean, std)


def awkward():
    """Statistics with all digits, NaN, labels of several kinds, and units that look like time."""
    ds = fields(nan=0.5)
    ds["u"][:, 1] = np.nan
    ds["u"].attrs.update(units="seconds", long_name="wind “u”", valid_range=[0, 400])
    ds["name"] = ("x", list("abcde"))
    return xtd.Normalize.fit(ds.swap_dims(x="name"), per=["level", "y", "name"])


@pytest.mark.parametrize("suffix", [".json", ".nc"])
def test_what_was_saved_is_loaded_to_the_last_digit(suffix, tmp_path):
    for normalize in (awkward(), xtd.Normalize.fit(fields()), xtd.Normalize({"a": 0.1}, {"a": 0})):
        normalize.save(tmp_path / f"statistics{suffix}")
        loaded = xtd.Normalize.load(str(tmp_path / f"statistics{suffix}"))
        for found, saved in ((loaded.mean, normalize.mean), (loaded.std, normalize.std)):
            xr.testing.assert_identical(found, saved)
            for name in saved.variables:
                if saved[name].dtype.kind in "iuf":
                    assert found[name].dtype == saved[name].dtype
        assert repr(loaded) == repr(normalize)


@pytest.mark.parametrize("suffix", [".json", ".nc"])
def test_attributes_and_names_change_no_number_that_is_saved(suffix, tmp_path):
    attrs = {"units": "days since 2000-01-01", "long_name": "age", "standard_name": ""}
    lossy = {
        "scale_factor": 0.5,
        "_FillValue": 5.0,
        "missing_value": 6.0,
        "dtype": "timedelta64[s]",
    }
    coords = {"level": ("level", [1, 2], {"units": "days since 2000-01-01"})}
    age = xr.DataArray(
        [5.0, 6.0], coords, attrs={**attrs, **lossy, "valid_range": np.array([0, 9])}
    )
    age["level"].encoding = {"dtype": "int16", "scale_factor": 7}
    statistics = {"age": age, "statistic": age.isel(level=0), "statistic_": 1 / 3}
    normalize = xtd.Normalize(statistics, statistics)
    assert normalize.mean["age"].attrs == attrs
    normalize.save(tmp_path / f"statistics{suffix}")
    loaded = xtd.Normalize.load(tmp_path / f"statistics{suffix}")
    xr.testing.assert_identical(loaded.mean, normalize.mean)
    xr.testing.assert_identical(loaded.std, normalize.std)
    assert loaded.mean["age"].values.tolist() == [5, 6] and float(loaded.std["statistic_"]) == 1 / 3


def test_a_dim_may_have_the_name_of_one_in_the_file(tmp_path):
    mean = xr.DataArray([5.0, 6.0], {"statistic": [1, 2]})
    xtd.Normalize({"a": mean}, {"a": mean}).save(tmp_path / "a.nc")
    xr.testing.assert_equal(xtd.Normalize.load(tmp_path / "a.nc").mean["a"], mean)


@pytest.mark.parametrize("calendar", ["standard", "360_day"])
def test_labels_that_are_dates_are_saved_in_netcdf_alone(calendar, tmp_path):
    ds = fields()[["u"]]
    ds["time"] = xr.date_range(
        "2001-02-20", periods=23, calendar=calendar, use_cftime=calendar != "standard"
    )
    ds["level"] = np.array([6, 12, 24], "timedelta64[h]").astype("timedelta64[ns]")
    normalize = xtd.Normalize.fit(ds, per=["time", "level"])
    normalize.save(tmp_path / "a.nc")
    xr.testing.assert_identical(xtd.Normalize.load(tmp_path / "a.nc").mean, normalize.mean)
    with pytest.raises(ValueError, match="save them as .nc"):
        normalize.save(tmp_path / "a.json")


def test_files_of_other_kinds_are_refused(tmp_path):
    normalize, ds = known()
    with pytest.raises(ValueError, match=r"must end in .nc or .json, not 'a.zarr'"):
        normalize.save("a.zarr")
    with pytest.raises(ValueError, match=r"must end in .nc or .json"):
        xtd.Normalize.load("statistics")
    (tmp_path / "a.json").write_text(json.dumps({"mean": 3}))
    (tmp_path / "b.json").write_text("mean: 3")
    ds.to_netcdf(tmp_path / "a.nc")
    for name, message in {
        "a.json": "not written by",
        "b.json": "is not JSON",
        "a.nc": "not written by",
    }.items():
        with pytest.raises(ValueError, match=message):
            xtd.Normalize.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        xtd.Normalize.load(tmp_path / "missing.nc")
    with pytest.raises(ValueError, match="not 5"):
        xtd.Normalize({5: 1.0}, {5: 1.0}).save(tmp_path / "c.json")


WRONG_JSON = {  # where, what is put there, what the message says
    "no labels": (("labels",), None, "no 'labels'"),
    "labels a list": (("labels",), [1], "no 'labels'"),
    "label values missing": (
        ("labels", "level"),
        {"dtype": "<i8"},
        "'level', which has no 'values'",
    ),
    "label dtype": (("labels", "level", "dtype"), "object", "'level'"),
    "label dtype unknown": (("labels", "level", "dtype"), 7, "'level'"),
    "labels as text": (("labels", "level", "values"), ["a", "b"], "'level'"),
    "labels not whole": (("labels", "level", "values"), [1.5, 2.5], "'level'"),
    "labels twice": (("labels", "level", "values"), [850, 850], "'u'"),
    "fewer labels": (("labels", "level", "values"), [850], "level"),
    "no variables": (("variables",), {}, "variables"),
    "variables a list": (("variables",), [], "no 'variables'"),
    "a variable a number": (("variables", "u"), 3, "no 'variables'"),
    "no std": (("variables", "u", "std"), KeyError, "'u', which has no 'std'"),
    "no dims": (("variables", "u", "dims"), KeyError, "'u', which has no 'dims'"),
    "dims a text": (("variables", "u", "dims"), "level", "'u'"),
    "other dims": (("variables", "u", "dims"), ["time"], "'u'"),
    "more dims": (("variables", "u", "dims"), ["level", "time"], "'u'"),
    "attrs": (("variables", "u", "attrs"), [], "'u'"),
    "text": (("variables", "u", "mean"), ["1", "2"], "'u'.*'1' is no number"),
    "bool": (("variables", "u", "mean"), [True, 2], "'u'.*True is no number"),
    "ragged": (("variables", "u", "mean"), [[1], 2], "'u'"),
    "huge": (("variables", "u", "mean"), [10**400, 2], "'u'"),
    "infinite": (("variables", "u", "mean"), [float("inf"), 2], "'u' is infinite"),
    "negative": (("variables", "u", "std"), [-1, 2], "'u' is negative"),
    "nothing": (("variables", "u", "std"), [None, None], "std of 'u' is NaN"),
    "NaN": (("variables", "u", "mean"), [float("nan")] * 2, "mean of 'u' is NaN"),
    "format": (("format",), "xtorch_data.Normalize 2", "not written by"),
}


def test_a_malformed_file_is_refused_by_name_and_variable(tmp_path):
    level = xr.DataArray([1.0, 2.0], {"level": [850, 500]})
    normalize = xtd.Normalize({"u": level}, {"u": level})
    path = tmp_path / "statistics.json"

    def refused(message):
        with pytest.raises(ValueError, match=rf"{path.name}[: ](.|\n)*{message}") as info:
            xtd.Normalize.load(path)
        assert type(info.value) is ValueError

    for where, value, message in WRONG_JSON.values():
        normalize.save(path)
        content = json.loads(path.read_text())
        inner = content
        for key in where[:-1]:
            inner = inner[key]
        if value is KeyError:
            del inner[where[-1]]
        else:
            inner[where[-1]] = value
        path.write_text(json.dumps(content))
        refused(message)
    for raw in (
        b"",
        b"\xff\xfe{",
        b"[" * 100_000,
        b"null",
        b"[]",
        b'"format"',
        b"\x89HDF\r\n\x1a\n",
    ):
        path.write_bytes(raw)
        refused("")
    path.unlink()
    path.mkdir()
    refused("is a folder")

    path = tmp_path / "statistics.nc"
    normalize.save(path)
    whole = path.read_bytes()
    good = xr.load_dataset(path, decode_cf=False)
    for name, changed in {
        "scalar": good.assign(u=1.0),
        "text": good.assign(u=good.u.astype(str)),
        "no labels": good.drop_vars("statistic"),
        "other labels": good.assign_coords(statistic=["mean", "spread"]),
        "one": good.isel(statistic=[0]),
        "dims differ": good.assign(v=("level", [1.0, 2.0])),
        "first dim": good.transpose(),
        "empty": good.drop_vars("u"),
        "negative": -good,
        "dates": good.assign_coords(level=("level", [1, 2], {"units": "days since garbage"})),
    }.items():
        changed.attrs = good.attrs
        path.unlink()
        changed.to_netcdf(path)
        refused("'u'" if name in ("scalar", "text", "negative") else "")
    for raw in (b"", b"garbage", whole[: len(whole) // 2], b"CDF\x01\0\0"):
        path.write_bytes(raw)
        refused("")
    path.unlink()
    path.mkdir()
    refused("is a folder")


def test_the_repr_shows_numbers():
    u = xr.DataArray([1.0, 2.0], {"level": [850, 500]}, attrs={"units": "m/s"})
    normalize = xtd.Normalize({"u": u, "t2m": 281.25}, {"u": u * 3, "t2m": 20.5})
    assert repr(normalize) == (
        "<xtorch_data.Normalize\n"
        "  u (level: 2): mean 1 to 2, std 3 to 6, in m/s\n"
        "  t2m: mean 281.25, std 20.5>"
    )
    many = dict.fromkeys(map(str, range(50)), 1.0)
    assert "and 30 more" in repr(xtd.Normalize(many, many))


@pytest.mark.parametrize("inputs", ["u", ["u", "v"]])
def test_of_a_batch_a_part_is_restored_as_a_tensor(inputs):
    rng = np.random.default_rng(0)
    data = {name: (("time", "level"), 5 + 3 * rng.normal(size=(20, 2))) for name in ("u", "v")}
    ds = xr.Dataset(data, {"level": [850, 500]})
    raw = xtd.MapDataset(ds, {"time": 4, "level": 2}, inputs=inputs, targets="v")
    normalize = xtd.Normalize.fit(raw, per="level")
    batch = raw.replace(preprocess=normalize).fetch([0, 3])
    for part in ("x", "y"):
        found = normalize.inverse(batch, part=part)
        assert found.shape == batch[part].shape and found.dtype == torch.float32
        torch.testing.assert_close(found, raw.fetch([0, 3])[part], rtol=1e-5, atol=1e-5)
    members = torch.stack([batch.y, -batch.y], 1)
    many = batch.replace(y=members, dims={"y": ("sample", "member", ...)})
    restored = normalize.inverse(many, part="y")
    torch.testing.assert_close(restored[:, 0], normalize.inverse(batch, part="y"))
    with pytest.raises(TypeError, match="part='y'"):
        normalize.inverse(batch)
    with pytest.raises(KeyError, match="no part 'z'"):
        normalize.inverse(batch, part="z")


def test_of_a_batch_of_several_sources_each_part_has_the_statistics_of_its_own():
    times = xr.date_range("2000-01-01", periods=20)
    a = xr.Dataset({"a": ("time", np.arange(20.0))}, {"time": times})
    b = xr.Dataset({"a": ("time", 7 * np.arange(20.0))}, {"time": times})
    raw = xtd.MapDataset(
        {"era5": a, "sst": xtd.Source(b, time=xtd.AsOf(3, latency="0h"))}, {"time": 4}, inputs="a"
    )
    normalize = xtd.Normalize.fit(raw)
    batch = raw.replace(preprocess=normalize).fetch([1, 2])
    for part in ("x", "sst"):
        found = normalize.inverse(batch, part=part)
        torch.testing.assert_close(found, raw.fetch([1, 2])[part], rtol=1e-5, atol=1e-4)
