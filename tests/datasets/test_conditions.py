"""Conditions of samples: which hold, compared with what is asked of each window of plain isel."""

import copy
import warnings
from pathlib import Path

import failures_data
import iris_sample_data
import numpy as np
import pytest
import torch
import xarray as xr
from helpers import counted, forecast, in_chunks, reads, xbatcher_windows
from hypothesis import given
from hypothesis import strategies as st
from strategies import cases, examples

import xtorch_data as xtd

WINDOWS = {"time": 6, "y": 3, "x": 2}
OVERLAP = {"time": 4, "x": 1}


def holey(time=40, names=("a", "b")):
    """Fields of which a tenth is missing, and more at the beginning."""
    ds = forecast(time, y=6, x=5, names=names)
    late, rng = np.linspace(0.5, 1.0, time)[:, None, None], np.random.default_rng(5)
    return ds.map(lambda each: each.where(rng.random(each.shape) < late))


def share(ds, window, names, select=None):
    """How much of a window of plain isel is present."""
    taken = ds[names].isel(window)
    if isinstance(names, str):
        taken = taken.to_dataset()
    return float(taken.notnull().isel(select or {}).to_dataarray().mean())


def wanted(ds, names, minimum, select=None):
    """Numbers of the windows of which enough is present."""
    windows = xtd.MapDataset(ds, WINDOWS, OVERLAP).windows
    return [n for n in range(len(windows)) if share(ds, windows[n], names, select) >= minimum]


def kept(dataset):
    if isinstance(dataset, xtd.MapDataset):
        return dataset.fetch(range(len(dataset))).index.tolist()
    return sorted(number for batch in dataset for number in batch.index.tolist())


@examples(20)
@given(case=cases(), data=st.data())
def test_samples_have_the_share_that_each_window_of_isel_has(case, data):
    with case.stored.open() as ds, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = case.names(ds)
        some = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        minimum = data.draw(st.sampled_from([0.01, 0.5, 0.6, 0.7, 0.75, 0.9, 1.0]))
        windows = xbatcher_windows(ds, names, case.input_dims, case.input_overlap)
        plain = ds[names].compute()
        expected = []
        for number, window in enumerate(windows):
            found = []
            for name in some:
                own = {dim: cut for dim, cut in window.items() if dim in plain[name].dims}
                found.append(plain[name].variable.isel(own).notnull().values.mean())
            if np.mean(found) >= minimum - 1e-12:
                expected.append(number)
        arguments = {**case.arguments, "where": xtd.NotNull(some, min=minimum)}
        if not expected:
            with pytest.raises(ValueError, match="leaves none of the"):
                xtd.IterableDataset(ds, **arguments)
            return
        dataset = xtd.IterableDataset(ds, **{**arguments, "drop_last": False})
        assert kept(dataset) == expected
        assert dataset.plan.samples == len(expected)


@pytest.fixture(params=["memory", "dask", "zarr"])
def data(request, tmp_path):
    ds = holey()
    return ds, in_chunks(ds, request.param, tmp_path / "data.zarr")


@pytest.mark.parametrize("kind", [xtd.MapDataset, xtd.IterableDataset])
@pytest.mark.parametrize(
    "select", [{}, {"time": 5}, {"time": slice(0, 6, 2)}, {"time": [5, 0, 3], "y": 1}]
)
def test_a_select_says_of_which_steps_the_share_is(data, kind, select):
    ds, lazy = data
    condition = xtd.NotNull(xtd.Select(["a", "b"], select), min=0.8)
    dataset = kind(lazy, WINDOWS, OVERLAP, inputs="a", where=condition, memory="60 kB")
    expected = wanted(ds, ["a", "b"], 0.8, select)
    assert 0 < len(expected) < len(dataset.windows)
    assert kept(dataset) == expected
    assert f"{len(dataset.windows) - len(expected):,} left out" in repr(dataset)


