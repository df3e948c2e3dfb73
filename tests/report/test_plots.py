"""What is drawn: the values of plain isel, the blocks of an epoch, on the axes that are given."""

import itertools
import sys

import dask.array
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from helpers import counted, fields, forecast, samples_of
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex, to_rgb, to_rgba
from matplotlib.figure import Figure

import xtorch_data as xtd

pytestmark = pytest.mark.filterwarnings("ignore:.*Agg is non-interactive:UserWarning")


@pytest.fixture(autouse=True)
def no_figure_left():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def ds():
    found = forecast(time=40, y=6, x=8).drop_vars("longitude")
    found = found.rename(y="latitude", x="longitude")
    found["a"].attrs = {"long_name": "Air temperature", "units": "K"}
    found["latitude"].attrs = {"units": "degrees_north"}
    found["longitude"].attrs = {"units": "degrees_east"}
    found["a"][:, 2:4, 3] = np.nan  # land
    return found


@pytest.fixture(scope="module")
def maps(ds):
    return xtd.IterableDataset(
        ds,
        {"time": 4, "latitude": -1, "longitude": 4},
        {"time": 3},
        inputs=xtd.Select(["a", "b"], time=slice(0, 3)),
        targets=xtd.Select("a", time=3),
        batch_size=6,
        shuffle=True,
    )


@pytest.fixture(scope="module")
def batch(maps):
    return next(iter(maps))


def mesh_of(ax):
    [mesh] = [each for each in ax.collections if isinstance(each, QuadMesh)]
    return mesh


def drawn(figure):
    """Draw everything, and fail where labels would be drawn over each other's axes."""
    figure.canvas.draw()
    return figure


# ---------------------------------------------------------------------------------------------
# Batches


def test_maps_hold_the_values_of_isel_and_say_where_they_are_from(ds, maps, batch):
    axes = batch.plot([1, -1], isel={"time": 2})
    assert axes.shape == (2, 3)
    for row, place in zip(axes, (1, 5), strict=True):
        number = int(batch.index[place])
        window = ds.isel(maps.windows[number])
        for ax, part, name, step in zip(row, "xxy", "aba", (2, 2, 3), strict=True):
            expected = window[name].isel(time=step)
            np.testing.assert_array_equal(mesh_of(ax).get_array(), expected.values)
            time = str(expected.time.dt.strftime("%Y-%m-%d").item())
            assert ax.get_title().startswith(f"{part}: {name} (sample {number})\n{time}")
            assert ax.get_xlabel() == "longitude [degrees_east]"
            assert ax.get_ylabel() == "latitude [degrees_north]"
            low, high = ax.get_xlim()
            assert low < expected.longitude.min() < expected.longitude.max() < high
            [bar] = ax.child_axes
            label = "Air temperature [K]" if name == "a" else "b"
            assert bar.get_ylabel() == label
    # The same colors for the same values, wherever a variable stands.
    assert len({mesh_of(ax).get_clim() for ax in axes[:, [0, 2]].flat}) == 1
    drawn(axes[0, 0].figure)


def test_series_hold_the_values_of_isel(ds):
    dataset = xtd.IterableDataset(
        ds,
        {"time": 6},
        inputs=xtd.Select("a", time=slice(0, 4)),
        targets=xtd.Select("a", time=slice(4, 6)),
        batch_size=9,
    )
    batch = next(iter(dataset))
    axes = batch.plot([0, 7])
    for row, place in zip(axes, (0, 7), strict=True):
        window = ds.isel(dataset.windows[int(batch.index[place])])
        for ax, steps in zip(row, (slice(0, 4), slice(4, 6)), strict=True):
            [line] = ax.lines
            expected = window.a.isel(time=steps)
            np.testing.assert_array_equal(line.get_ydata(), expected.values)
            np.testing.assert_array_equal(line.get_xdata(orig=True), expected.time.values)
            assert ax.get_ylabel() == "Air temperature [K]"
            latitude, longitude = float(window.latitude), float(window.longitude)
            assert f"{latitude:g}°N, {longitude:g}°E" in ax.get_title().replace("\n", " ")
            assert "2000-01-0" in ax.get_title()
    assert len({ax.get_ylim() for ax in axes.flat}) == 1
    assert axes[0, 0].lines[0].get_color() != axes[0, 1].lines[0].get_color()


