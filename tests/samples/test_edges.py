"""What windows find beyond the ends of the data, against numpy's and xarray's own padding."""

import itertools
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import tiny_memory_allowed
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd

BOUNDARIES = ("wrap", "edge", "reflect", "constant")
STORAGES = ("memory", "big-endian", "dask", "zarr", "packed", "netcdf")
# Steps by which the data is padded for a truth in which no window reaches an end.
FAR = 24


def world(time=5, lat=6, lon=9, dtype="float32"):
    """Data around the earth, a variable of all dims and one of space alone."""
    rng = np.random.default_rng(time + lat + lon)
    values = rng.normal(size=(time, lat, lon)).astype(dtype)
    return xr.Dataset(
        {"a": (("time", "lat", "lon"), values), "m": (("lat", "lon"), values[0] * 2)},
        coords={
            "time": xr.date_range("2000-01-01", periods=time),
            "lat": np.linspace(80, -80, lat),
            "lon": np.arange(lon) * 360 / lon,
        },
    )


def stored(ds, storage, folder, chunks):
    """The data as a user has it, kept in some way."""
    chunks = {dim: min(size, ds.sizes[dim]) for dim, size in chunks.items()}
    if storage == "memory":
        return ds
    if storage == "big-endian":
        return ds.astype(">f4")
    if storage == "dask":
        return ds.chunk(chunks)
    sizes = {name: [chunks[dim] for dim in ds[name].dims] for name in ds.data_vars}
    if storage == "netcdf":
        encoding = {name: {"chunksizes": tuple(each)} for name, each in sizes.items()}
        ds.to_netcdf(folder / "a.nc", engine="h5netcdf", encoding=encoding)
        return xr.open_dataset(folder / "a.nc", engine="h5netcdf")
    packed = {"dtype": "i4", "scale_factor": 1e-4, "_FillValue": -(2**31)}
    encoding = {
        name: {"chunks": each, **(packed if storage == "packed" else {})}
        for name, each in sizes.items()
    }
    ds.to_zarr(folder / "a.zarr", encoding=encoding, consolidated=False)
    return xr.open_zarr(folder / "a.zarr", consolidated=False, chunks=None)


def far(ds, boundary):
    """The data with much beyond its ends, by xarray's own padding."""
    for dim, mode in boundary.items():
        ds = ds.pad({dim: FAR}, mode=mode)
    return ds


@st.composite
def cases(draw):
    sizes = {"time": draw(st.integers(1, 5)), "lat": draw(st.integers(2, 6))}
    sizes["lon"] = draw(st.integers(2, 9))
    boundary, halo, remainder, dims, overlap = {}, {}, {}, {}, {}
    for dim in draw(st.sampled_from([["lon"], ["lat", "lon"], ["lon", "time", "lat"]])):
        dims[dim] = draw(st.integers(1, sizes[dim]))
        overlap[dim] = draw(st.integers(0, dims[dim] - 1))
        modes = [mode for mode in BOUNDARIES if mode != "wrap" or dim == "lon"]
        if draw(st.integers(0, 3)):
            boundary[dim] = draw(st.sampled_from(modes))
        if draw(st.booleans()):
            halo[dim] = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        if draw(st.integers(0, 3)) == 0:
            remainder[dim] = draw(st.sampled_from(["drop", "shift"]))
    chunks = {dim: draw(st.integers(1, size)) for dim, size in sizes.items()}
    return sizes, dims, overlap, boundary, remainder, halo, chunks


def places(sizes, dims, overlap, boundary, remainder, halo):
    """Where windows begin along each dim and how long they are, one by one."""
    found = {}
    for dim, length in sizes.items():
        if dim not in dims:
            found[dim] = range(length), None
            continue
        size, stride = dims[dim], dims[dim] - overlap[dim]
        before, after = halo.get(dim, (0, 0))
        cores = list(range(0, length - size + 1, stride))
        rule = remainder.get(dim, "pad" if dim in boundary else "drop")
        if rule == "pad" and boundary[dim] == "wrap":
            cores = list(range(0, length, stride))
        elif rule != "drop" and cores[-1] + size < length:
            cores.append(cores[-1] + stride if rule == "pad" else length - size)
        if dim not in boundary:
            cores = [at for at in cores if at >= before and at + size + after <= length]
        found[dim] = [at - before for at in cores], size + before + after
    return found


