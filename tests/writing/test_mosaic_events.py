"""Predictions around events laid into one Dataset, against plain loops over the events."""

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import tiny_memory_allowed
from hypothesis import given
from hypothesis import strategies as st
from mosaic_data import MODES, laid, series, world
from strategies import examples

import xtorch_data as xtd

# Events at the ends of the data have no windows without a boundary.
pytestmark = pytest.mark.filterwarnings("ignore:.* of centers are left out:UserWarning")

DIMS = ("time", "lat", "lon")


@st.composite
def cases(draw):
    """Data, events at some of its steps, and arguments of a dataset and of a mosaic of these."""
    order = draw(st.permutations([*DIMS, "level"]))
    sizes = {dim: draw(st.integers(2, 7)) for dim in order}
    sizes["level"] = draw(st.integers(1, 2))
    centered = draw(st.permutations(DIMS))[: draw(st.integers(1, 3))]
    count = draw(st.integers(1, 8))
    events = {
        dim: draw(st.lists(st.integers(0, sizes[dim] - 1), min_size=count, max_size=count))
        for dim in centered
    }
    dims, overlap, boundary, halo, anchor, select = {}, {}, {}, {}, {}, {}
    for dim in draw(st.permutations([*DIMS])):
        if dim not in centered and draw(st.booleans()):
            continue
        dims[dim] = draw(st.integers(1, min(4, sizes[dim])))
        if dim in centered:
            modes = [None, "wrap", "wrap"] if dim == "lon" else [None, *MODES[1:]]
            if (mode := draw(st.sampled_from(modes))) is not None:
                boundary[dim] = mode
            halo[dim] = draw(st.tuples(st.integers(0, 1), st.integers(0, 1)))
        else:
            overlap[dim] = draw(st.integers(0, dims[dim] - 1))
        before, after = halo.get(dim, (0, 0))
        whole = before + dims[dim] + after
        anchor[dim] = draw(st.integers(0, whole - 1))
        steps = draw(st.sets(st.integers(before, before + dims[dim] - 1), min_size=1))
        one = draw(st.sampled_from([True, False, False]))
        select[dim] = min(steps) if one else sorted(steps)
    return {
        "sizes": sizes,
        "events": events,
        "options": {
            "input_dims": dims,
            "input_overlap": overlap,
            "boundary": boundary,
            "halo": {dim: each for dim, each in halo.items() if any(each)},
            "anchor": anchor,
        },
        "select": select,
        "blend": draw(st.sampled_from([None, "mean", "hann", "hann"])),
        "kept": draw(st.sampled_from([1.0, 1.0, 0.7])),
        "batch": draw(st.integers(1, 5)),
        "seed": draw(st.integers(0, 99)),
    }


class Truth:
    """Where the targets of each sample lie: by dim, the place of each step, or -1."""

    def __init__(self, case):
        sizes, options = case["sizes"], case["options"]
        windowed, halo = options["input_dims"], options["halo"]
        self.sizes, self.case = sizes, case
        self.inside = []  # events that have a window
        begins = {}
        for dim, steps in case["events"].items():
            begins[dim] = np.array(steps) - options["anchor"][dim]
        for event in range(len(next(iter(begins.values())))):
            if all(
                dim in options["boundary"]
                or 0 <= begins[dim][event] <= sizes[dim] - windowed[dim] - sum(halo.get(dim, (0,)))
                for dim in begins
            ):
                self.inside.append(event)
        self.axes = {"event": self.inside}
        rest = [dim for dim in sizes if dim not in windowed]
        for dim in [*rest, *(dim for dim in windowed if dim not in begins)]:
            size = windowed.get(dim, 1)
            stride = size - options["input_overlap"].get(dim, 0)
            self.axes[dim] = range(0, sizes[dim] - size + 1, stride)
        self.begins = begins

    @property
    def shape(self):
        return tuple(len(each) for each in self.axes.values())

    def steps(self, dim):
        return np.atleast_1d(self.case["select"].get(dim, 0))

    def places(self, numbers, dim):
        if dim in self.begins:
            begin = self.begins[dim][self.inside[numbers[0]]]
        else:
            at = list(self.axes).index(dim)
            begin = self.axes[dim][numbers[at]]
        found = begin + self.steps(dim)
        if self.case["options"]["boundary"].get(dim) == "wrap":
            return found % self.sizes[dim]
        return np.where((found >= 0) & (found < self.sizes[dim]), found, -1)

    def weight(self, dim):
        size = len(self.steps(dim))
        if self.case["blend"] != "hann":
            return np.ones(size)
        return np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2


