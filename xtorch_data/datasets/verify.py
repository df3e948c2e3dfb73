"""Proof, without reading data, that an epoch holds every sample once, and nothing from later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, ClassVar, cast

import numpy as np
import torch.utils.data

from ..common import html, notebooks
from ..common.text import number_of
from ..planning.intervals import Interval, cut, total
from ..planning.plan import Plan
from ..planning.resume import without
from ..samples.arguments import as_ranks_and_workers
from .iterable import IterableDataset
from .known import KnownAtAnchor, anchors_behind_inputs, known_at_anchors
from .map import MapDataset
from .mixture import Mixture
from .topology import different_batches

__all__ = ["Verification", "verify"]

# Up to this many samples, each one is counted; beyond, stretches of the line are.
COUNTED_SAMPLES = 2**26


@dataclass(frozen=True, repr=False)
class Verification:
    """Count of what one epoch holds, over all ranks and workers.

    It is true, as `ok` is, if the epoch is as it was asked for and no rank waits for another.

    Attributes
    ----------
    samples : int
        Samples of the epoch, or what is left of it if it is resumed: those that ``where`` keeps,
        and with ``weights`` those that are drawn, each draw counted as one.
    repeated : int
        Samples yielded beyond the first time, over all ranks: those that ``uneven="pad"`` repeats,
        and of which `Batch.repeated` is True. With ``weights``, draws: that different draws are of
        the same sample does not count.
    missing : int
        Samples that no rank yields: those that ``uneven="drop"`` or ``drop_last`` leave out.
    batches_per_rank : tuple of int
        Number of batches of each rank.
    drawn_from : int or None
        With ``weights``, the number of samples that are drawn from.
    padding : int
        How many samples ``uneven="pad"`` repeats, by arithmetic alone.
    left_out : int
        How many ``uneven="drop"`` and ``drop_last`` leave out, by arithmetic alone.
    known : tuple of KnownAtAnchor
        For each dim of another source that is looked up as of the anchor: whether labels say that
        all was known at the anchor, window by window.
    behind : tuple of str
        Dims along which the anchor is later than the last step of part ``x``, in words.
    uncovered : tuple of str
        How many steps of each dim are in no window, and what would cover them.
    datasets : mapping of str to Verification
        Of a mixture, the counts of each of its datasets, of which the others are sums.
    """

    samples: int
    repeated: int
    missing: int
    batches_per_rank: tuple[int, ...]
    drawn_from: int | None = None
    padding: int = 0
    left_out: int = 0
    known: tuple[KnownAtAnchor, ...] = ()
    behind: tuple[str, ...] = ()
    uncovered: tuple[str, ...] = ()
    datasets: Mapping[str, Verification] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether all is as it should be.

        Ranks have equally many batches, no sample is repeated or missing unasked, and nothing of an
        as-of source is in a sample that was not known at its anchor, or comes after its ``x``.
        """
        return not any(self._reasons())

    def __bool__(self) -> bool:
        return self.ok

    def _reasons(self) -> Iterator[str]:
        """What is not as it should be."""
        if self.repeated != self.padding:
            yield f"{self.repeated:,} repeated, but {self.padding:,} asked for"
        if self.missing != self.left_out:
            yield f"{self.missing:,} missing, but {self.left_out:,} asked for"
        difference = different_batches(self.batches_per_rank)
        if difference is not None:
            yield difference
        yield from (str(each) for each in self.known if each.late)
        yield from self.behind
        for name, each in self.datasets.items():
            yield from (f"dataset {name!r}: {reason}" for reason in each._reasons())

    _shown_in: ClassVar[tuple[int, int] | None] = None  # cell of a notebook

    def _facts(self) -> list[tuple[str, str]]:
        """The counts in words, by what they are of."""
        ranks = len(self.batches_per_rank)
        fewest, most = min(self.batches_per_rank), max(self.batches_per_rank)
        each = number_of(most, "batch", "batches")
        if fewest != most:
            each = f"{fewest:,} to {each}"
        if self.drawn_from is None:
            what = number_of(self.samples, "sample")
        else:
            drawn, samples = number_of(self.samples, "draw"), number_of(self.drawn_from, "sample")
            what = f"{drawn} of {samples}, counted as draws"
        return [
            ("samples", what),
            ("counts", f"{self.repeated:,} repeated, {self.missing:,} missing"),
            ("batches", f"{each} on {'each of ' if ranks > 1 else ''}{number_of(ranks, 'rank')}"),
            *(("known at the anchor", str(each)) for each in self.known if not each.late),
            *(("left over", line) for line in self.uncovered),
            *((f"of {name!r}", str(each).split("\n")[0]) for name, each in self.datasets.items()),
            *(("not ok", reason) for reason in self._reasons()),
        ]

    def __str__(self) -> str:
        (_, samples), (_, counts), (_, batches), *others = self._facts()
        reasons = "".join(f"\n{name}: {reason}" for name, reason in others)
        return f"{samples}: {counts}; {batches}{reasons}"

    __repr__ = __str__

    def _ipython_display_(self) -> None:
        """Show nothing in the cell in which `verify` has shown it."""
        if self._shown_in is None or self._shown_in != notebooks.cell():
            raise NotImplementedError  # IPython shows it as it shows any other object

    def _repr_html_(self) -> str:
        return html.page(
            "xtorch_data.Verification", str(self), [html.facts(self._facts())], str(self)
        )