def test_axes_of_the_user_are_drawn_on_and_given_back(batch):
    plt.figure()
    before, current = plt.get_fignums(), plt.gcf()
    figure = Figure()
    mine = figure.subplots(3, 1)
    found = batch.plot(0, axes=mine)
    assert [ax for ax in found.flat] == [ax for ax in mine]
    assert all(len(ax.collections) for ax in mine)
    ax = Figure().subplots()
    assert batch.plot(variables="b", axes=ax)[0, 0] is ax
    assert plt.get_fignums() == before
    assert plt.gcf() is current
    with pytest.raises(ValueError, match="axes has 3 Axes, but 6 are drawn on"):
        batch.plot([0, 1], axes=mine)
    with pytest.raises(TypeError, match="axes must be an Axes of matplotlib, not str"):
        batch.plot(variables="b", axes=["here"])


def test_what_is_not_there_is_refused(batch):
    for arguments, error, message in (
        ({"sample": 6}, IndexError, "there is no sample 6 in a batch of 6"),
        ({"sample": []}, ValueError, "sample is empty"),
        ({"variables": "z"}, ValueError, "no variable 'z' here; there are \\['a', 'b'\\]"),
        ({"variables": []}, ValueError, "variables is empty"),
        ({"dims": "level"}, ValueError, "dims names dim 'level'"),
        ({"dims": ("a", "b", "c")}, ValueError, "one dim for a series or two"),
        ({"isel": {"level": 0}}, ValueError, "isel names dim 'level'"),
        ({"isel": {"time": 9}}, IndexError, "out of bounds"),
    ):
        with pytest.raises(error, match=message):
            batch.plot(**arguments)
    assert not plt.get_fignums(), "a figure was opened for nothing"


def test_other_dims_and_colors_can_be_chosen(ds, maps, batch):
    window = ds.isel(maps.windows[int(batch.index[0])])
    [[ax]] = batch.plot(variables=["b"], dims=("time", "longitude"), isel={"latitude": 4})
    expected = window.b.isel(time=slice(0, 3), latitude=4).values
    np.testing.assert_array_equal(mesh_of(ax).get_array(), expected)
    assert ax.get_ylabel() == "time"
    [[ax]] = batch.plot(variables=["b"], dims="longitude", isel={"latitude": 1}, linestyle=":")
    [line] = ax.lines
    np.testing.assert_array_equal(line.get_ydata(), window.b.isel(time=0, latitude=1).values)
    assert line.get_linestyle() == ":"
    [[ax]] = batch.plot(variables="b", vmin=-3, vmax=5, cmap="magma", add_colorbar=False)
    assert mesh_of(ax).get_clim() == (-3, 5)
    assert mesh_of(ax).get_cmap().name == "magma"
    assert not ax.child_axes


def double(sample):
    return sample * 2


def to_channels(sample):
    return sample.isel(time=0).to_array("channel").rename("c")


def only_mean(batch):
    return batch.mean(("latitude", "longitude"))


def test_transformed_replaced_lost_and_single_samples_are_drawn(ds, maps, batch):
    arguments = {"input_dims": {"time": 4, "latitude": -1, "longitude": -1}, "batch_size": 3}
    transformed = next(iter(xtd.IterableDataset(ds, transform=double, **arguments)))
    axes = transformed.plot()
    np.testing.assert_array_equal(mesh_of(axes[0, 1]).get_array(), 2 * ds.b.values[0])
    tensors = next(iter(xtd.IterableDataset(ds, transform=to_channels, **arguments)))
    np.testing.assert_array_equal(mesh_of(tensors.plot()[0, 0]).get_array(), ds.a.values[0])
    averaged = next(iter(xtd.IterableDataset(ds, batch_transform=only_mean, **arguments)))
    [line] = averaged.plot(1)[0, 1].lines
    expected = ds.b[4:8].mean(("latitude", "longitude"))
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-4)
    other = batch.replace(y=torch.arange(12.0).reshape(6, 2))  # no shape that labels fit
    [line] = other.plot(2, variables="y")[0, 0].lines
    np.testing.assert_array_equal(line.get_ydata(), [4, 5])
    lost = batch.replace()
    lost._labels = None
    axes = lost.plot(1)
    np.testing.assert_array_equal(mesh_of(axes[0, 2]).get_array(), batch.y[1].numpy())
    assert axes[0, 2].get_title().startswith(f"y: a (sample {int(batch.index[1])})")
    with pytest.raises(ValueError, match="but has shape \\(5, 6\\)"):
        batch.replace(y=torch.zeros(5, 6))
    single = next(iter(xtd.IterableDataset(ds, {"time": 4, "latitude": -1}, batch_size=None)))
    np.testing.assert_array_equal(
        mesh_of(single.plot(variables="b", dims=("latitude", "time"))[0, 0]).get_array(),
        ds.b.isel(longitude=0, time=slice(0, 4)).values.T,
    )
    half = batch.replace(y=batch.y.to(torch.bfloat16)).plot()
    drawn(half[0, 0].figure)


