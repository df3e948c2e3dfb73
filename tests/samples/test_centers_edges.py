"""Windows around events that reach beyond the ends, against isel of data that xarray has padded."""

import itertools
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from helpers import tiny_memory_allowed
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd

# What is left out is compared.
pytestmark = pytest.mark.filterwarnings("ignore:.* of centers are left out:UserWarning")

BOUNDARIES = ("wrap", "edge", "reflect", "constant")
DIMS = ("time", "lat", "lon")
# Steps by which the data is padded for a truth in which no window reaches an end.
FAR = 40


def world(time=6, lat=5, lon=8, begin=0.0):
    """Data around the earth, a third of it missing."""
    values = np.random.default_rng(time + lat + lon).normal(size=(time, lat, lon)).astype("f4")
    coords = {
        "time": xr.date_range("2000-01-01", periods=time),
        "lat": np.linspace(80, -80, lat),
        "lon": begin + np.arange(lon) * 360 / lon,
    }
    return xr.Dataset({"a": (DIMS, np.where(values < -0.4, np.nan, values))}, coords)


def stored(ds, chunks):
    """The data in a store of such chunks."""
    kept = zarr.storage.MemoryStore()
    ds.to_zarr(kept, encoding={"a": {"chunks": [chunks[dim] for dim in DIMS]}}, consolidated=False)
    return xr.open_zarr(kept, consolidated=False, chunks=None)


def far(ds, boundary):
    """The data with much beyond its ends, by xarray's own padding."""
    for dim, mode in boundary.items():
        ds = ds.pad({dim: FAR}, mode=mode)
    return ds


def events_at(ds, steps, shares):
    """Labels of events, so far from labels of the data, as shares of the way to the next one."""
    found = {}
    for dim in steps:
        labels = ds[dim].values
        way = labels[1] - labels[0]
        found[dim] = labels[steps[dim]] + np.array([way * share for share in shares[dim]])
    return found


@st.composite
def cases(draw):
    sizes = {"time": draw(st.integers(2, 6)), "lat": draw(st.integers(2, 6))}
    sizes["lon"] = draw(st.integers(2, 9))
    ds = world(**sizes, begin=draw(st.sampled_from([0.0, -180.0, 90.0])))
    centered = draw(st.sampled_from([("lon",), ("lat", "lon"), DIMS]))
    windowed = draw(
        st.sampled_from([dims for dims in (centered, DIMS) if set(centered) <= set(dims)])
    )
    boundary, halo, dims = {}, {}, {}
    for dim in windowed:
        modes = [mode for mode in BOUNDARIES if mode != "wrap" or dim == "lon"]
        if draw(st.integers(0, 3)):
            boundary[dim] = draw(st.sampled_from(modes))
        longest = sizes[dim] + 2 * (dim in boundary and dim in centered)
        dims[dim] = draw(st.integers(1, longest))
        if dim in centered and draw(st.booleans()):
            halo[dim] = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    count = draw(st.integers(1, 12))
    steps = {
        dim: np.array([draw(st.integers(0, sizes[dim] - 1)) for _ in range(count)])
        for dim in centered
    }
    shares = {dim: [draw(st.sampled_from([-0.4, 0.0, 0.3])) for _ in range(count)] for dim in steps}
    anchor = {
        dim: draw(st.integers(0, dims[dim] + sum(halo.get(dim, (0, 0))) - 1))
        for dim in centered
        if draw(st.booleans())
    }
    chunks = {dim: draw(st.integers(1, size)) for dim, size in sizes.items()}
    return ds, dims, boundary, halo, steps, shares, anchor, chunks


