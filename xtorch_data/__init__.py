"""xarray-native batching for PyTorch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import xbatcher as xbatcher
    from .common.options import set_options
    from .datasets.chunk_sampler import ChunkSampler
    from .datasets.iterable import IterableDataset
    from .datasets.known import KnownAtAnchor
    from .datasets.map import MapDataset
    from .datasets.mixture import Mixture, mix
    from .datasets.splits import Split, kfold, random_split, split
    from .datasets.verify import Verification, verify
    from .loading.loader import DataLoader
    from .loading.suggest import suggest_num_workers
    from .normalization.normalize import Normalize
    from .reading.failures import Failure
    from .reading.variables import ReadError
    from .report.break_costs import DimBreaks
    from .report.device_costs import DeviceCosts
    from .report.explanation import Explanation, VariableReads
    from .report.memory import PeakMemory
    from .report.mixed import MixedExplanation
    from .report.source_costs import SourceCosts
    from .report.stats import Stats
    from .report.watching import watch
    from .samples.augment import RandomFlip
    from .samples.batch import Batch
    from .samples.not_null import NotNull
    from .samples.schedule import Schedule
    from .samples.select import Select
    from .samples.source_rules import AsOf, At, Source, ValidTime, Within
    from .samples.transforms import Compose
    from .sources.opening import open_zarr
    from .writing.mosaic import Mosaic
    from .writing.mosaic_explanation import MosaicExplanation
    from .writing.predict import predict
    from .writing.rechunk import rechunk

__version__ = "0.1.0"

__all__ = [
    "AsOf",
    "At",
    "Batch",
    "ChunkSampler",
    "Compose",
    "DataLoader",
    "DeviceCosts",
    "DimBreaks",
    "Explanation",
    "Failure",
    "IterableDataset",
    "KnownAtAnchor",
    "MapDataset",
    "MixedExplanation",
    "Mixture",
    "Mosaic",
    "MosaicExplanation",
    "Normalize",
    "NotNull",
    "PeakMemory",
    "RandomFlip",
    "ReadError",
    "Schedule",
    "Select",
    "Source",
    "SourceCosts",
    "Split",
    "Stats",
    "ValidTime",
    "VariableReads",
    "Verification",
    "Within",
    "kfold",
    "mix",
    "open_zarr",
    "predict",
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
    "AsOf": "samples.source_rules",
    "At": "samples.source_rules",
    "Batch": "samples.batch",
    "ChunkSampler": "datasets.chunk_sampler",
    "Compose": "samples.transforms",
    "DataLoader": "loading.loader",
    "DeviceCosts": "report.device_costs",
    "DimBreaks": "report.break_costs",
    "Explanation": "report.explanation",
    "Failure": "reading.failures",
    "IterableDataset": "datasets.iterable",
    "KnownAtAnchor": "datasets.known",
    "MapDataset": "datasets.map",
    "MixedExplanation": "report.mixed",
    "Mixture": "datasets.mixture",
    "Mosaic": "writing.mosaic",
    "MosaicExplanation": "writing.mosaic_explanation",
    "Normalize": "normalization.normalize",
    "NotNull": "samples.not_null",
    "PeakMemory": "report.memory",
    "RandomFlip": "samples.augment",
    "ReadError": "reading.variables",
    "Schedule": "samples.schedule",
    "Select": "samples.select",
    "Source": "samples.source_rules",
    "SourceCosts": "report.source_costs",
    "Split": "datasets.splits",
    "Stats": "report.stats",
    "ValidTime": "samples.source_rules",
    "VariableReads": "report.explanation",
    "Verification": "datasets.verify",
    "Within": "samples.source_rules",
    "kfold": "datasets.splits",
    "mix": "datasets.mixture",
    "open_zarr": "sources.opening",
    "predict": "writing.predict",
    "random_split": "datasets.splits",
    "rechunk": "writing.rechunk",
    "set_options": "common.options",
    "split": "datasets.splits",
    "suggest_num_workers": "loading.suggest",
    "verify": "datasets.verify",
    "watch": "report.watching",
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
