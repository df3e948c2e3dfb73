"""Predictions laid into one Dataset, against plain numpy loops over the same windows."""

import itertools

import numpy as np
import pytest
import torch
import xarray as xr
import xbatcher
from hypothesis import given
from mosaic_data import cases, expected, laid, lay, made, predictions, series, world
from strategies import examples

import xtorch_data as xtd


@given(case=cases())
@examples(30)
def test_a_mosaic_is_what_a_plain_loop_adds_up(case):
    try:
        dataset, truth, wanted, added, rng = made(case)
    except ValueError as error:
        assert "there is no sample" in str(error)
        return
    most = {dim: truth.times(dim, wanted)[0].max() for dim in truth.axes if dim != case["keep"]}
    options = {"keep": case["keep"], "blend": case["blend"]}
    if case["blend"] is None and max(most.values()) > 1:
        with pytest.raises(ValueError, match="samples overlap along"):
            xtd.Mosaic(dataset, **options)
        return
    if min(most.values()) == 0:
        return
    kept_dims, values = predictions(case, truth, rng)
    with xtd.Mosaic(dataset, **options) as mosaic:
        lay(case, mosaic, dataset, values, added)
        before = mosaic.to_xarray()
    result = mosaic.to_xarray()
    oracle = expected(case, truth, values, kept_dims, added, wanted)
    if case["members"] is None:
        oracle = oracle[0]
    assert result["a"].dtype == np.float32
    np.testing.assert_allclose(result["a"].values, oracle, rtol=1e-4, atol=1e-5)
    xr.testing.assert_identical(before, result)
    assert result["a"].attrs == {"units": "K"} and result.attrs == {"title": "made up"}
    names = [
        ("init_" + dim, "lead_" + dim) if dim == case["keep"] else (dim,) for dim in case["sizes"]
    ]
    lead = () if case["members"] is None else ("member",)
    assert result["a"].dims == (*lead, *itertools.chain(*names))


# What must not go wrong, one by one.


def test_one_step_of_windows_that_overlap_is_no_broadcast():
    dataset = xtd.MapDataset(
        series(), {"time": 8}, {"time": 4}, inputs="a", targets=xtd.Select("a", time=0)
    )
    result = laid(dataset)
    assert result["a"].dropna("time").values.tolist() == [0, 4, 8]
    assert np.isnan(result["a"].values[1:4]).all()
    hours = (result["time"] - result["time"][0]).values / np.timedelta64(1, "h")
    assert hours.tolist() == list(range(0, 54, 6))


def test_windows_are_kept_apart_by_anchor_and_lead():
    ds = series(10).assign_coords(season=("time", np.arange(10) % 4))
    ds["time"].attrs = {"standard_name": "time", "axis": "T"}
    dataset = xtd.MapDataset(
        ds, {"time": 5}, {"time": 4},
        inputs=xtd.Select("a", time=slice(0, 2)), targets=xtd.Select("a", time=slice(2, 5)),
    )  # fmt: skip
    result = laid(dataset, keep="time")
    assert result["a"].dims == ("init_time", "lead_time")
    assert (result["init_time"].values == ds["time"].values[1:7]).all()
    assert (result["lead_time"].values == np.arange(1, 4) * np.timedelta64(6, "h")).all()
    assert result["time"].dims == result["season"].dims == ("init_time", "lead_time")
    valid = result["init_time"] + result["lead_time"]
    assert (result["time"].values == valid.values).all()
    expected = ds["a"].sel(time=result["time"])
    assert (result["a"].values == expected.values).all()
    assert (result["season"].values == expected["season"].values).all()
    assert result["init_time"].attrs["standard_name"] == "forecast_reference_time"
    assert result["lead_time"].attrs["standard_name"] == "forecast_period"
    assert result["time"].attrs == ds["time"].attrs
    named = laid(dataset, keep={"time": ("init", "lead")})
    xr.testing.assert_equal(named, result.rename(init_time="init", lead_time="lead"))
    other = laid(dataset.replace(anchor={"time": 0}), keep="time")
    assert (other["lead_time"].values == np.arange(2, 5) * np.timedelta64(6, "h")).all()


