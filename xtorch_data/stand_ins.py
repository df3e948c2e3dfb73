"""Samples that stand in for batches of which nothing could be read."""

from __future__ import annotations

import threading

from .loaded import Loaded, Located

__all__ = ["StandIn"]


class StandIn:
    """The sample that stands in, as far as one job of gathering and those before it know one.

    It is the last one that was kept before in the order of batches. Jobs run side by side: one that
    has kept none itself waits for the job before it, so that the same data gives the same batches.

    Parameters
    ----------
    before : StandIn, optional
        That of the job before.
    """

    def __init__(self, before: StandIn | None = None) -> None:
        self._before = before
        self._kept: tuple[Loaded, Located] | None = None
        self._ended = threading.Event()

    def keep(self, loaded: Loaded, found: Located) -> None:
        """Keep a sample for the batches after it.

        Parameters
        ----------
        loaded : Loaded
            Its stage.
        found : Located
            The sample.
        """
        self._kept = loaded, found

    def last(self) -> tuple[Loaded, Located] | None:
        """The sample that was kept last, with its stage; None if there was none yet."""
        if self._kept is None and self._before is not None:
            self._before._ended.wait()
            self._kept = self._before._kept
        return self._kept

    def end(self) -> None:
        """Note that the job has ended, well or not; it holds on to no earlier ones from then on."""
        self._before = None
        self._ended.set()
