"""Steps of the window that change with the epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..common.integers import as_integer

__all__ = ["Schedule"]


class Schedule:
    """Steps of the window that a part takes, from certain epochs on: rollouts that grow.

    For `Select`. The samples, their order, weights, splits and states are those of the longest
    phase throughout; only what a phase uses is read. Epochs are those that a dataset counts; once
    a user has called ``set_epoch``, only that moves on to another phase.

    Parameters
    ----------
    phases : mapping of int to slice, sequence of int or ndarray of int
        By the epoch at which a phase begins, the first of them 0, positions inside the window, as
        `Select` takes them. Those of the longest phase include all others.

    Raises
    ------
    TypeError, ValueError
        If `phases` is no such mapping.

    Examples
    --------
    One step to predict, and three from epoch 2 on:

    >>> import numpy as np, xarray as xr, xtorch_data as xtd
    >>> t2m = xr.DataArray(np.arange(12.0), dims="time", name="t2m")
    >>> rollout = Schedule({0: slice(4, 5), 2: slice(4, 7)})
    >>> samples = xtd.MapDataset(
    ...     t2m, {"time": 7}, {"time": 6},
    ...     inputs=xtd.Select("t2m", time=slice(0, 4)),
    ...     targets=xtd.Select("t2m", time=rollout),
    ... )
    >>> loader = xtd.DataLoader(samples, batch_size=6)
    >>> [tuple(batch.y.shape) for epoch in range(3) for batch in loader]
    [(6, 1), (6, 1), (6, 3)]
    """

    def __init__(self, phases: Mapping[int, Any]) -> None:
        if not isinstance(phases, Mapping) or not phases:
            raise TypeError(
                "Schedule takes a mapping of epochs to steps of the window, such as "
                f"{{0: slice(6, 7), 10: slice(6, 9)}}, not {phases!r}"
            )
        given = {
            as_integer(epoch, "an epoch of Schedule"): steps for epoch, steps in phases.items()
        }
        self.phases = dict(sorted(given.items(), key=lambda phase: phase[0]))
        first = next(iter(self.phases))
        if first:
            raise ValueError(f"the first phase of Schedule begins at epoch 0, not {first}")
        for steps in self.phases.values():
            if isinstance(steps, Schedule):
                raise TypeError("a phase of Schedule cannot be a Schedule itself")

    def _at(self, epoch: int) -> Any:
        """The steps in an epoch."""
        return self.phases[max(begin for begin in self.phases if begin <= epoch)]

    def __iter__(self) -> Iterator[int]:
        """The epochs at which phases begin, ascending."""
        return iter(self.phases)

    def __repr__(self) -> str:
        return f"Schedule({self.phases})"
