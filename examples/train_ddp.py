"""Train on several processes at once: torchrun --nproc-per-node 2 examples/train_ddp.py

Each rank gets its share of every epoch, because the dataset knows its rank. After every epoch, and
after `--steps` batches if given, a checkpoint is written; the next run goes on from it, also with
another number of processes.
"""

import argparse
import os
from pathlib import Path

import iris_sample_data
import torch
import torch.distributed as dist
import xarray as xr
from torch import nn
from torch.nn.parallel import DistributedDataParallel

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


def main(checkpoint, epochs, steps=None):
    """Train until an epoch, or for some steps; return the samples of every batch of this rank."""
    device = torch.device("cpu")
    if torch.cuda.is_available():  # one for each process
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Conv2d(PAST, 1, 3, padding="same").to(device))
    optimizer = torch.optim.Adam(model.parameters())

    dataset = forecasts(shuffle=True, seed=1)  # the same on every rank; no sampler, no sharding
    loader = xtd.DataLoader(dataset, device=device)  # copies batches ahead
    if checkpoint.exists():  # one rank's state serves them all
        saved = torch.load(checkpoint, map_location=device)
        model.module.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])
    if dist.get_rank() == 0:  # before training: every rank gets as many batches
        xtd.verify(dataset, world_size=dist.get_world_size())

    def save():
        if dist.get_rank() == 0:
            states = {"model": model.module, "optimizer": optimizer, "loader": loader}
            torch.save({name: each.state_dict() for name, each in states.items()}, checkpoint)
        dist.barrier()

    seen = []
    while dataset.epoch < epochs and steps != len(seen):
        for batch in loader:
            loss = nn.functional.mse_loss(model(batch.x / 300), batch.y / 300)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(batch.index.tolist())
            if steps == len(seen):
                break
        save()
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("demo_output/ddp.pt"))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int)
    seen = main(**vars(parser.parse_args()))
    print(
        f"rank {dist.get_rank()}: {len(seen)} batches of {sum(map(len, seen))} samples", flush=True
    )
    dist.destroy_process_group()