@pytest.mark.parametrize("use_cftime", [False, True])
def test_leads_are_counted_where_months_differ(use_cftime):
    months = xr.date_range("2001-01-01", periods=12, freq="MS", use_cftime=use_cftime)
    ds = xr.Dataset({"a": ("time", np.arange(12.0))}, {"time": months})
    dataset = xtd.MapDataset(
        ds, {"time": 4}, {"time": 3},
        inputs=xtd.Select("a", time=slice(0, 2)), targets=xtd.Select("a", time=slice(2, 4)),
    )  # fmt: skip
    result = laid(dataset, keep="time")
    assert result["lead_time"].values.tolist() == [1, 2]
    assert (result["time"].values == ds["time"].values[[[i + 2, i + 3] for i in range(9)]]).all()


def test_of_a_360_day_calendar_leads_are_durations():
    days = xr.date_range("2001-01-01", periods=9, calendar="360_day", use_cftime=True)
    ds = xr.Dataset({"a": ("time", np.arange(9.0))}, {"time": days})
    targets = xtd.Select("a", time=slice(1, 3))
    inputs = xtd.Select("a", time=0)
    dataset = xtd.MapDataset(ds, {"time": 3}, {"time": 2}, inputs=inputs, targets=targets)
    result = laid(dataset, keep="time")
    assert (result["lead_time"].values == np.array([1, 2], "m8[D]")).all()
    assert result["init_time"].values[0] == days[0]


def test_of_a_part_of_a_split_the_result_has_its_own_steps():
    ds = series(20)
    dataset = xtd.MapDataset(
        ds, {"time": 3}, {"time": 2}, inputs="a", targets=xtd.Select("a", time=2)
    )
    train, test = xtd.split(dataset, "time", at="2000-01-03", by="targets")
    result = laid(test)
    xr.testing.assert_equal(result, ds.sel(time=slice("2000-01-03", None)))
    assert laid(train)["time"].values[[0, -1]].tolist() == ds["time"].values[[2, 7]].tolist()


def test_coordinates_of_two_dims_and_lone_ones_go_along():
    ds = xr.Dataset(
        {"a": (("time", "y", "x"), np.arange(4.0 * 6 * 5).reshape(4, 6, 5), {"units": "K"})},
        coords={
            "lat": (("y", "x"), np.arange(30.0).reshape(6, 5)),
            "time": xr.date_range("2000", periods=4),
            "height": 2.0,
        },
    )
    dataset = xtd.MapDataset(ds, {"x": 3, "y": 4}, {"y": 2}, inputs="a", targets="a")
    result = laid(dataset, blend="mean")
    xr.testing.assert_identical(result, ds.isel(x=slice(0, 3)).astype("float32"))


def test_variables_side_by_side():
    ds = world({"time": 4, "lat": 6, "lon": 4, "level": 2}, names=("a", "b"))
    dataset = xtd.MapDataset(ds, {"lon": 4, "lat": 3}, inputs="a", targets=["b", "a"])
    result = laid(dataset, model=lambda batch: batch.y.numpy())
    assert list(result) == ["b", "a"]
    xr.testing.assert_equal(result, ds)


def test_a_model_may_cut_the_halo_itself():
    ds = world({"time": 2, "lat": 8, "lon": 6, "level": 1})
    dataset = xtd.MapDataset(
        ds, {"lat": 4, "lon": 3}, halo={"lat": 1, "lon": 2},
        boundary={"lat": "edge", "lon": "wrap"}, inputs="a", targets="a",
    )  # fmt: skip
    xr.testing.assert_equal(laid(dataset), ds)
    cut = laid(dataset, model=lambda batch: batch.y[:, 1:-1, 2:-2])
    xr.testing.assert_equal(cut, ds)


def test_integers_stay_integers_where_nothing_is_missing():
    ds = xr.Dataset({"kind": (("y", "x"), np.arange(24).reshape(4, 6))})
    dataset = xtd.MapDataset(ds, {"y": 2, "x": 3}, inputs="kind", targets="kind")
    assert laid(dataset)["kind"].dtype == np.int64
    xr.testing.assert_equal(laid(dataset), ds)
    with xtd.Mosaic(dataset) as mosaic:
        batch = dataset.fetch([0, 3])
        mosaic.add(batch, batch.y)
    result = mosaic.to_xarray()["kind"]
    assert result.dtype == np.float64
    expected = ds["kind"].where(
        xr.DataArray(np.kron(np.eye(2), np.ones((2, 3))) > 0, dims=("y", "x"))
    )
    np.testing.assert_array_equal(result, expected)
    overlapping = xtd.MapDataset(ds, {"y": 2, "x": 3}, {"x": 1}, inputs="kind", targets="kind")
    with pytest.raises(TypeError, match="int64 cannot be blended"):
        laid(overlapping, blend="mean")