def test_all_of_several_conditions_hold_of_any_kind():
    ds = holey()
    months = xtd.MapDataset(ds, WINDOWS, OVERLAP)
    mask = np.arange(len(months)) % 3 > 0
    along = xr.DataArray(np.arange(18) > 2, dims="time")

    def warm(window):
        return bool(window.a.mean() > 0)

    where = [
        xtd.NotNull("a", min=0.7), mask, xtd.NotNull(xtd.Select("b", time=0), min=0.6), warm, along,
        lambda window: bool(window.a.max() > 1),
    ]  # fmt: skip
    dataset = xtd.MapDataset(ds, WINDOWS, OVERLAP, inputs="a", where=where)
    windows = months.windows
    starts = windows.first_steps("time")
    late = {int(start) for start in starts[3:]}
    expected = [
        number
        for number in np.flatnonzero(mask).tolist()
        if share(ds, windows[number], "a") >= 0.7
        and share(ds, windows[number], "b", {"time": 0}) >= 0.6
        and float(ds.a.isel(windows[number]).mean()) > 0
        and float(ds.a.isel(windows[number]).max()) > 1
        and windows[number]["time"].start in late
    ]
    assert expected
    assert kept(dataset) == expected


def test_booleans_in_a_list_are_one_for_each_sample_as_ever():
    ds = forecast(8, names=("a",))
    given = [True, False, np.True_, True]
    dataset = xtd.MapDataset(ds, {"time": 2, "y": -1, "x": -1}, where=given)
    assert kept(dataset) == [0, 2, 3]
    both = xtd.MapDataset(ds, {"time": 2, "y": -1, "x": -1}, where=[given, np.arange(4) > 0])
    assert kept(both) == [2, 3]


@pytest.mark.parametrize("kind", [xtd.MapDataset, xtd.IterableDataset])
@pytest.mark.parametrize("more", [(), (lambda window: bool(window.a.notnull().any()),)])
def test_chunks_are_read_once_for_all_conditions_together(kind, more):
    ds = holey().drop_vars(["longitude", "y", "x", "time"])
    chunks = {"a": (5, 3, 5), "b": (5, 6, 5)}
    lazy, counts = counted(ds, chunks)
    where = [xtd.NotNull("a", min=0.7), xtd.NotNull(xtd.Select("a", time=0), min=0.5),
             xtd.NotNull("b", min=0.6), *more]  # fmt: skip
    kind(lazy, WINDOWS, OVERLAP, inputs=["a"], where=where)
    assert len(reads(counts, ["a", "b"])) == 16 + 8
    assert set(reads(counts, ["a", "b"]).values()) == {1}


def test_chunks_across_the_order_of_samples_are_read_hardly_more_than_once():
    """In order, places are taken one by one, and little memory would hold none of their chunks."""
    rng = np.random.default_rng(0)
    ds = xr.Dataset({"a": (("time", "x"), rng.normal(size=(4000, 40)).astype("f4"))})
    ds["a"] = ds.a.where(rng.random(ds.a.shape) > 0.2)
    lazy, counts = counted(ds, {"a": (200, 20)})
    dataset = xtd.MapDataset(
        lazy, {"time": 10}, {"time": 9}, where=xtd.NotNull("a", min=0.8), memory="400 kB"
    )
    assert sum(reads(counts, ["a"]).values()) <= 1.3 * len(reads(counts, ["a"])) == 1.3 * 40
    present = ds.a.notnull().rolling(time=10).mean()[9:]
    np.testing.assert_array_equal(dataset.where.transpose(*ds.a.dims), present >= 0.8 - 1e-9)


def test_what_a_condition_does_not_ask_about_is_not_read():
    ds = holey().drop_vars(["longitude", "y", "x", "time"])
    lazy, counts = counted(ds, {"a": (5, 3, 5), "b": (5, 6, 5)})
    xtd.MapDataset(
        lazy, WINDOWS, OVERLAP, inputs="a", where=xtd.NotNull("b", min=0.6), preprocess=lambda b: b
    )
    assert not reads(counts, ["a"])
    assert set(reads(counts, ["b"]).values()) == {1}


def test_a_variable_that_lacks_a_dim_is_asked_once_for_all_places_along_it():
    ds = holey().drop_vars(["longitude", "y", "x", "time"])
    land = ds.a.isel(time=0)
    lazy, counts = counted(ds.assign(land=land), {"a": (5, 3, 5), "b": (5, 6, 5), "land": (3, 5)})
    windows = {"y": 3, "x": 2}
    dataset = xtd.MapDataset(lazy, windows, inputs="a", where=xtd.NotNull("land", min=0.5))
    assert set(reads(counts, ["land"]).values()) == {1} and not reads(counts, ["a"])
    assert dataset.where.dims == ("y", "x")
    expected = [
        number
        for number in range(len(dataset.windows))
        if float(
            land.isel({d: c for d, c in dataset.windows[number].items() if d != "time"})
            .notnull()
            .mean()
        )
        >= 0.5
    ]
    assert kept(dataset) == expected
    assert 0 < len(expected) < len(dataset.windows)