@given(cases(), st.sampled_from(STORAGES), st.sampled_from([1, 700, "1 MiB"]), st.booleans())
@examples(13)
def test_windows_are_those_of_padded_data(case, storage, memory, shuffle):
    sizes, dims, overlap, boundary, remainder, halo, chunks = case
    found = places(sizes, dims, overlap, boundary, remainder, halo)
    ds = world(**sizes)
    options = {
        "input_dims": dims,
        "input_overlap": overlap,
        "boundary": boundary,
        "remainder": remainder,
        "halo": halo,
        "inputs": "a",
        "targets": "m",
    }
    with tempfile.TemporaryDirectory() as folder:
        kept = stored(ds, storage, Path(folder), chunks)[["a", "m"]]  # a store has any order
        ds = kept.astype("f4").compute()
        if not all(begins for begins, _ in found.values()):
            with pytest.raises(ValueError, match="there is no sample"):
                xtd.MapDataset(kept, **options)
            return
        samples = xtd.MapDataset(kept, **options)
        order = [dim for dim in sizes if dim not in dims] + list(dims)
        padded = far(ds, boundary)
        moved = {dim: FAR if dim in boundary else 0 for dim in sizes}
        windows = []
        for begins in itertools.product(*(found[dim][0] for dim in order)):
            cut = {}
            for dim, begin in zip(order, begins, strict=True):
                at, size = begin + moved[dim], found[dim][1]
                cut[dim] = at if size is None else slice(at, at + size)
            windows.append(cut)
        assert len(samples) == len(windows)

        def check(batch):
            labelled = batch.to_xarray()
            for row, number in enumerate(batch.index.tolist()):
                expected = padded.isel(windows[number])
                a, m = (expected[name].transpose(*dims, missing_dims="ignore") for name in "am")
                np.testing.assert_array_equal(batch.x[row], a)
                np.testing.assert_array_equal(batch.y[row], m.broadcast_like(a).transpose(*dims))
                own = labelled.isel(sample=row)
                for dim in sizes:
                    np.testing.assert_array_equal(own[dim], expected[dim])
                if "constant" not in boundary.values():
                    of_data = ds["a"].isel(samples.windows[number]).transpose(*dims)
                    np.testing.assert_array_equal(batch.x[row], of_data)
                xr.testing.assert_equal(
                    samples.windows.coords(number).to_dataset().drop_vars(set(sizes) - set(dims)),
                    expected.coords.to_dataset().drop_vars(set(sizes) - set(dims)),
                )

        with tiny_memory_allowed():
            stream = xtd.IterableDataset(samples, batch_size=4, shuffle=shuffle, memory=memory)
            numbers = []
            for batch in stream:
                check(batch)
                numbers += batch.index.tolist()
        assert sorted(numbers) == list(range(len(windows)))
        chosen = np.random.default_rng(0).permutation(len(windows))[:5].tolist()
        for batch in xtd.DataLoader(samples, batch_size=5, sampler=chosen):
            check(batch)


def test_the_issue_of_a_patch_across_the_date_line():
    ds = world(time=2, lat=4, lon=36)
    samples = xtd.MapDataset(
        ds,
        input_dims={"lat": 2, "lon": 8},
        input_overlap={"lon": 4},
        boundary={"lon": "wrap"},
        inputs="a",
    )
    last = samples.windows[8]
    np.testing.assert_array_equal(last["lon"], [32, 33, 34, 35, 0, 1, 2, 3])
    np.testing.assert_array_equal(samples[8][0], np.roll(ds["a"][0, :2], 4, axis=-1)[:, :8])
    labels = next(iter(xtd.DataLoader(samples, batch_size=9))).to_xarray()["lon"]
    assert labels[8].values.tolist() == [320, 330, 340, 350, 0, 10, 20, 30]
    assert repr(samples).startswith("<xtorch_data.MapDataset <36 samples (time: 2, lat: 2 × 2 of 4")


