"""What a mosaic is, takes, and how far it is."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..common import html
from ..common.redact import printable
from ..common.text import format_bytes, number_of
from .mosaic_layout import MosaicLayout
from .mosaic_store import MosaicStore
from .partial_sums import PartialSums

__all__ = ["MosaicExplanation"]


@dataclass(frozen=True)
class MosaicExplanation:
    """Facts of a `Mosaic`, from `Mosaic.explain`; prints as text, in a notebook as a table.

    Attributes
    ----------
    variables : tuple of Hashable
        What the result has.
    sizes : mapping of Hashable to int
        Its dims.
    nbytes : int
        Bytes of the result, decoded; before the first batch, those of float32.
    overlaps : mapping of Hashable to int
        By dim along which samples overlap: how many predict the same place, at most. Not of events
        that overlap along several dims.
    blend : str or None
        How these are made one.
    samples, added : int
        Samples of the dataset, and those that were added.
    chunks : int or None
        Chunks of a variable that are written as a whole, or None in memory.
    written : int
        Those that are complete.
    memory : int
        Bytes that partial sums may take: in memory the result, else those of the dataset.
    held, peak : int
        Bytes that they take now, and the most they took.
    set_aside : int
        How often partial sums were put into the scratch file, because there were too many.
    """

    variables: tuple[Hashable, ...]
    sizes: Mapping[Hashable, int]
    nbytes: int
    overlaps: Mapping[Hashable, int]
    blend: str | None
    samples: int
    added: int
    chunks: int | None
    written: int
    memory: int
    held: int
    peak: int
    set_aside: int

    @classmethod
    def of(
        cls,
        layout: MosaicLayout,
        blend: str | None,
        others: Mapping[Hashable, int],
        sums: PartialSums | None,
        store: MosaicStore | None,
        memory: int,
        added: int,
        missing: int,
    ) -> MosaicExplanation:
        """Facts of the layout of a mosaic, of its sums once there are some, and of its store."""
        sizes = {**others, **dict(zip(layout.dims, layout.field.sizes, strict=True))}
        itemsize = 4 if sums is None else sums.dtype.itemsize
        return cls(
            variables=layout.part.variables,
            sizes=sizes,
            nbytes=len(layout.part.variables) * math.prod(sizes.values()) * itemsize,
            overlaps={
                each.dims[0].dim: each.dims[0].most
                for each in layout.field.groups
                if len(each.dims) == 1 and each.overlaps
            },
            blend=blend,
            samples=added + missing,
            added=added,
            chunks=None if store is None else store.done.size,
            written=0 if store is None else int(np.count_nonzero(store.done)),
            memory=memory,
            held=0 if sums is None else sums.nbytes,
            peak=0 if sums is None else sums.peak,
            set_aside=0 if sums is None else sums.set_aside,
        )

    def facts(self) -> Iterator[tuple[str, str]]:
        """Names and values, as they are printed."""
        sizes = ", ".join(f"{printable(dim)}: {size:,}" for dim, size in self.sizes.items())
        yield "result", f"{', '.join(map(printable, self.variables))} ({sizes})"
        yield "size", format_bytes(self.nbytes)
        for dim, most in self.overlaps.items():
            yield f"overlap along {printable(dim)}", f"{number_of(most, 'sample')}, {self.blend}"
        if self.blend is not None and not self.overlaps:
            yield "blend", self.blend
        yield "samples", f"{self.added:,} of {self.samples:,} added"
        if self.chunks is None:
            yield "memory", f"{format_bytes(self.nbytes)}, the result"
            return
        yield "chunks", f"{self.written:,} of {self.chunks:,} written"
        aside = f", {number_of(self.set_aside, 'time')} put aside" if self.set_aside else ""
        held = f"{format_bytes(self.held)} held now, {format_bytes(self.peak)} at most"
        yield "memory", f"{format_bytes(self.memory)} for partial sums, {held}{aside}"

    def __str__(self) -> str:
        facts = list(self.facts())
        width = max(len(name) for name, _ in facts)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in facts)

    def __repr__(self) -> str:
        return f"<xtorch_data.MosaicExplanation\n{self}>"

    def _repr_html_(self) -> str:
        return html.page("xtorch_data.Mosaic", "", [html.facts(list(self.facts()))], str(self))