def test_half_precision_is_summed_in_float32():
    dataset = xtd.MapDataset(series(12), {"time": 4}, {"time": 2}, inputs="a", targets="a")
    for dtype in (torch.float16, torch.bfloat16):
        result = laid(dataset, blend="hann", model=lambda b, d=dtype: b.y.to(d))["a"]
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, np.arange(12), rtol=1e-6)
    assert laid(dataset, blend="mean", model=lambda b: b.y.double())["a"].dtype == np.float64


def test_normalize_and_functions_bring_predictions_back_to_units():
    ds = world({"time": 12, "lat": 4, "lon": 4, "level": 1})
    dataset = xtd.MapDataset(
        ds, {"time": 3, "lat": 4, "lon": 4}, {"time": 2}, inputs="a",
        targets=xtd.Select("a", time=slice(1, 3)),
    )  # fmt: skip
    normalize = xtd.Normalize.fit(dataset, per=["lat"])
    dataset = dataset.replace(preprocess=normalize)
    back = laid(dataset, keep="time", inverse=normalize)
    expected = ds["a"].isel(level=[0]).sel(time=back["time"]).transpose(*back["a"].dims)
    np.testing.assert_allclose(back["a"], expected, rtol=1e-5, atol=1e-6)
    assert back["a"].attrs["units"] == "K"
    assert laid(dataset, keep="time")["a"].attrs["units"] == "1"
    twice = laid(dataset, blend="mean", inverse=lambda d: d.assign(b=2 * d["a"]))
    xr.testing.assert_allclose(twice["b"], 2 * twice["a"].drop_attrs())
    with pytest.raises(TypeError, match="must return a Dataset, not DataArray"):
        laid(dataset, blend="mean", inverse=lambda d: d["a"])


def test_of_several_sources_the_first_one_has_the_field():
    ds, other = series(20), series(20, "b") + 100
    dataset = xtd.MapDataset(
        {"era5": ds, "sst": xtd.Source(other, time=xtd.AsOf(3, latency="0h"))},
        {"time": 3}, {"time": 2}, inputs="a", targets=xtd.Select("a", time=2),
    )  # fmt: skip
    xr.testing.assert_equal(laid(dataset), ds.isel(time=slice(2, None)))
    normalize = xtd.Normalize.fit(dataset)
    normalized = dataset.replace(preprocess=normalize)
    xr.testing.assert_allclose(laid(normalized, inverse=normalize), ds.isel(time=slice(2, None)))
    assert laid(dataset, part="sst", blend="mean", model=lambda b: b["sst"])["b"][-1] == 119


@pytest.mark.parametrize("day", [1, 24])
def test_windows_of_another_source_are_kept_apart_by_the_anchors_of_the_first(day):
    ds = series(20)
    times = xr.date_range("1999-12-30", periods=200, freq=f"{day}h")
    other = xr.Dataset({"b": ("time", np.arange(200.0))}, {"time": times})
    dataset = xtd.MapDataset(
        {"era5": ds, "sst": xtd.Source(other, time=xtd.AsOf(3, latency="0h"))},
        {"time": 4}, {"time": 3}, inputs=xtd.Select("a", time=slice(0, 2)), targets="sst/b",
    )  # fmt: skip
    result = laid(dataset, keep={"time": ("init", "lead")})
    assert result["b"].dims == ("init", "lead")
    inits = ds["time"].values[1:18]
    assert (result["init"].values == inits).all()
    last = np.searchsorted(times.values, inits, side="right") - 1
    steps = last[:, None] + np.arange(-2, 1)
    assert (result["time"].values == times.values[steps]).all()
    assert (result["b"].values == steps).all()
    leads = np.arange(-2, 1)
    if day == 1:  # as far from each anchor
        leads = leads * np.timedelta64(1, "h")
    assert (result["lead"].values == (leads if day == 1 else [0, 1, 2])).all()


