"""Functions that move values away from their labels, or look at neighbors: refused when made."""

import functools
import gc
import multiprocessing
import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch
import xarray as xr
from strategies import MORE

import xtorch_data as xtd
from xtorch_data.gathering import first_samples
from xtorch_data.samples import made_up, trials

DAILY = xr.date_range("2000-01-20", periods=60)
MASK = xr.DataArray(
    np.arange(48).reshape(6, 8) % 3 > 0,
    dims=("lat", "lon"),
    coords={"lat": np.linspace(50, -50, 6), "lon": np.arange(8) * 45.0},
)
CLIM = MASK.astype("f4") * 3


def fields(labels="dates", shape=(60, 6, 8)):
    rng = np.random.default_rng(0)
    dims = ("time", "lat", "lon")
    ds = xr.Dataset(
        {
            name: (dims, (280 + rng.normal(size=shape)).astype("f4"), {"units": "K"})
            for name in ("t", "u")
        }
    )
    times = {
        "dates": DAILY,
        "cftime": xr.date_range("2000-01-20", periods=60, calendar="noleap", use_cftime=True),
        "text": [f"step {number:02}" for number in range(60)],
    }
    if labels == "none":
        return ds
    lat = np.linspace(50, -50, shape[1])
    return ds.assign_coords(time=times[labels][: shape[0]], lat=lat, lon=np.arange(8) * 45.0)


def make(ds, kind=xtd.IterableDataset, **options):
    arguments = {"input_dims": {"time": 4, "lat": -1, "lon": 4}, "inputs": ["t"], "targets": "t"}
    return kind(ds, **{**arguments, **options})


def by_values(function):
    """The same on plain arrays of values, so that no label shows it."""

    def moved(given, *args, **kwargs):
        if isinstance(given, xr.DataArray):
            return given.copy(data=function(given, *args, **kwargs).transpose(*given.dims).values)
        return given.copy(
            data={
                n: function(v, *args, **kwargs).transpose(*v.dims).values for n, v in given.items()
            }
        )

    return moved