def test_a_stretch_before_a_break_ends_with_its_last_steps():
    days = xr.date_range("2000-01-01", periods=30).delete([11, 12, 13])
    ds = xr.Dataset({"a": ("time", np.arange(27.0))}, coords={"time": days})
    options = {"input_dims": {"time": 4}, "breaks": "split"}
    shifted = xtd.MapDataset(ds, remainder="shift", **options)
    # Steps 0 to 10 lie before the break, 11 to 26 behind it.
    begins = [shifted.windows[number]["time"].start for number in range(len(shifted))]
    assert begins == [0, 4, 7, 11, 15, 19, 23]
    padded = xtd.MapDataset(ds.isel(time=slice(0, 26)), boundary={"time": "edge"}, **options)
    last = padded.windows[len(padded) - 1]["time"]
    np.testing.assert_array_equal(last, [23, 24, 25, 25])
    begins = [np.r_[padded.windows[number]["time"]][0] for number in range(len(padded))]
    assert begins == [0, 4, 11, 15, 19, 23]  # nothing is made up at the break
    halo = xtd.MapDataset(ds, halo={"time": 2}, **options)
    begins = [halo.windows[number]["time"].start for number in range(len(halo))]
    assert begins == [2, 13, 17]  # windows begin at 4, and at 15 and 19, two steps later
    assert all(np.ptp(ds["time"].values[halo.windows[i]["time"]]) == np.timedelta64(7, "D")
               for i in range(len(halo)))  # fmt: skip


def test_steps_of_parts_and_anchors_count_from_the_halo():
    ds = world(time=6)
    samples = xtd.MapDataset(
        ds,
        input_dims={"time": 2, "lon": 3},
        halo={"time": (2, 1), "lon": 1},
        boundary={"lon": "wrap"},
        inputs=xtd.Select("a", time=slice(0, 4)),
        targets=xtd.Select("a", time=4, lon=slice(1, -1)),
    )
    x, y = samples[0]
    # Days 2 and 3, two before them and one behind.
    wrapped = ds["a"].pad(lon=1, mode="wrap").values
    np.testing.assert_array_equal(x, wrapped[0:4, 0, :5])
    np.testing.assert_array_equal(y, wrapped[4, 0, 1:4])


def test_user_data_stays_as_it_is():
    ds = world()
    before = ds.copy(deep=True)

    def spoil(block):
        block["a"].values[...] = -1
        return block

    for options in (
        {"boundary": {"lon": "wrap", "lat": "constant"}, "halo": {"lon": 1, "lat": 1}},
        {"boundary": {"lon": "wrap"}, "input_overlap": {"lon": 2}},
    ):
        samples = xtd.MapDataset(
            ds, input_dims={"lat": 3, "lon": 3}, preprocess=spoil, inputs="a", **options
        )
        assert all((samples[number][0] == -1).all() for number in range(len(samples)))
        with tiny_memory_allowed():  # blocks of which some lie wholly in the data
            for batch in xtd.IterableDataset(samples, memory=1):
                assert (batch.x == -1).all()
        xr.testing.assert_identical(ds, before)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("storage", ["memory", "zarr"])
def test_what_is_made_up_is_not_present(boundary, storage, tmp_path):
    ds = world(lon=12)
    ds["a"] = ds["a"].where(ds["a"] > -0.5)
    samples = xtd.MapDataset(
        stored(ds, storage, tmp_path, {"time": 2, "lat": 4, "lon": 5})[["a", "m"]],
        input_dims={"lat": 3, "lon": 4},
        boundary={"lat": "edge", "lon": boundary},
        halo={"lat": 1, "lon": 2},
        parts={"x": "a", "mask": xtd.NotNull("a")},
        preprocess=lambda block: block.fillna(0.0),
    )
    present = ds["a"].notnull().pad(lat=9, constant_values=False)
    how = {"mode": "wrap"} if boundary == "wrap" else {"constant_values": False}
    present = present.pad(lon=9, **how).values
    for stream in (xtd.IterableDataset(samples, batch_size=4), [samples.fetch(range(30))]):
        for batch in stream:
            for mask, number in zip(batch["mask"], batch.index.tolist(), strict=True):
                time, lat, lon = np.unravel_index(number, (5, 2, 3))
                y, x = 9 + 3 * lat - 1, 9 + 4 * lon - 2
                np.testing.assert_array_equal(mask, present[time, y : y + 5, x : x + 8])
    whole = samples.replace(where=xtd.NotNull("a", min=0.5))
    counted = [float(samples[number][1].float().mean()) >= 0.5 for number in range(30)]
    assert whole.fetch(range(len(whole))).index.tolist() == np.flatnonzero(counted).tolist()