def test_predictions_on_the_finer_grid_of_another_source():
    """Downscaling: coarse patches in, the fine ones under them out."""

    def grid(n, name):
        edges = np.linspace(0, 48, n + 1)
        middles = (edges[1:] + edges[:-1]) / 2
        return xr.Dataset(
            {name: (("time", "y", "x"), np.random.default_rng(n).normal(size=(3, n, n)))},
            {"time": xr.date_range("2000", periods=3), "y": middles[::-1], "x": middles},
        )

    coarse, fine = grid(12, "a"), grid(48, "b").isel(time=slice(None, None, -1))
    dataset = xtd.MapDataset(
        {"era5": coarse, "radar": xtd.Source(fine, y=xtd.Within(), x=xtd.Within())},
        {"y": 4, "x": 4}, {"x": 2}, inputs="a", targets="radar/b",
    )  # fmt: skip
    with pytest.raises(ValueError, match="samples overlap along 'x'"):
        xtd.Mosaic(dataset)
    result = laid(dataset, blend="hann")
    xr.testing.assert_allclose(result, fine.reindex(time=result["time"]).astype("float32"))
    normalize = xtd.Normalize.fit(dataset)
    normalized = dataset.replace(preprocess=normalize)
    restored = laid(normalized, blend="hann", inverse=normalize)
    np.testing.assert_allclose(restored["b"], result["b"], rtol=1e-4, atol=1e-5)
    high = coarse.expand_dims(level=[0, 1])
    with pytest.raises(ValueError, match="those along 'level' predict the same steps of source"):
        xtd.Mosaic(
            xtd.MapDataset(
                {"era5": high, "radar": xtd.Source(fine, y=xtd.Within(), x=xtd.Within())},
                {"y": 4, "x": 4}, inputs="a", targets="radar/b",
            )
        )  # fmt: skip


# Batches.


def test_a_sample_is_added_once_and_repeated_ones_are_left_out():
    ds = series(6)
    streams = [
        xtd.IterableDataset(
            ds, {"time": 2}, inputs="a", targets="a", batch_size=2, rank=rank, world_size=2
        )
        for rank in range(2)
    ]
    with xtd.Mosaic(streams[0]) as mosaic:
        batches = [batch for stream in streams for batch in stream]
        assert sum(int(batch.repeated.sum()) for batch in batches) == 1
        for batch in batches:
            mosaic.add(batch, batch.y)
        with pytest.raises(ValueError, match="sample 0 was added before"):
            mosaic.add(batches[0], batches[0].y)
    xr.testing.assert_equal(mosaic.to_xarray(), ds)
    with pytest.raises(ValueError, match="this mosaic is closed"):
        mosaic.add(batches[0], batches[0].y)
    other = xtd.Mosaic(streams[0])
    twice = xtd.MapDataset(ds, {"time": 2}, inputs="a", targets="a").fetch([1, 1])
    with pytest.raises(ValueError, match="sample 1 is in the batch twice"):
        other.add(twice, twice.y)


def test_single_samples_have_no_sample_dim():
    ds = series(6)
    stream = xtd.IterableDataset(ds, {"time": 2}, inputs="a", targets="a", batch_size=None)
    with xtd.Mosaic(stream) as mosaic:
        for sample in stream:
            mosaic.add(sample, sample.y)
    xr.testing.assert_equal(mosaic.to_xarray(), ds)


def test_batches_of_other_samples_and_flipped_ones_are_refused():
    ds = world({"time": 2, "lat": 4, "lon": 4, "level": 1})
    dataset = xtd.MapDataset(ds, {"lat": 4, "lon": 2}, inputs="a", targets="a")
    mosaic = xtd.Mosaic(dataset)
    moved = xtd.MapDataset(ds.assign_coords(lat=ds.lat + 1), {"lat": 4, "lon": 2}, targets="a")
    shorter = xtd.MapDataset(ds, {"lat": 2, "lon": 2}, inputs="a", targets="a")
    for other in (moved, shorter):
        batch = other.fetch([0])
        with pytest.raises(ValueError, match="of another dataset than the mosaic"):
            mosaic.add(batch, batch.y)
    first, second = (dataset.replace(targets=xtd.Select("a", lon=at)) for at in (0, 1))
    with pytest.raises(ValueError, match="part 'y' of this batch has other variables or steps"):
        xtd.Mosaic(first).add(second.fetch([0]), second.fetch([0]).y)
    flipped = xtd.DataLoader(dataset, batch_size=2, augment=xtd.RandomFlip("lon", p=1.0))
    for batch in flipped:
        with pytest.raises(ValueError, match="were flipped along"):
            mosaic.add(batch, batch.y)
    some = dataset.replace(where=np.arange(len(dataset)) > 0)
    with pytest.raises(ValueError, match="sample 0 is none of this dataset"):
        xtd.Mosaic(some).add(dataset.fetch([0]), dataset.fetch([0]).y)
    with pytest.raises(TypeError, match="takes a batch of xtorch_data"):
        mosaic.add((batch.x,), batch.y)


