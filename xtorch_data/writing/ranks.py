"""Ranks that write one store together: what the first one does for all, and what all tell."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed

from ..datasets.topology import current_topology, ranks_wait

__all__ = ["Ranks"]

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The ranks of torch.distributed, one alone, or one of several processes that do not wait.

    What is called here is called by all ranks of torch.distributed, in the same order; an error of
    one is raised on each. A process that does not wait for others calls it for itself.

    Attributes
    ----------
    rank, size : int
        Which one this is, and of how many.
    apart : bool
        Whether there are others, without torch.distributed.
    """

    rank: int
    size: int
    apart: bool = False

    @classmethod
    def of(cls, samples: Any, stored: bool) -> Ranks:
        """Those that a dataset hands its samples out to; one of which alone it is told has all.

        What is not `stored` is of this process; ValueError if the environment says that there are
        others.
        """
        topology = getattr(samples, "topology", None)
        explicit = None if topology is None else topology.explicit
        if explicit == (0, 1):
            return cls(0, 1)
        if ranks_wait():
            return cls(*current_topology())
        rank, size = explicit or current_topology()
        if stored:
            return cls(rank, size, apart=size > 1)
        return cls(0, 1) if explicit else cls(rank, size)

    def together(self, call: Callable[[], T]) -> list[T]:
        """Results of a function that each rank calls, by rank, once all have come so far."""
        if self.size == 1 or self.apart:
            return [call()]
        result, own = None, None
        try:
            result = call()
        except Exception as error:
            own = error
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, (result, own and _sendable(own)))
        if own is not None:
            raise own
        for rank, (_, other) in enumerate(found):
            if other is not None:
                other.add_note(f"on rank {rank}")
                raise other
        return [result for result, _ in found]

    def first(self, call: Callable[[], T]) -> T:
        """Result of a function that the first rank calls, on each of them."""
        mine = self.rank == 0 or self.apart
        return self.together(lambda: call() if mine else None)[0]  # type: ignore[return-value]


def _sendable(error: Exception) -> Exception:
    """An error as another process can make it again, else its words: that one waits for it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
