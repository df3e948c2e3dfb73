"""Train through torchdata's StatefulDataLoader: python examples/train_stateful.py --steps 5

The next run goes on with the sixth batch. It needs as many ranks, workers and samples in a batch as
before, because each worker keeps its own place; the state of an xtorch_data.DataLoader does not.
"""

import argparse
from pathlib import Path

import iris_sample_data
import torch
import xarray as xr
from torch import nn
from torchdata.stateful_dataloader import StatefulDataLoader

import xtorch_data as xtd

NAME, PAST = "air_temperature", 8  # the variable, and how many years the network sees


def main(checkpoint, epochs, steps=None, num_workers=0):
    """Train until an epoch, or for some steps; return the samples of every batch."""
    dataset = xtd.IterableDataset(  # every nine consecutive years: eight in, the next one out
        xr.open_dataset(Path(iris_sample_data.path) / "A1B_north_america.nc"),
        input_dims={"time": PAST + 1, "latitude": -1, "longitude": -1},
        input_overlap={"time": PAST},
        inputs=xtd.Select(NAME, time=slice(0, PAST)),
        targets=xtd.Select(NAME, time=slice(PAST, PAST + 1)),
        batch_size=8,
        shuffle=True,
    )
    loader = StatefulDataLoader(
        dataset,
        batch_size=None,  # the dataset makes the batches
        num_workers=num_workers,
        multiprocessing_context="forkserver" if num_workers else None,
    )
    torch.manual_seed(0)
    model = nn.Conv2d(PAST, 1, 3, padding="same")
    optimizer = torch.optim.Adam(model.parameters())
    begin = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        begin = saved["epoch"]
        for each, name in (model, "model"), (optimizer, "optimizer"), (loader, "loader"):
            each.load_state_dict(saved[name])

    seen = []
    for epoch in range(begin, epochs):
        for batch in loader:
            loss = nn.functional.mse_loss(model(batch.x / 300), batch.y / 300)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(batch.index.tolist())
            if len(seen) == steps:
                states = {"model": model, "optimizer": optimizer, "loader": loader}
                saved = {name: each.state_dict() for name, each in states.items()}
                torch.save({"epoch": epoch, **saved}, checkpoint)
                return seen
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("demo_output/stateful.pt"))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--num-workers", type=int, default=2)
    seen = main(**vars(parser.parse_args()))
    print(f"{len(seen)} batches of {sum(map(len, seen))} samples")
