"""Forecast next year's air temperature over North America from the eight years before.

Yearly means of a climate model, 1860 to 2099, go from NetCDF to Zarr, from Zarr to labeled batches,
and a network's forecasts go back to labeled Zarr and a map. All is written to demo_output/.
"""

from pathlib import Path

import iris_sample_data
import matplotlib.pyplot as plt
import torch
import xarray as xr
from torch import nn
from tqdm import tqdm

import xtorch_data as xtd

NAME, PAST = "air_temperature", 8  # the variable, and how many years the network sees
BEGINS = ["2030-01-01", "2060-01-01"]  # of the validation years and of the test years


def forecasts(ds):
    """Every nine consecutive years of `ds`: eight in, the next one out."""
    return xtd.MapDataset(
        ds,
        input_dims={"time": PAST + 1, "latitude": -1, "longitude": -1},  # -1: the whole dim
        input_overlap={"time": PAST},  # so that a window begins every year
        inputs=xtd.Select(NAME, time=slice(0, PAST)),
        targets=xtd.Select(NAME, time=PAST),
    )


class Forecaster(nn.Module):
    """Next year is this year plus a correction, made from how the years before differ from it."""

    def __init__(self, channels=32):
        super().__init__()
        self.correction = nn.Sequential(
            nn.Conv2d(PAST, channels, 5, padding="same"),
            nn.GELU(),
            nn.Conv2d(channels, channels, 5, padding="same"),
            nn.GELU(),
            nn.Conv2d(channels, 1, 5, padding="same"),
        )

    def forward(self, years):  # (sample, time, latitude, longitude) → (sample, latitude, longitude)
        last = years[:, -1:]
        return (last + self.correction(years - last)).squeeze(1)


def train(model, training, validation, epochs):
    """Fit the model, and keep the weights that were best on the validation years."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1)
    best = float("inf")
    for _ in (progress := tqdm(range(epochs), desc="training", unit="epoch")):
        for x, y in training:  # each pass is the next epoch, in an order of its own
            loss = nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            loss = torch.cat([(model(x) - y).square().mean((1, 2)) for x, y in validation]).mean()
        progress.set_postfix(validation=f"{loss:.3f}")
        if loss < best:
            best, weights = loss, {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(weights)


def draw(truth, forecast, path):
    """Maps of truth, forecast and error side by side: of all test years, and of the last one."""
    years = truth.time.dt.year.values
    when = {f"{years[0]} to {years[-1]}": slice(None), f"{years[-1]}": slice(-1, None)}
    figure, axes = plt.subplots(2, 3, figsize=(16, 8), layout="constrained", sharey=True)
    for row, (period, steps) in zip(axes, when.items(), strict=True):
        fields = [each.isel(time=steps).mean("time") for each in (truth, forecast)]
        kelvin = {"vmin": float(fields[0].min()), "vmax": float(fields[0].max())}
        maps = {"truth": (fields[0], kelvin), "forecast": (fields[1], kelvin)}
        maps["forecast − truth"] = (fields[1] - fields[0], {"center": 0})
        for ax, (title, (field, colors)) in zip(row, maps.items(), strict=True):
            field.plot(ax=ax, cbar_kwargs={"label": "K"}, **colors)
            ax.set_title(f"{title}, {period}")
    figure.suptitle("Air temperature, mean of the test years and of the last one")
    figure.savefig(path, dpi=120)


def main(output=Path("demo_output"), epochs=15):
    """Run the demo; return the errors in the test years, in kelvin."""
    torch.manual_seed(0)
    with xr.open_dataset(Path(iris_sample_data.path) / "A1B_north_america.nc") as source:
        source[[NAME]].chunk(time=16).to_zarr(output / "data.zarr", mode="w", consolidated=False)
    ds = xtd.open_zarr(output / "data.zarr")

    parts = xtd.split(forecasts(ds), "time", at=BEGINS)  # no window reaches into another part
    normalize = xtd.Normalize.fit(parts[0], per=("latitude", "longitude"))
    past, near, far = (part.replace(preprocess=normalize) for part in parts)
    training = xtd.DataLoader(past, batch_size=8, shuffle=True)
    validation, test = (xtd.DataLoader(part, batch_size=8) for part in (near, far))

    model = Forecaster()
    train(model, training, validation, epochs)
    # A forecast takes the place of the target, and with it its labels.
    forecast = xtd.predict(model, test, output / "forecast.zarr", inverse=normalize, mode="w")
    truth = ds[NAME].sel(time=forecast.time)
    draw(truth, forecast[NAME], output / "forecast.png")

    guesses = {"this model": forecast, "persistence (last year)": ds.shift(time=1)}
    guesses["mean of the eight years"] = ds.rolling(time=PAST).mean().shift(time=1)
    guesses["climatology (training years)"] = normalize.mean
    errors = {key: ((ds[NAME] - truth) ** 2).mean().item() ** 0.5 for key, ds in guesses.items()}
    print(f"Root-mean-square error, {len(truth)} test years that no training saw:")
    print("\n".join(f"  {key:30}{error:.2f} K" for key, error in errors.items()))
    print(f"Forecasts in {output / 'forecast.zarr'}, maps in {output / 'forecast.png'}")
    return errors


if __name__ == "__main__":
    main()
