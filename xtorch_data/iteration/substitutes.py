"""Samples that stand in for batches of which nothing could be read."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from ..gathering.assembly import Assembly
from ..gathering.located import Located
from ..gathering.stage import Loaded

__all__ = ["StandIn"]


class StandIn:
    """What can stand in once a stage is read: one of its samples, or of the last with any before.

    Stages end in any order. Which sample it is does not depend on that, so that the same data
    gives the same batches.

    Parameters
    ----------
    stage : Future of Loaded
        The stage.
    before : StandIn, optional
        That of the stage before.
    """

    def __init__(self, stage: Future[Loaded], before: StandIn | None) -> None:
        # What is asked for a sample and what after it; one value, because any thread may look.
        self._found_in: tuple[Callable[[], Loaded] | None, StandIn | None] = stage.result, before

    def find(self) -> tuple[Loaded, Located] | None:
        """A sample that could be read, and what it is gathered from; None if there was none yet."""
        each: StandIn | None = self
        while each is not None:
            stage, each = each._found_in
            if stage is not None:
                loaded = stage()
                found = loaded.one_that_is_there()
                if found is not None:
                    return loaded, found
        return None

    def end(self, assemble: Callable[[int], Assembly]) -> None:
        """Hold on to a single sample: the memory of the stage is needed for others.

        Parameters
        ----------
        assemble : callable
            Begins a batch of so many samples, in whose memory it is kept.
        """
        stage, before = self._found_in
        assert stage is not None, "a stage ends once"
        loaded = stage()
        found = loaded.one_that_is_there()
        if found is not None:
            alone = assemble(1).alone(loaded, found)
            self._found_in = lambda: alone, None
            return
        while before is not None and before._found_in[0] is None:  # nor is there any in that one
            before = before._found_in[1]
        self._found_in = None, before
