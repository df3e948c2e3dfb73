"""Costs and times of several datasets that are mixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from ..common import html
from ..common.redact import printable
from ..common.text import format_bytes, number_of
from .explanation import Explanation
from .stats import Stats

__all__ = ["MixedExplanation", "mixed_stats"]


@dataclass(frozen=True)
class MixedExplanation:
    """Forecast of the next epoch of a mixture: batches of each dataset, and what each costs.

    Attributes
    ----------
    datasets : mapping of str to Explanation
        What each costs, of as many samples as an epoch has of it; if it has none, of some.
    rates : mapping of str to int
        Batches of each in a period.
    stop : {"first", "all"}
        When an epoch ends.
    batches : mapping of str to int
        Batches of each that a rank gets in the epoch.
    whole : mapping of str to int
        Batches in a pass over each.
    """

    datasets: Mapping[str, Explanation]
    rates: Mapping[str, int]
    stop: str
    batches: Mapping[str, int]
    whole: Mapping[str, int]

    @property
    def _read(self) -> list[Explanation]:
        """Those of which an epoch has batches."""
        return [each for name, each in self.datasets.items() if self.batches[name]]

    @property
    def samples(self) -> int:
        """Samples of the epoch."""
        return sum(each.samples for each in self._read)

    @property
    def chunk_reads(self) -> int:
        """Chunks that are decoded in an epoch, over all datasets, ranks and workers."""
        return sum(each.chunk_reads for each in self._read)

    @property
    def nbytes(self) -> int:
        """Bytes that are decoded, over all datasets, ranks and workers."""
        return sum(each.nbytes for each in self._read)

    @property
    def memory(self) -> int:
        """Bytes that blocks of all datasets together may take in a process that loads all."""
        return sum(each.memory for each in self.datasets.values())

    @property
    def _total(self) -> int:
        return sum(self.batches.values())

    def _head(self) -> str:
        batches = number_of(self._total, "batch", "batches")
        return f"{batches} of {len(self.datasets)} datasets on each rank"

    def _facts(self) -> list[tuple[str, str]]:
        shares = ", ".join(
            f"{printable(name)} {count:,} ({count / self._total:.1%}; once through is "
            f"{self.whole[name]:,})"
            for name, count in self.batches.items()
        )
        short = min(self.whole, key=lambda name: self.whole[name] / self.rates[name])
        long = max(self.whole, key=lambda name: self.whole[name] / self.rates[name])
        ends = f"{short!r} has no more" if self.stop == "first" else f"{long!r} had all of its own"
        return [
            ("batches", shares),
            ("ends", f"when {ends}"),
            ("memory", f"{format_bytes(self.memory)} for blocks of all"),
        ]

    def __str__(self) -> str:
        lines = [self._head(), *(f"  {name:<9} {text}" for name, text in self._facts())]
        for name, each in self.datasets.items():
            lines += [f"{printable(name)}:", *(f"  {line}" for line in str(each).splitlines())]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        parts = [html.facts(self._facts())]
        parts += [
            html.section(printable(name), f"{self.batches[name]:,} batches", each._repr_html_())
            for name, each in self.datasets.items()
        ]
        return html.page("xtorch_data.MixedExplanation", self._head(), parts, str(self))


def mixed_stats(each: Sequence[Stats]) -> Stats:
    """Accounts of datasets that were iterated side by side, as one; RuntimeError if none was."""
    if not each:
        raise RuntimeError(
            "there are no stats: nothing was iterated in this process yet, or worker processes did "
            "the work"
        )
    first, *others = each
    summed = {
        name: sum(getattr(one, name) for one in each)
        for name in (field.name for field in fields(Stats))
        if name not in ("epoch", "seconds", "failures", "paths")
    }
    paths: Counter[str] = Counter()
    for one in each:
        paths.update(one.paths)
    return replace(
        first,
        **summed,
        seconds=max(one.seconds for one in each),
        failures=tuple(failure for one in each for failure in one.failures),
        paths=dict(paths),
    )
