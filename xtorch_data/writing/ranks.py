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
    """The ranks of torch.distributed, or one alone.

    What is called here is called by all of them, in the same order; an error of one is raised on
    each.
    """

    rank: int
    size: int

    @classmethod
    def of(cls, samples: Any) -> Ranks:
        """Those that a dataset hands its samples out to; one of which alone it is told has all.

        ValueError if they cannot wait for each other.
        """
        explicit = getattr(samples, "topology", None)
        if explicit is not None and explicit.explicit == (0, 1):
            return cls(0, 1)
        rank, size = current_topology()
        if size > 1 and not ranks_wait():
            raise ValueError(
                f"the environment says that this is rank {rank} of {size}, and without "
                "torch.distributed ranks cannot wait for each other: call "
                "torch.distributed.init_process_group first; or give the dataset rank=0, "
                "world_size=1, and each process a path of its own"
            )
        return cls(rank, size)

    def together(self, call: Callable[[], T]) -> list[T]:
        """Results of a function that each rank calls, by rank, once all have come so far."""
        if self.size == 1:
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
        return self.together(lambda: call() if self.rank == 0 else None)[0]  # type: ignore[return-value]


def _sendable(error: Exception) -> Exception:
    """An error as another process can make it again, else its words: that one waits for it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
