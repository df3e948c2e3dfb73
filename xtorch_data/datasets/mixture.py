"""Several datasets as one stream: batches of one of them at a time, by exact rates."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch.utils.data

from ..common.text import number_of
from ..planning.mixed_states import MixedState, read_state
from ..planning.plan import Plan
from ..planning.resume import Position
from ..planning.turns import MixedEpoch, Turns
from ..processes.orphans import watch_in_worker
from ..processes.workers import sent
from ..report.mixed import MixedExplanation, mixed_stats
from ..report.stats import Stats
from ..samples.arguments import as_epoch, as_ranks_and_workers
from ..samples.batch import Batch
from .iterable import IterableDataset
from .mixing import exact_rates, member, memories, require_datasets, require_one_topology
from .mixture_page import page_of, text_of
from .topology import EpochCounter

__all__ = ["Mixture", "mix"]

FAR = 2**32  # more epochs than a run has


def mix(
    datasets: Mapping[str, IterableDataset],
    rates: Mapping[str, float],
    stop: Literal["first", "all"] = "first",
) -> Mixture:
    """Mix several datasets into one stream of batches, each of one of them, by exact rates.

    `DataLoader` takes it, with workers and a device, and torch's own, too.

    Parameters
    ----------
    datasets : mapping of str to IterableDataset
        By a name of each, which `Batch.origin` is then. Their parts, batch sizes and seeds may
        differ. They are not changed, and later changes to them do not matter.
    rates : mapping of str to int, float or fractions.Fraction
        How many batches come of each, in proportion: ``{"era5": 3, "cerra": 1}``. After any number
        of batches, each has had less than one more or less than its rate says, on all ranks in the
        same order.
    stop : {"first", "all"}
        When an epoch ends: as soon as the one whose turn it is has no more batches, or when all
        have had all of theirs; until then others begin anew, in another order.

    Returns
    -------
    Mixture
        The stream.

    Raises
    ------
    TypeError, ValueError
        If they are no datasets, do not share one topology, or a rate is missing or not positive.

    Notes
    -----
    The memory of the largest of them is that of all together: a quarter of it in equal parts, and
    the rest in proportion to rates and bytes of a sample. Orders depend on that, so that a dataset
    alone has other epochs than in a mixture.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xtorch_data as xtd
    >>> fine, coarse = (
    ...     xtd.IterableDataset(xr.DataArray(np.arange(n), dims="time", name="a"), {"time": 2})
    ...     for n in (40, 10)
    ... )
    >>> mixed = mix({"fine": fine, "coarse": coarse}, rates={"fine": 3, "coarse": 1})
    >>> [batch.origin for batch in mixed][:5]
    ['fine', 'fine', 'coarse', 'fine', 'fine']
    >>> len(mixed)
    22
    """
    return Mixture(datasets, rates, stop)


class Mixture(torch.utils.data.IterableDataset[Batch]):
    """Several datasets as one stream, as `mix` makes it.

    Parameters
    ----------
    datasets : mapping of str to IterableDataset
        By name.
    rates : mapping of str to int, float or fractions.Fraction
        How many batches come of each, in proportion.
    stop : {"first", "all"}
        When an epoch ends.
    """

    def __init__(
        self,
        datasets: Mapping[str, IterableDataset],
        rates: Mapping[str, float],
        stop: Literal["first", "all"] = "first",
    ) -> None:
        super().__init__()
        require_datasets(datasets)
        exact = exact_rates(datasets, rates)
        if stop not in ("first", "all"):
            raise ValueError(f"stop must be 'first' or 'all', not {stop!r}")
        self.stop: Literal["first", "all"] = stop
        self.turns = Turns.of(list(exact.values()))
        self.datasets = {
            name: member(name, datasets[name], memory)
            for name, memory in memories(datasets, exact).items()
        }
        self._fresh(self.world_size)  # which may be no epoch
        alone = self._fresh(1)
        passes = zip(alone.counts(alone.end), alone.whole, strict=True)
        self._strides = tuple(max(1, -(-count // whole)) for count, whole in passes)
        self._counter = EpochCounter()
        self._position = Position()
        # An epoch that is resumed: its number, the turn, and the passes that are over of each.
        self._resumed: tuple[int, int, tuple[int, ...]] = (0, 0, (0,) * len(self.datasets))
        # What was resumed of each: the datasets themselves go on to other passes. Replaced as a
        # whole, since an epoch that is under way holds on to those that it began with.
        self._plans = {name: each.plan for name, each in self.datasets.items()}

    # What there is.

    @property
    def rates(self) -> dict[str, int]:
        """Batches of each in a period, after which the order of origins is repeated."""
        return dict(zip(self.datasets, self.turns.rates, strict=True))

    @property
    def rank(self) -> int:
        """Which of the shares of the epoch this process gets."""
        return self._first.rank

    @property
    def world_size(self) -> int:
        """In how many shares the epoch is cut."""
        return self._first.world_size

    @property
    def _first(self) -> IterableDataset:
        return next(iter(self.datasets.values()))

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next iteration will be."""
        return self._counter.next

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration a certain epoch; later ones go on from there.

        Parameters
        ----------
        epoch : int
            Its number, 0 or more.
        """
        if self._position.reached:
            self._forget()
        self._counter.next = as_epoch(epoch)
        self._counter.set_last = epoch + 1
        self._position = Position()

    def __len__(self) -> int:
        """Number of batches that this rank yields in the next iteration."""
        mixed = self._mixed(self.epoch, self.world_size)
        return mixed.end - mixed.begin

    # An epoch.

    def _fresh(self, world_size: int) -> MixedEpoch:
        """A whole epoch on a topology of so many ranks."""
        whole = tuple(
            each.plan.afresh().batches(0, 0, world_size) for each in self.datasets.values()
        )
        for name, count in zip(self.datasets, whole, strict=True):
            if not count:
                ranks = number_of(world_size, "rank")
                raise ValueError(f"dataset {name!r} has no batch in an epoch on {ranks}")
        return MixedEpoch(self.turns, self.stop, whole, whole, 0, (0,) * len(whole))

    def _mixed(self, epoch: int, world_size: int) -> MixedEpoch:
        """An epoch, or what is left of it."""
        mixed, (resumed, turn, passes) = self._fresh(world_size), self._resumed
        if epoch != resumed or not turn:
            return mixed
        left = tuple(
            plan.batches(self._epoch_of(place, epoch, number), 0, world_size)
            for place, (plan, number) in enumerate(zip(self._plans.values(), passes, strict=True))
        )
        return replace(mixed, left=left, begin=turn, passes=passes)

    def _epoch_of(self, place: int, epoch: int, number: int) -> int:
        """Epoch of one of the datasets that a pass of the mixture's epoch is.

        They follow one another, so that epochs of a fixed size go on where the last has ended. On
        several ranks there may be more passes than on one: those are far from all others.
        """
        stride = self._strides[place]
        return epoch * stride + number if number < stride else (epoch + 1) * FAR + number

    def _plan(self, name: str, epoch: int) -> Plan:
        """The plan of an epoch of one of the datasets, which may be resumed."""
        return self._plans[name].at(epoch)

    def _forget(self) -> None:
        """Let no epoch be resumed; one that is under way keeps its plans."""
        self._resumed = (0, 0, (0,) * len(self.datasets))
        self._plans = {name: plan.afresh() for name, plan in self._plans.items()}

    def _begin(self) -> tuple[int, MixedEpoch]:
        """Take the next epoch."""
        require_one_topology(self.datasets)
        info = torch.utils.data.get_worker_info()
        epoch = self._counter.claim() if info is None else self._counter.claim_in_worker(info)
        if self._resumed[0] != epoch:
            self._forget()
        for each in self.datasets.values():
            each.plan.require_shares(self.world_size)
        self._position.begin(epoch)
        return epoch, self._mixed(epoch, self.world_size)

    def _phase(self, epoch: int) -> int:
        """The epoch by which a `Schedule` goes: the one that a user has set last, if any."""
        return self._counter.set_last - 1 if self._counter.set_last else epoch

    def __iter__(self) -> Iterator[Batch]:
        """The next epoch, or in a worker of torch's loader its share of it."""
        info = torch.utils.data.get_worker_info()
        if info is None:
            return self._batches(self.datasets)
        epoch, mixed = self._begin()
        watch_in_worker()
        return sent(self._in_worker(epoch, mixed, info.id, info.num_workers))

    def _batches(self, of_datasets: Mapping[str, Iterable[Batch]]) -> Generator[Batch, None, None]:
        """The next epoch, made of what yields the batches of each dataset: it, or its loader."""
        epoch, mixed = self._begin()
        return self._position.counted(epoch, self._walk(epoch, mixed, self._plans, of_datasets))

    def _walk(
        self,
        epoch: int,
        mixed: MixedEpoch,
        plans: Mapping[str, Plan],
        of_datasets: Mapping[str, Iterable[Batch]],
    ) -> Generator[Batch, None, None]:
        """The batches of an epoch that was begun, of what yields those of each dataset in turns."""
        names, phase = list(self.datasets), self._phase(epoch)
        under_way: dict[str, Iterator[Batch]] = {}
        had = [0] * len(names)
        try:
            for turn in range(mixed.begin, mixed.end):
                place = self.turns.at(turn)
                name = names[place]
                number, inside = mixed.place(place, had[place])
                if name not in under_way or not inside:
                    own = self._epoch_of(place, epoch, number)
                    self.datasets[name]._inside.go_to(own, phase, plans[name])
                    _close(under_way.pop(name, None))
                    under_way[name] = iter(of_datasets[name])
                had[place] += 1
                yield next(under_way[name])
        finally:
            for each in under_way.values():
                _close(each)

    def _in_worker(
        self, epoch: int, mixed: MixedEpoch, worker: int, workers: int
    ) -> Generator[Batch, None, None]:
        """The turns that are those of a worker: of each dataset a stretch of its batches."""
        shares = mixed.shares(workers)
        streams = [
            self._stretch(epoch, mixed, place, sum(own[place] for own in shares[:worker]), count)
            for place, count in enumerate(shares[worker])
        ]
        try:
            for turn in range(mixed.begin + worker, mixed.end, workers):
                yield next(streams[self.turns.at(turn)])
        finally:
            for each in streams:
                each.close()

    def _stretch(
        self, epoch: int, mixed: MixedEpoch, place: int, first: int, count: int
    ) -> Generator[Batch, None, None]:
        """So many batches of one of the datasets, from one on."""
        name, dataset = list(self.datasets.items())[place]
        while count:
            number, begin = mixed.place(place, first)
            some = min(count, mixed.size(place, number) - begin)
            own = self._epoch_of(place, epoch, number)
            yield from dataset._inside.stretch(
                own, self._phase(epoch), self._plans[name], begin, begin + some
            )
            first, count = first + some, count - some

    # Where an epoch is.

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration in this process is: JSON-able, and small at any scale.

        With worker processes take the state from `DataLoader.state_dict`.
        """
        if torch.utils.data.get_worker_info() is not None:
            raise RuntimeError(
                "a mixture has no states of its workers: take them from xtorch_data.DataLoader"
            )
        return self._state_after(self._position.reached, dict.fromkeys(self.datasets, 1))

    def _state_after(
        self, reached: tuple[int, int] | None, workers: Mapping[str, int]
    ) -> dict[str, Any]:
        """State after so many batches of an epoch, as so many workers yield each dataset."""
        epoch, batches = reached or (self.epoch, 0)
        mixed = self._mixed(epoch, self.world_size)
        turn = mixed.begin + batches
        if turn >= mixed.end:
            epoch, mixed, turn = epoch + 1, self._fresh(self.world_size), 0
        numbers, states = [], {}
        for place, name in enumerate(self.datasets):
            number, inside = mixed.place(place, mixed.counts(turn)[place])
            own = self._epoch_of(place, epoch, number)
            plan = self._plan(name, own)
            numbers.append(number)
            states[name] = plan.state_after(own, inside, self.world_size, workers[name])
        set_last = self._counter.set_last
        found = MixedState(epoch, turn, tuple(numbers), self._strides, states, set_last)
        return found.as_state(self._fingerprint())

    def _fingerprint(self) -> dict[str, Any]:
        return {"rates": self.rates, "stop": self.stop}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Go on where a state was taken, with the samples that no rank had yielded then.

        The number of ranks and workers and the batch sizes may be others than they were.

        Parameters
        ----------
        state : mapping
            From `state_dict`.
        strict : bool
            Whether to refuse the state of a mixture that differs in what the order depends on.

        Raises
        ------
        ValueError
            If it is no state, or of another mixture; the message says what differs.
        """
        found = read_state(state, list(self.datasets), self._fingerprint(), strict)
        plans = {}
        for name, each in self.datasets.items():
            try:
                plans[name] = each.plan.resume(found.datasets[name], strict)
            except ValueError as error:
                raise ValueError(f"dataset {name!r}: {error}") from None
        self._plans = plans
        self._resumed, self._strides = (found.epoch, found.turn, found.passes), found.strides
        self._counter.next, self._counter.set_last = found.epoch, found.set_last
        self._position = Position()

    # What it costs.

    def explain(
        self, world_size: int | None = None, num_workers: int | Mapping[str, int] = 0
    ) -> MixedExplanation:
        """What the next epoch will do and what that costs, from metadata alone.

        Parameters
        ----------
        world_size : int, optional
            Number of ranks; by default the datasets' own.
        num_workers : int or mapping of str to int
            Worker processes of each rank, of all datasets together, or of each.

        Returns
        -------
        MixedExplanation
            Batches of each dataset, and what each costs; it prints as text.
        """
        world_size = self.world_size if world_size is None else world_size
        workers = self._workers_of(num_workers) if isinstance(num_workers, int) else num_workers
        world_size, _ = as_ranks_and_workers(world_size, sum(workers.values()))
        mixed = self._mixed(self.epoch, world_size)
        counts = dict(zip(self.datasets, mixed.counts(mixed.end), strict=True))
        found = {}
        whole = dict(zip(self.datasets, mixed.whole, strict=True))
        for name, each in self.datasets.items():
            # As many samples as the epoch has of it, in an order of the same kind.
            passes, rest = divmod(counts[name], whole[name])
            rest = min(rest * world_size * (each.batch_size or 1), each.plan.samples)
            size = passes * each.plan.samples + rest
            size = max(world_size, size)
            some = copy.copy(each) if size == each.plan.samples else each.replace(epoch_size=size)
            some._inside.go_to(0, self._phase(self.epoch), some.plan.afresh())
            found[name] = some.explain(world_size, workers[name])
        return MixedExplanation(found, self.rates, self.stop, counts, whole)

    def _workers_of(self, num_workers: int) -> dict[str, int]:
        """So many workers of a loader by dataset: in proportion to the rates, each one at least."""
        if not num_workers:
            return dict.fromkeys(self.datasets, 0)
        each = (max(1, round(num_workers * rate / self.turns.period)) for rate in self.turns.rates)
        return dict(zip(self.datasets, each, strict=True))

    def stats(self) -> Stats:
        """Where the time of the latest iteration in this process went, over all datasets.

        Of a dataset that had several passes in the epoch, its latest pass.

        Raises
        ------
        RuntimeError
            If there was no iteration in this process yet.
        """
        return mixed_stats(
            [each.stats() for each in self.datasets.values() if each._inside.reader.recorder]
        )

    def __copy__(self) -> Mixture:
        made = object.__new__(type(self))
        made.__dict__.update(
            self.__dict__,
            datasets={name: copy.copy(each) for name, each in self.datasets.items()},
            _counter=EpochCounter(self.epoch, self._counter.set_last),
            _position=Position(),
        )
        return made

    def __getitem__(self, index: Any) -> Any:
        raise TypeError("a mixture is iterated, and has no samples by number")

    def __repr__(self) -> str:
        return text_of(self)

    def _repr_html_(self) -> str:
        return page_of(self)


def _close(batches: Iterator[Batch] | None) -> None:
    if isinstance(batches, Generator):
        batches.close()