def odd():
    """Data whose labels, names or values matplotlib does not take as they are."""
    values = np.random.default_rng(0).normal(size=(6, 5))
    days = xr.date_range("0001-02-29", periods=6, calendar="360_day", use_cftime=True)
    gaps = np.array(["2000", "NaT", "2001", "2002", "2003", "2004"], "datetime64[s]")
    for dim, coord in (
        ("time", days),
        ("time", gaps),
        ("time", np.arange(6).astype("timedelta64[h]")),
        ("station", list("zyxabc")),
        ("level", [1.0, 1.0, 5.0, 2.0, 2.0, 2.0]),
        ("$x$ & \\$", np.arange(6)),
        (3, None),
        (("a", 1), None),
    ):
        coords = {} if coord is None else {dim: coord}
        yield dim, xr.Dataset({f"$\\bad{{{dim}$": ((dim, "x"), values)}, coords)
    yield "lat", xr.Dataset({"v": (("lat", "x"), values)})  # no coordinate
    for dtype in ("bool", "int16", "complex64", "float16"):
        yield "time", xr.Dataset({"v": (("time", "x"), (values * 3).astype(dtype))})
    yield "time", xr.Dataset({"v": (("time", "x"), np.full((6, 5), np.nan))})
    yield "time", xr.Dataset({"v": (("time", "x"), np.full((6, 5), np.inf))})


def test_odd_labels_and_values_are_drawn():
    for dim, ds in odd():
        dataset = xtd.IterableDataset(ds, {dim: 3, "x": -1}, batch_size=2, breaks="ignore")
        axes = next(iter(dataset)).plot(1, figsize=(3, 2))
        drawn(axes[0, 0].figure)
        plt.close("all")
        if dim in ds.coords:
            dataset = xtd.IterableDataset(ds, {dim: 3}, batch_size=2, breaks="ignore")
            ax = Figure(figsize=(3, 2)).subplots()
            batch = next(iter(dataset))
            assert batch.plot(1, axes=ax)[0, 0] is dataset.plot.plan(2, dims=[dim], ax=ax)
            drawn(dataset.plot.windows([0, 1], dims=[dim], ax=ax).figure)
    [[ax]] = next(iter(xtd.IterableDataset(ds, {"x": 1}))).plot()
    assert "inf" in {text.get_text() for text in ax.texts}


def test_of_many_variables_a_dozen_is_drawn_and_said():
    ds = forecast(time=8, names=[f"v{number}" for number in range(15)])
    axes = next(iter(xtd.IterableDataset(ds, {"time": 8}))).plot()
    assert axes.shape == (1, 12)
    assert "3 more variables" in axes[0, 0].figure.get_supxlabel()


def test_time_and_height_are_not_a_map():
    sizes = {"time": 3, "level": 4, "x": 1}
    ds = xr.Dataset({"v": (tuple(sizes), np.random.rand(*sizes.values()))})
    [[ax]] = next(iter(xtd.IterableDataset(ds, dict(sizes)))).plot()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time", "level")
    np.testing.assert_array_equal(mesh_of(ax).get_array(), ds.v.values[:, :, 0].T.astype("float32"))


# ---------------------------------------------------------------------------------------------
# Windows


