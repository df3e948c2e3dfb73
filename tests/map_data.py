"""What tests of samples by number share, in one process and in several."""

import numpy as np
from helpers import (
    Oracle,
    forecast,
)

import xtorch_data as xtd

WINDOW = {"time": 8, "y": -1, "x": -1}


def make(ds=None, **options):
    """Windows of ``a`` and ``b`` along time, 53 of them, to predict ``b``."""
    arguments = {"input_overlap": {"time": 7}, "inputs": ["a", "b"], "targets": "b"} | options
    return xtd.MapDataset(forecast() if ds is None else ds, WINDOW, **arguments)


def expected(numbers, dataset, ds=None):
    oracle = Oracle(forecast() if ds is None else ds)
    windows = [dataset.windows[int(number)] for number in numbers]
    x = [oracle.part(["a", "b"], window, ("time", "y", "x")) for window in windows]
    return np.stack(x), np.stack([each[1] for each in x])
