"""The loaders of the datasets of a mixture, from which batches come in turns."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from ..datasets.mixture import Mixture
from ..samples.batch import Batch

__all__ = ["MixedLoaders"]


class MixedLoaders:
    """A loader for each dataset of a mixture; made by the loader of the mixture.

    Attributes
    ----------
    mixture : Mixture
        Whose batches they are.
    loaders : mapping of str to DataLoader
        By name of the dataset.
    """

    def __init__(self, mixture: Mixture, loaders: Mapping[str, Any]) -> None:
        self.mixture, self.loaders = mixture, loaders

    @property
    def workers(self) -> dict[str, int]:
        """Worker processes by dataset."""
        return {name: each.num_workers for name, each in self.loaders.items()}

    def begin(self) -> Generator[Batch, None, None]:
        """The batches of the next epoch."""
        return self.mixture._batches(self.loaders)

    def state(self) -> dict[str, Any]:
        """State of the latest iteration."""
        workers = {name: max(1, count) for name, count in self.workers.items()}
        return self.mixture._state_after(self.mixture._position.reached, workers)