def boxes_of(collection):
    """Extents (x0, x1, y0, y1) of the rectangles of a collection."""
    found = [path.get_extents() for path in collection.get_paths()]
    return [(box.x0, box.x1, box.y0, box.y1) for box in found]


def test_windows_lie_where_isel_cuts_them(ds):
    opened, counts = counted(fields(100), {"a": (7, 8, 8), "b": (7, 8, 8)})
    for dataset in (
        xtd.IterableDataset(opened, {"time": 16, "y": -1}, {"time": 15}),
        xtd.MapDataset(opened, {"time": 16, "y": -1}, {"time": 15}),
    ):
        counts.clear()
        ax = dataset.plot.windows([3, -1])
        shades, bars = ax.collections[0:4:2], ax.collections[1:4:2]
        for number, shade, bar in zip((3, -1), shades, bars, strict=True):
            cut = dataset.windows[number % len(dataset.windows)]["time"]
            [(low, high, _, _)] = boxes_of(bar)
            assert (low, high) == (cut.start - 0.5, cut.stop - 0.5)
            [(low, high, _, _)] = boxes_of(shade)  # the chunks that it touches
            expected = cut.start // 7 * 7 - 0.5, min(-(-cut.stop // 7) * 7, 100) - 0.5
            assert (low, high) == expected
        edges = {segment[0][0] for segment in ax.collections[4].get_segments()}
        assert edges == {at - 0.5 for at in [*range(0, 100, 7), 100]}
        assert "time 7" in ax.get_title()
        assert not counts
    labels = [text.get_text() for text in drawn(ax.figure).axes[0].get_xticklabels()]
    assert labels[0] == "2000-01-01"


def test_windows_over_two_dims_are_rectangles(ds):
    dataset = xtd.IterableDataset(ds, {"latitude": 3, "longitude": 4}, inputs="a")
    own = Figure().subplots()
    ax = dataset.plot.windows([0, 3, 5], ax=own)
    assert ax is own
    for number, patch in zip((0, 3, 5), ax.patches[1::2], strict=True):
        window = dataset.windows[number]
        x, y = window["longitude"], window["latitude"]
        found = (*patch.get_xy(), patch.get_width(), patch.get_height())
        assert found == (x.start - 0.5, y.start - 0.5, 4, 3)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["sample 0", "sample 3", "sample 5"]
    with pytest.raises(ValueError, match="no dim 'z'"):
        dataset.plot.windows(0, dims="z")
    with pytest.raises(ValueError, match="one dim or two"):
        dataset.plot.windows(0, dims=["time", "latitude", "longitude"])
    with pytest.raises(IndexError, match="out of range"):
        dataset.plot.windows(10**9)
    with pytest.raises(ValueError, match="samples is empty"):
        dataset.plot.windows([])
    with pytest.raises(TypeError, match="ax must be an Axes"):
        dataset.plot.windows(0, ax=3)


def test_samples_on_each_other_are_named_together():
    ds = forecast(time=8, y=8, x=8)[["a"]]
    dataset = xtd.IterableDataset(ds, {"time": 4, "y": 4, "x": 4})  # 2 × 2 × 2 windows
    ax = dataset.plot.windows(range(8))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        f"samples {first}, {first + 4}" for first in range(4)
    ]
    assert len(ax.patches) == 2 * 4
    assert "of 8; not shown: time" in ax.get_title()
    assert "not shown: y, x" in dataset.plot.windows(0, dims="time").get_title()
    many = xtd.IterableDataset(ds, {"y": 8, "x": 4})
    ax = many.plot.windows(range(16), dims=("y", "x"))
    [first, second] = [text.get_text() for text in ax.get_legend().get_texts()]
    assert first == "samples 0, 2, 4, 6 and 4 more"