def windows_of(ds, dims, boundary, halo, steps, anchor):
    """By sample: what isel takes of the padded data, one by one; None beyond an end."""
    along, extents = [], {}
    for dim in DIMS:
        before, after = halo.get(dim, (0, 0))
        extents[dim] = dims.get(dim, 1) + before + after
    count = len(next(iter(steps.values())))
    events = []
    for event in range(count):
        cut = {}
        for dim, own in steps.items():
            middle = halo.get(dim, (0, 0))[0] + dims[dim] // 2
            begin = int(own[event]) - anchor.get(dim, middle)
            inside = 0 <= begin and begin + extents[dim] <= ds.sizes[dim]
            if dim not in boundary and not inside:
                break
            begin += FAR if dim in boundary else 0
            cut[dim] = slice(begin, begin + extents[dim])
        else:
            events.append(cut)
    for dim in [dim for dim in DIMS if dim not in dims] + [d for d in dims if d not in steps]:
        if dim not in dims:
            along.append([{dim: at} for at in range(ds.sizes[dim])])
            continue
        size, length = dims[dim], ds.sizes[dim]
        starts = list(range(0, length - size + 1, size))
        if dim in boundary:
            starts = list(range(0, length, size))
        moved = FAR if dim in boundary else 0
        along.append([{dim: slice(at + moved, at + moved + size)} for at in starts])
    found = []
    for parts in itertools.product(events, *along):
        found.append({dim: each for part in parts for dim, each in part.items()})
    return found


@given(cases(), st.sampled_from(["store", "memory", "dask"]), st.booleans())
@examples(20)
def test_windows_around_events_are_those_of_padded_data(case, storage, shuffle):
    ds, dims, boundary, halo, steps, shares, anchor, chunks = case
    expected = windows_of(ds, dims, boundary, halo, steps, anchor)
    data = {
        "store": lambda: stored(ds, chunks), "memory": lambda: ds, "dask": lambda: ds.chunk(chunks)
    }[storage]()  # fmt: skip
    options = {
        "input_dims": dims,
        "centers": events_at(ds, steps, shares),
        "anchor": anchor,
        "boundary": boundary,
        "halo": halo,
        "parts": {"x": "a", "mask": xtd.NotNull("a")},
    }
    if not expected:
        with pytest.raises(ValueError, match="no event of centers has a window"):
            xtd.MapDataset(data, **options)
        return
    samples = xtd.MapDataset(data, **options)
    padded = far(ds, boundary)
    there = ds["a"].notnull()
    for dim, mode in boundary.items():
        beyond = {"mode": "wrap"} if mode == "wrap" else {"constant_values": False}
        there = there.pad({dim: FAR}, **beyond)
    assert len(samples) == len(expected)

    def check(batch):
        labeled = batch.to_xarray("x")
        for row, number in enumerate(batch.index.tolist()):
            window = expected[number]
            cut = padded.isel(window)
            np.testing.assert_array_equal(batch.x[row], cut.a.transpose(*dims))
            np.testing.assert_array_equal(batch["mask"][row], there.isel(window).transpose(*dims))
            for dim in dims:
                np.testing.assert_array_equal(labeled.a.isel(sample=row)[dim], cut[dim])
            if "constant" not in boundary.values():
                own = ds["a"].isel(samples.windows[number]).transpose(*dims)
                np.testing.assert_array_equal(batch.x[row], own)

    check(samples.fetch(range(len(samples))))
    seen = []
    with tiny_memory_allowed():
        for memory in (1, 700, "1 MiB"):
            stream = xtd.IterableDataset(samples, batch_size=3, shuffle=shuffle, memory=memory)
            numbers = []
            for batch in stream:
                check(batch)
                numbers += batch.index.tolist()
            seen.append(sorted(numbers))
    assert seen == [list(range(len(samples)))] * 3
    counts = xtd.verify(stream)
    assert (counts.samples, counts.missing, counts.repeated) == (len(samples), 0, 0)

    # Samples of which enough is present, where what is made up is not.
    enough = [number for number, window in enumerate(expected) if there.isel(window).mean() >= 0.6]
    if not enough:
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*leaves out none")
        chosen = samples.replace(where=xtd.NotNull("a", min=0.6))
        assert chosen.fetch(range(len(chosen))).index.tolist() == enough
        both = [n for n in enough if float(np.nansum(padded.a.isel(expected[n]))) > 0]
        if both:
            asked = [lambda window: float(window.a.sum()) > 0, xtd.NotNull("a", min=0.6)]
            chosen = samples.replace(where=asked)
            assert chosen.fetch(range(len(chosen))).index.tolist() == both