def test_no_window_is_asked_that_crosses_a_break():
    ds = holey()
    ds = ds.isel(time=[*range(13), *range(20, 40)])
    dataset = xtd.MapDataset(
        ds, WINDOWS, OVERLAP, inputs="a", breaks="split", where=xtd.NotNull("a", min=0.8)
    )
    windows = dataset.windows
    assert kept(dataset) == [
        number for number in range(len(windows)) if share(ds, windows[number], "a") >= 0.8
    ]


def test_presence_before_preprocess_counts_also_of_a_random_one():
    ds = holey()

    def random_fill(block, rng):
        return block.fillna(rng.normal())

    for preprocess in (random_fill, lambda block: block[["a"]].fillna(0.0)):
        dataset = xtd.MapDataset(
            ds, WINDOWS, OVERLAP, inputs="a", preprocess=preprocess,
            where=xtd.NotNull(["a", "b"], min=0.8),
        )  # fmt: skip
        assert kept(dataset) == wanted(ds, ["a", "b"], 0.8)


class Asked:
    """A store's counts, by which it is seen whether anything was read since."""

    def __init__(self):
        ds = holey().drop_vars(["longitude", "y", "x"])
        self.ds = ds
        self.lazy, self.counts = counted(ds, {"a": (5, 6, 5), "b": (5, 6, 5)})

    def nothing_read(self):
        found = not reads(self.counts, ["a", "b"])
        self.counts.clear()
        return found


def test_parts_of_splits_and_of_replace_keep_the_answers_without_reading():
    asked = Asked()
    samples = xtd.MapDataset(
        asked.lazy, WINDOWS, OVERLAP, inputs="a", where=xtd.NotNull("a", min=0.75)
    )
    expected = wanted(asked.ds, "a", 0.75)
    asked.counts.clear()
    stream = xtd.IterableDataset(samples, batch_size=4, shuffle=True)
    again = samples.replace(preprocess=lambda block: block.fillna(0.0))
    parts = [
        *xtd.split(samples, "time", fractions=(0.5, 0.5)),
        *(part for pair in xtd.kfold(samples, "time", n_splits=3) for part in pair),
        *xtd.random_split(samples, "time", [0.5, 0.5], block=10, seed=0),
        *xtd.split(stream, "time", fractions=(0.5, 0.5)),
    ]
    copies = [copy.copy(stream), stream.replace(batch_size=3)]
    assert asked.nothing_read()
    assert len(again) == len(samples) == len(expected)
    assert all(each.plan.samples == len(expected) for each in copies)
    assert kept(again) == expected
    for part in parts:
        names = [part.windows[number] for number in kept(part)]
        assert all(share(asked.ds, window, "a") >= 0.75 for window in names)
        left = [part.windows[n] for n in range(len(part.windows)) if n not in set(kept(part))]
        assert all(share(asked.ds, window, "a") < 0.75 for window in left)


def test_a_part_of_a_split_may_be_asked_anew():
    ds = holey()
    train, _ = xtd.split(
        xtd.MapDataset(ds, WINDOWS, OVERLAP, inputs="a"), "time", fractions=(0.6, 0.4)
    )
    asked = train.replace(where=xtd.NotNull("b", min=0.7))
    windows = asked.windows
    assert len(windows) == len(train)
    assert kept(asked) == [n for n in range(len(windows)) if share(ds, windows[n], "b") >= 0.7]
    assert len(asked.replace(where=None)) == len(train)
    with pytest.raises(ValueError, match="where was given for other data"):
        asked.replace(ds=ds)


