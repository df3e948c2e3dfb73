"""What goes wrong on the way to a store, drawn for each request."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

# An error of the server, "slow down", a connection that is reset before an answer or in the middle
# of a body, and no answer at all.
KINDS = ("500", "503", "reset", "cut")
STALL = "stall"


@dataclass
class Faults:
    """How often requests for objects fail or take long.

    An object that has failed `times` times in a row is sent, whatever is drawn for it.
    """

    failing: float = 0.0  # share of requests
    kinds: tuple[str, ...] = KINDS
    times: int = 1
    slow: float = 0.0  # share of requests
    seconds: float = 1.0  # that these take longer
    keys: str = ""  # only of objects whose key has this in it
    seed: int = 0
    _failed: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def draw(self, key: str) -> tuple[str, float]:
        """How a request for an object fails ("" for not at all), and seconds it takes longer."""
        if self.keys not in key:
            return "", 0.0
        longer = self.seconds if self._random.random() < self.slow else 0.0
        before = self._failed.pop(key, 0)
        fails = before or self._random.random() < self.failing
        if not fails or before == self.times:
            return "", longer
        self._failed[key] = before + 1
        return self._random.choice(self.kinds), longer
