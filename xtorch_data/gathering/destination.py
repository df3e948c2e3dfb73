"""Destinations of batches: memory of the host here; a device is in the room of devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..common.buffers import Buffers
from ..samples.definition import SampleDefinition
from .assembly import Assembly
from .stage import StageInMemory
from .torch_threads import limit_to_one_thread

__all__ = ["Destination", "Host"]


class Destination(Protocol):
    """Place in which batches are made of stages; lasts for several iterations.

    Attributes
    ----------
    memory : int or None
        Bytes that stages may take there, beside those on the host; a single one may exceed it.
        None where stages stay where they are.
    """

    @property
    def memory(self) -> int | None:
        """Bytes for stages, or None."""
        ...

    def begin_thread(self) -> None:
        """Prepare a thread that makes batches; each calls it first."""
        ...

    def send(self, stage: StageInMemory) -> StageInMemory:
        """A stage there; its memory on the host is not needed any more. A blocking call."""
        ...

    def assembly(self, recipe: SampleDefinition, samples: int, epoch: int) -> Assembly:
        """A batch in the making."""
        ...


@dataclass(frozen=True, eq=False)
class Host:
    """Batches in memory of the host."""

    buffers: Buffers
    memory: None = None

    def begin_thread(self) -> None:
        """Let torch start no threads of its own for it."""
        limit_to_one_thread()

    def send(self, stage: StageInMemory) -> StageInMemory:
        """The stage, which is there."""
        return stage

    def assembly(self, recipe: SampleDefinition, samples: int, epoch: int) -> Assembly:
        """A batch in the making."""
        return Assembly(recipe, self.buffers, samples, epoch)