def test_states_go_on_and_counts_are_told():
    ds = holey()
    dataset = xtd.IterableDataset(
        ds,
        WINDOWS,
        OVERLAP,
        inputs="a",
        where=xtd.NotNull("a", min=0.7),
        batch_size=5,
        shuffle=True,
    )
    expected = wanted(ds, "a", 0.7)
    left = len(dataset.windows) - len(expected)
    assert dataset.plan.left_out == left
    assert f"{left:,} left out by where" in dataset._repr_html_()
    explained = dataset.explain()
    assert explained.samples == len(expected)
    assert len(dataset) == -(-len(expected) // 5)
    assert xtd.verify(dataset, world_size=2, num_workers=2).samples == len(expected)
    first = [next(stream := iter(dataset)).index.tolist()]
    state = dataset.state_dict()
    stream.close()
    again = xtd.IterableDataset(
        ds, WINDOWS, OVERLAP, inputs="a", where=dataset.where, batch_size=5, shuffle=True
    )
    again.load_state_dict(state)
    rest = [number for batch in again for number in batch.index.tolist()]
    assert sorted([*first[0], *rest]) == expected


def test_what_cannot_be_read_is_wanted_and_skipped(tmp_path):
    damaged = {(2, 0), (2, 1), (2, 2)}
    failures_data.fields(tmp_path / "d.zarr", damaged, names=("a",))
    lazy = xtd.open_zarr(tmp_path / "d.zarr", consolidated=False)
    windows = {"time": 3, "x": 4}
    with pytest.warns(UserWarning, match="leaves out none"):
        dataset = xtd.IterableDataset(
            lazy, windows, inputs="a", where=xtd.NotNull("a"), on_error="skip", batch_size=4
        )
    assert dataset.plan.samples == len(dataset.windows)
    with pytest.raises(xtd.ReadError, match="could not read 'a'"):
        xtd.IterableDataset(lazy, windows, inputs="a", where=xtd.NotNull("a"))


@pytest.mark.parametrize("minimum", [0.07, 0.29, 0.57, 0.58])
def test_a_share_that_is_just_enough_is(minimum):
    """7 of 100 are 0.07, though 0.07 * 100 is more than 7."""
    values = np.where(np.arange(200) % 100 < round(minimum * 100), 1.0, np.nan)
    values[100] = np.nan
    ds = xr.Dataset({"a": ("time", values)})
    dataset = xtd.MapDataset(ds, {"time": 100}, where=xtd.NotNull("a", min=minimum))
    assert kept(dataset) == [0]


def test_all_is_left_or_nothing():
    ds = holey(80).isel(time=slice(0, 40))
    ds = ds.assign(n=("time", np.arange(40)), full=("time", np.ones(40)))
    with pytest.warns(UserWarning, match="full'.*leaves out none of the 40 samples"):
        full = xtd.MapDataset(ds, {"y": 6, "x": 5}, inputs="a", where=xtd.NotNull("full"))
    assert len(full) == 40
    with pytest.warns(UserWarning, match="integers are never missing"):
        whole = xtd.MapDataset(ds, {"y": 6, "x": 5}, inputs="a", where=xtd.NotNull("n"))
    assert len(whole) == 40
    assert ", 0 left out" in repr(whole)
    with pytest.raises(
        ValueError, match=r"none of the 40 samples: of none is more than the share 0\.\d+"
    ):
        xtd.MapDataset(ds, {"y": 6, "x": 5}, where=xtd.NotNull(["a", "b"]))
    never = [xtd.NotNull("a", min=0.5), lambda window: False]
    with pytest.raises(ValueError, match="where leaves none of the 40 samples"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            xtd.MapDataset(ds, {"y": 6, "x": 5}, inputs=["a"], where=never)


@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        (lambda: xtd.NotNull("aa"), ValueError, "no data variable 'aa'.*did you mean 'a'?"),
        (lambda: xtd.NotNull(["a", "a"]), ValueError, "where=.* names variable 'a' twice"),
        (lambda: xtd.NotNull([]), ValueError, "selects no variable"),
        (lambda: xtd.NotNull("deep"), ValueError, "'deep' has dim 'z', which the samples do not"),
        (lambda: xtd.NotNull(xtd.Select("a", time=6)), ValueError, "where=.*: time=6 is outside"),
        (lambda: xtd.NotNull(xtd.Select("a", z=0)), ValueError, "where=.* selects along dim 'z'"),
        (lambda: xtd.Select("a"), TypeError, r"where takes NotNull\(Select\('a'\)\)"),
        (lambda: "a", TypeError, "functions, booleans and NotNull, not 'a'"),
        (lambda: [xtd.NotNull("a", min=0.5), None], TypeError, "not None"),
        (lambda: [xtd.NotNull("a", min=0.5), np.ones(3, bool)], ValueError, r"shape \(3,\)"),
        (lambda: [lambda window: 1, xtd.NotNull("a", min=0.5)], TypeError, "True or False"),
        (lambda: [lambda window, rng: True], TypeError, "random"),
    ],
)
def test_conditions_that_cannot_be_asked_are_errors(where, error, words):
    ds = holey().assign(deep=(("time", "z"), np.ones((40, 2))))
    with pytest.raises(error, match=words):
        xtd.MapDataset(ds, WINDOWS, inputs="a", where=where())


