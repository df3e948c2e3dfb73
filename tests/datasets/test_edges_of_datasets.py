"""Windows beyond the ends of the data, in datasets: against `np.pad` and plain loops."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from helpers import chunks_of, counted, reads

import xtorch_data as xtd

TIMES, LATITUDES, LONGITUDES = 20, 12, 24
RNG = np.random.default_rng(0)
FIELD = RNG.normal(size=(TIMES, LATITUDES, LONGITUDES)).astype("f4")
GROUND = RNG.normal(size=(LATITUDES, LONGITUDES)).astype("f4")
NORTH = np.linspace(82.5, -82.5, LATITUDES)
EAST = np.arange(-180, 180, 15.0)
GLOBE = xr.Dataset(
    {
        "field": (("time", "latitude", "longitude"), FIELD),
        "ground": (("latitude", "longitude"), GROUND),
    },
    {"time": pd.date_range("2000-01-01", periods=TIMES), "latitude": NORTH, "longitude": EAST},
)
SIZES = {"time": 2, "latitude": 4, "longitude": 8}
WINDOWS = {
    "input_dims": SIZES,
    "boundary": {"longitude": "wrap", "latitude": "edge"},
    "halo": {"longitude": 2, "latitude": 1},
    "inputs": ["field", "ground"],
}
ROOM = 8  # steps that are padded here on each side


def padded(values, latitude="edge"):
    """An array of latitudes and longitudes with more on all sides."""
    widths = [(0, 0)] * (values.ndim - 2)
    east = np.pad(values, [*widths, (0, 0), (ROOM, ROOM)], mode="wrap")
    more = {"constant_values": np.nan} if latitude == "constant" else {}
    return np.pad(east, [*widths, (ROOM, ROOM), (0, 0)], mode=latitude, **more)


def expected(number, latitude="edge"):
    """The sample of `WINDOWS` of a number: windows of 4 and 8 steps, with halos of 1 and 2."""
    time, north, east = np.unravel_index(number, (TIMES // 2, 3, 3))
    rows = slice(4 * north - 1 + ROOM, 4 * north + 5 + ROOM)
    columns = slice(8 * east - 2 + ROOM, 8 * east + 10 + ROOM)
    field = padded(FIELD, latitude)[2 * time : 2 * time + 2, rows, columns]
    ground = padded(GROUND, latitude)[rows, columns]
    return np.stack([field, np.broadcast_to(ground, field.shape)])


def in_memory(path):
    return GLOBE


def of_dask(path):
    return GLOBE.chunk(time=3, latitude=5, longitude=7)


def of_zarr(path):
    encoding = {"field": {"chunks": (3, 5, 7)}}
    GLOBE.to_zarr(path / "a.zarr", encoding=encoding, consolidated=False)
    return xtd.open_zarr(path / "a.zarr")


def in_shards(path):
    encoding = {"field": {"chunks": (2, 3, 4), "shards": (4, 6, 8)}}
    GLOBE.to_zarr(path / "a.zarr", encoding=encoding, consolidated=False)
    return xtd.open_zarr(path / "a.zarr")


def of_netcdf(path):
    GLOBE.to_netcdf(path / "a.nc", encoding={"field": {"chunksizes": (3, 5, 7)}})
    return xr.open_dataset(path / "a.nc")


def of_memmaps(path):
    np.save(path / "field.npy", FIELD)
    field = np.load(path / "field.npy", mmap_mode="r")
    return GLOBE.assign(field=(("time", "latitude", "longitude"), field))


@pytest.mark.parametrize("latitude", ["edge", "reflect", "constant"])
@pytest.mark.parametrize("source", [in_memory, of_dask, of_zarr, in_shards, of_netcdf, of_memmaps])
def test_samples_are_those_of_padded_arrays(source, latitude, tmp_path):
    arguments = {**WINDOWS, "boundary": {"longitude": "wrap", "latitude": latitude}}
    with source(tmp_path) as ds:
        samples = xtd.MapDataset(ds, **arguments)
        stream = xtd.IterableDataset(samples, batch_size=7, shuffle=True, seed=1)
        seen = []
        for batch in stream:
            for number, x in zip(batch.index.tolist(), batch.x.numpy(), strict=True):
                np.testing.assert_array_equal(x, expected(number, latitude))
                seen.append(number)
        for number in range(0, len(samples), 11):
            np.testing.assert_array_equal(samples[number][0].numpy(), expected(number, latitude))
    assert sorted(seen) == list(range(len(samples))) == list(range(TIMES // 2 * 9))


def test_folders_of_decoded_data_hold_for_any_boundary(tmp_path):
    ds = of_zarr(tmp_path)
    for latitude in ("constant", "edge", "constant"):
        arguments = {**WINDOWS, "boundary": {"longitude": "wrap", "latitude": latitude}}
        stream = xtd.IterableDataset(ds, **arguments, batch_size=7, cache=tmp_path / "cache")
        for batch in stream:
            for number, x in zip(batch.index.tolist(), batch.x.numpy(), strict=True):
                np.testing.assert_array_equal(x, expected(number, latitude))


def test_a_dim_without_labels_of_graphs_alone_is_extended():
    values = np.arange(5.0, dtype="f4")
    ds = xr.Dataset({"a": ("x", values)}).chunk(x=2)
    samples = xtd.MapDataset(ds, {"x": 5}, boundary={"x": "edge"}, halo={"x": 2})
    np.testing.assert_array_equal(samples[0][0].numpy()[0], np.pad(values, 2, mode="edge"))


# Labels that close a circle.

DEGREES = np.arange(0, 360, 10.0)
RADIANS = {"units": "radians"}


@pytest.mark.parametrize(
    "labels, attrs",
    [
        (DEGREES, {}),
        (DEGREES - 180, {}),
        (DEGREES[::-1], {}),
        (np.roll(DEGREES, 13), {}),
        (DEGREES.astype("u2"), {}),
        (np.arange(-180, 180, 0.25, dtype="f4"), {}),
        (np.array([-180.0, 0.0]), {}),
        (np.array([0.0, 120.0, 240.0]), {}),
        (np.array([5.0]), {}),
        (np.deg2rad(DEGREES), RADIANS),
        (np.roll(np.deg2rad(DEGREES), 5), RADIANS),
    ],
)
def test_longitudes_close_the_circle_from_wherever_they_begin(labels, attrs):
    values = np.arange(len(labels), dtype="f4")
    ds = xr.Dataset({"a": ("lon", values)}, {"lon": ("lon", labels, attrs)})
    samples = xtd.MapDataset(ds, {"lon": 1}, boundary={"lon": "wrap"}, halo={"lon": 1})
    found = np.stack([samples[number][0].numpy()[0] for number in range(len(samples))])
    np.testing.assert_array_equal(found.T, [np.roll(values, 1), values, np.roll(values, -1)])


@pytest.mark.parametrize(
    "labels, attrs, message",
    [
        (np.arange(0, 361, 10.0), {}, r"the last is the first again.*slice\(-1\)"),
        (np.linspace(0, 2 * np.pi, 37), RADIANS, "the last is the first again"),
        (DEGREES[:18], {}, "0 to 170, do not close the circle"),
        (np.arange(0, 720, 10.0), {}, "do not close the circle"),
        (DEGREES[[0, 1, 3, 2, *range(4, 36)]], {}, "not evenly spaced"),
    ],
)
def test_longitudes_that_close_no_circle_are_not_wrapped(labels, attrs, message):
    ds = xr.Dataset({"a": ("lon", labels)}, {"lon": ("lon", labels, attrs)})
    with pytest.raises(ValueError, match=message):
        xtd.MapDataset(ds, {"lon": 2}, boundary={"lon": "wrap"}, halo={"lon": 1})


LABELS = {
    "integers": np.arange(8),
    "bytes": np.arange(8, dtype="u1"),
    "text": np.array(list("abcdefgh")),
    "durations": pd.to_timedelta(np.arange(8), "h"),
    "dates": xr.date_range("2000-01-01", periods=8),
    "noleap": xr.date_range("2000-01-01", periods=8, calendar="noleap", use_cftime=True),
}


@pytest.mark.parametrize("boundary", ["edge", "reflect", "constant"])
@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_those_that_xarray_pads(kind, boundary):
    values = np.arange(16, dtype="f4").reshape(2, 8)
    ds = xr.Dataset({"a": (("y", "x"), values)}, {"x": LABELS[kind]})
    samples = xtd.MapDataset(ds, {"x": 4}, boundary={"x": boundary}, halo={"x": 2})
    padded = ds.pad(x=2, mode=boundary)
    for number, window in enumerate((slice(0, 8), slice(4, 12))):
        wanted = padded["x"][window]
        xr.testing.assert_equal(samples.windows.coords(number).to_dataset()["x"], wanted)
        labelled = samples.fetch([number]).to_xarray().isel(sample=0)
        xr.testing.assert_equal(labelled["x"].variable, wanted.variable.to_base_variable())
        np.testing.assert_array_equal(labelled["a"].values, padded["a"][0, window].values)


def test_labels_of_several_levels_cannot_be_missing():
    index = pd.MultiIndex.from_product([[0, 1], [0, 1, 2, 3]], names=["p", "q"])
    coords = xr.Coordinates.from_pandas_multiindex(index, "x")
    ds = xr.Dataset({"a": ("x", np.zeros(8, "f4"))}, coords)
    assert len(xtd.MapDataset(ds, {"x": 4}, boundary={"x": "edge"}, halo={"x": 1})) == 2
    with pytest.raises(ValueError, match=r"a MultiIndex.*reset_index\('x'\)"):
        xtd.MapDataset(ds, {"x": 4}, boundary={"x": "constant"}, halo={"x": 1})


# Breaks.


def broken(length, *cuts):
    """Days of which some are missing before each cut, and their positions as values."""
    days = np.arange(length) + 5 * np.searchsorted(cuts, np.arange(length), side="right")
    labels = pd.Timestamp("2000-01-01") + pd.to_timedelta(days, "D")
    return xr.Dataset({"a": ("time", np.arange(length, dtype="f4"))}, {"time": labels})


def sample_steps(samples):
    return [samples[number][0].numpy()[0].astype(int).tolist() for number in range(len(samples))]


def test_nothing_is_turned_back_across_a_break():
    # The first stretch has two steps, of which the halo would need a third.
    samples = xtd.MapDataset(
        broken(40, 2, 30), {"time": 1}, boundary={"time": "reflect"}, halo={"time": 2},
        breaks="split",
    )  # fmt: skip
    found = sample_steps(samples)
    inside = [list(range(at - 2, at + 3)) for at in range(4, 28)]
    last = [list(range(at - 2, at + 3)) for at in range(32, 38)]
    turned = [[36, 37, 38, 39, 38], [37, 38, 39, 38, 37]]
    assert found == [*inside, *last, *turned]


def test_the_last_window_is_moved_back_in_each_stretch():
    samples = xtd.MapDataset(
        broken(30, 9, 20), {"time": 4}, remainder="shift", breaks={"time": "split"}
    )
    begins = [0, 4, 5, 9, 13, 16, 20, 24, 26]
    assert sample_steps(samples) == [list(range(at, at + 4)) for at in begins]


@pytest.mark.parametrize("boundary", [None, "edge"])
@pytest.mark.parametrize("halo", [(0, 0), (3, 0), (0, 2), (3, 2)])
@pytest.mark.parametrize("cuts", [(1,), (7,), (7, 30), (16, 27)])
def test_breaks_leave_out_the_windows_that_would_follow(boundary, halo, cuts):
    size, stride, length = 5, 3, 41
    samples = xtd.MapDataset(
        broken(length, *cuts), {"time": size}, {"time": size - stride},
        boundary=boundary and {"time": boundary}, halo={"time": halo}, remainder="drop",
        breaks="split",
    )  # fmt: skip
    lost = 0
    for begin, end in zip((0, *cuts), (*cuts, length), strict=False):
        first = begin if boundary and not begin else begin + -(-halo[0] // stride) * stride
        for at in range(first, end + halo[0], stride):
            starts, stops = at - halo[0], at + size + halo[1]
            fits = stops <= length + (halo[1] if boundary else 0)
            lost += end < length and starts < end < stops and fits
    explained = xtd.IterableDataset(samples).explain().breaks
    assert sum(each.left_out for each in explained.values()) == lost


@pytest.mark.parametrize("halo, lost", [((3, 0), 1), ((0, 3), 1), (2, 2), (5, 4), (0, 0)])
def test_samples_whose_halo_passes_an_end_are_told(halo, lost):
    values = xr.DataArray(np.zeros((20, 2), "f4"), dims=("x", "y"), name="a")
    stream = xtd.IterableDataset(values, {"x": 4}, halo={"x": halo})
    found = stream.explain()
    assert found.windows == 5 * 2
    assert found.left_out["halo"] == lost * 2
    assert len(stream.windows) == found.samples == (5 - lost) * 2


def test_stretches_without_a_break_are_those_of_the_data():
    samples = xtd.IterableDataset(
        broken(35, 10), {"time": 4}, boundary={"time": "edge"}, halo={"time": 2}, breaks="split"
    )
    (found,) = samples.explain().breaks.values()
    assert [(each.first, each.last, each.steps) for each in found.longest] == [
        ("2000-01-18", "2000-02-09", 23),
        ("2000-01-01", "2000-01-10", 10),
    ]
    assert [each.step for each in found.breaks] == [10]


# Failures.


@pytest.mark.parametrize("chunk, columns", [(0, (0, 6)), (3, (18, 24)), (5, (30, 36))])
def test_failures_are_where_the_user_has_them(chunk, columns, tmp_path):
    values = np.arange(4 * 36, dtype="f4").reshape(4, 36)
    ds = xr.Dataset({"a": (("time", "longitude"), values)}, {"longitude": DEGREES})
    ds.to_zarr(tmp_path / "a.zarr", encoding={"a": {"chunks": (1, 6)}}, consolidated=False)
    (tmp_path / "a.zarr" / "a" / "c" / "2" / str(chunk)).write_bytes(b"damaged")
    samples = xtd.MapDataset(
        xtd.open_zarr(tmp_path / "a.zarr"), {"longitude": 6},
        boundary={"longitude": "wrap"}, halo={"longitude": 3},
    )  # fmt: skip
    hit = [
        number
        for number in range(len(samples))
        if number // 6 == 2 and set(np.arange(number % 6 * 6 - 3, number % 6 * 6 + 9) % 36 // 6)
        & {chunk}
    ]  # fmt: skip
    first, last = columns
    for number in range(len(samples)):
        if number not in hit:
            samples[number]
            continue
        with pytest.raises(xtd.ReadError, match="time=2:3") as refused:
            samples[number]
        text = str(refused.value).split("longitude=")[1]
        start, stop = map(int, text.split(")")[0].split(":"))
        assert first <= start < stop <= last
    stream = xtd.IterableDataset(samples, batch_size=5, on_error="skip")
    seen = [number for batch in stream for number in batch.index.tolist()]
    assert sorted(set(range(len(samples))) - set(seen)) == hit
    for failure in stream.stats().failures:
        start, stop = failure.region["longitude"]
        assert failure.region["time"] == (2, 3) and first <= start < stop <= last
        assert failure.chunk == f"a/c/2/{chunk}"


# Several sources.


def test_other_sources_have_the_same_labels_around_the_circle():
    other = xr.Dataset({"b": GLOBE["field"] + 1})
    eastward = other.assign_coords(longitude=EAST % 360).sortby("longitude").sortby("latitude")
    bare = ["latitude", "longitude"]
    for first, second in ((GLOBE, eastward), (GLOBE.drop_vars(bare), other.drop_vars(bare))):
        arguments = {**WINDOWS, "inputs": "field"}
        samples = xtd.MapDataset({"globe": first, "other": second}, **arguments)
        for batch in xtd.IterableDataset(samples, batch_size=8, shuffle=True):
            for number, found in zip(batch.index.tolist(), batch["other"].numpy(), strict=True):
                np.testing.assert_array_equal(found[0], expected(number)[0] + 1)


FINE = RNG.normal(size=(2 * LATITUDES, 2 * LONGITUDES)).astype("f4")


@pytest.mark.parametrize("latitude", [None, "edge", "constant"])
def test_a_finer_grid_goes_around_the_circle_and_has_no_rows_beyond_the_poles(latitude):
    fine = xr.Dataset(
        {"fine": (("latitude", "longitude"), FINE)},
        {"latitude": np.linspace(86.25, -86.25, 24), "longitude": np.arange(-183.75, 176.25, 7.5)},
    )
    within = xtd.Source(fine, latitude=xtd.Within(), longitude=xtd.Within())
    boundary, halo = {"longitude": "wrap"}, {"longitude": 2}
    if latitude:
        boundary["latitude"], halo["latitude"] = latitude, 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        samples = xtd.MapDataset(
            {"globe": GLOBE, "fine": within},
            {"latitude": 4, "longitude": 8},
            boundary=boundary,
            halo=halo,
            inputs="field",
        )
    texts = [str(each.message) for each in caught]
    lost = [text for text in texts if "beyond the ends of the first source" in text]
    assert len(lost) == bool(latitude)  # the first and the last row of windows
    rows = [slice(6, 18)] if latitude else [slice(8 * row, 8 * row + 8) for row in range(3)]
    columns = [np.arange(16 * at - 4, 16 * at + 20) % 48 for at in range(3)]
    assert len(samples) == TIMES * len(rows) * 3
    for number in range(len(samples)):
        row, column = divmod(number % (len(rows) * 3), 3)
        found = samples[number][1].numpy()[0]
        np.testing.assert_array_equal(found, FINE[rows[row]][:, columns[column]])


# Which samples.


def test_filters_and_weights_are_of_what_samples_have():
    samples = xtd.MapDataset(GLOBE, **WINDOWS)
    warm = [number for number in range(len(samples)) if expected(number)[0].mean() > 0]
    filtered = samples.replace(where=lambda sample: sample["field"].mean() > 0)
    assert [int(filtered.fetch([place]).index[0]) for place in range(len(filtered))] == warm
    columns = xr.DataArray([True, False, True], dims="longitude")
    assert len(samples.replace(where=columns)) == len(samples) * 2 // 3
    steps = np.zeros(LATITUDES)
    steps[0] = 1.0  # once in the first row of windows, and once more beyond the edge
    weights = xr.DataArray(steps, {"latitude": NORTH}, "latitude")
    stream = xtd.IterableDataset(samples, weights=weights, shuffle=True, batch_size=10)
    drawn = {number for batch in stream for number in batch.index.tolist()}
    assert {int(np.unravel_index(number, (10, 3, 3))[1]) for number in drawn} == {0}


@pytest.mark.parametrize("boundary", ["edge", "reflect", "constant"])
def test_weights_of_steps_are_of_those_that_are_there(boundary):
    values = xr.DataArray(np.zeros((2000, 12), "f4"), dims=("y", "x"), name="a")
    weights = xr.DataArray(np.where(np.arange(12) < 3, 1.0, 0.0), dims="x")
    stream = xtd.IterableDataset(
        values,
        {"x": 3},
        boundary={"x": boundary},
        halo={"x": 1},
        weights=weights,
        shuffle=True,
        batch_size=1000,
    )
    pads = {"constant_values": np.nan} if boundary == "constant" else {}
    padded = np.pad(weights.values, 1, mode=boundary, **pads)
    means = np.array([np.nanmean(padded[at : at + 5]) for at in range(0, 12, 3)])
    drawn = np.concatenate([batch.index.numpy() for batch in stream]) % 4
    found = np.bincount(drawn, minlength=4) / len(drawn)
    np.testing.assert_allclose(found, means / means.sum(), atol=0.03)


@pytest.mark.parametrize("by", ["windows", "targets"])
def test_no_step_of_a_circle_is_in_two_parts(by):
    samples = xtd.MapDataset(
        GLOBE, {"latitude": 4, "longitude": 2}, boundary={"longitude": "wrap"},
        halo={"longitude": 2}, inputs="field", targets=xtd.Select("ground", longitude=slice(2, 4)),
    )  # fmt: skip
    kept = slice(2, 4) if by == "targets" else slice(None)

    def columns(part):
        steps = np.arange(LONGITUDES)
        windows = (part.windows[number]["longitude"] for number in range(len(part.windows)))
        return {int(step) for window in windows for step in steps[window][kept]}

    for train, test in xtd.kfold(samples, "longitude", n_splits=3, by=by):
        assert not columns(train) & columns(test) and len(test)
    first, second = xtd.split(samples, "longitude", at=0.0, by=by)
    assert columns(first) <= set(range(12)) and columns(second) <= set(range(12, 24))


@pytest.mark.parametrize("boundary", ["wrap", "reflect", "edge", "constant"])
def test_no_label_of_two_dims_is_in_two_parts(boundary):
    basins = np.repeat(np.arange(8), 3)[None].repeat(LATITUDES, 0)
    basins[6:] = (basins[6:] + 3) % 8
    ds = GLOBE.assign_coords(basin=(("latitude", "longitude"), basins))
    samples = xtd.MapDataset(
        ds,
        {"latitude": 1, "longitude": 1},
        boundary={"longitude": boundary},
        halo={"longitude": 1},
        inputs="ground",
    )
    seen = []
    for part in xtd.split(samples, "basin", fractions=(0.5, 0.5)):
        numbers = [int(part.fetch([place]).index[0]) for place in range(len(part))]
        windows = [part.windows[number] for number in numbers]
        cuts = [(window["latitude"], window["longitude"]) for window in windows]
        seen.append({int(basin) for cut in cuts for basin in basins[cut].ravel()})
    assert seen[0] and seen[1] and not seen[0] & seen[1]


def test_epochs_go_on_with_other_ranks_and_no_other_boundary(tmp_path):
    def stream(**options):
        return xtd.IterableDataset(
            of_dask(tmp_path), **{**WINDOWS, **options}, batch_size=4, shuffle=True, uneven="keep"
        )

    begun, seen = stream(), []
    for _, batch in zip(range(5), begun, strict=False):
        seen += batch.index.tolist()
    state = begun.state_dict()
    for rank in range(2):
        rest = stream(rank=rank, world_size=2)
        rest.load_state_dict(state)
        seen += [number for batch in rest for number in batch.index.tolist()]
    assert sorted(seen) == list(range(TIMES // 2 * 9))
    with pytest.raises(ValueError, match="another dataset"):
        stream(boundary={"longitude": "wrap", "latitude": "reflect"}).load_state_dict(state)


# Statistics.


@pytest.mark.parametrize("latitude", ["edge", "reflect", "constant"])
def test_statistics_count_each_value_of_the_data_once(latitude):
    arguments = {**WINDOWS, "boundary": {"longitude": "wrap", "latitude": latitude}}
    samples = xtd.MapDataset(GLOBE, **arguments)
    of_all = xtd.Normalize.fit(samples)
    np.testing.assert_allclose(of_all.mean["field"], FIELD.mean(dtype="f8"), atol=1e-7)
    np.testing.assert_allclose(of_all.std["field"], FIELD.std(dtype="f8"), rtol=1e-6)
    for per, axes in (("longitude", (0, 1)), ("latitude", (0, 2))):
        normalize = xtd.Normalize.fit(samples, per=per)
        mean, std = FIELD.mean(axes, dtype="f8"), FIELD.std(axes, dtype="f8")
        np.testing.assert_allclose(normalize.mean["field"], mean, atol=1e-7)
        np.testing.assert_allclose(normalize.std["field"], std, rtol=1e-6)
        stream = xtd.IterableDataset(samples.replace(preprocess=normalize), batch_size=9)
        batch = next(iter(stream))
        restored = normalize.inverse(batch.to_xarray())["field"].values
        for number, found in enumerate(restored):
            np.testing.assert_allclose(found, expected(number, latitude)[0], atol=1e-5)
        zeros = normalize.inverse(batch.replace(x=torch.zeros_like(batch.x)).to_xarray())
        unknown = np.isnan(zeros["field"].values)  # where there is no label, no statistic is known
        assert unknown.any() == (latitude == "constant" and per == "latitude")


def test_statistics_of_some_samples_are_of_the_steps_that_these_have():
    where = xr.DataArray([True, False, False], dims="longitude")
    samples = xtd.MapDataset(GLOBE, **WINDOWS, where=where)
    mean = FIELD[:, :, np.arange(-2, 10)].mean(dtype="f8")
    np.testing.assert_allclose(xtd.Normalize.fit(samples).mean["field"], mean, rtol=1e-6)


# What is read, written and shown.

CHUNKS = {"field": (3, 5, 7), "ground": (5, 7)}


@pytest.mark.parametrize("overlap", [{}, {"longitude": 4}, {"time": 1, "longitude": 4}])
@pytest.mark.parametrize("memory, blocks", [("1 GiB", 1), ("20 KiB", 7)])
def test_each_chunk_is_decoded_once_in_order_that_at_the_seam_too(overlap, memory, blocks):
    ds, counts = counted(GLOBE, CHUNKS)
    stream = xtd.IterableDataset(ds, **WINDOWS, input_overlap=overlap, batch_size=4, memory=memory)
    assert len(stream.plan.grid) == blocks
    counts.clear()
    assert sum(len(batch) for batch in stream) == len(stream.windows)
    found = reads(counts, CHUNKS)
    assert len(found) == sum(chunks_of(GLOBE, CHUNKS, CHUNKS).values())
    assert set(found.values()) == {1}


def test_blocks_along_a_circle_decode_its_seam_at_both_ends():
    long = xr.Dataset(
        {"a": (("longitude", "time"), np.zeros((240, 600), "f4"))},
        {"longitude": np.arange(0, 360, 1.5)},
    )
    ds, counts = counted(long, {"a": (24, 600)})
    stream = xtd.IterableDataset(
        ds, {"longitude": 24, "time": 600}, boundary={"longitude": "wrap"},
        halo={"longitude": 2}, memory="400 KiB", batch_size=1,
    )  # fmt: skip
    assert len(stream.plan.grid) > 1
    counts.clear()
    list(stream)
    found = reads(counts, ["a"])
    twice = {key for key, count in found.items() if count == 2}
    assert twice == {"a/c/0/0", "a/c/9/0"} and len(found) == 10
    assert f"{sum(found.values())} chunks" in str(stream.explain())


def test_a_copy_for_a_dataset_is_the_data_itself(tmp_path):
    xtd.rechunk(GLOBE, xtd.IterableDataset(GLOBE, **WINDOWS), tmp_path / "copy.zarr")
    copy = xr.open_zarr(tmp_path / "copy.zarr", consolidated=False)
    xr.testing.assert_identical(copy.load().drop_encoding(), GLOBE)


def test_options_of_the_ends_can_be_replaced():
    samples = xtd.MapDataset(GLOBE, **WINDOWS)
    turned = samples.replace(boundary={"longitude": "wrap", "latitude": "reflect"})
    assert turned.windows[0]["latitude"].tolist() == [1, 0, 1, 2, 3, 4]
    inside = samples.replace(boundary=None)
    assert len(inside) == TIMES // 2  # one window has a halo that is inside
    assert samples.replace(halo=None)[0][0].shape == (2, 2, 4, 8)


def test_flips_move_the_labels_of_wrapped_windows_along():
    stream = xtd.IterableDataset(GLOBE, **WINDOWS, batch_size=9)
    for batch in xtd.DataLoader(stream, augment=xtd.RandomFlip("longitude", p=0.5)):
        labelled = batch.to_xarray()
        for place in range(len(batch)):
            sample = labelled.isel(sample=place)
            columns = [EAST.tolist().index(label) for label in sample["longitude"].values]
            time, north, east = np.unravel_index(int(batch.index[place]), (10, 3, 3))
            ahead = (np.arange(8 * east - 2, 8 * east + 10) % 24).tolist()
            assert columns in (ahead, ahead[::-1])
            rows = np.clip(np.arange(4 * north - 1, 4 * north + 5), 0, 11)
            steps = slice(2 * time, 2 * time + 2)
            np.testing.assert_array_equal(
                sample["field"].values, FIELD[steps][:, rows][:, :, columns]
            )


def test_windows_are_not_cut_on_a_device_where_there_is_nothing():
    arguments = {**WINDOWS, "boundary": {"latitude": "constant"}, "halo": None}
    stream = xtd.IterableDataset(GLOBE, **arguments)
    assert stream.windows  # none reaches beyond the ends
    reaching = xtd.IterableDataset(GLOBE, **{**arguments, "halo": {"latitude": 1}})
    with pytest.raises(ValueError, match="made missing on the host"):
        xtd.DataLoader(reaching, device="cpu", gather="device")


def test_titles_of_plots_have_no_lists_of_steps():
    pytest.importorskip("matplotlib")
    batch = next(iter(xtd.IterableDataset(GLOBE, **WINDOWS, batch_size=1)))
    (axes,) = batch.plot(variables="field", dims=("latitude", "longitude")).ravel()
    assert axes.get_title() == "x: field (sample 0)\n2000-01-01"
