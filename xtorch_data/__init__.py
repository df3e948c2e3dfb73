"""xarray-native batching for PyTorch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import xbatcher as xbatcher
    from .batch import Batch
    from .dataset import IterableDataset
    from .device_costs import DeviceCosts
    from .explanation import Explanation, VariableReads
    from .failures import Failure
    from .loader import DataLoader
    from .map_dataset import MapDataset
    from .normalize import Normalize
    from .opening import open_zarr
    from .options import set_options
    from .peak import PeakMemory
    from .rechunking import rechunk
    from .sampler import ChunkSampler
    from .select import Select
    from .source_reader import ReadError
    from .splits import Split, kfold, random_split, split
    from .stats import Stats
    from .suggest import suggest_num_workers
    from .transforms import Compose
    from .verification import Verification, verify
    from .watching import watch

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "ChunkSampler",
    "Compose",
    "DataLoader",
    "DeviceCosts",
    "Explanation",
    "Failure",
    "IterableDataset",
    "MapDataset",
    "Normalize",
    "PeakMemory",
    "ReadError",
    "Select",
    "Split",
    "Stats",
    "VariableReads",
    "Verification",
    "kfold",
    "open_zarr",
    "random_split",
    "rechunk",
    "set_options",
    "split",
    "suggest_num_workers",
    "verify",
    "watch",
]

# What is imported only when it is used: xarray imports this package for its engines when it opens
# any file, and torch takes seconds.
_HOMES = {
    "Batch": "batch",
    "ChunkSampler": "sampler",
    "Compose": "transforms",
    "DataLoader": "loader",
    "DeviceCosts": "device_costs",
    "Explanation": "explanation",
    "Failure": "failures",
    "IterableDataset": "dataset",
    "MapDataset": "map_dataset",
    "Normalize": "normalize",
    "PeakMemory": "peak",
    "ReadError": "source_reader",
    "Select": "select",
    "Split": "splits",
    "Stats": "stats",
    "VariableReads": "explanation",
    "Verification": "verification",
    "kfold": "splits",
    "open_zarr": "opening",
    "random_split": "splits",
    "rechunk": "rechunking",
    "set_options": "options",
    "split": "splits",
    "suggest_num_workers": "suggest",
    "verify": "verification",
    "watch": "watching",
}


def __getattr__(name: str) -> Any:
    if name == "xbatcher":  # the module
        return import_module(".xbatcher", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    own = (name for name in globals() if name.startswith("__"))
    return sorted({*own, *__all__, "xbatcher"})