def verify(
    dataset: IterableDataset | MapDataset | Mixture | torch.utils.data.DataLoader[Any],
    world_size: int | None = None,
    num_workers: int | None = None,
) -> Verification:
    """Plan the next epoch on a topology, and count.

    Every rank's and worker's share is planned as they would plan it. Up to 67 million samples each
    sample number is counted; beyond that the stretches of the line which they get. Of several
    sources, labels are compared with anchors for every window along the anchor's dim. No data is
    read, and the dataset's epoch does not change. What ``preprocess`` mixes within a block, labels
    do not tell.

    Parameters
    ----------
    dataset : IterableDataset, MapDataset, Mixture or DataLoader
        The dataset; of a MapDataset, a stream in order, of single samples. Of a `Mixture`, batches
        for which there is no turn, since another dataset has no more, are neither samples nor
        missing.
    world_size : int, optional
        Number of ranks; by default the dataset's own.
    num_workers : int, optional
        Worker processes of each rank; by default those of a loader, and none of a dataset.

    Returns
    -------
    Verification
        The counts, which are also printed, or shown in a notebook, with what is not as it should
        be: its attribute `ok` is False where ranks differ in batches, where samples are repeated or
        missing unasked, where labels of an as-of source say that a step was not known at the
        anchor, and where the anchor is later than the last step of ``x``.

    Raises
    ------
    TypeError, ValueError
        If `dataset` is none of ours, or there are no such numbers of ranks and workers.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> t2m = xr.DataArray(np.zeros((50, 3)), dims=("time", "x"), name="t2m")
    >>> dataset = IterableDataset(t2m, input_dims={"time": 8}, input_overlap={"time": 7})
    >>> counts = verify(dataset, world_size=4, num_workers=2)
    129 samples: 3 repeated, 0 missing; 33 batches on each of 4 ranks
    >>> assert counts, "ranks would wait for each other"
    """
    if isinstance(dataset, torch.utils.data.DataLoader):
        if num_workers is None:
            num_workers = dataset.num_workers
        if not isinstance(dataset.dataset, IterableDataset | Mixture):
            raise TypeError(
                "verify is for a loader of an IterableDataset: of a MapDataset, a sampler decides"
            )
        dataset = cast(Any, dataset.dataset)
    if isinstance(dataset, MapDataset):
        dataset = IterableDataset(dataset)
    if not isinstance(dataset, IterableDataset | Mixture):
        raise TypeError(
            "dataset must be an xtorch_data.IterableDataset or MapDataset, not "
            f"{type(dataset).__name__}"
        )
    if world_size is None:
        world_size = dataset.world_size
    count = counted_of_mixture if isinstance(dataset, Mixture) else counted
    found = count(cast(Any, dataset), world_size, num_workers or 0)
    _show(found)
    return found


def _show(found: Verification) -> None:
    """Print the counts; in a notebook, show their page."""
    if notebooks.cell() is None:
        print(found)
        return
    notebooks.display(found._repr_html_(), str(found))
    object.__setattr__(found, "_shown_in", notebooks.cell())