def test_predictions_that_do_not_fit_are_refused():
    ds = world({"time": 2, "lat": 4, "lon": 4, "level": 1})
    dataset = xtd.MapDataset(ds, {"lat": 4, "lon": 2}, inputs="a", targets="a")
    batch, mosaic = dataset.fetch([0, 1]), xtd.Mosaic(dataset)
    for y, dims, message in [
        (batch.y[:, :2], None, "y has 2 along 'lat', and part 'y' has 4"),
        (batch.y[..., None], None, r"does not fit its dims.*y\.squeeze\(3\)"),
        (batch.y[..., 0], None, "does not fit its dims.* beside y$"),
        (batch.y[:1], None, "y has 1 sample, and the batch 2"),
        (batch.y, ("sample", "lat", "member"), "dims of y lack 'lon'"),
        (batch.y[..., None], ("sample", "lat", "lon", "time"), "but is in the data"),
        (batch.y, ("sample", "lat", "lat"), "name 'lat' twice"),
    ]:
        with pytest.raises(ValueError, match=message):
            mosaic.add(batch, y, dims)
    for dims in ("member", batch.y):
        with pytest.raises(TypeError, match="dims is a sequence of names"):
            mosaic.add(batch, batch.y, dims)
    mosaic.add(batch, batch.y.transpose(1, 2), ("sample", "lon", "lat"))
    xr.testing.assert_equal(mosaic.to_xarray().isel(time=0), ds.isel(time=0))
    with pytest.raises(ValueError, match="y has dims {'member': 2}, and the predictions before {}"):
        mosaic.add(dataset.fetch([2]), torch.zeros(1, 2, 4, 2), ("sample", "member", ...))


def test_arguments_that_do_not_fit_are_refused():
    ds = world({"time": 6, "lat": 4, "lon": 4, "level": 1})
    dataset = xtd.MapDataset(ds, {"time": 3}, {"time": 1}, inputs="a", targets="a")
    for options, message in [
        ({}, "samples overlap along 'time': up to 2 predict"),
        ({"keep": "lat"}, "no windows to keep apart"),
        ({"keep": {"time": "init"}}, "gives two names"),
        ({"keep": {"time": ("init", "lat")}}, "'lat' is taken"),
        ({"keep": {"time": ("a", "b"), "lat": ("c", "d")}}, "keep names one dim"),
        ({"blend": "cosine"}, "blend must be one of"),
        ({"part": "z"}, "no part 'z'"),
        ({"keep": "time", "mode": "w"}, "mode is for a result that is written"),
        ({"keep": "time", "encoding": {}}, "encoding is for a result that is written"),
    ]:
        with pytest.raises(ValueError, match=message):
            xtd.Mosaic(dataset, **options)
    with pytest.raises(TypeError, match="inverse must be a Normalize"):
        xtd.Mosaic(dataset, keep="time", inverse=3)
    generator = xbatcher.BatchGenerator(ds, {"time": 3, "lat": 4, "lon": 4, "level": 1})
    with pytest.raises(ValueError, match=r"items of an xbatcher\.BatchGenerator"):
        xtd.Mosaic(xtd.MapDataset(generator, targets="a"))
    with pytest.raises(ValueError, match="anchor cannot be given"):
        xtd.MapDataset(generator, anchor={"time": 1})
    with pytest.raises(ValueError, match="outside a window of 3 steps"):
        xtd.MapDataset(ds, {"time": 3}, anchor={"time": 3})
    with pytest.raises(TypeError, match="dataset must be"):
        xtd.Mosaic(ds)
    with pytest.raises(ValueError, match="no part 'y'"):
        xtd.Mosaic(xtd.MapDataset(ds, {"time": 3}))