def expected(truth, values, samples):
    """Sums and weights over the data, and how many samples predict each place."""
    shape = tuple(truth.sizes.values())
    total, weights, times = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=int)
    for sample in samples:
        numbers = np.unravel_index(sample, truth.shape)
        along = [truth.places(numbers, dim) for dim in truth.sizes]
        weight = np.ones(())
        for dim in truth.sizes:
            weight = np.multiply.outer(weight, truth.weight(dim))
        for where in itertools.product(*(range(len(at)) for at in along)):
            key = tuple(at[step] for at, step in zip(along, where, strict=True))
            if min(key) >= 0:
                total[key] += weight[where] * values[sample][where]
                weights[key] += weight[where]
                times[key] += 1
    with np.errstate(invalid="ignore"):
        return total / weights, times


def made(case):
    """The dataset of a case, where its samples lie, which of them there are, and predictions."""
    ds, rng = world(case["sizes"]), np.random.default_rng(case["seed"])
    truth = Truth(case)
    if not truth.inside or 0 in truth.shape:
        return None
    centers = {dim: ds[dim].values[steps] for dim, steps in case["events"].items()}
    dataset = xtd.MapDataset(
        ds, **case["options"], centers=centers, inputs="a",
        targets=xtd.Select("a", case["select"]), breaks="ignore",
    )  # fmt: skip
    wanted = rng.random(truth.shape).ravel() < case["kept"]
    wanted[rng.integers(len(wanted))] = True
    if case["kept"] < 1:
        dataset = dataset.replace(where=wanted)
    samples = rng.permutation(np.flatnonzero(wanted))
    shape = [len(truth.steps(dim)) for dim in case["sizes"]]
    values = rng.normal(size=(len(wanted), *shape)).astype("float32")
    return dataset, truth, samples, values


def added(case, mosaic, dataset, samples, values):
    """Add predictions of some samples, in batches of any order."""
    positions = np.arange(len(values))
    if dataset.where is not None:
        positions = np.cumsum(dataset.where.values.ravel()) - 1
    kept = [dim for dim in case["options"]["input_dims"] if np.ndim(case["select"][dim])]
    order = list(case["sizes"])
    inside = sorted(kept, key=order.index)
    for start in range(0, len(samples), case["batch"]):
        numbers = samples[start : start + case["batch"]]
        y = values[numbers]
        dropped = tuple(1 + at for at, dim in enumerate(order) if dim not in kept)
        y = y.squeeze(dropped).transpose(0, *(1 + inside.index(dim) for dim in kept))
        mosaic.add(dataset.fetch(positions[numbers]), torch.from_numpy(y.copy()))


def hull(truth, samples):
    """The steps that targets of samples reach over along each dim."""
    found = []
    for dim in truth.sizes:
        at = [truth.places(np.unravel_index(sample, truth.shape), dim) for sample in samples]
        every = np.concatenate(at)
        every = every[every >= 0]
        found.append(slice(every.min(), every.max() + 1))
    return tuple(found)