def test_an_event_at_the_date_line_has_both_sides_of_it():
    ds = world(lon=36, begin=-180.0)
    centers = {"time": ds.time.values[[0, 3]], "lat": [80.0, -80.0], "lon": [179.0, -180.0]}
    dims = {"time": 2, "lat": 3, "lon": 4}

    with pytest.raises(ValueError, match="1: the window is not wholly inside along 'lat'"):
        xtd.MapDataset(ds, dims, centers=centers)
    with pytest.raises(ValueError, match=r"have all of \['lat'\]: centers need no labels of it"):
        xtd.MapDataset(ds, {**dims, "lat": -1}, centers=centers)
    samples = xtd.MapDataset(
        ds,
        dims,
        centers=centers,
        boundary={"time": "edge", "lat": "reflect", "lon": "wrap"},
        halo={"lon": (1, 2)},
        inputs="a",
    )

    assert len(samples) == 2
    assert samples.windows[0]["lon"].tolist() == [33, 34, 35, 0, 1, 2, 3]
    assert samples.windows[0]["lat"].tolist() == [1, 0, 1]
    assert samples.windows[1]["lat"].tolist() == [3, 4, 3]
    assert samples.windows.first_steps("lon").tolist() == [33, 33]
    np.testing.assert_array_equal(samples[0][0], ds.a.isel(samples.windows[0]))


def test_splits_and_statistics_count_the_data_alone():
    ds = world(time=20, lon=12, lat=6)
    rng = np.random.default_rng(0)
    centers = {"time": rng.choice(ds.time.values, 60), "lon": rng.uniform(0, 360, 60)}
    samples = xtd.MapDataset(
        ds,
        {"time": 3, "lon": 4, "lat": 2},
        centers=centers,
        boundary={"time": "edge", "lon": "wrap", "lat": "reflect"},
        halo={"lat": 1},
        inputs="a",
    )
    assert len(samples) == 60 * 3

    first, second = xtd.split(samples, "time", fractions=(0.5, 0.5))

    steps = [
        {
            int(step)
            for number in range(len(part))
            for step in np.arange(ds.sizes["time"])[part.windows[number]["time"]]
        }
        for part in (first, second)
    ]
    assert max(steps[0]) < min(steps[1])
    assert min(steps[0]) == 0
    assert max(steps[1]) == 19
    found = xtd.Normalize.fit(samples)
    values = []
    for number in range(len(samples)):
        batch = samples.fetch([number])
        made_up = np.zeros(batch.x[0].shape, dtype=bool)
        begins = {dim: at for dim, at in zip(DIMS, np.unravel_index(number, (60, 3)), strict=False)}
        step = int(np.flatnonzero(ds.time.values == centers["time"][begins["time"]])[0]) - 1
        made_up[[not 0 <= step + k < 20 for k in range(3)]] = True
        lat = 2 * begins["lat"] - 1
        made_up[:, :, [not 0 <= lat + k < 6 for k in range(4)]] = True
        values.append(batch.x[0].numpy()[~made_up])
    counted = np.concatenate(values).astype("f8")
    assert float(found.mean["a"]) == pytest.approx(np.nanmean(counted), rel=1e-9)
    assert float(found.std["a"]) == pytest.approx(np.nanstd(counted), rel=1e-9)