def test_explain_says_what_there_is_and_how_far_it_is():
    dataset = xtd.MapDataset(series(10), {"time": 4}, {"time": 2}, inputs="a", targets="a")
    mosaic = xtd.Mosaic(dataset, blend="hann")
    batch = dataset.fetch([0, 1])
    mosaic.add(batch, batch.y)
    explanation = mosaic.explain()
    assert explanation.sizes == {"time": 10} and explanation.overlaps == {"time": 2}
    assert (explanation.added, explanation.samples, explanation.nbytes) == (2, 4, 40)
    assert "2 of 4 added" in str(explanation) and "hann" in str(explanation)
    assert "Mosaic of ['a'] (time: 10) in memory, open" in repr(mosaic)


# What went wrong before.


def test_predictions_are_numbers_that_the_sums_can_hold():
    dataset = xtd.MapDataset(series(6), {"time": 2}, inputs="a", targets="a")
    batch = dataset.fetch([0])
    for y, message in [
        (batch.y.to("meta"), "on the meta device"),
        (batch.y.to_sparse(), "layout torch.sparse_coo"),
        (np.ma.masked_less(batch.y.numpy(), 1), "masked array"),
        ({"a": batch.y}, "not dict of dtype object"),
        (None, "not NoneType"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            xtd.Mosaic(dataset).add(batch, y)
    for first, second in [(torch.int8, torch.int64), (torch.float32, torch.float64)]:
        mosaic = xtd.Mosaic(dataset)
        mosaic.add(batch, batch.y.to(first))
        with pytest.raises(TypeError, match="of the predictions before cannot hold"):
            mosaic.add(dataset.fetch([1]), batch.y.to(second))
    complex_ones = laid(dataset, model=lambda b: torch.complex(b.y, b.y).conj())
    np.testing.assert_array_equal(complex_ones["a"], np.arange(6) * (1 - 1j))


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_batch_that_is_broken_off_leaves_no_result(error, monkeypatch):
    dataset = xtd.MapDataset(series(6), {"time": 2}, inputs="a", targets="a")
    mosaic = xtd.Mosaic(dataset)
    batch = dataset.fetch([0, 1])
    mosaic.add(batch, batch.y)

    def broken(*_):
        raise error

    monkeypatch.setattr(mosaic._sums, "add", broken)
    batch = dataset.fetch([2])
    with pytest.raises(error):
        mosaic.add(batch, batch.y)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="left incomplete: nothing can be added"):
        mosaic.add(batch, batch.y)
    with pytest.raises(ValueError, match="an error broke off a batch of this mosaic"):
        mosaic.to_xarray()


def test_variables_side_by_side_need_a_name_that_is_no_dim():
    ds = xr.Dataset({"a": (("time", "variable"), np.arange(8.0).reshape(4, 2))})
    dataset = xtd.MapDataset(ds, {"time": 2, "variable": 2}, inputs="a", targets=["a"])
    with pytest.raises(ValueError, match="lie side by side along 'variable', which is a dim"):
        xtd.Mosaic(dataset)
    alone = dataset.replace(targets="a")
    xr.testing.assert_equal(laid(alone), ds.astype("float32"))


def test_attributes_of_packing_are_not_those_of_predictions(tmp_path):
    """Of a source that was opened as it is packed."""
    ds = series(6)
    ds["a"].attrs = {"units": "K", "missing_value": 3.0, "_FillValue": 4.0, "scale_factor": 2.0}
    dataset = xtd.MapDataset(ds, {"time": 2}, inputs="a", targets="a")
    for place in ([], [tmp_path / "a.zarr"]):
        loader = xtd.DataLoader(dataset, batch_size=2)
        result = xtd.predict(None, loader, *place, forward=lambda b: b.y).load()
        assert result["a"].values.tolist() == list(range(6))
        assert result["a"].attrs == {"units": "K"}


# Ranks.


def test_ranks_that_cannot_wait_for_each_other_need_a_store_that_none_replaces(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    options = {"inputs": "a", "targets": "a", "batch_size": 2}
    stream = xtd.IterableDataset(series(8), {"time": 2}, **options)
    with pytest.raises(ValueError, match="2 ranks have predictions .* give a path"):
        xtd.predict(None, stream, forward=lambda b: b.y)
    with pytest.raises(ValueError, match="rank 1 of 2, and without torch.distributed"):
        xtd.predict(None, stream, tmp_path / "a.zarr", forward=lambda b: b.y, mode="w")
    assert not list(tmp_path.iterdir())
    alone = stream.replace(rank=0, world_size=1)
    result = xtd.predict(None, alone, tmp_path / "a.zarr", forward=lambda b: b.y)
    xr.testing.assert_equal(result.load(), series(8))