def test_lines_of_chunks_never_hide_what_is_between_them():
    ds = forecast(time=400, y=4, x=4)[["a"]]
    for step, lines in ((4, 101), (3, 2)):
        chunked = ds.chunk(time=step)
        ax = xtd.IterableDataset(chunked, {"time": 200}).plot.windows(0)
        assert len(ax.collections[-1].get_segments()) == lines
        assert f"{'lines' if lines > 2 else 'shaded'}: chunks of a, time {step}" in ax.get_title()
    ax = xtd.IterableDataset(ds, {"time": 200}).plot.windows(0)
    assert "chunks" not in ax.get_title()


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.arange(9) / 1.8, ["0°N", "0.56°N", "1.11°N"]),
        (80 + np.arange(9) / 3, ["80°N", "80.33°N", "80.67°N"]),
        (-0.001 + np.arange(9), ["0°N", "1°N", "2°N"]),
        (np.array([-0.25, 0.0, 0.25], "float32"), ["0.25°S", "0°N", "0.25°N"]),
        (1000.0 + 1200 * np.arange(3), ["1000°N", "2200°N", "3400°N"]),
        (np.array([1.23456, np.nan, np.inf]), ["1.2346°N", "nan°N", "inf°N"]),
        (np.array([0.123456]), ["0.12346°N"]),
    ],
)
def test_ticks_have_the_digits_that_steps_need(values, expected):
    lat = ("lat", values, {"units": "degrees_north"})
    ds = xr.Dataset({"a": ("lat", np.zeros(len(values)))}, {"lat": lat})
    text = xtd.IterableDataset(ds, {"lat": 1}).windows.texts("lat")
    assert [text(at) for at in range(len(expected))] == expected


