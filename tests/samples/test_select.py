"""Lists of steps in `Select`, on every way that samples are made, compared with plain isel."""

import itertools
from unittest import mock

import numpy as np
import pytest
import torch
import torch.utils.data
import xarray as xr
import xbatcher
from failures_data import fields
from helpers import assert_once, forecast, samples_of, twice_plus_one
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd
from xtorch_data.gathering import views

SIZES = {"time": 14, "y": 5, "x": 6}
DIMS = ("time", "y", "x")


@pytest.fixture(scope="module")
def ds():
    """Variables that lack dims, and a coordinate along two."""
    found = forecast(**SIZES)
    return found.assign(
        series=("time", np.arange(14.0)),
        mask=(("x", "y"), np.arange(30, dtype="int16").reshape(6, 5)),
    ).assign_coords(area=(("y", "x"), np.arange(30.0).reshape(5, 6)))


@st.composite
def lists(draw, size):
    """Some steps of a window, each once, as any of what holds integers."""
    steps = draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=size, unique=True))
    if draw(st.booleans()):
        steps.sort()
    steps = [step - size * draw(st.booleans()) for step in steps]
    kind = draw(st.sampled_from(["list", "tuple", "int64", "int8", "range"]))
    if kind == "range":
        return range(min(steps) % size, size, len(steps))
    if kind in ("int64", "int8"):
        return np.array(steps, dtype=kind)
    return tuple(steps) if kind == "tuple" else steps


@st.composite
def selections(draw):
    """Windows, and by part variables with what is taken of a window: a list along most dims."""
    dims = draw(st.permutations(DIMS))[: draw(st.integers(1, 3))]
    input_dims = {dim: draw(st.integers(1, SIZES[dim])) for dim in dims}
    overlap = {dim: draw(st.integers(0, size - 1)) for dim, size in input_dims.items()}
    parts = {}
    for part in ("x", "y", "other")[: draw(st.integers(1, 3))]:
        names = draw(st.sampled_from(["a", ["b"], ["a", "b"], ["a", "series", "mask"]]))
        cuts = {}
        for dim, size in input_dims.items():
            kind = draw(st.sampled_from(["list", "list", "integer", "slice", "all"]))
            if kind == "list":
                cuts[dim] = draw(lists(size))
            elif kind == "integer":
                cuts[dim] = draw(st.integers(-size, size - 1))
            elif kind == "slice":
                cuts[dim] = slice(None, None, draw(st.sampled_from([1, 2, -1])))
        parts[part] = (names, cuts)
    return input_dims, overlap, parts


def as_isel(cuts):
    """The same for isel, to which a tuple means something else."""
    return {dim: list(cut) if isinstance(cut, tuple | range) else cut for dim, cut in cuts.items()}


def cut(ds, name, window, input_dims, cuts):
    """A variable of one sample, by isel alone, over the dims that are left in their order."""
    found = ds[name].isel(window, missing_dims="ignore")
    found = found.expand_dims({dim: n for dim, n in input_dims.items() if dim not in found.dims})
    return found.transpose(*input_dims).isel(as_isel(cuts))


def check(batch, ds, windows, input_dims, parts):
    """Values and labels of a batch are those of isel."""
    assert list(batch.keys()) == list(parts)
    for part, (names, cuts) in parts.items():
        listed = [names] if isinstance(names, str) else names
        labels = batch.to_xarray(part)
        for place, number in enumerate(batch.index.tolist()):
            wanted = [cut(ds, name, windows[number], input_dims, cuts) for name in listed]
            values = np.stack([each.values for each in wanted])
            found = batch[part][place].numpy()
            np.testing.assert_array_equal(found, values[0] if isinstance(names, str) else values)
            for name, each in zip(listed, wanted, strict=True):
                assert labels[name].dims == ("sample", *each.dims)
                np.testing.assert_array_equal(labels[name][place], each)
            coords = ds["a"].isel(windows[number]).isel(as_isel(cuts)).coords
            assert {*labels.coords} - {"lead_time"} == {*coords, "sample"}  # leads: test_leads
            for name, coord in coords.items():
                mine = labels[name]
                mine = mine.isel(sample=place) if "sample" in mine.dims else mine
                np.testing.assert_array_equal(mine.transpose(*coord.dims), coord)


def made(parts):
    return {part: xtd.Select(names, cuts) for part, (names, cuts) in parts.items()}


