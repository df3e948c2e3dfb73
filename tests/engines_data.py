"""What tests of the engines share, in one process and in several."""

import numpy as np
import torch
import torch.utils.data
import xarray as xr
from helpers import assert_once

from xtorch_data.sources.engines import NpyBackendEntrypoint, PtBackendEntrypoint


def open_npy(path, **kwargs):
    return xr.open_dataset(path, engine=NpyBackendEntrypoint, **kwargs)


def open_pt(path, **kwargs):
    return xr.open_dataset(path, engine=PtBackendEntrypoint, **kwargs)


def saved(folder, samples, name="s{:03d}.pt"):
    """Save samples in a folder of their own."""
    folder.mkdir(exist_ok=True)
    for number, sample in enumerate(samples):
        torch.save(sample, folder / name.format(number))
    return folder


def made(folder):
    """Features in an .npy file, labels in .pt files, and what each sample should be."""
    values = np.random.default_rng(0).normal(size=(60, 4)).astype(">f4")
    np.save(folder / "features.npy", values)
    saved(folder / "labels", [torch.tensor([n, -n]) for n in range(60)])
    ds = open_npy(folder / "features.npy", dims=("sample", "feature"))
    return ds.merge(open_pt(folder / "labels", dims=["which"])), values


def assert_samples(batches, values):
    numbers = []
    for x, y, index in batches:
        numbers += index.tolist()
        np.testing.assert_array_equal(x.numpy(), values[index.numpy()].astype("f4"))
        assert (y[:, 0] == index).all() and (y[:, 1] == -index).all()
    assert_once(numbers, 60)
