"""Train with PyTorch Lightning: python examples/train_lightning.py --devices 2

A checkpoint in the middle of an epoch holds where the loader is, because Lightning asks it for its
state; `--resume` goes on with the very next batch.
"""

import argparse
from pathlib import Path

import iris_sample_data
import lightning as L
import torch
import xarray as xr
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

import xtorch_data as xtd
from xtorch_data.lightning import AnyTopology

NAME, PAST = "air_temperature", 8  # the variable, and how many years the network sees


class Climate(L.LightningDataModule):
    """Every nine consecutive years of a climate model: eight in, the next one out."""

    def __init__(self, batch_size=8, num_workers=0):
        super().__init__()
        self.batch_size, self.num_workers = batch_size, num_workers

    def setup(self, stage):
        samples = xtd.MapDataset(
            xr.open_dataset(Path(iris_sample_data.path) / "A1B_north_america.nc"),
            input_dims={"time": PAST + 1, "latitude": -1, "longitude": -1},
            input_overlap={"time": PAST},
            inputs=xtd.Select(NAME, time=slice(0, PAST)),
            targets=xtd.Select(NAME, time=slice(PAST, PAST + 1)),
        )
        self.train, self.val = xtd.split(samples, "time", at="2030-01-01")

    def loader(self, samples, **options):
        device = self.trainer.strategy.root_device  # to copy batches ahead
        return xtd.DataLoader(
            samples,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            device=device,
            **options,
        )

    def train_dataloader(self):
        return self.loader(self.train, shuffle=True, seed=1)

    def val_dataloader(self):  # in order, ranks have as many batches: some samples come again
        return self.loader(self.val)


class Forecaster(L.LightningModule):
    """Next year is a mean of the years before, with weights that are learned."""

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(PAST, 1, 3, padding="same")
        self.seen = []  # the samples of every batch, to see for yourself that none is lost

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.index.tolist())
        return nn.functional.mse_loss(self.net(batch.x / 300), batch.y / 300)

    def validation_step(self, batch, batch_idx):
        errors = (self.net(batch.x / 300) - batch.y / 300).square().flatten(1).mean(1)
        own = (~batch.repeated).to(self.device)  # not those that another rank has, too
        loss = (errors * own).sum() / own.sum().clamp(min=1)
        self.log("validation", loss, batch_size=int(own.sum()), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def main(folder, epochs, devices=1, resume=None, **options):
    """Train until an epoch; return the samples of every batch of this rank."""
    torch.manual_seed(0)
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="auto",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        # Every fifth batch, wherever it falls in an epoch.
        callbacks=[ModelCheckpoint(folder, "{step}", every_n_train_steps=5, save_top_k=-1)]
        + [AnyTopology()],
        logger=False,
        enable_progress_bar=False,
    )
    model = Forecaster()
    trainer.fit(model, datamodule=Climate(**options), ckpt_path=resume)
    print(f"rank {trainer.global_rank}: {len(model.seen)} batches, then {trainer.callback_metrics}")
    return model.seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo_output/lightning"))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--resume", type=Path, help="a checkpoint, such as FOLDER/step=5.ckpt")
    seen = main(**vars(parser.parse_args()))