def test_workers_and_copies_have_the_same_edges():
    samples = xtd.MapDataset(
        world(),
        input_dims={"lat": 3, "lon": 4},
        boundary={"lon": "wrap", "lat": "reflect"},
        halo={"lat": 2},
        inputs="a",
    )
    copied = pickle.loads(pickle.dumps(samples))
    for number in range(len(samples)):
        assert torch.equal(copied[number][0], samples[number][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boundary": {"lon": "round"}}, "must be one of"),
        ({"boundary": {"time": "wrap"}}, "on no circle"),
        ({"boundary": {"x": "wrap"}}, "not in input_dims"),
        ({"halo": {"lon": -1}}, "must not be negative"),
        ({"halo": {"lon": (1, 2, 3)}}, r"or \(before, behind\)"),
        ({"remainder": "pad"}, "nothing says what lies beyond"),
        ({"remainder": {"lat": "stretch"}}, "must be one of"),
        ({"halo": {"lat": 9}}, "no window along 'lat'"),
    ],
)
def test_edges_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        xtd.MapDataset(world(), input_dims={"time": 2, "lat": 3, "lon": 4}, **options)


@pytest.mark.parametrize("options", [{"boundary": "wrap"}, {"halo": {"lon": 1.5}}, {"halo": 3}])
def test_edges_of_another_kind_are_refused(options):
    with pytest.raises(TypeError, match="must be"):
        xtd.MapDataset(world(), input_dims={"lon": 4}, **options)


def test_labels_that_close_no_circle_are_refused():
    ds = world(lon=36)
    options = {"input_dims": {"lon": 4}, "boundary": {"lon": "wrap"}}
    with pytest.raises(ValueError, match="do not close the circle"):
        xtd.MapDataset(ds.isel(lon=slice(0, 30)), **options)
    twice = xr.concat([ds, ds.isel(lon=[0]).assign_coords(lon=[360.0])], "lon")
    with pytest.raises(ValueError, match=r"isel\(\{'lon': slice\(-1\)\}\) drops it"):
        xtd.MapDataset(twice, **options)
    with pytest.raises(ValueError, match="not evenly spaced"):
        xtd.MapDataset(ds.drop_isel(lon=[7]), **options)
    # In the other direction, from another meridian, in radians, or without labels.
    east = ds.assign_coords(lon=(ds["lon"] + 180) % 360 - 180)
    radians = ds.assign_coords(lon=("lon", np.deg2rad(ds["lon"].values), {"units": "radians"}))
    for circle in (ds.isel(lon=slice(None, None, -1)), east, radians, ds.drop_vars("lon")):
        assert len(xtd.MapDataset(circle, **options)) == 5 * 6 * 9


def test_whole_numbers_have_nothing_beyond_them():
    ds = world().astype("int32")
    with pytest.raises(ValueError, match="has none: make it floating"):
        xtd.MapDataset(ds, input_dims={"lat": 3}, boundary={"lat": "constant"}, halo={"lat": 1})
    times = xr.Dataset({"t": ("x", np.arange(4).astype("M8[s]"))})
    found = xtd.MapDataset(
        times,
        input_dims={"x": 2},
        boundary={"x": "constant"},
        halo={"x": 1},
        preprocess=lambda block: block.assign(t=block["t"].isnull()),
    )
    assert found[0][0].flatten().tolist() == [True, False, False, False]


def test_steps_that_are_in_no_window_are_told():
    samples = xtd.MapDataset(world(), input_dims={"lat": 4, "lon": 4})
    line = "in no window: 2 steps of 'lat', 1 step of 'lon'"
    assert line in repr(samples)
    assert line in str(xtd.verify(samples))
    assert "remainder='shift', or boundary" in repr(samples)
    assert line not in repr(samples.replace(remainder="shift"))
    wrapped = samples.replace(boundary={"lon": "wrap"}, remainder={"lat": "shift"})
    assert "in no window" not in repr(wrapped)
    # What is given is no advice.
    shifted = xtd.MapDataset(world(), {"lat": 2}, remainder="shift", halo={"lat": 1})
    assert "2 steps of 'lat'; boundary along these dims would cover" in repr(shifted)
    assert "shift" not in repr(shifted)
    moved = samples.replace(remainder={"lat": "drop", "lon": "shift"}, boundary={"lat": "edge"})
    assert "2 steps of 'lat'; remainder='shift' would cover" in repr(moved)
    assert xtd.IterableDataset(wrapped).explain().beyond == {"lat": 0, "lon": 0}


def test_latitudes_cannot_be_wrapped():
    ds = xr.Dataset({"a": ("lat", np.arange(4.0))}, {"lat": [0.0, 1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="latitudes are on no circle"):
        xtd.MapDataset(ds, {"lat": 2}, boundary={"lat": "wrap"})
    with pytest.raises(TypeError, match=r"such as \{'lat': 'edge'\}, not 'edge'"):
        xtd.MapDataset(ds, {"lat": 2}, boundary="edge")
