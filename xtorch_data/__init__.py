"""xarray-native batching for PyTorch."""

from . import xbatcher as xbatcher
from .batch import Batch
from .dataset import IterableDataset
from .explain import Explanation, VariableReads
from .failures import Failure
from .loader import DataLoader
from .map_dataset import MapDataset
from .normalize import Normalize
from .reader import ReadError
from .sampler import ChunkSampler
from .select import Select
from .sources import open_zarr
from .splits import Split, kfold, random_split, split
from .stats import Stats
from .suggest import suggest_num_workers
from .transforms import Compose
from .verify import Verification, verify

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "ChunkSampler",
    "Compose",
    "DataLoader",
    "Explanation",
    "Failure",
    "IterableDataset",
    "MapDataset",
    "Normalize",
    "ReadError",
    "Select",
    "Split",
    "Stats",
    "VariableReads",
    "Verification",
    "kfold",
    "open_zarr",
    "random_split",
    "split",
    "suggest_num_workers",
    "verify",
]