def test_colors_are_those_of_the_style(maps):
    def luminance(color):
        *rgb, alpha = to_rgba(color)
        seen = alpha * np.array(rgb) + (1 - alpha) * np.array(
            to_rgb(plt.rcParams["axes.facecolor"])
        )
        linear = np.where(seen <= 0.04045, seen / 12.92, ((seen + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    def contrast(*colors):
        """As WCAG has it; 4.5 is enough for text."""
        darker, lighter = sorted(map(luminance, colors))
        return (lighter + 0.05) / (darker + 0.05)

    ds = xr.Dataset({"a": (("y", "x"), np.zeros((24, 32), "float32"))}).chunk(y=6, x=8)
    plane = xtd.IterableDataset(ds, {"y": 2, "x": 2}, shuffle=True, memory="1 kB")
    list(maps)
    for style in "default", "dark_background":
        with plt.style.context(style):
            ax = maps.stats().plot()
            for text in ax.texts:
                assert contrast(text.get_color(), text.get_bbox_patch().get_facecolor()) > 4.5
            legend = plane.plot.plan(3).get_legend()
            assert legend.get_texts()[-1].get_text() == "chunks of a"
            assert (
                contrast(legend.get_lines()[-1].get_color(), plt.rcParams["axes.facecolor"]) > 4.5
            )
            ax = xtd.MapDataset(with_breaks(), {"time": 10}, breaks="split").plot.windows(0)
            marks = [each for each in ax.collections if "breaks" in str(each.get_gid())]
            for color in [*(text.get_color() for text in ax.texts), *marks[0].get_edgecolor()]:
                assert contrast(color, plt.rcParams["axes.facecolor"]) > 4.5
            ax = plane.plot.windows(0)
            assert contrast(ax.patches[0].get_facecolor(), plt.rcParams["text.color"]) > 4.5
            behind = plt.rcParams["axes.facecolor"]
            assert contrast(ax.patches[0].get_facecolor(), behind) > 1.2
            for ranks in (1, 12):
                blocks = blocks_drawn(plane.plot.plan(ranks)).values()
                colors = np.concatenate([each.get_facecolor() for each in blocks])
                assert min(contrast(color, behind) for color in colors) > 1.2


@pytest.mark.parametrize("dim", ["time", "lon", "level"])
def test_labels_of_ticks_do_not_touch(dim):
    labels = {
        "time": xr.date_range("2006-04-16", periods=64, freq="732h"),
        "lon": 359.58 + 0.00131 * np.arange(64),
        "level": 1234567 + np.arange(64),
    }[dim]
    ds = xr.Dataset({"a": (("y", dim), np.random.rand(64, 64))}, {dim: labels}).chunk({dim: 16})
    dataset = xtd.IterableDataset(ds, {"y": 32, dim: 32}, shuffle=True, memory="9 kB")
    batch = next(iter(dataset))
    for ax in [
        dataset.plot.windows([0, 1]),
        dataset.plot.windows([0, 1], dims=dim),
        dataset.plot.plan(2),
        *batch.plot().flat,
        *batch.plot(dims=dim).flat,
    ]:
        drawn(ax.figure)
        assert "+" not in ax.xaxis.get_offset_text().get_text()  # added to each label
        shown = [text for text in ax.get_xticklabels() if text.get_text()]
        inside = [text for text in shown if ax.get_xlim()[0] <= text.get_position()[0]]
        boxes = sorted((each.get_window_extent() for each in inside), key=lambda box: box.x0)
        assert len(boxes) > 1
        assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))


def with_breaks():
    """Data with two breaks in time, one in longitude and one in latitude."""
    time = xr.date_range("2000-01-01", periods=120).delete([30, 31, 80])
    sizes = {"time": 117, "latitude": 30, "longitude": 40}
    return xr.DataArray(
        np.zeros(tuple(sizes.values()), "float32"),
        coords={
            "time": time,
            "latitude": np.r_[-20.0:-10, 0:20],
            "longitude": np.r_[170.0:180, -180:-160, -150:-140],
        },
        dims=tuple(sizes),
        name="a",
    )


def marks_of(ax):
    """By axis, places of the lines at breaks; and the labels beside them."""
    lines = {
        each.get_gid()[-1]: [segment[0] for segment in each.get_segments()]
        for each in ax.collections
        if str(each.get_gid()).startswith("breaks along")
    }
    texts = [text.get_text() for text in ax.texts if text.get_gid() == "label of a break"]
    return {along: [at["xy".index(along)] for at in found] for along, found in lines.items()}, texts


@pytest.mark.parametrize("kind", [xtd.MapDataset, xtd.IterableDataset])
def test_breaks_are_dashed_lines_between_the_labels_on_both_sides(kind):
    dataset = kind(with_breaks(), {"time": 10}, {"time": 9}, breaks="split")
    train, _ = xtd.split(dataset, "time", at="2000-02-20")
    for each in (dataset, train):  # the picture is of all the data
        ax = drawn(each.plot.windows([0, 25]).figure).axes[0]
        # The first steps after them are 30 and, two being gone before, 78.
        assert marks_of(ax) == (
            {"x": [29.5, 77.5]},
            ["2000-01-30", "2000-02-02", "2000-03-20", "2000-03-22"],
        )
        assert ax.get_title().endswith("dashed: 2 breaks along time")
        assert len({tuple(bar) for bar in boxes_of(ax.collections[1])}) == 1
    boxes = [text.get_window_extent() for text in [*ax.texts, ax.title]]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_breaks_of_two_dims_are_marked_along_each():
    dataset = xtd.MapDataset(with_breaks(), {"latitude": 4, "longitude": 5}, breaks="split")
    lines, texts = marks_of(dataset.plot.windows(0))
    assert lines == {"x": [29.5], "y": [9.5]}
    assert texts == ["-161", "-150", "-11", "0"]
    assert marks_of(dataset.plot.windows(0, dims="longitude"))[0] == {"x": [29.5]}
    assert marks_of(dataset.plot.windows(0, dims="time"))[0] == {}
    ignored = xtd.MapDataset(with_breaks(), {"latitude": 4, "longitude": 5}, breaks="ignore")
    assert marks_of(ignored.plot.windows(0)) == ({}, [])


def test_of_many_breaks_some_labels_are_shown_and_of_very_many_none():
    time = xr.date_range("1900-01-01", "1999-12-31")
    days = xr.DataArray(np.zeros(len(time)), coords={"time": time}, dims="time", name="a")
    winters = days.sel(time=days.time.dt.month <= 2)
    dataset = xtd.MapDataset(winters, {"time": 59}, breaks="split")
    ax = drawn(dataset.plot.windows([0, 99], dims="time").figure).axes[0]
    lines, texts = marks_of(ax)
    assert len(lines["x"]) == 99 and 2 <= len(texts) <= 20
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    many = days.isel(time=np.arange(len(time)) % 100 > 0)
    ax = xtd.MapDataset(many, {"time": 99}, breaks="split").plot.windows([0, 300])
    assert marks_of(ax) == ({}, [])
    assert ax.get_title().endswith("dashed: 331 breaks, too many to draw, along time")
    # What is shown of the data has fewer.
    assert len(marks_of(dataset.plot.windows(0))[0]["x"]) < 99


# ---------------------------------------------------------------------------------------------
# Plans


def taken(ds, world_size, num_workers, as_worker, **arguments):
    """For each rank and worker, the samples that it yields of epoch 0, by iterating."""
    found = {}
    for rank in range(world_size):
        for worker in range(max(1, num_workers)):
            dataset = xtd.IterableDataset(ds, rank=rank, world_size=world_size, **arguments)
            as_worker(worker, num_workers)
            dataset._inside.tell((0, 0)) if num_workers else None
            name = f"rank {rank}" + (f", worker {worker}" if num_workers else "")
            found[name] = [n for batch in dataset for n in batch.index.tolist()]
            as_worker(0, 0)
    return found


def blocks_drawn(ax):
    return {each.get_gid(): each for each in ax.collections if "rank" in str(each.get_gid())}


@pytest.mark.parametrize(
    "shuffle, topology", [(True, (1, 0)), (True, (2, 2)), (False, (2, 0)), (False, (2, 2))]
)
def test_rows_of_a_plan_hold_the_blocks_of_the_samples_that_ranks_yield(
    shuffle, topology, as_worker
):
    ds = forecast(time=120, y=2, x=2).chunk(time=10)
    arguments = {
        "input_dims": {"time": 4, "y": -1, "x": -1},
        "input_overlap": {"time": 3},
        "shuffle": shuffle,
        "memory": "2 kB",
        "batch_size": 3,
    }
    dataset = xtd.IterableDataset(ds, **arguments)
    cuts = dataset.plan.grid.cuts[0]
    assert len(cuts) > 3
    ax = dataset.plot.plan(*topology)
    expected = taken(ds, *topology, as_worker, **arguments)
    found = blocks_drawn(ax)
    assert set(found) == set(expected)
    for name, numbers in expected.items():
        boxes = boxes_of(found[name])
        steps = {
            step for low, high, _, _ in boxes for step in range(round(low + 0.5), round(high + 0.5))
        }
        if not shuffle:  # the very steps at which its windows begin, and the end of the last
            ends = range(len(dataset.windows), 120) if max(numbers) == 116 else []
            assert steps == {*numbers, *ends}
            continue
        blocks = np.unique(np.searchsorted(cuts, numbers, side="right") - 1)
        edges = np.append(cuts[:-1], 120)
        assert {(low + 0.5, high + 0.5) for low, high, _, _ in boxes} == {
            (edges[block], edges[block + 1]) for block in blocks
        }
    drawn(ax.figure)


def test_the_plane_of_a_plan_has_the_colors_of_ranks(as_worker):
    values = np.zeros((24, 32), "float32")
    ds = xr.Dataset({"a": (("y", "x"), values)}).chunk(y=6, x=8)
    arguments = {"input_dims": {"y": 2, "x": 2}, "shuffle": True, "memory": "1 kB", "batch_size": 2}
    dataset = xtd.IterableDataset(ds, **arguments)
    grid = dataset.plan.grid
    assert min(grid.shape) > 1
    ax = dataset.plot.plan(3)
    expected = taken(ds, 3, 0, as_worker, **arguments)
    found = blocks_drawn(ax)
    readers = {}  # by place on the plane, those who read it
    for name, numbers in expected.items():
        for number in numbers:
            window = dataset.windows[number]
            readers.setdefault((window["y"].start, window["x"].start), set()).add(name)
    at = {name: boxes_of(each) for name, each in found.items()}
    colors = {name: to_hex(each.get_facecolor()[0]) for name, each in found.items()}
    assert len(set(colors.values())) == 3
    edges = [np.append(2 * cut[:-1], size) for cut, size in zip(grid.cuts, (24, 32), strict=True)]
    shared = 0
    for y, x in np.ndindex(grid.shape):
        (low, high), (left, right) = edges[0][y : y + 2], edges[1][x : x + 2]
        names = set()
        for (row, column), who in readers.items():
            if low <= row < high and left <= column < right:
                names |= who
        inside = {  # their widths, which share the block
            name: round(x1 - x0, 6)
            for name, boxes in at.items()
            for x0, x1, y0, y1 in boxes
            if (y0, y1) == (low - 0.5, high - 0.5) and left - 1 < x0 < x1 < right
        }
        assert names <= set(inside)
        if inside:
            assert sum(inside.values()) == pytest.approx(right - left)
        shared += len(inside) > 1
    assert shared
    assert [text.get_text() for text in ax.get_legend().get_texts()][:3] == list(found)


def test_a_huge_plan_is_drawn_in_part_and_says_so():
    data = dask.array.zeros((10**5, 90, 180), chunks=(1, 90, 180), dtype="float32")
    ds = xr.Dataset({"t": (("time", "lat", "lon"), data)})
    dataset = xtd.IterableDataset(
        ds, {"time": 1, "lat": -1, "lon": -1}, shuffle=True, memory="10 MiB"
    )
    assert "first 6 ranks" in dataset.plot.plan(1000, 4).get_title()
    ax = dataset.plot.plan(2, 4)
    assert len(dataset.plan.grid) > 4_000
    assert "drawn: the first 500 blocks of each" in ax.get_title()
    assert sum(len(each.get_paths()) for each in ax.collections) < 10_000
    ax = dataset.plot.windows(range(50_000, 50_400))
    assert "the first 50 are drawn" in ax.get_title()
    assert "of 100,000)" in ax.get_xlabel()
    drawn(ax.figure)


def test_blocks_that_nobody_reads_are_blank_and_said():
    """Of samples that cannot be shared equally, where each block holds one."""
    ds = xr.Dataset({"a": (("y", "x"), np.zeros((4, 6)))}).chunk(y=2, x=2)
    dataset = xtd.IterableDataset(ds, {"y": 2, "x": 2}, shuffle=True, memory="50 B")
    yielded = sum(len(samples_of(dataset.replace(rank=rank, world_size=4))) for rank in range(4))
    for dims in (("y", "x"), None):
        ax = dataset.plot.plan(4, dims=dims)
        assert f"blank: {6 - yielded} blocks without a sample" in ax.get_title()
    assert "blank" not in dataset.plot.plan(3).get_title()
    many = dataset.replace(ds=xr.Dataset({"a": (("y", "x"), np.zeros((4, 40)))}).chunk(y=2, x=2))
    assert many.plot.plan(18).get_legend().get_texts()[-2].get_text() == "and 2 more"


def test_plans_with_more_dims_weights_or_ranks_without_samples():
    ds = forecast(time=40, y=8, x=8).chunk(time=10, y=4, x=4)
    dataset = xtd.IterableDataset(
        ds,
        {"time": 4, "y": 2, "x": 2},
        shuffle=True,
        memory="2 kB",
        weights=xr.DataArray(np.arange(40.0) % 3, dims="time"),
    )
    ax = dataset.plot.plan(2, 1, epoch=3)
    assert "epoch 3, shuffled" in ax.get_title()
    assert "the first blocks along time" in ax.get_title()
    drawn(ax.figure)
    assert dataset.plot.plan(dims="time").get_xlabel() == "time"
    with pytest.raises(ValueError, match="cannot be shared"):
        dataset.plot.plan(10**6)
    with pytest.raises(ValueError, match="world_size"):
        dataset.plot.plan(0)
    with pytest.raises(ValueError, match="epoch"):
        dataset.plot.plan(epoch=-1)
    assert repr(dataset.plot) == "<plots of a dataset: plan(), sources(), windows()>"


# ---------------------------------------------------------------------------------------------
# Stats, and matplotlib itself


def test_bars_are_the_seconds_of_the_stages(maps):
    list(maps)
    stats = maps.stats()
    own = Figure().subplots()
    ax = stats.plot(own)
    assert ax is own
    widths = [bar.get_width() for bar in ax.patches]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert dict(zip(names, widths, strict=True)) == {name: getattr(stats, name) for name in names}
    assert set(names) == {"read", "preprocess", "prepare", "transform", "gather", "wait"}
    assert ax.lines[0].get_xdata()[0] == stats.seconds
    assert isinstance(stats.plot(), Axes)


def test_without_matplotlib_the_error_says_what_to_install(batch, maps, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for draw in (batch.plot, maps.plot.plan, maps.plot.windows):
        with pytest.raises(ImportError, match=r"pip install 'xtorch_data\[plot\]'"):
            draw()