def test_a_window_turned_back_at_an_end_crosses_no_break():
    ds = world(time=60).isel(time=[0, 1, 2, *range(6, 46), 48, 49])
    centers = {"time": ds.time.values}
    options = {"input_dims": {"time": 6}, "centers": centers, "breaks": "split"}

    turned = xtd.MapDataset(ds, boundary={"time": "reflect"}, **options)
    flat = xtd.MapDataset(ds, boundary={"time": "edge"}, **options)

    # Breaks lie before steps 3 and 43. The window of the first event begins three steps before
    # the data: turned back, the first of these would be step 3, behind a break.
    assert turned.windows.first_steps("time").tolist() == list(range(3, 38))
    assert flat.windows.first_steps("time").tolist() == [0, *range(3, 38)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"remainder": {"time": "shift"}}, "remainder is of 'time', along which centers say"),
        ({"remainder": "pad", "boundary": {"time": "edge"}}, "remainder is of 'time'"),
        ({"boundary": {"time": "wrap"}}, "on no circle"),
        ({"boundary": {"lat": "edge"}}, "names dim 'lat', which is not in input_dims"),
    ],
)
def test_edges_that_do_not_fit_events_are_refused(options, message):
    ds = world()

    with pytest.raises(ValueError, match=message):
        xtd.MapDataset(ds, {"time": 2}, centers={"time": ds.time.values[:3]}, **options)


