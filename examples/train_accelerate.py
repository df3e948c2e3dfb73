"""Train with HF Accelerate: accelerate launch --num_processes 2 examples/train_accelerate.py

`prepare` leaves the loader as it is, because the dataset shares its samples between ranks already.
`--steps 5` stops there and saves; the next run goes on with the sixth batch.
"""

import argparse
from pathlib import Path

import iris_sample_data
import torch
import xarray as xr
from accelerate import Accelerator
from torch import nn

import xtorch_data as xtd

NAME, PAST = "air_temperature", 8  # the variable, and how many years the network sees


def forecasts(**options):
    """Every nine consecutive years of a climate model: eight in, the next one out."""
    ds = xr.open_dataset(Path(iris_sample_data.path) / "A1B_north_america.nc")
    return xtd.IterableDataset(
        ds,
        input_dims={"time": PAST + 1, "latitude": -1, "longitude": -1},
        input_overlap={"time": PAST},
        inputs=xtd.Select(NAME, time=slice(0, PAST)),
        targets=xtd.Select(NAME, time=slice(PAST, PAST + 1)),
        batch_size=8,
        **options,
    )


def main(folder, epochs, steps=None):
    """Train until an epoch, or for some steps; return the samples of every batch of this rank."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    torch.manual_seed(0)
    model = nn.Conv2d(PAST, 1, 3, padding="same")
    optimizer = torch.optim.Adam(model.parameters())
    dataset = forecasts(shuffle=True, seed=1)
    loader = xtd.DataLoader(dataset, device=accelerator.device)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    accelerator.register_for_checkpointing(loader)  # so that save_state holds where it is
    if folder.exists():
        accelerator.load_state(folder)

    seen = []
    while dataset.epoch < epochs and steps != len(seen):
        for batch in loader:
            loss = nn.functional.mse_loss(model(batch.x / 300), batch.y / 300)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            seen.append(batch.index.tolist())
            if steps == len(seen):
                break
        accelerator.save_state(folder)
    accelerator.print(f"{len(seen)} batches on each of {accelerator.num_processes} ranks")
    accelerator.end_training()
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo_output/accelerate"))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int)
    seen = main(**vars(parser.parse_args()))
