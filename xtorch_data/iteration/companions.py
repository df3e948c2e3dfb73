"""Other sources of the samples of a batch, fetched by number next to those of the first one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..common.buffers import Buffers
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition
from .by_number import Fetcher

__all__ = ["Companions"]


class Companions:
    """Reads the parts of other sources, and adds them to batches of the first one.

    Made with whatever reads the first source, for an epoch if a preprocess is random, and as long
    there. Any thread may ask. `memory` bytes are for all of them together.
    """

    def __init__(self, samples: SampleDefinition, memory: int, epoch: int, retries: int) -> None:
        self._order = samples.order
        others = samples.others
        share = memory // max(1, len(others))
        self._fetchers = [Fetcher(each, share, epoch, retries) for each in others]

    def completed(self, batch: Batch, epoch: int, buffers: Buffers) -> Batch:
        """A batch of the first source with the parts of the others, in their order."""
        numbers = batch.index.numpy().reshape(-1)
        found = [each.fetch(numbers, epoch, buffers) for each in self._fetchers]
        return batch.joined(found, self._order)