@examples(5, 800)
@given(selections(), st.booleans(), st.sampled_from(["1 GiB", "3 kB"]), st.booleans())
def test_lists_are_isel_inside_the_window(ds, selection, shuffle, memory, small):
    input_dims, overlap, parts = selection
    with mock.patch.object(views, "SMALL_WINDOW_BYTES", 4096 if small else 0):
        dataset = xtd.IterableDataset(
            ds.chunk(time=4, x=4),
            input_dims,
            overlap,
            parts=made(parts),
            batch_size=7,
            shuffle=shuffle,
            memory=memory,
        )
        batches = list(dataset)
    for batch in batches[:: max(1, len(batches) // 3)]:
        check(batch, ds, dataset.windows, input_dims, parts)
    assert_once(samples_of(batches), len(dataset.windows))


@examples(6, 600)
@given(selections(), st.sampled_from(["by number", "transform", "batch", "device"]))
def test_so_they_are_on_every_way(ds, selection, way):
    input_dims, overlap, parts = selection
    options = {"parts": made(parts)}
    if way == "transform":
        options["transform"] = dict.fromkeys(parts, lambda part: 2 * part + 1)
    samples = xtd.MapDataset(ds, input_dims, overlap, **options)
    if way == "by number":
        batches = [samples.fetch(range(len(samples))[:: -max(1, len(samples) // 9)])]
        assert torch.equal(samples[-1][0], samples.fetch([-1])[next(iter(parts))][0])
    elif way == "device":
        batches = xtd.DataLoader(samples, batch_size=9, device="cpu", gather="device")
    else:
        function = {"batch_transform": twice_plus_one} if way == "batch" else {}
        batches = xtd.IterableDataset(samples, batch_size=4, **function)
    expected = ds if way in ("by number", "device") else twice_plus_one(ds)
    for batch in itertools.islice(batches, 3):
        check(batch, expected, samples.windows, input_dims, parts)


@pytest.mark.parametrize("memory", ["1 GiB", "300 kB"])
def test_large_windows_of_a_list_need_no_joined_copy(memory):
    """Each run of neighboring steps is copied from where it was read."""
    big = forecast(time=40, y=32, x=48, names=("a",))
    steps = [0, 1, 5, 9]
    dataset = xtd.IterableDataset(
        big.chunk(time=7),
        {"time": 10, "y": -1, "x": -1},
        {"time": 9},
        inputs=xtd.Select("a", time=steps),
        batch_size=4,
        memory=memory,
    )
    for batch in dataset:
        for place, number in enumerate(batch.index.tolist()):
            wanted = big["a"].isel(dataset.windows[number]).isel(time=steps)
            np.testing.assert_array_equal(batch.x[place], wanted)
    paths = dataset.stats().paths
    assert ("windows split" in paths) == (memory == "300 kB")
    windows = sum(count for path, count in paths.items() if path.startswith("windows"))
    assert windows == len(dataset.windows)  # each counts once


def test_evenly_spaced_steps_are_a_slice():
    ds = forecast(time=12)
    for steps in ([0, 2, 4], [5], [4, 3, 2, 1, 0], range(6), [-1, -3]):
        samples = xtd.MapDataset(ds, {"time": 6}, inputs=xtd.Select("a", time=steps))
        (part,) = samples._inside.definition.parts
        assert isinstance(part.indexers["time"], slice)
        wanted = ds["a"].isel(time=slice(0, 6), y=0, x=0).isel(time=list(steps))
        np.testing.assert_array_equal(samples[0][0], wanted)


def test_dtypes_and_single_samples_are_as_for_slices():
    ds = forecast(time=20, dtype="f8")
    ds["b"] = ds["b"].astype("int16")
    parts = {"x": xtd.Select("a", time=[0, 1, 7]), "y": xtd.Select(["b"], time=[7, 2, 3])}
    dataset = xtd.IterableDataset(
        ds, {"time": 8, "x": -1}, parts=parts, batch_size=None, dtype=torch.bfloat16
    )
    for sample in dataset:
        assert sample.x.dtype == torch.bfloat16 and sample.y.dtype == torch.int16
        assert sample.x.shape == (3, 5) and sample.y.shape == (1, 3, 5)
        window = ds.isel(dataset.windows[int(sample.index)])
        x = torch.from_numpy(window["a"].isel(time=[0, 1, 7]).values).float().bfloat16()
        assert torch.equal(sample.x, x)
        np.testing.assert_array_equal(sample.y[0], window["b"].isel(time=[7, 2, 3]))


def test_parts_of_the_same_steps_share_a_dim_and_others_do_not():
    ds = forecast(time=20)
    parts = {"x": xtd.Select("a", time=[0, 3, 7]), "y": xtd.Select("b", time=[0, 3, 7])}
    samples = xtd.MapDataset(ds, {"time": 8}, parts=parts)
    assert samples.fetch([0, 1]).to_xarray()["b"].dims == ("sample", "time")
    parts["y"] = xtd.Select("b", time=[0, 3, 6])
    labels = samples.replace(parts=parts).fetch([0]).to_xarray()
    assert labels["a"].dims == ("sample", "time_x") and labels["b"].dims == ("sample", "time_y")
    np.testing.assert_array_equal(labels["time_x"][0], ds["time"][[0, 3, 7]])
    np.testing.assert_array_equal(labels["time_y"][0], ds["time"][[0, 3, 6]])


def test_explain_counts_the_bytes_of_the_steps_that_are_taken():
    ds = forecast(time=40)
    parts = {"x": xtd.Select(["a", "b"], time=[0, 3, 7]), "y": xtd.Select("a", time=[-1, 2, 4])}
    dataset = xtd.IterableDataset(ds, {"time": 8, "y": -1, "x": -1}, parts=parts, batch_size=3)
    batch = next(iter(dataset))
    assert batch.x.shape == (3, 2, 3, 4, 5) and batch.y.shape == (3, 3, 4, 5)
    assert dataset.explain().peak_memory.batches % (batch.x.nbytes + batch.y.nbytes + 24) == 0
    assert "x: ['a', 'b'] (2, 3, 4, 5), y: 'a' (3, 4, 5)" in repr(dataset)


def test_a_batch_of_listed_steps_is_drawn_where_they_lie():
    pytest.importorskip("matplotlib")
    ds = forecast(time=20)
    samples = xtd.MapDataset(ds, {"time": 9}, inputs=xtd.Select("a", time=[7, 0, 3]))
    (line,) = samples.fetch([1]).plot()[0, 0].lines
    sample = ds["a"].isel(samples.windows[1]).isel(time=[7, 0, 3])
    np.testing.assert_array_equal(line.get_ydata(), sample.astype("f4"))


@pytest.mark.parametrize(
    ("steps", "error", "words"),
    [
        ([], ValueError, "takes no step of a window of 8"),
        ([0, 8], ValueError, "positions 0 to 7: there is no 8"),
        ([-9, 0], ValueError, "there is no -9"),
        ([0, 3, 3], ValueError, "takes step 3 of the window 2 times; each"),
        ([7, 0, -1], ValueError, "takes step 7 of the window 2 times"),
        ([0.0, 1.0], TypeError, "integers one after the other"),
        ([[0, 1], [2, 3]], TypeError, "integers one after the other"),
        (np.zeros((2, 2), int), TypeError, "integers one after the other"),
        (np.array([0.0, 3.0]), TypeError, "integers one after the other"),
        (["2020"], TypeError, "integers one after the other"),
        ([True, False] * 4, TypeError, "flatnonzero"),
        (np.ones(8, bool), TypeError, "flatnonzero"),
        ("0,3", TypeError, "an integer, a slice or a list of positions"),
        (np.array(3), TypeError, "'time=array|an integer, a slice or a list"),
        ({0, 3}, TypeError, "an integer, a slice or a list"),
        (xr.DataArray([0, 3], dims="time"), TypeError, "an integer, a slice or a list"),
    ],
    ids=str,
)
def test_what_are_no_steps_of_the_window_is_refused(steps, error, words):
    with pytest.raises(error, match=words) as raised:
        xtd.MapDataset(forecast(time=20), {"time": 8}, inputs=xtd.Select("a", time=steps))
    assert "part 'x'" in str(raised.value) and "time" in str(raised.value)


def test_items_of_a_generator_take_lists_unless_they_are_of_many_windows():
    ds = forecast(time=20)
    steps = xtd.Select("a", time=[0, 3, 7])
    generator = xbatcher.BatchGenerator(ds, {"time": 8}, {"time": 4})
    dataset = xtd.IterableDataset(generator, inputs=steps, batch_size=None)
    for sample, item in zip(dataset, generator, strict=True):
        wanted = item["a"].isel(time=[0, 3, 7])
        np.testing.assert_array_equal(sample.x, wanted)
        found = sample.to_xarray()["a"]
        assert found.dims == ("y", "x", "time")
        np.testing.assert_array_equal(found.to_numpy().reshape(wanted.shape), wanted)
        np.testing.assert_array_equal(found["time"], wanted["time"])
    many = xbatcher.BatchGenerator(ds, {"time": 8}, batch_dims={"time": 16}, concat_input_dims=True)
    with pytest.raises(ValueError, match="concat_input_dims"):
        xtd.IterableDataset(many, inputs=steps, batch_size=None)


@pytest.mark.parametrize("small", [True, False])
def test_a_sample_that_stands_in_for_a_batch_has_the_steps_of_the_list(tmp_path, small):
    ds = fields(tmp_path / "a.zarr", damaged=[(time, x) for time in (2, 3) for x in range(3)])
    steps = {"time": [4, 0, 3], "x": [0, 1, 7]}
    with mock.patch.object(views, "SMALL_WINDOW_BYTES", 4096 if small else 0):
        dataset = xtd.IterableDataset(
            xtd.open_zarr(tmp_path / "a.zarr", consolidated=False),
            {"time": 5, "x": -1},
            inputs=xtd.Select(["a", "b"], steps),
            targets=xtd.Select("b", time=[0, 1, 4]),
            on_error="skip",
        )
        batches = list(dataset)
    assert sum(bool(batch.skipped) for batch in batches) == 2
    for batch in batches:
        window = ds.isel(dataset.windows[int(batch.index)])
        np.testing.assert_array_equal(batch.x[0, 0], window["a"].isel(steps))
        np.testing.assert_array_equal(batch.x[0, 1], window["b"].isel(steps))
        np.testing.assert_array_equal(batch.y[0], window["b"].isel(time=[0, 1, 4]))


def test_a_tuple_of_steps_is_a_list_of_them(ds):
    for steps in [(0, 2), (1, 0)]:
        found, wanted = (
            xtd.MapDataset(ds, {"time": 3}, inputs=xtd.Select("a", time=each))
            for each in (steps, list(steps))
        )
        assert found[1][0].equal(wanted[1][0])