@pytest.mark.parametrize("shuffle", [False, True])
def test_other_sources_follow_the_windows_around_the_circle(shuffle):
    ds = world(time=8, lat=6, lon=12, begin=-180.0)
    turned = ds.rename(a="b").isel(lon=[*range(5, 12), *range(5)]) * 2
    coarse = xr.Dataset(
        {"c": ("lon", np.arange(6, dtype="f4"))}, {"lon": -165.0 + 60 * np.arange(6)}
    )
    rng = np.random.default_rng(0)
    centers = {
        "time": rng.choice(ds.time.values, 30),
        "lon": rng.uniform(-180, 180, 30),
        "wind": np.where(np.arange(30) % 3, rng.random(30), np.nan),
    }
    samples = xtd.MapDataset(
        {
            "first": ds.chunk(time=3, lon=5),
            "turned": turned.chunk(time=2, lon=4),
            "coarse": xtd.Source(coarse, lon=xtd.Within()),
        },
        {"time": 2, "lon": 4},
        centers=centers,
        anchor={"time": 0},
        boundary={"lon": "wrap", "time": "edge"},
        parts={
            "x": "a",
            "y": "turned/b",
            "c": "coarse/c",
            "wind": "centers/wind",
            "known": xtd.NotNull("turned/b"),
        },
        where=[xtd.NotNull("turned/b", min=0.5), xtd.NotNull("centers/wind")],
    )
    padded, expected = far(ds, {"lon": "wrap", "time": "edge"}), {}
    first = ds.lon.values[0] - 15
    for event, lat in itertools.product(range(30), range(6)):
        step = int(np.flatnonzero(ds.time.values == centers["time"][event])[0])
        column = int((centers["lon"][event] - first) % 360 // 30)
        window = {
            "time": slice(step + FAR, step + FAR + 2),
            "lon": slice(column - 2 + FAR, column + 2 + FAR),
            "lat": lat,
        }
        # Another source has the same labels there, and what is at these is no less present.
        there = padded.a.isel(window).notnull().values
        if there.mean() >= 0.5 and event % 3:
            expected[6 * event + lat] = event, window, there
    assert len(samples) == len(expected)

    stream = xtd.IterableDataset(samples, batch_size=4, shuffle=shuffle, memory="20 KiB")
    numbers = []
    for batch in (*stream, samples.fetch(range(len(samples)))):
        for row, number in enumerate(batch.index.tolist()):
            event, window, there = expected[number]
            a = padded.a.isel(window)
            np.testing.assert_array_equal(batch.x[row], a)
            np.testing.assert_array_equal(batch.y[row], a * 2)
            np.testing.assert_array_equal(batch["known"][row], there)
            assert batch["wind"][row] == np.float32(centers["wind"][event])
        numbers += batch.index.tolist()
    assert sorted(numbers) == sorted([*expected, *expected])
    assert stream.explain().samples == len(samples)
    assert "12" in samples._repr_html_()


def test_no_event_falls_through_the_seam_of_a_circle():
    lon = np.arange(0, 360, 0.1).astype("f4")
    ds = xr.Dataset({"a": ("lon", lon)}, {"lon": lon})
    # Around the edge half-way between the last label and the first one.
    events = 359.95 + np.concatenate([np.linspace(-1e-5, 1e-5, 41), np.linspace(-0.2, 0.2, 81)])

    samples = xtd.MapDataset(
        ds, {"lon": 1}, centers={"lon": events}, boundary={"lon": "wrap"}, inputs="a"
    )

    assert len(samples) == len(events)
    own = samples.fetch(range(len(events))).x[:, 0].numpy()
    away = (own - events + 180) % 360 - 180
    assert np.abs(away).max() < 0.0502


def test_statistics_of_other_sources_count_each_place_around_events_once():
    rng = np.random.default_rng(0)
    times = xr.date_range("2000-01-01", periods=12)
    ds = xr.Dataset({"a": ("time", rng.normal(size=12))}, {"time": times})
    days = xr.Dataset(
        {"b": ("day", rng.normal(size=30))}, {"day": xr.date_range("1999-12-20", periods=30)}
    )
    samples = xtd.MapDataset(
        {"a": ds, "days": xtd.Source(days, day=xtd.AsOf(2, latency="1D"))},
        {"time": 3},
        centers={"time": times[[0, 5, 5, 11]]},
        boundary={"time": "constant"},
        parts={"x": "a", "y": "days/b"},
    )

    found = xtd.Normalize.fit(samples)

    windows = np.pad(ds.a.values, 1, constant_values=np.nan)[np.add.outer([0, 5, 5, 11], range(3))]
    places = [12 + event - 1 - back for event in (0, 5, 11) for back in (0, 1)]
    assert float(found.mean["a"]) == pytest.approx(np.nanmean(windows), rel=1e-6)
    assert sorted({float(v) for n in range(4) for v in samples[n][1]}) == pytest.approx(
        sorted(days.b.values[places]), rel=1e-6
    )
    assert float(found.mean["days/b"]) == pytest.approx(days.b.values[places].mean(), rel=1e-6)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("shuffle", [False, True])
def test_what_is_made_up_is_not_present_where_blocks_are_filled(boundary, shuffle):
    ds = world(time=8, lat=6, lon=12)
    rng = np.random.default_rng(0)
    steps = {"time": rng.integers(0, 8, 40), "lat": rng.integers(0, 6, 40)}
    steps["lon"] = rng.integers(0, 12, 40)
    samples = xtd.MapDataset(
        stored(ds, {"time": 3, "lat": 4, "lon": 5}),
        {"time": 1, "lat": 3, "lon": 5},
        centers=events_at(ds, steps, dict.fromkeys(steps, [0.0] * 40)),
        boundary={"lat": "edge", "lon": boundary},
        parts={"x": "a", "mask": xtd.NotNull("a")},
        preprocess=lambda block: block.fillna(7.0),
    )
    there = ds["a"].notnull().pad(lat=FAR, constant_values=False)
    how = {"mode": "wrap"} if boundary == "wrap" else {"constant_values": False}
    there = there.pad(lon=FAR, **how).values
    padded = far(ds, {"lat": "edge", "lon": boundary}).a.fillna(7.0).values

    assert len(samples) == 40
    stream = xtd.IterableDataset(samples, batch_size=4, shuffle=shuffle, memory="8 KiB")
    for batch in (*stream, samples.fetch(range(40))):
        for x, mask, number in zip(batch.x, batch["mask"], batch.index.tolist(), strict=True):
            time, lat, lon = (int(steps[dim][number]) for dim in DIMS)
            lats, lons = FAR + lat - 1, FAR + lon - 2
            cut = slice(time, time + 1), slice(lats, lats + 3), slice(lons, lons + 5)
            np.testing.assert_array_equal(mask, there[cut])
            np.testing.assert_array_equal(x, padded[cut])
