"""Train on anomalies that a cluster of dask computes meanwhile: python examples/train_dask.py

Each year's temperatures less the mean of their thirty years, by xarray's groupby on dask arrays.
The client that is active computes them; without one, threads of this process do.
"""

import argparse
from pathlib import Path

import iris_sample_data
import torch
import xarray as xr
from dask.distributed import Client, LocalCluster
from torch import nn

import xtorch_data as xtd

NAME, PAST = "air_temperature", 8  # the variable, and how many years the network sees


def anomalies():
    """A graph that nothing has been computed of: differences from a mean over other chunks."""
    ds = xr.open_dataset(Path(iris_sample_data.path) / "A1B_north_america.nc", chunks={"time": 30})
    periods = ds[[NAME]].groupby(ds["time"].dt.year // 30)
    # Groups may leave chunks of any size behind, and blocks are cut along chunks.
    return periods.map(lambda period: period - period.mean("time")).chunk(time=30)


def main(epochs):
    """Train; return the samples of every batch, and what was computed where in the last epoch."""
    dataset = xtd.IterableDataset(  # every nine consecutive years: eight in, the next one out
        anomalies(),
        input_dims={"time": PAST + 1, "latitude": -1, "longitude": -1},
        input_overlap={"time": PAST},
        inputs=xtd.Select(NAME, time=slice(0, PAST)),
        targets=xtd.Select(NAME, time=slice(PAST, PAST + 1)),
        batch_size=8,
        shuffle=True,
        memory="1 MiB",  # blocks computed ahead; smaller than the data, so that there are several
    )
    torch.manual_seed(0)
    model = nn.Conv2d(PAST, 1, 3, padding="same")
    optimizer = torch.optim.Adam(model.parameters())
    seen = []
    for epoch in range(epochs):
        total = 0.0
        for batch in xtd.DataLoader(dataset):
            loss = nn.functional.mse_loss(model(batch.x), batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(batch.index.tolist())
            total += loss.item() * len(batch)
        print(f"epoch {epoch}: loss {total / len(dataset.windows):.3f} K²")
    return seen, dataset.stats().paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    epochs = parser.parse_args().epochs
    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster):
        seen, paths = main(epochs)
    print(f"{len(seen)} batches of {sum(map(len, seen))} samples; {paths}")
