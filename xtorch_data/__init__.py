"""xarray-native batching for PyTorch."""

from .batch import Batch
from .dataset import IterableDataset
from .loader import DataLoader
from .reader import ReadError
from .select import Select
from .sources import open_zarr
from .stats import Stats
from .verify import Verification, verify

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "DataLoader",
    "IterableDataset",
    "ReadError",
    "Select",
    "Stats",
    "Verification",
    "open_zarr",
    "verify",
]
