"""Ranks that write one store together: what the first one does for all, and what all tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed

from ..datasets.topology import ranks_wait

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
    def current(cls) -> Ranks:
        """Those that there are now."""
        if not ranks_wait():
            return cls(0, 1)
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())

    def together(self, call: Callable[[], T]) -> list[T]:
        """Results of a function that each rank calls, by rank, once all have come so far."""
        if self.size == 1:
            return [call()]
        mine: tuple[Any, Exception | None] = None, None
        try:
            mine = call(), None
        except Exception as error:
            mine = None, error
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, mine)
        if mine[1] is not None:
            raise mine[1]
        for rank, (_, other) in enumerate(found):
            if other is not None:
                other.add_note(f"on rank {rank}")
                raise other
        return [result for result, _ in found]

    def first(self, call: Callable[[], T]) -> T:
        """Result of a function that the first rank calls, on each of them."""
        return self.together(lambda: call() if self.rank == 0 else None)[0]  # type: ignore[return-value]