@given(case=cases(), data=st.data())
@examples(30, thorough=300)
def test_a_mosaic_is_what_a_loop_over_events_adds_up(case, data):
    found = made(case)
    if found is None:
        return
    dataset, truth, samples, values = found
    mean, times = expected(truth, values, samples)
    if not times.any():
        return
    if case["blend"] is None and times.max() > 1:
        with pytest.raises(ValueError, match="samples overlap"):
            xtd.Mosaic(dataset)
        return
    blend = case["blend"]
    if blend is None and case["kept"] < 1:  # events may overlap where samples of them do not
        blend = "mean"
    with xtd.Mosaic(dataset, blend=blend) as mosaic:
        added(case, mosaic, dataset, samples, values)
    result = mosaic.to_xarray()
    inside = hull(truth, samples)
    np.testing.assert_allclose(result["a"].values, mean[inside], rtol=1e-4, atol=1e-5)
    ds = world(case["sizes"]).isel(dict(zip(case["sizes"], inside, strict=True)))
    assert result["a"].dims == tuple(case["sizes"]) and result["a"].attrs == {"units": "K"}
    xr.testing.assert_identical(result.coords.to_dataset(), ds.coords.to_dataset())

    # The same, chunk by chunk.
    chunks = tuple(data.draw(st.integers(1, size)) for size in result["a"].shape)
    with tiny_memory_allowed():
        small = dataset.replace(memory=data.draw(st.sampled_from([256, 2000, "1 MiB"])))
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/field.zarr"
        encoding = {"a": {"chunks": chunks}}
        with xtd.Mosaic(small, path, blend=blend, encoding=encoding) as mosaic:
            added(case, mosaic, small, samples, values)
        stored = mosaic.to_xarray().load()
        xr.testing.assert_allclose(stored, result)
        written = np.isfinite(result["a"].values)
        touched = {
            tuple(at // size for at, size in zip(place, chunks, strict=True))
            for place in np.argwhere(written).tolist()
        }
        files = Path(path, "a", "c").glob("/".join("*" * len(chunks)))
        assert {tuple(map(int, file.parts[-len(chunks) :])) for file in files} == touched


def events_in(ds):
    return {
        "time": ds.time.values[[2, 9, 3]],
        "lat": ds.lat.values[[1, 4, 2]],
        "lon": ds.lon.values[[1, 4, 2]],
    }


def around(ds, **options):
    """Samples around three events, of which two overlap, at each level."""
    given = {"inputs": "a", "targets": "a", "centers": events_in(ds), "breaks": "ignore"}
    given |= options
    return xtd.MapDataset(ds, {"time": 3, "lat": 3, "lon": 3}, **given)


SIZES = {"time": 12, "level": 2, "lat": 6, "lon": 6}


def test_an_error_names_events_that_overlap_and_the_dims():
    ds = world(SIZES)
    events = {"event": ["Ana", "Bo", "Cyd"], **events_in(ds)}
    centers = xr.Dataset({name: ("event", each) for name, each in events.items()})
    dataset = around(ds, centers=centers)
    message = r"'event' Ana and Cyd predict the same steps of \['time', 'lat', 'lon'\]"
    with pytest.raises(ValueError, match=message):
        xtd.Mosaic(dataset)
    xtd.Mosaic(around(ds, centers=centers.isel(event=[0, 1])))
    with pytest.raises(ValueError, match=r"windows lie along \['time', 'lat', 'lon'\] together"):
        xtd.Mosaic(dataset, keep="time")


def test_events_that_are_the_same_are_blended():
    ds = world(SIZES)
    events = {name: np.repeat(each, 2) for name, each in events_in(ds).items()}
    twice = around(ds, centers=events)
    values = np.arange(float(len(twice)), dtype="float32")
    with xtd.Mosaic(twice, blend="mean") as mosaic:
        batch = twice.fetch(range(len(twice)))
        ones = torch.ones_like(batch.y)
        mosaic.add(batch, ones * torch.from_numpy(values).reshape(-1, 1, 1, 1))
    # Events come first, then levels: the second of two events is two samples behind the first.
    result = mosaic.to_xarray()["a"].isel(time=slice(-3, None), lat=slice(-3, None))
    last = result.isel(lon=slice(-3, None)).mean(["time", "lat", "lon"])
    assert last.values.tolist() == [5.0, 6.0]


def test_of_a_part_of_a_split_only_its_events_are_laid():
    ds = world(SIZES)
    early, late = xtd.split(around(ds), "time", at=[str(ds.time.values[6])[:13]])
    assert (len(early), len(late)) == (4, 2)
    result = laid(late)
    inside = {"time": slice(8, 11), "lat": slice(3, 6), "lon": slice(3, 6)}
    xr.testing.assert_equal(result, ds.isel(inside))
    assert np.isnan(laid(early, blend="mean")["a"]).sum() == 2 * (4 * 4 * 4 - 27 - 27 + 8)


def test_along_one_dim_windows_around_events_are_kept_apart_event_by_event():
    ds = world(SIZES)
    steps = np.array([7, 2, 7, 4])
    dataset = xtd.MapDataset(
        ds, {"time": 3, "lat": -1, "lon": -1}, centers={"time": ds.time.values[steps]},
        anchor={"time": 0}, inputs=xtd.Select("a", time=0),
        targets=xtd.Select("a", time=slice(1, 3)),
    )  # fmt: skip
    result = laid(dataset, keep="time")
    assert result["a"].dims == ("init_time", "lead_time", "level", "lat", "lon")
    assert (result["init_time"].values == ds.time.values[steps]).all()
    assert (result["lead_time"].values == np.array([6, 12]) * np.timedelta64(1, "h")).all()
    expected = ds["a"].isel(time=xr.Variable(("init_time", "lead_time"), steps[:, None] + [1, 2]))
    np.testing.assert_array_equal(result["a"].values, expected.transpose(*result["a"].dims))
    with pytest.raises(ValueError, match="samples overlap along 'time': up to 2"):
        laid(dataset)


def test_values_that_events_have_are_laid_along_their_dim():
    ds = world({**SIZES, "level": 1})
    events = {**events_in(ds), "wind": np.arange(3.0)}
    dataset = around(ds.isel(level=0), centers=events, targets="centers/wind")
    result = laid(dataset)
    assert result["wind"].dims == ("event",) and result["wind"].values.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="those along 'level' predict the same steps of source"):
        laid(around(world(SIZES), centers=events, targets="centers/wind"))