def series(name, labels, holes):
    rng = np.random.default_rng(len(labels))
    values = np.where(rng.random(len(labels)) < holes, np.nan, rng.normal(size=len(labels)))
    return xr.Dataset({name: ("time", values)}, {"time": labels})


@pytest.mark.parametrize("kind", [xtd.MapDataset, xtd.IterableDataset])
@pytest.mark.parametrize("asked", ["first", "other", "both", "function"])
def test_conditions_of_several_sources_are_asked_where_their_data_lies(kind, asked):
    hours = np.datetime64("2000-01-01", "ns") + np.arange(120) * np.timedelta64(6, "h")
    days = np.datetime64("1999-12-20", "ns") + np.arange(45) * np.timedelta64(1, "D")
    era5, sst = series("t2m", hours, 0.1), series("tos", days, 0.3)
    rule = xtd.AsOf(5, latency="1D", label="left", max_age="3D")
    sources = {"era5": era5, "sst": xtd.Source(sst, time=rule)}
    first, other = xtd.NotNull("t2m", min=0.85), xtd.NotNull("sst/tos", min=0.7)
    where = {
        "first": first, "other": other, "both": [first, other],
        "function": [other, lambda window: bool(window.t2m.mean() > 0)],
    }[asked]  # fmt: skip
    whole = xtd.MapDataset(sources, {"time": 8}, {"time": 7}, inputs="t2m")
    windows = whole.windows

    def holds(number):
        own, beside = era5.isel(windows[number]).t2m, sst.isel(windows.of("sst")[number]).tos
        return (
            (asked not in ("first", "both") or float(own.notnull().mean()) >= 0.85)
            and (asked == "first" or float(beside.notnull().mean()) >= 0.7)
            and (asked != "function" or float(own.mean()) > 0)
        )

    expected = [number for number in range(len(windows)) if holds(number)]
    assert 0 < len(expected) < len(windows)
    dataset = kind(sources, {"time": 8}, {"time": 7}, inputs="t2m", where=where)
    assert kept(dataset) == expected
    parts = {
        "x": "t2m",
        "sst": "sst/tos",
        "mask": xtd.NotNull("sst/tos"),
        "own": xtd.NotNull("t2m"),
    }
    named = kind(
        sources, {"time": 8}, {"time": 7}, parts=parts, where=where,
        preprocess={"sst": lambda block: block.fillna(0.0)},
    )  # fmt: skip
    batches = [named.fetch(range(len(named)))] if kind is xtd.MapDataset else named
    for batch in batches:
        for place, number in enumerate(batch.index.tolist()):
            beside = sst.isel(windows.of("sst")[number]).tos.notnull()
            np.testing.assert_array_equal(batch["mask"][place], beside)
            own = era5.isel(windows[number]).t2m.notnull()
            np.testing.assert_array_equal(batch["own"][place], own)
        assert batch.to_xarray()["sst"].tos_mask.dtype == bool
    assert kept(named) == expected


GRIDS = {"topo/z": 0.6, "gfs/f": 0.7}


