"""Predictions drawn beside the truth: the values of plain isel, and colors that can be compared."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from matplotlib.collections import QuadMesh

import xtorch_data as xtd

pytestmark = pytest.mark.filterwarnings("ignore:.*Agg is non-interactive:UserWarning")


@pytest.fixture(autouse=True)
def no_figure_left():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def ds():
    rng = np.random.default_rng(0)
    dims, shape = ("time", "latitude", "longitude"), (12, 5, 7)
    found = xr.Dataset(
        {
            "t2m": (dims, rng.normal(280, 5, shape), {"long_name": "Temperature", "units": "K"}),
            "rain": (dims, rng.gamma(1, 2, shape), {"units": "mm"}),
            "index": ("time", rng.normal(size=12)),
        },
        coords={
            "time": pd.date_range("2020-01-01", periods=12),
            "latitude": ("latitude", np.linspace(60, 40, 5), {"units": "degrees_north"}),
            "longitude": ("longitude", np.linspace(0, 30, 7), {"units": "degrees_east"}),
        },
    )
    found["t2m"][:, 1, 2] = np.nan  # land
    return found


@pytest.fixture(scope="module")
def maps(ds):
    return xtd.MapDataset(
        ds, {"time": 4, "latitude": -1, "longitude": -1}, {"time": 3},
        inputs=xtd.Select(["t2m"], time=slice(0, 3)),
        targets=xtd.Select(["t2m", "rain"], time=slice(3, 4)),
    )  # fmt: skip


def mesh_of(ax):
    [mesh] = [each for each in ax.collections if isinstance(each, QuadMesh)]
    return mesh


def lines_of(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def test_maps_of_input_prediction_truth_and_difference_stand_in_a_row(ds, maps):
    batch = maps.fetch([6, 2, 4])
    predicted = batch.replace(y=batch.y * 1.01 + 0.5)
    for truth in (batch, batch.y):
        axes = predicted.plot([0, -1], truth=truth, isel={"time": -1})
        axes[0, 0].figure.canvas.draw()
        assert axes.shape == (4, 4)  # two variables of two samples
        for row, (number, name) in enumerate([(6, "t2m"), (6, "rain"), (4, "t2m"), (4, "rain")]):
            cut = ds[name].isel(maps.windows[number]).values.astype("float32")
            forecast = cut[3] * np.float32(1.01) + np.float32(0.5)
            expected = [cut[2], forecast, cut[3], forecast - cut[3]]
            for ax, values in zip(axes[row], expected, strict=True):
                if ax is axes[row, 0] and name == "rain":  # which is no input
                    assert ax is None
                    continue
                found = np.ma.filled(mesh_of(ax).get_array(), np.nan).reshape(values.shape)
                np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-4)
                assert f"sample {number}" in ax.get_title()
            titles = [ax.get_title().split()[0] for ax in axes[row] if ax is not None]
            assert titles == ["input", "prediction", "truth", "difference"][name == "rain" :]
            day = str(ds["time"].values[maps.windows[number]["time"]][3])[:10]
            assert day in axes[row, 1].get_title() and day in axes[row, 3].get_title()


def test_prediction_and_truth_share_colors_and_differences_are_around_zero(maps):
    batch = maps.fetch([6, 2, 4])
    axes = batch.replace(y=batch.y - 3).plot([0, 1, 2], truth=batch, variables="t2m")
    assert axes.shape == (3, 4)
    limits = {mesh_of(ax).get_clim() for ax in axes[:, :3].flat}
    assert len(limits) == 1
    values = np.concatenate(
        [np.asarray(mesh_of(ax).get_array()).ravel() for ax in axes[:, 1:3].flat]
    )
    [(low, high)] = limits
    assert low <= np.nanmin(values) and high >= np.nanmax(values)
    apart = {mesh_of(ax).get_clim() for ax in axes[:, 3]}
    [(low, high)] = apart
    assert low == -high == pytest.approx(-3, abs=1e-3)
    assert {mesh_of(ax).cmap.name for ax in axes[:, 3]} == {"RdBu_r"}
    given = batch.replace(y=batch.y - 3).plot(
        truth=batch, variables="t2m", cmap="magma", vmin=0, vmax=1
    )
    assert mesh_of(given[0, 1]).cmap.name == mesh_of(given[0, 2]).cmap.name == "magma"
    assert mesh_of(given[0, 3]).cmap.name == "RdBu_r" and mesh_of(given[0, 3]).get_clim()[1] > 2
    same = batch.plot(truth=batch, variables="t2m")
    low, high = mesh_of(same[0, 3]).get_clim()
    assert low == -high < 0


def test_labels_of_colors_and_axes_have_units(maps):
    batch = maps.fetch([0])
    axes = batch.plot(truth=batch, variables="t2m")
    bars = [ax.child_axes[0].get_ylabel() for ax in axes[0]]
    assert bars == ["Temperature [K]"] * 3 + ["difference [K]"]
    assert axes[0, 0].get_ylabel() == "latitude [degrees_north]"
    assert axes[0, 1].get_xlabel() == "longitude [degrees_east]"


@pytest.mark.parametrize("use_cftime", [False, True])
def test_series_are_lines_in_one_axes_with_the_difference_below(ds, use_cftime):
    times = xr.date_range("2020-01-01", periods=12, use_cftime=use_cftime)
    samples = xtd.MapDataset(
        ds.assign_coords(time=times), {"time": 8}, {"time": 7},
        inputs=xtd.Select("index", time=slice(0, 5)), targets=xtd.Select("index", time=slice(5, 8)),
    )  # fmt: skip
    batch = samples.fetch([3, 1])
    axes = batch.replace(y=batch.y + 0.25).plot([0, 1], truth=batch)
    axes[0, 0].figure.canvas.draw()
    assert axes.shape == (2, 2)
    for (top, below), number in zip(axes, (3, 1), strict=True):
        values = ds["index"].values[number : number + 8]
        lines = lines_of(top)
        assert [text.get_text() for text in top.get_legend().get_texts()] == [
            "input", "truth", "prediction",
        ]  # fmt: skip
        np.testing.assert_allclose(lines["input"].get_ydata(), values[:5], rtol=1e-5)
        np.testing.assert_allclose(lines["truth"].get_ydata(), values[5:], rtol=1e-5)
        np.testing.assert_allclose(lines["prediction"].get_ydata(), values[5:] + 0.25, rtol=1e-5)
        # Steps of the target come behind those of the input.
        steps = np.r_[
            lines["input"].get_xdata(orig=False), lines["truth"].get_xdata(orig=False)
        ].astype(float)
        assert (np.diff(steps) == np.diff(steps)[0]).all()
        [difference] = [line for line in below.get_lines() if len(line.get_xdata()) == 3]
        np.testing.assert_allclose(difference.get_ydata(), 0.25, atol=1e-5)
        np.testing.assert_array_equal(
            difference.get_xdata(orig=False), lines["truth"].get_xdata(orig=False)
        )
        low, high = below.get_ylim()
        assert low == -high and high > 0.25
        assert "2020-01-" in top.get_title()
    ends = {ax.get_ylim() for ax in axes[:, 0]}
    assert len(ends) == 1


def test_other_dims_and_axes_can_be_chosen(maps, ds):
    batch = maps.fetch([6])
    predicted = batch.replace(y=batch.y + 1)
    axes = predicted.plot(truth=batch, dims="latitude", isel={"longitude": 3}, variables=["t2m"])
    assert axes.shape == (1, 2)
    cut = ds["t2m"].isel(maps.windows[6]).isel(longitude=3).values
    np.testing.assert_allclose(lines_of(axes[0, 0])["truth"].get_ydata(), cut[3], rtol=1e-6)
    figure, own = plt.subplots(2, 2)
    found = predicted.plot(truth=batch, variables=["t2m"], axes=own)
    assert found.shape == (1, 4) and set(found.flat) == set(own.flat)
    assert found[0, 3].figure is figure
    with pytest.raises(ValueError, match="axes has 3 Axes, but 4 are drawn on"):
        predicted.plot(truth=batch, variables=["t2m"], axes=own.flat[:3])


def test_numbers_other_parts_and_single_samples_are_drawn(ds):
    samples = xtd.MapDataset(
        ds, {"time": 3}, parts={"x": "index", "next": xtd.Select("index", time=2)}
    )
    batch = samples.fetch([0, 1])
    axes = batch.replace(next=batch["next"] + 1).plot(1, truth=batch, part="next")
    assert axes.shape == (1, 4)
    np.testing.assert_allclose(axes[0, 0].get_lines()[0].get_ydata(), batch["x"][1])
    shown = [ax.texts[0].get_text() for ax in axes[0, 1:]]
    value = float(batch["next"][1])
    assert [float(text) for text in shown] == pytest.approx([value + 1, value, 1], rel=1e-3)
    single = next(iter(xtd.IterableDataset(samples, batch_size=None)))
    assert single.plot(truth=single, part="next").shape == (1, 4)


def test_of_many_variables_six_are_drawn_and_said():
    names = [f"v{number}" for number in range(8)]
    ds = xr.Dataset({name: ("x", np.arange(4.0)) for name in names}).expand_dims(time=3)
    samples = xtd.MapDataset(ds, {"x": -1}, inputs=names, targets=names)
    batch = samples.fetch([0])
    axes = batch.plot(truth=batch)
    assert axes.shape == (6, 2)
    assert axes[0, 0].figure.get_supxlabel().startswith("2 more variables")


def test_what_is_not_the_truth_of_these_samples_is_refused(ds, maps):
    batch = maps.fetch([6, 2])
    with pytest.raises(ValueError, match="truth is of other samples: 2, 6, not 6, 2"):
        batch.plot(truth=maps.fetch([2, 6]))
    with pytest.raises(ValueError, match=r"shape \(2, 2, 1, 5, 7\), but the truth \(2, 1, 5, 7\)"):
        batch.plot(truth=batch.y[:, 0])
    with pytest.raises(TypeError, match="a Batch of the same samples, or a tensor.*not ndarray"):
        batch.plot(truth=batch.y.numpy())
    with pytest.raises(KeyError, match="no part 'z'"):
        batch.plot(truth=batch, part="z")
    later = ds.assign_coords(time=ds["time"] + np.timedelta64(1, "D"))
    with pytest.raises(ValueError, match="truth is of other samples: 'time' of sample 6"):
        batch.plot(truth=maps.replace(ds=later).fetch([6, 2]))
    with pytest.raises(ValueError, match="there is no variable 'wind' here"):
        batch.plot(truth=batch, variables="wind")
    flip = xtd.RandomFlip("longitude", p=1.0)
    with pytest.raises(ValueError, match="not flipped along"):
        flip(batch).plot(truth=batch)
    members = torch.stack([batch.y, batch.y], 1)
    named = batch.replace(y=members.flatten(1, 2).reshape(2, 2, 2, 1, 5, 7).transpose(1, 2), dims={
        "y": ("sample", "variable", "member", ...)
    })  # fmt: skip
    with pytest.raises(ValueError, match="members, choose one"):
        named.plot(truth=batch)