MOVES = {
    "turned": lambda given, dim: given.isel({dim: slice(None, None, -1)}),
    "rolled": lambda given, dim: given.roll({dim: 1}, roll_coords=True),
    "rolled without labels": lambda given, dim: given.roll({dim: -1}, roll_coords=False),
    "turned values": by_values(lambda given, dim: given.isel({dim: slice(None, None, -1)})),
    "rolled values": by_values(lambda given, dim: given.roll({dim: given.sizes[dim] // 2})),
    "normalized and turned": by_values(
        lambda given, dim: ((given - 280) / 3).where(given > 100).isel({dim: slice(None, None, -1)})
    ),
}
ARGUMENTS = "preprocess", "transform", "target_transform", "batch_transform"


@pytest.mark.parametrize(
    "argument, labels",
    [
        *zip(ARGUMENTS, ["dates", "cftime", "text", "dates"], strict=True),
        *((argument, "none") for argument in ARGUMENTS),
    ],
)
@pytest.mark.parametrize("move", MOVES)
def test_a_function_that_moves_values_is_refused(move, argument, labels):
    ds, dims = fields(labels), ("time", "lat", "lon")
    # Every move meets every dim, and so does every argument.
    place = list(MOVES).index(move) + ARGUMENTS.index(argument) + (labels == "none")
    for dim in dims if MORE > 1 else dims[place % 3 :][:1]:

        def function(given, dim=dim):
            return MOVES[move](given, dim)

        with pytest.raises(
            ValueError, match=f"^{argument} moves .*dim '{dim}'.*ds.sortby"
        ) as error:
            make(ds, **{argument: function})
        assert "before the dataset is made" in str(error.value)
    if argument == "preprocess":  # of which each place is a sample
        with pytest.raises(ValueError, match="^preprocess moves .*dim 'lat'"):
            make(ds, input_dims={"time": 4}, preprocess=lambda block: MOVES[move](block, "lat"))


@pytest.mark.parametrize("kind", [xtd.IterableDataset, xtd.MapDataset])
def test_sorted_labels_are_refused_wherever_the_order_shows(kind):
    ds = fields()
    with pytest.raises(ValueError, match="'lat'"):
        make(ds, kind, preprocess=lambda block: block.sortby("lat"))
    with pytest.raises(ValueError, match="'lon'"):
        make(
            ds,
            kind,
            preprocess=lambda block: block.assign_coords(
                lon=(block["lon"] + 180) % 360 - 180
            ).sortby("lon"),
        )
    order = np.r_[:2100, 2101, 2100, 2102:2200]  # beyond what is tried
    late = xr.Dataset({"t": ("time", order * 1.0)}, coords={"time": order})
    dataset = kind(
        late, {"time": 2}, preprocess=lambda block: block.sortby("time"), breaks="ignore"
    )
    with pytest.raises(ValueError, match="moves values .*'time'"):
        list(xtd.DataLoader(dataset, batch_size=50) if kind is xtd.MapDataset else dataset)
    with pytest.raises(ValueError, match="moves values .*'time'"):
        xtd.Normalize.fit(dataset)


def test_random_moves_are_refused_with_another_remedy():
    def mirror(sample, rng):
        return sample.isel(lon=slice(None, None, -1)) if rng.random() < 0.5 else sample

    def roll(sample, rng):
        return sample.roll(lon=int(rng.integers(4)))

    ways = [("dates", mirror), ("none", roll), ("none", by_values(mirror)), ("dates", roll)]
    for place, (labels, function) in enumerate(ways):

        def augment(given, rng, function=function):
            return function(given, rng=rng)

        for argument in ARGUMENTS if MORE > 1 else ARGUMENTS[place % 2 :: 2]:
            with pytest.raises(ValueError, match=f"{argument} moves .*'lon'.*flip"):
                make(fields(labels), **{argument: augment})
    composed = xtd.Compose([lambda sample: sample - 280, mirror])
    with pytest.raises(ValueError, match="transform moves"):
        make(fields(), transform=composed)


def test_samples_of_a_batch_keep_their_order():
    turn = by_values(lambda batch: batch.isel(sample=slice(None, None, -1)))
    with pytest.raises(ValueError, match="batch_transform moves .*'sample'.*order"):
        make(fields(), batch_transform=turn, batch_size=4)

    def mixed(batch, rng):
        return 0.7 * batch + 0.3 * batch.roll(sample=1, roll_coords=False)

    (x, _) = next(iter(make(fields(), batch_transform=mixed, batch_size=4)))
    assert x.shape == (4, 1, 4, 6, 4)


NEIGHBORS = {
    "shift": lambda block: block - block.shift(time=1),
    "lag of a year": lambda block: block - block.shift(time=365).fillna(0),
    "roll": lambda block: block + block.roll(time=3, roll_coords=False),
    "rolling": lambda block: block.rolling(time=3, min_periods=1).mean(),
    "diff": lambda block: block.assign(
        t=block["t"].diff("time").reindex_like(block, fill_value=0.0)
    ),
    "interpolate_na": lambda block: block.interpolate_na("time"),
    "fill with the mean": lambda block: block.fillna(block.mean("time")),
    "interp": lambda block: block.interp(
        time=block["time"] + np.timedelta64(1, "h"), kwargs={"fill_value": "extrapolate"}
    ).assign_coords(time=block["time"]),
    "anomaly": lambda block: block - block.mean("time"),
    "anomaly by month": lambda block: block.groupby("time.month").map(lambda m: m - m.mean("time")),
    "anomaly by day": lambda block: (
        block.groupby("time.dayofyear") - block.groupby("time.dayofyear").mean()
    ),
    "cumsum": lambda block: block.cumsum("time").assign_coords(time=block["time"]),
    "differentiate": lambda block: block.differentiate("time", datetime_unit="D"),
    "quantile": lambda block: block.clip(max=block.quantile(0.9, "time").drop_vars("quantile")),
    "scaled": lambda block: (block - block.min()) / (block.max() - block.min()),
    "numpy": lambda block: block.map(lambda each: each - each.values.mean(axis=0)),
    "a lag by name": lambda block: block.assign(
        lag=block["t"].shift(time=1), u=block["u"] - block["u"].roll(time=1, roll_coords=False)
    ),
}


@pytest.mark.parametrize("name", NEIGHBORS)
def test_a_preprocess_that_looks_at_other_steps_is_refused(name):
    shape = (400, 2, 8) if "day" in name or "year" in name else (60, 6, 8)
    ds = fields("none", shape).assign_coords(time=xr.date_range("2000-01-20", periods=shape[0]))
    every = [{}, {"input_dims": {"time": 4}}, {"input_dims": {"lat": -1, "lon": 2}}]
    if MORE == 1:  # each with some of the functions
        every = every[list(NEIGHBORS).index(name) % 3 :][:1]
    for options in () if "day" in name else every:
        with pytest.raises(
            ValueError, match="dim '(time|lat|lon)'.*memory.*before the dataset.*transform"
        ):
            make(ds, inputs=["t", "u"], preprocess=NEIGHBORS[name], **options)
    series, kind = ds.isel(lat=0, lon=0), xtd.MapDataset
    with pytest.raises(ValueError, match="of variable 'u'|of variable 't'"):
        make(series, kind, inputs=["t", "u"], input_dims={"time": 4}, preprocess=NEIGHBORS[name])


def with_mask(block):
    return block.where(MASK)


class Scaled:
    """A function with a state that does not matter."""

    def __init__(self):
        self.calls = 0

    def __call__(self, block):
        self.calls += 1
        return block / 2


def in_place(block):
    block["t"].values[...] -= 3
    return block


def in_kelvin(block):
    return block - 273.15 if float(block["t"].max()) > 200 else block


LEGITIMATE = {
    "as it is": lambda block: block,
    "arithmetic": lambda block: (block - 273.15) * 2,
    "one variable": lambda block: block.assign(t=np.log(block["t"])),
    "derived": lambda block: block.assign(t=np.hypot(block["t"], block["u"])),
    "swapped": lambda block: block.assign(t=block["u"], u=block["t"]),
    "renamed": lambda block: block.rename(t="s").assign(t=block["u"]),
    "filled": lambda block: block.fillna(0),
    "filled with numbers": lambda block: block.fillna(CLIM),
    "threshold": lambda block: block.where(block > 280),
    "only masks": lambda block: block.notnull().astype("f4"),
    "classes": lambda block: xr.apply_ufunc(lambda v: np.digitize(v, [279, 280, 281]), block),
    "clipped": lambda block: block.clip(279, 281),
    "mask by label": with_mask,
    "mask by place": lambda block: block * MASK.values[: block.sizes["lat"]].any(1)[:, None],
    "mask of the whole grid": lambda block: block.map(
        lambda each: each.where(np.arange(6)[:, None] > 2)
    ),
    "climatology": lambda block: block - CLIM,
    "climatology by month": lambda block: block.groupby("time.month") - MONTHLY,
    "constant": lambda block: xr.ones_like(block),
    "latitude": lambda block: block.assign(t=block["t"] * np.cos(np.deg2rad(block["lat"]))),
    "season": lambda block: block.assign(u=block["u"] + np.cos(block["time"].dt.dayofyear)),
    "only a season": lambda block: block.where(block["time"].dt.month == 2),
    "transposed": lambda block: block.transpose("lon", "time", "lat"),
    "single": lambda block: block.astype("f8"),
    "whole dims": lambda block: block - block.mean("lat"),
    "whole dims, smooth": lambda block: block.rolling(lat=3, min_periods=1, center=True).mean(),
    "whole dims, cumulated": lambda block: block.cumsum("lat").assign_coords(block.coords),
    "whole dims, filled": lambda block: block.interpolate_na("lat", use_coordinate=False),
    "whole dims, mean": lambda block: block.assign(u=block["u"].mean("lat").broadcast_like(block)),
    "first of a whole dim": lambda block: block - block.isel(lat=0, drop=True),
    "with new dims": lambda block: block.assign(z=block["t"].expand_dims(k=3)),
    "relabeled": lambda block: block.assign_coords(lon=(block["lon"] + 180) % 360 - 180),
    "in place": in_place,
    "by its size": in_kelvin,
    "with state": Scaled(),
    "composed": xtd.Compose([lambda block: block + 1, with_mask]),
}
MONTHLY = xr.DataArray(
    np.arange(12.0, dtype="f4"), dims="month", coords={"month": np.arange(1, 13)}
)


@pytest.mark.parametrize("name", LEGITIMATE)
def test_other_functions_give_what_they_give_on_the_whole(name):
    ds, function = fields(shape=(28, 6, 8)), LEGITIMATE[name]
    ds["t"][3:5, 2, 5] = np.nan
    whole = function(ds.copy(deep=True)).transpose("time", "lat", "lon", ...)
    kind = xtd.MapDataset if "whole" in name else xtd.IterableDataset
    options = {"inputs": ["t", "u"], "targets": None, "preprocess": function, "memory": 4000}
    found = make(ds.chunk(time=7, lat=2), kind, **options)
    windows = found.windows
    if kind is xtd.MapDataset:
        x = found.fetch(range(len(windows))).x
    else:
        x = torch.cat([batch.x for batch in found])
    for number in range(len(windows)):
        expected = np.stack([whole[each].isel(windows[number]).values for each in ("t", "u")])
        np.testing.assert_allclose(x[number].numpy(), expected.astype("f4"), rtol=1e-6)


OF_SAMPLES = {
    "anomaly": lambda sample: sample - sample.mean("time"),
    "first step": lambda sample: sample - sample.isel(time=0, drop=True),
    "persistence": lambda sample: sample.isel(time=0, drop=True).broadcast_like(sample),
    "mean": lambda sample: sample.mean("time"),
    "some steps": lambda sample: sample.isel(time=slice(None, None, 2)),
    "coarse": lambda sample: sample.coarsen(lat=2).mean(),
    "backwards, fewer": lambda sample: sample.isel(lat=slice(None, 1, -1)),
    "transposed": lambda sample: sample.transpose(..., "time"),
    "renamed": lambda sample: sample.rename(lat="y", lon="x"),
    "difference": lambda sample: sample.diff("time"),
    "interpolated": lambda sample: sample.interpolate_na("lon"),
    "masked": lambda sample: sample.where(sample > 280),
    "anomaly over some": lambda sample: (sample - sample.mean("lat")).where(sample["lat"] > 0),
    "relabeled": lambda sample: sample.assign_coords(lon=sample["lon"] - 180),
    "sharpened": lambda sample: 2 * sample - sample.rolling(lon=3, min_periods=1).mean(),
}


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_a_transform_may_look_at_its_whole_sample(name):
    ds, function = fields(), OF_SAMPLES[name]
    for inputs in ("t", ["t", "u"]):
        dataset = make(ds, inputs=inputs, targets=None, transform=function, batch_size=2)
        sample = ds[inputs].isel(dataset.windows[1])
        expected = function(sample)
        if inputs != "t":
            expected = expected.to_dataarray()
        x = next(iter(dataset)).x[1].numpy()
        if "transposed" not in name:
            np.testing.assert_allclose(x, expected.values, rtol=1e-6)
    plain = make(ds, batch_size=2, batch_transform=lambda b: b - b.mean(["time", "lat", "lon"]))
    assert abs(next(iter(plain)).x.mean((2, 3, 4))).max() < 1e-3


def test_random_functions_that_keep_places_are_taken():
    def noise(given, rng):
        return given + rng.normal(size=4)[0]

    def masked(given, rng):
        return given.where(rng.random(given.sizes["lat"])[:, None] > 0.5, 0)

    def frames(given, rng):
        """One step is lost, and the one before stays."""
        lost = 1 + int(rng.integers(given.sizes["time"] - 1))
        steps = np.arange(given.sizes["time"])
        return given.isel(time=np.where(steps == lost, lost - 1, steps)).assign_coords(given.coords)

    def by_itself(given):
        return given * np.random.normal()

    for function in (noise, masked, by_itself):
        make(fields(), preprocess=function, transform=function, batch_transform=function)
    make(fields(), transform=frames, target_transform=frames)


@pytest.mark.parametrize("kind", [xtd.IterableDataset, xtd.MapDataset])
def test_a_whole_dim_is_whole_for_each_block_and_for_statistics(kind):
    ds = fields().chunk(time=7, lat=2, lon=3)

    def anomaly(block):
        return block - block.mean(["lat", "lon"])

    for memory in ("1 GiB", 2000):
        dataset = make(
            ds,
            kind,
            input_dims={"time": 4, "lat": -1, "lon": -1},
            inputs="t",
            targets=None,
            preprocess=anomaly,
            memory=memory,
        )
        expected = anomaly(ds[["t"]].compute())["t"]
        x = next(iter(dataset)).x[0] if kind is xtd.IterableDataset else dataset[0][0]
        np.testing.assert_allclose(x, expected.isel(time=slice(0, 4)).values, atol=1e-4)
        normalize = xtd.Normalize.fit(dataset, per="lat")
        covered = expected.isel(time=slice(0, 60))
        np.testing.assert_allclose(normalize.std["t"], covered.std(["time", "lon"]), rtol=1e-4)
        np.testing.assert_allclose(normalize.mean["t"], covered.mean(["time", "lon"]), atol=1e-4)


def test_what_cannot_be_tried_is_left_to_the_data():
    def only_kelvin(given):
        if not 200 < float(given["t"].mean()) < 400:
            raise ValueError("no temperatures")
        return given - 273.15

    x = next(iter(make(fields(), transform=only_kelvin))).x
    assert abs(float(x.mean()) - 6.85) < 0.5


def test_no_data_and_few_coordinates_are_read():
    reads = []

    class Watched(xr.backends.BackendArray):
        shape, dtype = (60, 6), np.dtype("f4")

        def __getitem__(self, key):
            reads.append(key)
            cuts = zip(key.tuple, self.shape, strict=True)
            return np.ones([len(range(*cut.indices(size))) for cut, size in cuts], "f4")

    lazy = xr.Variable(("time", "lat"), xr.core.indexing.LazilyIndexedArray(Watched()))
    ds = xr.Dataset({"t": lazy}, coords={"height": lazy})
    dataset = xtd.IterableDataset(
        ds,
        {"time": 4, "lat": -1},
        preprocess=lambda block: block + 1,
        transform=lambda s: s * 2,
        batch_transform=lambda batch: batch - 4,
    )
    assert not reads and len(dataset) == 15


def test_trials_take_no_random_numbers_of_the_user():
    def noise(sample):
        return sample + np.random.normal() + float(torch.rand(()))

    np.random.seed(3)
    torch.manual_seed(3)
    make(fields(), transform=noise, preprocess=lambda block: block + 1)
    found = np.random.normal(), float(torch.rand(()))
    np.random.seed(3)
    torch.manual_seed(3)
    assert found == (np.random.normal(), float(torch.rand(())))


class AtFirst:
    """A function that takes what it needs from the first values which it gets."""

    def __init__(self):
        self.means, self.sums = [], np.zeros(1)

    def __call__(self, given):
        array = given if isinstance(given, xr.DataArray) else given["t"]
        self.means.append(float(array.mean()))
        self.sums += self.means[-1]
        return given - self.means[0]

    def method(self, given):
        return self(given)


def enclosing():
    mean = None

    def function(given, sums=[]):  # noqa: B006
        nonlocal mean
        array = given if isinstance(given, xr.DataArray) else given["t"]
        mean = float(array.mean()) if mean is None else mean
        sums.append(mean)
        return given - sums[0]

    return function


@pytest.mark.parametrize("argument", ["transform", "batch_transform"])
def test_trials_leave_no_trace_in_what_functions_hold(argument):
    functions = [
        AtFirst(),
        AtFirst().method,
        functools.partial(lambda given, held: held(given), held=AtFirst()),
        enclosing(),
        by_values(AtFirst()),
        xtd.Compose([enclosing(), AtFirst()]),
    ]
    for function in functions:
        dataset = make(fields(), inputs="t", targets=None, batch_size=1, **{argument: function})
        x = next(iter(dataset)).x
        assert abs(float(x.mean())) < 5  # of 280 K: the first sample, or one read beside it
    assert all(abs(mean - 280) < 5 for mean in functions[0].means)


def test_large_arrays_are_not_copied_and_what_cannot_be_copied_is_not_judged():
    class Held:
        def __init__(self, **held):
            self.__dict__.update(held)

        def __call__(self, given):
            seen.update(each.__array_interface__["data"] for each in vars(self).get("arrays", ()))
            return by_values(MOVES["turned"])(given, "lat")

    seen, large, small = set(), np.zeros(2**20), np.zeros(2)
    with pytest.raises(ValueError, match="transform moves"):
        make(fields(), transform=Held(arrays=[large, small]))
    assert (large.ctypes.data, True) in seen
    assert small.ctypes.data not in {address for address, _ in seen}
    make(fields(), transform=Held(lock=threading.Lock()))


CALLS = Counter()


def test_slow_functions_are_called_once_or_twice(monkeypatch):
    monkeypatch.setattr(first_samples, "SLOW_CALL", 0.01)
    monkeypatch.setattr(trials, "SECONDS", 0.02)
    monkeypatch.setattr(made_up, "WAITING", 1)

    def slow(given):
        CALLS["slow"] += 1
        time.sleep(0.03)
        return given + 1

    for argument in ARGUMENTS:
        CALLS.clear()
        make(fields(), batch_size=2, **{argument: slow})
        assert CALLS["slow"] <= 2


def test_trials_of_many_large_variables_take_little_memory(monkeypatch):
    monkeypatch.setattr(trials, "MOST_BYTES", 2**22)
    shape, dims = (40, 181, 360), ("time", "lat", "lon")
    large = np.broadcast_to(np.float32(280), shape)
    ds = xr.Dataset({f"t{number}": (dims, large) for number in range(25)}).chunk(time=1)
    mask = np.arange(181)[:, None] % 3 > 0
    CALLS.clear()

    def masked(block):
        CALLS["bytes"] = max(CALLS["bytes"], block.nbytes)
        return block.map(lambda each: each.where(mask))

    xtd.IterableDataset(ds, {"time": 1, "lat": -1, "lon": -1}, preprocess=masked)
    assert 0 < CALLS["bytes"] < 2**24


def cutmix(batch, rng):
    size = np.sqrt(rng.random())
    inside = True
    for dim in ("lat", "lon"):
        steps = int(round(size * batch.sizes[dim]))
        begin = int(rng.integers(batch.sizes[dim] - steps + 1))
        places = xr.DataArray(np.arange(batch.sizes[dim]), dims=dim)
        inside = inside & (places >= begin) & (places < begin + steps)
    order = rng.permutation(batch.sizes["sample"])
    return batch.where(~inside, batch.isel(sample=order).assign_coords(sample=batch["sample"]))


def mixup(batch, rng):
    share = rng.beta(0.05, 0.05)
    order = rng.permutation(batch.sizes["sample"])
    return share * batch + (1 - share) * batch.isel(sample=order).assign_coords(
        sample=batch["sample"]
    )


def box(batch):
    inside = (np.arange(12) < 9) & (np.arange(12) < 10)[:, None]
    inside = xr.DataArray(inside[: batch.sizes["lat"], : batch.sizes["lon"]], dims=("lat", "lon"))
    other = batch.isel(sample=slice(None, None, -1)).assign_coords(sample=batch["sample"])
    return batch.where(~inside, other)


def test_samples_may_be_mixed_at_random_but_not_exchanged():
    ds = xr.Dataset({"t": (("time", "lat", "lon"), np.zeros((20, 12, 12), "f4"))})
    options = {"input_dims": {"time": 1, "lat": -1, "lon": -1}, "inputs": "t", "targets": None}

    def later(function, steps):
        """As others which do the same with numbers of their own."""

        def drawn(given, rng):
            for _ in range(steps):
                rng.random()
            return function(given, rng)

        return drawn

    for steps in range(5 if MORE > 1 else 2):
        for function in (cutmix, mixup):
            make(ds, batch_size=2, batch_transform=later(function, steps), **options)
    make(ds, batch_size=2, batch_transform=box, **options)

    def exchanged(batch, rng):
        order = rng.permutation(batch.sizes["sample"])
        return batch.isel(sample=order).assign_coords(sample=batch["sample"])

    with pytest.raises(ValueError, match="batch_transform moves .*'sample'"):
        make(ds, batch_size=2, batch_transform=exchanged, **options)


def test_a_new_variable_is_judged_the_same_whatever_else_is_selected():
    def neighbor(block):
        return block.assign(w=block["t"].roll(lon=1, roll_coords=False))

    def turned(block):
        return block.rename(t="w").isel(lon=slice(None, None, -1)).assign_coords(lon=block["lon"])

    def lag(block):
        return block.assign(w=block["t"].shift(time=1))

    whole = {"input_dims": {"time": 4, "lon": -1}, "targets": None}
    for inputs in (["w"], ["w", "u"]):
        make(fields(), **{**whole, "inputs": inputs}, preprocess=neighbor)
        with pytest.raises(ValueError, match="moves values of variable '[wu]'"):
            make(fields(), **{**whole, "inputs": inputs}, preprocess=turned)
        with pytest.raises(ValueError, match="'w' from those of other steps") as error:
            make(fields(), **{**whole, "inputs": inputs}, preprocess=lag)
        assert "transform" not in str(error.value)
    with pytest.raises(ValueError, match=r"moves .*ds.shift\({'time'"):
        make(fields(), preprocess=lambda block: block.shift(time=1))


def test_what_a_function_holds_open_is_not_closed_with_a_copy_of_it():
    reader, writer = multiprocessing.Pipe(duplex=False)

    class Telling:
        def __init__(self):
            self.writer = writer

        def __call__(self, sample):
            self.writer.send(1)
            return sample

    make(fields(), transform=Telling())
    gc.collect()
    writer.send("still open")
    assert reader.recv() == "still open"
    reader.close()
    writer.close()
