"""States of a mixture of datasets: those of each, and where their turns were left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..common.redact import printable
from .states import as_number, entries, kind_of

__all__ = ["MixedState", "read_state"]

WHAT = "a mixture of datasets"


@dataclass(frozen=True)
class MixedState:
    """Where a mixture is.

    Attributes
    ----------
    epoch, turn : int
        The epoch, and how many of its turns are over.
    passes : tuple of int
        Passes over the samples of each dataset that are over in the epoch.
    strides : tuple of int
        How many epochs of each dataset lie between the beginnings of epochs of the mixture.
    datasets : mapping of str to mapping
        The state of each, by name.
    set_last : int
        One more than the epoch that a user has set last, 0 if none was.
    """

    epoch: int
    turn: int
    passes: tuple[int, ...]
    strides: tuple[int, ...]
    datasets: Mapping[str, Mapping[str, Any]]
    set_last: int

    def as_state(self, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
        """A JSON-able state; the fingerprint is what the order depends on besides."""
        found = {
            "version": 1,
            "epoch": self.epoch,
            "turn": self.turn,
            "passes": dict(zip(self.datasets, self.passes, strict=True)),
            "strides": dict(zip(self.datasets, self.strides, strict=True)),
            "mixture": dict(fingerprint),
            "datasets": dict(self.datasets),
        }
        return {**found, "set": self.set_last - 1} if self.set_last else found


def read_state(
    state: Any, names: Sequence[str], fingerprint: Mapping[str, Any], strict: bool
) -> MixedState:
    """Where a mixture of datasets of some names was.

    ValueError if it is no state or, if `strict`, that of a mixture with another fingerprint.
    """
    keys = "version", "epoch", "turn", "passes", "strides", "mixture", "datasets"
    version, epoch, turn, passes, strides, mixture, datasets = entries(state, keys, WHAT)
    if version != 1:
        raise ValueError(f"the state has version {version!r}; this release reads version 1")
    counts = {"passes": passes, "strides": strides}
    for what, found in {**counts, "mixture": mixture, "datasets": datasets}.items():
        if not isinstance(found, Mapping):
            raise ValueError(
                f"this is not a state of {WHAT}: its {what!r} must be a mapping, not "
                f"{kind_of(found)}"
            )
    for found in (passes, strides, datasets):
        if set(found) != set(names):
            raise ValueError(
                f"the state is of datasets {sorted(map(printable, found))}, and here are "
                f"{sorted(names)}"
            )
    if strict and dict(mixture) != dict(fingerprint):
        raise ValueError(
            f"this state is of another mixture: {dict(mixture)} in the state, {dict(fingerprint)} "
            "here. strict=False takes it all the same"
        )
    given = state.get("set")
    return MixedState(
        as_number(epoch, "epoch"),
        as_number(turn, "turn"),
        tuple(as_number(passes[name], f"passes of {name!r}") for name in names),
        tuple(as_number(strides[name], f"strides of {name!r}", 1) for name in names),
        datasets,
        0 if given is None else as_number(given, "set") + 1,
    )