def counted(dataset: IterableDataset, world_size: int, num_workers: int) -> Verification:
    """The counts of `verify`."""
    world_size, num_workers = as_ranks_and_workers(world_size, num_workers)
    plan, epoch = dataset.plan, dataset.epoch
    samples = total(plan.left(epoch))
    shares = plan.shares(epoch, world_size, num_workers)
    walk, begun = plan.walk(epoch, world_size, max(1, num_workers))
    repeated = [walk.repeated(begun, rank) for rank in range(world_size)]
    # What is not marked as repeated is to be each sample once.
    own: list[Interval] = []
    for worker, last in zip(chain(*shares), chain(*repeated), strict=True):
        own += cut(worker, 0, total(worker) - last)
    each = plan.weights is None and len(plan.windows) <= COUNTED_SAMPLES
    covered = _counted(plan, epoch, own) if each else _union(own)
    return Verification(
        samples=samples,
        repeated=sum(total(worker) for rank in shares for worker in rank) - covered,
        missing=samples - covered,
        batches_per_rank=plan.batches_per_rank(shares),
        drawn_from=None if plan.weights is None else plan.there,
        padding=sum(map(sum, repeated)),
        left_out=walk.left_out(total(begun)),
        known=tuple(known_at_anchors(dataset._inside.definition, plan.windows)),
        behind=tuple(anchors_behind_inputs(dataset._inside.definition)),
        uncovered=tuple(dataset._uncovered),
    )


def counted_of_mixture(mixture: Mixture, world_size: int, num_workers: int) -> Verification:
    """The counts of `verify` for a mixture: passes over each dataset, up to the epoch's end."""
    world_size, num_workers = as_ranks_and_workers(world_size, num_workers)
    epoch, workers = mixture.epoch, mixture._workers_of(num_workers)
    mixed = mixture._mixed(epoch, world_size)
    found = {}
    for place, (name, dataset) in enumerate(mixture.datasets.items()):
        count, had = mixed.counts(mixed.end)[place], 0
        sums = np.zeros(5, dtype=np.int64)
        while had < count:
            number, inside = mixed.place(place, had)
            some = min(count - had, mixed.size(place, number) - inside)
            own = mixture._epoch_of(place, epoch, number)
            plan = mixture._plan(name, own)
            sums += _counted_batches(plan, own, some, world_size, max(1, workers[name]))
            had += some
        samples, repeated, missing, padding, left_out = sums.tolist()
        found[name] = Verification(
            samples=samples,
            repeated=repeated,
            missing=missing,
            batches_per_rank=(count,) * world_size,
            padding=padding,
            left_out=left_out,
            known=tuple(known_at_anchors(dataset._inside.definition, dataset.plan.windows)),
            behind=tuple(anchors_behind_inputs(dataset._inside.definition)),
            uncovered=tuple(dataset._uncovered),
        )
    each = list(found.values())
    return Verification(
        samples=sum(one.samples for one in each),
        repeated=sum(one.repeated for one in each),
        missing=sum(one.missing for one in each),
        batches_per_rank=(mixed.end - mixed.begin,) * world_size,
        padding=sum(one.padding for one in each),
        left_out=sum(one.left_out for one in each),
        datasets=found,
    )


def _counted_batches(
    plan: Plan, epoch: int, batches: int, world_size: int, workers: int
) -> tuple[int, int, int, int, int]:
    """Samples, repeated, missing, padding and left out, of the first batches of ranks in a pass.

    Of a whole pass, samples that ranks leave out are missing; of others, those without a turn are
    no samples.
    """
    walk, left = plan.walk(epoch, world_size, workers)
    walked = replace(walk, batches=walk.batches + batches)
    before = sorted(walk.done(left))
    done = list(without(sorted(walked.done(left)), before))
    yielded = walked.yielded(left) - walk.yielded(left)
    each = plan.weights is None and len(plan.windows) <= COUNTED_SAMPLES
    covered = _counted(plan, epoch, done) if each else _union(done)
    whole = batches == plan.batches(epoch, 0, world_size)
    left_out = walk.left_out(total(left)) if whole else 0
    samples = total(left) - total(before) if whole else total(done)
    return samples, yielded - covered, samples - covered, yielded - total(done), left_out


def _counted(plan: Plan, epoch: int, intervals: list[Interval]) -> int:
    """Different samples of each pass in some stretches of the epoch, each sample looked up."""
    passes: dict[int, list[Interval]] = {}
    for number, inside in plan.lines(epoch, intervals):
        passes.setdefault(number, []).extend(inside)
    found = 0
    for number, walked in passes.items():
        seen = np.zeros(len(plan.windows), dtype=bool)
        for stage in plan.line(number).stages(walked):
            seen[plan.numbers(stage)] = True
        found += int(seen.sum())
    return found


def _union(intervals: list[Interval]) -> int:
    """Positions covered by some intervals."""
    covered, upto = 0, 0
    for start, stop in sorted(intervals):
        covered += max(0, stop - max(start, upto))
        upto = max(upto, stop)
    return covered
