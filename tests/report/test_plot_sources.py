"""A sample's sources on a time line: what is drawn is where the labels are."""

import matplotlib
import numpy as np
import pytest
import xarray as xr
from several_data import DAILY, DAYS, HOURS, era5, gfs, samples, sst

import xtorch_data as xtd

matplotlib.use("agg")
import matplotlib.dates
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn(ax, name):
    """First and last time of what has a name: dots, or bars."""
    (artist,) = [each for each in ax.get_children() if each.get_gid() == name]
    if hasattr(artist, "get_xdata"):
        days = np.asarray(artist.get_xdata(), dtype=float)
        return days
    return np.array([path.get_extents().intervalx for path in artist.get_paths()])


def dates(labels):
    return matplotlib.dates.date2num(np.asarray(labels).astype("M8[us]"))


def test_steps_are_drawn_at_their_labels():
    dataset = samples()
    for number in (0, 17, -1):
        ax = dataset.plot.sources(number)
        window = HOURS[dataset.windows[number]["time"]]
        np.testing.assert_allclose(drawn(ax, "era5: x"), dates(window[:6]))
        np.testing.assert_allclose(drawn(ax, "era5: y"), dates(window[6:]))
        (line,) = [each for each in ax.lines if each.get_label() == "anchor"]
        np.testing.assert_allclose(line.get_xdata(), dates(window[[5, 5]]))
        days = DAYS[dataset.windows.of("sst")[number]["time"]]
        bars = drawn(ax, "sst: sst")
        np.testing.assert_allclose(bars[:, 0], dates(days))
        np.testing.assert_allclose(bars[:, 1], dates(days) + 1)
        np.testing.assert_allclose(drawn(ax, "sst: latency")[0], dates(days[-1]) + [1, 2])
        assert drawn(ax, "sst: latency")[0, 1] <= line.get_xdata()[0]


def test_forecasts_are_drawn_when_they_are_valid():
    source = xtd.Source(
        gfs(), init_time=xtd.AsOf(1, latency="5h"), lead_time=xtd.ValidTime("0h", "12h")
    )
    dataset = samples(xtd.IterableDataset, others={"gfs": source})
    ax = dataset.plot.sources(9)
    chosen = gfs().isel(dataset.windows.of("gfs")[9])
    valid = (chosen.init_time + chosen.lead_time).values.ravel()
    np.testing.assert_allclose(drawn(ax, "gfs: gfs"), dates(valid))
    init = dates(chosen.init_time.values)[0]
    np.testing.assert_allclose(drawn(ax, "gfs: latency")[0], [init, init + 5 / 24])


def test_analyses_at_valid_times_are_drawn_there():
    inits = np.datetime64("2000-01-01", "ns") + np.arange(8) * np.timedelta64(1, "D")
    leads = np.arange(3) * np.timedelta64(12, "h").astype("m8[ns]")
    first = xr.Dataset({"f": (("init", "lead"), np.zeros((8, 3)))}, {"init": inits, "lead": leads})
    first = first.assign_coords(valid=first.init + first.lead)
    dataset = xtd.MapDataset(
        {"fc": first, "an": xtd.Source(era5(), time=xtd.At("valid"))}, {"lead": 3}
    )
    ax = dataset.plot.sources(4)
    np.testing.assert_allclose(drawn(ax, "an: an"), dates(first.valid.values[4]))
    np.testing.assert_allclose(drawn(ax, "fc: x"), dates(first.valid.values[4]))


def test_other_calendars_are_drawn_in_days_from_the_anchor():
    labels = xr.date_range("2000-02-20", periods=40, freq="6h", calendar="noleap", use_cftime=True)
    days = xr.date_range("2000-01-20", periods=45, freq="D", calendar="noleap", use_cftime=True)
    ds, other = (
        xr.Dataset({name: ("time", np.zeros(len(each)))}, {"time": each})
        for name, each in (("t2m", labels), ("tos", days))
    )
    dataset = samples(first=ds, others={"sst": xtd.Source(other, time=DAILY)})
    ax = dataset.plot.sources(20)
    np.testing.assert_allclose(drawn(ax, "era5: x"), np.arange(-5, 1) / 4)
    assert ax.get_xlabel() == "days from the anchor"


def test_sources_without_times_and_styles():
    topography = xr.Dataset({"z": ("k", np.zeros(5))})
    dataset = samples(others={"sst": xtd.Source(sst(), time=DAILY), "topo": topography})
    for style in ("default", "dark_background"):
        with plt.style.context(style):
            ax = dataset.plot.sources(3)
            ax.figure.canvas.draw()
        assert any("no times" in each.get_text() for each in ax.texts)
        assert [each.get_text().splitlines()[0] for each in ax.get_yticklabels()] == [
            "era5", "sst", "topo"]  # fmt: skip


def test_one_source_and_given_axes():
    _, ax = plt.subplots()
    dataset = xtd.MapDataset(era5(), {"time": 8})
    assert dataset.plot.sources(2, ax=ax) is ax
    np.testing.assert_allclose(drawn(ax, "data: x"), dates(HOURS[16:24]))


def test_a_long_window_is_one_bar():
    labels = np.datetime64("2000-01-01", "ns") + np.arange(900) * np.timedelta64(1, "h")
    dataset = xtd.MapDataset(era5(labels), {"time": 600})
    np.testing.assert_allclose(drawn(dataset.plot.sources(), "data: x")[0], dates(labels[[0, 599]]))


def test_without_times_it_is_refused():
    dataset = xtd.MapDataset(xr.DataArray(np.zeros(20), dims="x", name="a"), {"x": 4})
    with pytest.raises(ValueError, match="has times as labels.*plot.windows"):
        dataset.plot.sources()
    with pytest.raises(IndexError):
        samples().plot.sources(10_000)