def test_batches_around_other_events_are_refused():
    ds = world(SIZES)
    events = events_in(ds)
    mosaic = xtd.Mosaic(around(ds), blend="mean")
    moved = around(ds, centers={**events, "lat": ds.lat.values[[1, 4, 3]]}).fetch([0])
    with pytest.raises(ValueError, match="of another dataset than the mosaic"):
        mosaic.add(moved, moved.y)
    same = around(ds).fetch([0])
    mosaic.add(same, same.y)


def test_a_store_around_events_goes_on_and_not_for_other_events(tmp_path):
    ds = world(SIZES)
    dataset, path = around(ds), tmp_path / "field.zarr"
    options = {"blend": "hann", "encoding": {"a": {"chunks": (3, 2, 3, 3)}}}
    with pytest.raises(KeyboardInterrupt):
        with xtd.Mosaic(dataset, path, **options) as mosaic:
            batch = dataset.fetch([2, 3])  # the event that overlaps with no other
            mosaic.add(batch, batch.y)
            raise KeyboardInterrupt
    events = events_in(ds)
    other = around(ds, centers={**events, "time": ds.time.values[[2, 9, 4]]})
    with pytest.raises(FileExistsError, match="samples differ"):
        xtd.Mosaic(other, path, mode="a", **options)
    with xtd.Mosaic(dataset, path, mode="a", **options) as mosaic:
        wanted = [bool(mosaic.wanted(dataset.fetch([number]))[0]) for number in range(6)]
        assert wanted == [True, True, False, False, True, True]
        batch = dataset.fetch([0, 1, 4, 5])
        mosaic.add(batch, batch.y)
    result = mosaic.to_xarray().load()
    xr.testing.assert_allclose(result, laid(dataset, blend="hann"))


def test_a_forecast_archive_that_follows_the_samples_is_laid_by_init_and_lead():
    ds = series(20)
    inits = ds.time.values[::2]
    leads = np.arange(0, 36, 6) * np.timedelta64(1, "h")
    values = np.arange(60.0, dtype="float32").reshape(10, 6)
    gfs = xr.Dataset(
        {"b": (("init_time", "lead_time"), values)}, {"init_time": inits, "lead_time": leads}
    )
    rules = {"init_time": xtd.AsOf(1, latency="0h"), "lead_time": xtd.ValidTime("6h", "12h")}
    dataset = xtd.MapDataset(
        {"era5": ds, "gfs": xtd.Source(gfs, **rules)}, {"time": 1}, inputs="a", targets="gfs/b"
    )
    result = laid(dataset)
    # Each init is the newest one of two steps, which take the leads of 6 and of 12 hours.
    xr.testing.assert_equal(result, gfs.isel(lead_time=slice(1, 3)))


@pytest.mark.parametrize("of", ["alone", "first", "other"])
def test_predictions_around_events_come_back_to_units(of):
    ds = world({**SIZES, "level": 1}).isel(level=0, drop=True)
    data = ds if of == "alone" else {"era5": ds, "sst": xtd.Source(ds.rename(a="b"))}
    targets = "sst/b" if of == "other" else "a"
    dataset = xtd.MapDataset(
        data, {"time": 3, "lat": 3, "lon": 3}, centers=events_in(ds), inputs="a",
        targets=targets, breaks="ignore",
    )  # fmt: skip
    normalize = xtd.Normalize.fit(dataset)
    normalized = dataset.replace(preprocess=normalize)
    result = laid(normalized, blend="hann", inverse=normalize)[targets[-1]]
    assert result.attrs["units"] == "K" and int(result.notnull().sum()) == 27 + 27 + 27 - 8
    expected = ds["a"].sel(time=result["time"], lat=result["lat"], lon=result["lon"])
    np.testing.assert_allclose(result, expected.where(result.notnull()), rtol=1e-4, atol=1e-5)


def test_targets_that_all_lie_beyond_the_data_are_an_error():
    ds = series(8)
    dataset = xtd.MapDataset(
        ds, {"time": 4}, centers={"time": ds.time.values[[7]]}, anchor={"time": 0},
        boundary={"time": "edge"}, inputs="a", targets=xtd.Select("a", time=slice(2, 4)),
    )  # fmt: skip
    with pytest.raises(ValueError, match="part 'y' has no step in the data along 'time'"):
        xtd.Mosaic(dataset)