@pytest.mark.parametrize("kind", [xtd.MapDataset, xtd.IterableDataset])
@pytest.mark.parametrize("asked", [["topo/z"], ["gfs/f"], ["topo/z", "gfs/f"]])
def test_finer_grids_and_forecasts_are_asked_once_where_they_do_not_differ(kind, asked):
    rng = np.random.default_rng(0)

    def made(name, coords, holes):
        values = rng.normal(size=[len(each) for each in coords.values()])
        values[rng.random(values.shape) < holes] = np.nan
        return xr.Dataset({name: (tuple(coords), values)}, coords)

    times = np.datetime64("2020-01-01", "ns") + np.arange(20) * np.timedelta64(1, "D")
    inits = np.datetime64("2019-12-28", "ns") + np.arange(60) * np.timedelta64(12, "h")
    leads = np.arange(0, 48, 6) * np.timedelta64(1, "h").astype("m8[ns]")
    places = {"latitude": np.arange(16.0), "longitude": np.arange(24.0)}
    finer = {dim: np.arange(-0.375, len(at) - 0.5, 0.25) for dim, at in places.items()}
    forecast = {"init_time": inits, "lead_time": leads}
    beside = {"topo": made("z", finer, 0.4), "gfs": made("f", forecast, 0.3)}
    topo, counts = counted(beside["topo"], {"z": (16, 24)})
    rules = {"init_time": xtd.AsOf(1, latency="5h"), "lead_time": xtd.ValidTime("0h", "24h")}
    sources = {
        "era5": made("t", {"time": times, **places}, 0.0),
        "topo": xtd.Source(topo, latitude=xtd.Within(), longitude=xtd.Within()),
        "gfs": xtd.Source(beside["gfs"], rules),
    }
    windows = {"time": 4, "latitude": 4, "longitude": 6}
    where = [xtd.NotNull(name, min=GRIDS[name]) for name in asked]
    dataset = kind(sources, windows, inputs="t", where=where)
    assert set(reads(counts, ["z"]).values()) <= {1}

    def holds(number, name):
        source, variable = name.split("/")
        window = dataset.windows.of(source)[number]
        return beside[source][variable].isel(window).notnull().mean() >= GRIDS[name]

    numbers = range(len(dataset.windows))
    expected = [number for number in numbers if all(holds(number, name) for name in asked)]
    assert 0 < len(expected) < len(dataset.windows)
    assert kept(dataset) == expected
    along = {"topo/z": ("latitude", "longitude"), "gfs/f": ("time",)}
    assert set(dataset.where.dims) == {dim for name in asked for dim in along[name]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"where": xtd.NotNull("sst/toss")}, "did you mean 'tos'"),
        ({"where": xtd.NotNull("tos")}, "no data variable 'tos'"),
        ({"where": xtd.NotNull(["t2m", "sst/tos"])}, "variables of several sources"),
        ({"where": xtd.NotNull("sst/tos"), "parts": {"x": "t2m"}}, "samples have no part"),
        (
            {"where": xtd.NotNull("sst/deep"), "parts": {"x": "t2m", "s": "sst/tos"}},
            "'deep' has dim 'z', which the samples do not have",
        ),
        ({"parts": {"x": "t2m", "m": xtd.NotNull("sst/toss")}}, "part 'm'.*did you mean 'tos'"),
    ],
)
def test_conditions_of_sources_that_do_not_fit_are_errors(arguments, words):
    labels = np.datetime64("2000-01-01", "ns") + np.arange(20) * np.timedelta64(1, "D")
    deep = series("tos", labels, 0.1).assign(deep=(("time", "z"), np.ones((20, 2))))
    sources = {"era5": series("t2m", labels, 0.1), "sst": deep}
    with pytest.raises(ValueError, match=words):
        xtd.MapDataset(sources, {"time": 4}, **arguments)


@pytest.mark.parametrize("concat", [False, True])
def test_items_of_a_generator_have_presence_and_may_be_asked(concat):
    import xbatcher

    ds = holey().drop_vars("longitude")
    generator = xbatcher.BatchGenerator(
        ds, {"time": 8, "x": 5}, concat_input_dims=concat, batch_dims={"time": 16} if concat else {}
    )
    samples = xtd.MapDataset(generator, parts={"x": "a", "mask": xtd.NotNull("a")})
    for number in range(len(samples)):
        x, mask = samples[number]
        assert torch.equal(mask, ~torch.isnan(x))
    where = xtd.NotNull("a", min=0.8)
    if concat:
        with pytest.raises(ValueError, match="give where as a function"):
            xtd.MapDataset(generator, inputs="a", where=where)
        return
    some = xtd.MapDataset(generator, inputs="a", where=where)
    shares = [
        float((~torch.isnan(samples[number][0])).float().mean()) for number in range(len(samples))
    ]
    assert kept(some) == [number for number, each in enumerate(shares) if each >= 0.8]


@pytest.mark.parametrize("minimum", [0.5, 0.9, 1.0])
def test_sea_of_a_real_file_is_what_xarray_says(minimum):
    with xr.open_dataset(Path(iris_sample_data.path) / "ostia_monthly.nc") as ds:
        windows = {"time": 3, "latitude": 6, "longitude": 16}
        samples = xtd.MapDataset(
            ds,
            windows,
            inputs="surface_temperature",
            where=xtd.NotNull("surface_temperature", min=minimum),
        )
        present = ds.surface_temperature.notnull().values[:54]
        blocks = present.reshape(18, 3, 3, 6, 27, 16).mean(axis=(1, 3, 5))
        np.testing.assert_array_equal(samples.where.values, blocks >= minimum)
        assert 0 < len(samples) < len(samples.windows)
