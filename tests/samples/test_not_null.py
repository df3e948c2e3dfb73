"""Parts that say where values are present: those of plain isel, whatever becomes of the values."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from devices import DEVICES, assert_same
from helpers import add_noise, counted, forecast, in_chunks, reads, xbatcher_windows
from hypothesis import given
from hypothesis import strategies as st
from strategies import cases, examples

import xtorch_data as xtd

WINDOWS = {"time": 6, "y": 3, "x": 5}
OVERLAP = {"time": 4}


def holey(time=40, names=("a", "b"), dtype="float32"):
    """Fields with a third of their values missing."""
    ds = forecast(time, y=6, x=5, names=names, dtype=dtype)
    rng = np.random.default_rng(3)
    return ds.map(lambda each: each.where(rng.random(each.shape) > 0.3))


def filled(block):
    return block.fillna(0.0)


def assert_present(batches, windows, ds, part, names, select=None):
    """A part is what `notnull` gives of each sample of plain isel."""
    seen = 0
    kept = [dim for dim, cut in windows[0].items() if isinstance(cut, slice)]
    for batch in batches:
        assert batch[part].dtype == torch.bool
        for place, number in enumerate(batch.index.tolist()):
            window = {dim: windows[number][dim] for dim in windows[number]}
            sizes = {dim: windows[number][dim].stop - windows[number][dim].start for dim in kept}
            each = [names] if isinstance(names, str) else names
            plain = []
            for name in each:
                variable = ds[name].variable
                cut = {dim: window[dim] for dim in variable.dims if dim in window}
                present = variable[cut].notnull()
                wide = present.set_dims({**sizes, **present.sizes}).transpose(*kept)
                plain.append(wide.isel(select or {}).values)
            expected = plain[0] if isinstance(names, str) else np.stack(plain)
            np.testing.assert_array_equal(batch[part][place].numpy(), expected)
            seen += 1
    return seen


@examples(10)
@given(case=cases(), filling=st.booleans())
def test_presence_is_that_of_isel_in_any_store_order_and_memory(case, filling):
    with case.stored.open() as ds, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = case.names(ds)
        parts = {**case.parts(ds), "mask": xtd.NotNull(names), "first": xtd.NotNull(names[0])}
        arguments = {**case.arguments, "parts": parts, "inputs": None, "targets": None}
        if filling:
            arguments["preprocess"] = filled
        windows = xbatcher_windows(ds, names, case.input_dims, case.input_overlap)
        kept = list(case.input_dims)
        windows = [
            {**{d: w[d] for d in w if d not in kept}, **{d: w[d] for d in kept}} for w in windows
        ]
        plain = ds[names].compute()
        dataset = xtd.IterableDataset(ds, **arguments)
        batches = list(dataset)
        assert_present(batches, windows, plain, "mask", names)
        assert_present(batches, windows, plain, "first", names[0])
        for name in ("batch_size", "shuffle", "drop_last", "seed"):
            del arguments[name]
        samples = xtd.MapDataset(ds, **arguments)
        numbers = np.random.default_rng(case.seed).integers(0, len(samples), 5)
        fetched = samples.fetch(numbers)
        assert_present([fetched], windows, plain, "mask", names)
        if not filling:
            for batch in [*batches, fetched]:
                x = batch["x"]
                if x.dtype.is_floating_point and len(parts["x"]) == len(names):
                    assert torch.equal(~torch.isnan(x), batch["mask"].reshape(x.shape))


@pytest.fixture(params=["memory", "dask", "zarr"])
def data(request, tmp_path):
    ds = holey()
    return ds, in_chunks(ds, request.param, tmp_path / "data.zarr")


SELECTS = {
    "all": {}, "step": {"time": 5}, "slice": {"time": slice(1, 6, 2), "y": slice(0, 2)},
    "list": {"time": [5, 0, 3]}, "several": {"time": -1, "x": [0, 4]},
}  # fmt: skip


@pytest.mark.parametrize("select", SELECTS.values(), ids=SELECTS)
@pytest.mark.parametrize("names", ["a", ["a", "b"]])
def test_a_select_cuts_presence_as_it_cuts_values(data, names, select):
    ds, lazy = data
    parts = {"x": xtd.Select(names, select), "mask": xtd.NotNull(xtd.Select(names, select))}
    dataset = xtd.IterableDataset(
        lazy, WINDOWS, OVERLAP, parts=parts, batch_size=5, shuffle=True, memory="40 kB"
    )
    total = 0
    for batch in dataset:
        assert batch["mask"].shape == batch["x"].shape
        assert torch.equal(batch["mask"], ~torch.isnan(batch["x"]))
        total += len(batch)
    assert total == len(dataset.windows)


@pytest.mark.parametrize("kind", [xtd.MapDataset, xtd.IterableDataset])
def test_a_variable_that_only_its_presence_is_of_does_not_reach_preprocess(kind):
    ds, seen = holey(), set()

    def doubled(block):
        seen.update(block.data_vars)
        return block * 2

    samples = kind(
        ds, WINDOWS, OVERLAP, parts={"x": "a", "mask": xtd.NotNull("b")}, preprocess=doubled
    )
    batch = next(iter(samples)) if kind is xtd.IterableDataset else samples.fetch([0])
    window = ds.isel(samples.windows[0])
    np.testing.assert_array_equal(batch["x"][0], window.a.values * 2)
    np.testing.assert_array_equal(batch["mask"][0], window.b.notnull().values)
    assert seen == {"a"}


def test_presence_is_that_of_the_data_where_preprocess_makes_other_variables():
    ds = holey()

    def speed(block):
        return xr.Dataset({"speed": np.hypot(block.a, block.b).fillna(0.0)})

    parts = {"x": "speed", "mask": xtd.NotNull(["a", "b"])}
    for batch in xtd.IterableDataset(ds, WINDOWS, parts=parts, preprocess=speed, batch_size=4):
        for place, number in enumerate(batch.index.tolist()):
            window = ds.isel(xtd.MapDataset(ds, WINDOWS).windows[number])
            present = window[["a", "b"]].notnull().to_dataarray().values
            np.testing.assert_array_equal(batch["mask"][place], present)
            assert not torch.isnan(batch["x"][place]).any()


def test_presence_alone_makes_samples_and_what_preprocess_would_do_makes_no_difference():
    ds = holey()
    alone = xtd.MapDataset(ds, WINDOWS, inputs=xtd.NotNull("a"), preprocess=filled)
    assert torch.equal(alone[3][0], torch.from_numpy(ds.a.isel(alone.windows[3]).notnull().values))


def test_dates_text_and_objects_are_present_unless_they_are_missing():
    times = np.array(["2020-01-01", "NaT", "2020-01-03", "NaT"], "datetime64[ns]")
    ds = xr.Dataset(
        {
            "when": ("t", times),
            "steps": ("t", times - times[0]),
            "text": ("t", np.array(["a", "", "c", "d"])),
            "things": ("t", np.array([1, None, "x", np.nan], object)),
            "count": ("t", np.arange(4)),
            "z": ("t", np.array([1, np.nan, 1j, 2], "c8")),
        }
    )
    names = list(ds.data_vars)
    for source in (ds, ds.drop_vars("things").chunk(t=2)):
        some = [name for name in names if name in source]
        samples = xtd.MapDataset(source, {"t": 2}, inputs=xtd.NotNull(some))
        for number in range(2):
            window = ds[some].isel(t=slice(2 * number, 2 * number + 2))
            expected = np.stack([window[name].notnull().values for name in some])
            np.testing.assert_array_equal(samples[number][0], expected)


def test_fill_values_are_missing_once_they_are_decoded(tmp_path):
    values = xr.Dataset({"a": ("time", [1.0, np.nan, 3.0, 4.0])})
    packed = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1}
    values.to_zarr(tmp_path / "p.zarr", encoding={"a": packed}, consolidated=False)
    samples = xtd.MapDataset(
        xtd.open_zarr(tmp_path / "p.zarr", consolidated=False), {"time": 4}, inputs=xtd.NotNull("a")
    )
    assert samples[0][0].tolist() == [True, False, True, True]


def test_chunks_are_read_once_for_values_and_presence_together():
    ds = holey().drop_vars(["longitude", "y", "x", "time"])
    chunks = {"a": (5, 6, 5), "b": (5, 6, 5)}
    lazy, counts = counted(ds, chunks)
    parts = {"x": "a", "mask": xtd.NotNull(["a", "b"])}
    sum(len(batch) for batch in xtd.IterableDataset(lazy, WINDOWS, OVERLAP, parts=parts))
    assert set(reads(counts, ["a", "b"]).values()) == {1}
    assert len(reads(counts, ["a", "b"])) == 16


@pytest.mark.parametrize("shuffle", [False, True])
def test_kept_blocks_and_a_random_preprocess_leave_presence_as_it_is(shuffle):
    ds = holey()
    parts = {"x": "a", "mask": xtd.NotNull("a")}
    for options in ({"cache": True}, {"preprocess": add_noise}, {"dtype": "bfloat16"}):
        if "dtype" in options:
            options = {"dtype": torch.bfloat16}
        dataset = xtd.IterableDataset(
            ds, WINDOWS, OVERLAP, parts=parts, shuffle=shuffle, batch_size=7, **options
        )
        for _ in range(2):
            for batch in dataset:
                assert torch.equal(batch["mask"], ~torch.isnan(batch["x"]))


def test_transforms_get_booleans_named_like_the_variable():
    ds = holey()

    def as_float(present):
        assert present.name == "a" and present.dtype == bool and "time" in present.coords
        return present.astype("float32")

    def few(both):
        assert list(both.data_vars) == ["a", "b"]
        return both.isel(time=[0])

    parts = {"x": "a", "mask": xtd.NotNull("a"), "two": xtd.NotNull(["a", "b"])}
    samples = xtd.MapDataset(
        ds, WINDOWS, parts=parts, transform={"mask": as_float, "two": few, "x": filled}
    )
    for batch in (samples.fetch([2]), next(iter(xtd.DataLoader(samples)))):
        window = ds.isel(samples.windows[int(batch.index[0])])
        np.testing.assert_array_equal(batch["mask"][0], window.a.notnull().values.astype("f4"))
        present = window[["a", "b"]].notnull().isel(time=[0]).to_dataarray().values
        np.testing.assert_array_equal(batch["two"][0], present)


def test_samples_by_number_of_what_is_in_memory_and_what_is_not_have_presence():
    ds = holey().drop_vars("longitude")
    ds["land"] = ds.a.isel(time=0)
    lazy = counted(ds[["b"]].drop_vars(["time", "y", "x"]), {"b": (7, 4, 5)})[0]
    mixed = ds.drop_vars("b").assign(b=lazy.b.variable)
    parts = {"x": ["a", "b"], "mask": xtd.NotNull(["a", "land"]), "b": xtd.NotNull("b")}
    for functions in ({}, {"transform": {"mask": lambda both: both, "x": filled}}):
        samples = xtd.MapDataset(mixed, WINDOWS, OVERLAP, parts=parts, **functions)
        numbers = [3, 0, len(samples) - 1, 3, 11]
        batch = samples.fetch(numbers)
        for place, number in enumerate(numbers):
            window = ds.isel(samples.windows[number])
            land = window.land.notnull().expand_dims(time=6)
            expected = np.stack([window.a.notnull(), land])
            np.testing.assert_array_equal(batch["mask"][place], expected)
            np.testing.assert_array_equal(batch["b"][place], window.b.notnull())


def test_large_windows_that_lie_in_two_blocks_have_presence():
    ds = forecast(40, y=32, x=64, names=("a",))
    ds["a"] = ds.a.where(np.random.default_rng(3).random(ds.a.shape) > 0.3)
    lazy, _ = counted(ds.drop_vars(["time", "y", "x", "longitude"]), {"a": (5, 32, 64)})
    windows = {"time": 8, "y": 32, "x": 64}
    dataset = xtd.IterableDataset(
        lazy, windows, {"time": 7}, parts={"x": "a", "mask": xtd.NotNull("a")}, memory="400 kB",
        batch_size=3,
    )  # fmt: skip
    for batch in dataset:
        assert torch.equal(batch["mask"], ~torch.isnan(batch["x"]))
        assert len(batch["mask"].unique()) == 2
    assert dataset.stats().paths["windows split"]


def test_a_function_of_batches_gets_presence_as_well():
    ds = holey()

    def kept(batch):
        assert batch.a_mask.dtype == bool and batch.a_mask.attrs == {}
        return batch.assign(a_x=batch.a_x.where(batch.a_mask, 0.0))

    dataset = xtd.IterableDataset(
        ds, WINDOWS, parts={"x": "a", "mask": xtd.NotNull("a")}, batch_transform=kept, batch_size=4
    )
    for batch in dataset:
        assert not torch.isnan(batch["x"]).any()
        assert torch.equal(batch["mask"], batch["x"] != 0)
        assert set(batch.to_xarray()) == {"a_x", "a_mask"}


def test_what_is_kept_on_disk_has_presence_too(tmp_path):
    ds = holey().drop_vars(["time", "y", "x", "longitude"])
    ds.chunk(time=7).to_zarr(tmp_path / "data.zarr", consolidated=False)
    lazy = xtd.open_zarr(tmp_path / "data.zarr", consolidated=False)
    parts = {"x": "a", "mask": xtd.NotNull("a")}
    where = xtd.NotNull("b", min=0.65)
    for kind in (xtd.IterableDataset, xtd.IterableDataset, xtd.MapDataset):
        dataset = kind(
            lazy, WINDOWS, OVERLAP, parts=parts, where=where, cache=tmp_path / "cache",
            preprocess=filled,
        )  # fmt: skip
        batches = [dataset.fetch(range(len(dataset)))] if kind is xtd.MapDataset else dataset
        for batch in batches:
            for place, number in enumerate(batch.index.tolist()):
                window = ds.isel(dataset.windows[number])
                np.testing.assert_array_equal(batch["mask"][place], window.a.notnull())
                assert float(window.b.notnull().mean()) >= 0.65


@pytest.mark.parametrize("kind", [xtd.MapDataset, xtd.IterableDataset])
def test_nothing_is_read_to_make_a_dataset_of_presence(kind):
    ds = holey().drop_vars(["longitude", "y", "x", "time"])
    lazy, counts = counted(ds, {"a": (5, 6, 5), "b": (5, 6, 5)})
    parts = {"x": "a", "mask": xtd.NotNull(["a", "b"])}
    kind(
        lazy, WINDOWS, parts=parts, preprocess=filled,
        transform={"mask": lambda both: both, "x": filled},
    )  # fmt: skip
    assert not reads(counts, ["a", "b"])


def test_labels_are_those_of_the_variable_without_its_attributes():
    ds = holey()
    ds.a.attrs["units"] = "K"
    parts = {"x": "a", "mask": xtd.NotNull("a"), "last": xtd.NotNull(xtd.Select("b", time=-1))}
    batch = xtd.MapDataset(ds, WINDOWS, parts=parts).fetch([1, 4])
    both = batch.to_xarray()
    assert set(both.data_vars) == {"a_x", "a_mask", "b"}
    assert both.a_x.attrs == {"units": "K"} and both.a_mask.attrs == {}
    alone = batch.to_xarray("mask")
    assert alone.a.dtype == bool and alone.a.dims == ("sample", "time", "y", "x")
    windows = xtd.MapDataset(ds, WINDOWS).windows
    for number in (1, 4):
        window = ds.a.isel(windows[number])
        one = alone.sel(sample=number)
        np.testing.assert_array_equal(one.a, window.notnull())
        np.testing.assert_array_equal(one.time, window.time)


def test_normalize_is_fitted_on_values_and_leaves_presence_alone():
    ds = holey()
    parts = {"x": ["a"], "mask": xtd.NotNull(["a", "b"])}
    samples = xtd.MapDataset(ds, WINDOWS, parts=parts)
    normalize = xtd.Normalize.fit(samples)
    assert list(normalize.mean) == ["a"]
    after = samples.replace(preprocess=xtd.Compose([normalize, filled]))
    known = xtd.Normalize({"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0})
    alone = xtd.MapDataset(ds, WINDOWS, inputs="a", targets=xtd.NotNull("b")).fetch([0]).to_xarray()
    back = known.inverse(alone)
    xr.testing.assert_identical(back.b, alone.b)
    xr.testing.assert_allclose(back.a.drop_attrs(), alone.a.drop_attrs() * 3 + 1)
    again = xtd.Normalize.fit(samples.replace(preprocess=filled))
    assert list(again.mean) == ["a"]
    numbers = range(len(samples))
    assert torch.equal(after.fetch(numbers)["mask"], samples.fetch(numbers)["mask"])
    assert not torch.isnan(after.fetch(numbers)["x"]).any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gather", ["host", "device"])
@pytest.mark.parametrize("preprocess", [None, filled])
def test_devices_get_the_same_presence(device, gather, preprocess):
    ds = holey()
    parts = {"x": "a", "mask": xtd.NotNull(["a", "b"]), "y": xtd.NotNull(xtd.Select("b", time=3))}
    dataset = xtd.IterableDataset(
        ds, WINDOWS, OVERLAP, parts=parts, batch_size=6, shuffle=True, preprocess=preprocess
    )
    there = xtd.DataLoader(copy.copy(dataset), device=device, gather=gather)
    assert_same([batch.to("cpu") for batch in there], xtd.DataLoader(dataset))


def test_packed_values_are_decoded_on_the_device_beside_presence(tmp_path):
    ds = holey(dtype="float64").round(1).drop_vars("longitude")
    packed = {"dtype": "int16", "scale_factor": 0.1, "_FillValue": -32768}
    ds.to_zarr(tmp_path / "p.zarr", encoding={n: packed for n in "ab"}, consolidated=False)
    opened = xtd.open_zarr(tmp_path / "p.zarr", consolidated=False)
    for parts in (
        {"x": ["a", "b"], "mask": xtd.NotNull("a")},
        {"x": "a", "mask": xtd.NotNull(["a", "b"])},
    ):
        dataset = xtd.IterableDataset(opened, WINDOWS, parts=parts, batch_size=4)
        here = list(xtd.DataLoader(copy.copy(dataset)))
        assert not here[0]["mask"].all()
        for gather in ("host", "device"):
            loader = xtd.DataLoader(
                copy.copy(dataset), device="cpu", gather=gather, decode="device"
            )
            assert_same(loader, here)
            assert loader.explain()


def test_flips_turn_presence_and_change_no_sign_of_it():
    ds = holey()
    parts = {"x": ["a", "b"], "mask": xtd.NotNull(["a", "b"])}
    flip = xtd.RandomFlip("x", p=0.5, signs={"a": "x"})
    loader = xtd.DataLoader(
        xtd.IterableDataset(ds, WINDOWS, parts=parts, batch_size=5), augment=flip
    )
    for batch in loader:
        assert torch.equal(batch["mask"], ~torch.isnan(batch["x"]))


def test_spec_of_presence_is_told(capsys):
    ds = holey()
    parts = {"x": "a", "mask": xtd.NotNull("a"), "two": xtd.NotNull(["a", "b"])}
    dataset = xtd.IterableDataset(ds, WINDOWS, parts=parts)
    assert "mask: NotNull('a') (6, 3, 5), two: NotNull(['a', 'b']) (2, 6, 3, 5)" in repr(dataset)
    assert "NotNull(a, b)" in dataset._repr_html_()
    assert "bool" in dataset._repr_html_()
    assert xtd.verify(dataset, world_size=2).ok
    assert "a" in str(dataset.explain()) and "b" in str(dataset.explain())


def test_plots_draw_presence_beside_values():
    pytest.importorskip("matplotlib").use("agg")
    parts = {"x": "a", "mask": xtd.NotNull("a")}
    batch = xtd.MapDataset(holey(), WINDOWS, parts=parts).fetch([0])
    values, present = batch.plot()[0]
    assert present.collections[0].get_clim() == (0, 1)
    assert values.collections[0].get_clim() != (0, 1)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"min": 0}, ValueError, "above 0 and at most 1, not 0"),
        ({"min": 1.01}, ValueError, "not 1.01"),
        ({"min": np.nan}, ValueError, "not nan"),
        ({"min": True}, TypeError, "must be a number, not True"),
        ({"min": "1"}, TypeError, "must be a number, not '1'"),
    ],
)
def test_a_share_that_is_none_is_an_error(given, error, words):
    with pytest.raises(error, match=words):
        xtd.NotNull("a", **given)


@pytest.mark.parametrize(
    ("part", "error", "words"),
    [
        (lambda: xtd.NotNull("aa"), ValueError, "no data variable 'aa'.*did you mean 'a'?"),
        (lambda: xtd.NotNull("time"), ValueError, "'time' is a coordinate"),
        (lambda: xtd.NotNull("a", min=0.5), ValueError, "as where= takes it"),
        (lambda: xtd.NotNull(["a", "a"]), ValueError, "names variable 'a' twice"),
        (lambda: xtd.NotNull([]), ValueError, "selects no variable"),
        (lambda: xtd.NotNull(xtd.Select("a", time=6)), ValueError, "outside a window of 6 steps"),
        (lambda: xtd.NotNull(xtd.Select("a", z=0)), ValueError, "dim 'z', which is not in"),
        (lambda: xtd.NotNull(xtd.NotNull("a")), TypeError, "names or a Select"),
        (lambda: xtd.NotNull(holey().a), TypeError, "names of variables or a Select"),
        (lambda: xtd.Select(xtd.NotNull("a")), TypeError, "give a name, a list of names"),
    ],
)
def test_presence_of_what_there_is_not_is_an_error(part, error, words):
    with pytest.raises(error, match=words):
        xtd.MapDataset(holey(), WINDOWS, parts={"x": "a", "mask": part()})


def test_not_null_is_written_as_it_is_given_and_can_be_sent():
    for made, shown in [
        (xtd.NotNull("a"), "NotNull('a')"),
        (xtd.NotNull(["a", "b"], min=0.25), "NotNull(['a', 'b'], min=0.25)"),
        (xtd.NotNull(xtd.Select("a", time=5)), "NotNull(Select('a', time=5))"),
    ]:
        assert repr(made) == repr(pickle.loads(pickle.dumps(made))) == shown


def test_dims_of_presence_make_samples():
    samples = xtd.MapDataset(
        holey().assign(c=("time", np.arange(40))),
        {"time": 20},
        inputs=["c"],
        targets=xtd.NotNull("a"),
    )
    assert len(samples) == 2 * 6 * 5
    x, y = samples[0]
    assert x.shape == (1, 20) and y.dtype == torch.bool and y.shape == (20,)
