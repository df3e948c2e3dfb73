"""Statistics of changes from step to step, compared with numpy's in float64."""

import numpy as np
import pytest
import torch
import xarray as xr

import xtorch_data as xtd


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4"])
@pytest.mark.parametrize("kind", ["std", "minmax"])
@pytest.mark.parametrize("chunked", [False, True])
def test_changes_of_a_large_pressure_keep_their_digits(dtype, kind, chunked):
    rng = np.random.default_rng(0)
    pressure = 101_325 + rng.integers(-128, 128, (300, 5)) / 128
    pressure[rng.random(pressure.shape) < 0.1] = np.nan
    field = xr.DataArray(
        pressure.astype(dtype), {"time": xr.date_range("2000-01-01", periods=300)}, ("time", "x")
    )
    field = field.chunk(time=20) if chunked else field
    steps = xr.Dataset({"ps": field, "change": field.diff("time")})
    samples = xtd.MapDataset(
        steps.isel(time=slice(1, None)),
        {"time": 2, "x": 5},
        {"time": 1},
        inputs=xtd.Select("ps", time=slice(0, 1)),
        targets=xtd.Select("change", time=slice(1, 2)),
    )
    train, test = xtd.split(samples, "time", fractions=(0.6, 0.4))
    normalize = xtd.Normalize.fit(train, kind=kind)
    last = 1 + train.windows[len(train) - 1]["time"].stop
    # 101,325 and 128ths of it are numbers of float32: the differences are exact in both.
    changes = np.diff(pressure[:last], axis=0)
    if kind == "std":
        np.testing.assert_allclose(normalize.mean["change"], np.nanmean(changes), rtol=1e-11)
        np.testing.assert_allclose(normalize.std["change"], np.nanstd(changes), rtol=1e-13)
    else:
        assert normalize.min["change"] == np.nanmin(changes)
        assert normalize.max["change"] == np.nanmax(changes)
    alone = xtd.Normalize.fit(field.isel(time=slice(0, last)).diff("time").rename("change"))
    np.testing.assert_allclose(alone.std["change"], np.nanstd(changes), rtol=1e-13)

    made = test.replace(preprocess=normalize)
    numbers = list(range(0, len(made), 7))
    batch = made.fetch(numbers)
    forecast = normalize.inverse(batch, "x") + normalize.inverse(batch, "y")
    first = test.windows[0]["time"].start
    truth = pressure[[2 + first + number for number in numbers]]
    known = ~np.isnan(np.diff(pressure, axis=0)[[1 + first + number for number in numbers]])
    found = forecast[:, 0]
    assert abs(found.numpy() - truth)[known].max() <= 2 / 128
    assert torch.equal(found.isnan(), torch.from_numpy(~known))
