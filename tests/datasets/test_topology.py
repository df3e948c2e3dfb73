"""Ranks and workers: every sample once, whoever takes it.

Worker processes take seconds to start, so the whole matrix runs in this process, which pretends to
be each worker in turn. A few tests start real ones.
"""

import itertools
import math
import time
import tracemalloc
import warnings

import numpy as np
import pytest
import torch.distributed
import torch.utils.data
import xarray as xr
import zarr
from helpers import (
    assert_once,
    forecast,
    numbered,
    orders,
    samples_of,
    tiny_memory_allowed,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import MORE, examples
from torch.utils.data.distributed import DistributedSampler

import xtorch_data as xtd

RANKS = (1, 2, 3, 4)
WORKERS = (0, 1, 2, 3)
# samples, batch size: one that divides, ones that do not, more workers than batches
SIZES = ((24, 4), (23, 4), (29, 5), (13, 7), (7, 3), (5, 8))


def one_rank(total, size, uneven, rank, ranks, **kwargs):
    arguments = {"batch_size": size, "uneven": uneven, "rank": rank, "world_size": ranks}
    with tiny_memory_allowed():
        return xtd.IterableDataset(numbered(total), {"time": 1}, **(arguments | kwargs))


def epoch_of(as_worker, dataset, workers, epoch=0):
    """What each worker of one rank yields in an epoch."""
    batches = []
    for number in range(max(workers, 1)):
        as_worker(number, workers, dataset)
        dataset.set_epoch(epoch)
        batches.append(list(dataset))
    as_worker(0, 0)
    return batches


def epoch_everywhere(as_worker, total, size, uneven, ranks, workers, epoch=0, **kwargs):
    """What each rank yields in an epoch, its workers one after the other."""
    result = []
    for rank in range(ranks):
        dataset = one_rank(total, size, uneven, rank, ranks, **kwargs)
        batches = list(itertools.chain(*epoch_of(as_worker, dataset, workers, epoch)))
        assert len(dataset) == len(batches)
        result.append(batches)
    return result


def assert_promise(everywhere, total, size, uneven, drop_last):
    """Check what `uneven` and `drop_last` promise, and that values belong to their numbers."""
    ranks = len(everywhere)
    for batch in itertools.chain(*everywhere):
        np.testing.assert_array_equal(batch.x.numpy().ravel(), batch.index.numpy())
    numbers = [samples_of(batches) for batches in everywhere]
    everything = list(itertools.chain(*numbers))
    sizes = [[len(batch) for batch in batches] for batches in everywhere]
    # What is not repeated is each sample once.
    own = []
    for batch in itertools.chain(*everywhere):
        assert (batch.repeated.dtype, batch.repeated.shape) == (torch.bool, batch.index.shape)
        own += batch.index[~batch.repeated].tolist()
    assert len(own) == len(set(own))
    assert set(own) == set(everything)
    if uneven != "pad" or ranks == 1:
        assert own == everything
    elif len(own) < len(everything):
        assert_once(own, total)
    if uneven in ("drop", "pad"):
        assert len({len(batches) for batches in everywhere}) == 1
        assert len({tuple(sorted(lengths)) for lengths in sizes}) == 1
    for lengths in sizes:
        assert sum(length != size for length in lengths) <= (0 if drop_last else 1)
        assert all(0 < length <= size for length in lengths)
    least, most = total // ranks, math.ceil(total / ranks)
    if not drop_last:
        if uneven == "drop":
            assert [len(part) for part in numbers] == [least] * ranks
            assert_once(everything + sorted(set(range(total)) - set(everything)), total)
        elif uneven == "pad":
            assert [len(part) for part in numbers] == [most] * ranks
            assert set(everything) == set(range(total))
            # each rank by itself repeats nothing as long as there is enough for all
            if total >= ranks:
                assert all(len(set(part)) == len(part) for part in numbers)
        else:
            assert {len(part) for part in numbers} <= {least, most}
            assert_once(everything, total)
    else:
        share = {"drop": [least], "pad": [most], "keep": [least, most]}[uneven]
        assert {len(part) for part in numbers} <= {count // size * size for count in share}
        if uneven != "pad":
            assert len(set(everything)) == len(everything)


def assert_verified(everywhere, total, size, uneven, workers, **arguments):
    """What `verify` says of an epoch, which was here read, is what came."""
    dataset = one_rank(total, size, uneven, None, None, **arguments)
    report = xtd.verify(dataset, world_size=len(everywhere), num_workers=workers)
    numbers = list(itertools.chain(*map(samples_of, everywhere)))
    assert report.samples == total
    assert report.repeated == len(numbers) - len(set(numbers))
    assert report.missing == total - len(set(numbers))
    assert report.batches_per_rank == tuple(len(batches) for batches in everywhere)
    assert report.ok == bool(report) == (len(set(report.batches_per_rank)) == 1)
    assert ("not ok" in str(report)) != report.ok


@pytest.mark.parametrize("uneven", ["drop", "pad", "keep"])
@pytest.mark.parametrize(
    ("ranks", "workers", "drop_last"),
    [
        *[(*topology, False) for topology in itertools.product(RANKS, WORKERS)],
        *[(*topology, True) for topology in [(1, 0), (1, 3), (2, 2), (3, 0), (4, 3)]],
    ],
)
def test_every_sample_once_on_any_topology_as_verify_says(
    as_worker, ranks, workers, uneven, drop_last
):
    for place, (total, size) in enumerate(SIZES):
        # Half in order, half shuffled: of each size on every other topology.
        turn = place + ranks + workers
        if MORE == 1 and turn % 3 != len(uneven) % 3:
            continue
        arguments = {"shuffle": bool(turn % 2), "drop_last": drop_last}
        everywhere = epoch_everywhere(as_worker, total, size, uneven, ranks, workers, **arguments)
        assert_promise(everywhere, total, size, uneven, drop_last)
        assert_verified(everywhere, total, size, uneven, workers, **arguments)


@examples(5, 200)
@given(
    total=st.integers(4, 60),
    size=st.integers(1, 9),
    ranks=st.integers(1, 4),
    workers=st.integers(0, 3),
    uneven=st.sampled_from(["drop", "pad", "keep"]),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
    memory=st.sampled_from(["1 B", "64 B", "300 B", "1 GiB"]),
    epoch=st.integers(0, 3),
    chunk=st.integers(1, 20),
)
def test_every_sample_once_with_small_memory_and_chunks(
    as_worker, total, size, ranks, workers, uneven, drop_last, shuffle, memory, epoch, chunk
):
    ds = numbered(total).chunk(time=chunk)
    everywhere = []
    for rank in range(ranks):
        with tiny_memory_allowed():
            dataset = xtd.IterableDataset(
                ds, {"time": 1}, batch_size=size, shuffle=shuffle, memory=memory, uneven=uneven,
                drop_last=drop_last, rank=rank, world_size=ranks,
            )  # fmt: skip
        batches = list(itertools.chain(*epoch_of(as_worker, dataset, workers, epoch)))
        assert len(dataset) == len(batches)
        everywhere.append(batches)
    assert_promise(everywhere, total, size, uneven, drop_last)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_workers_yield_the_batches_of_one_process(as_worker, shuffle, workers):
    """Workers cut at multiples of the batch size: the batches are the same, whoever makes them."""
    dataset = one_rank(29, 4, None, 1, 2, shuffle=shuffle)
    alone = orders(list(itertools.chain(*epoch_of(as_worker, dataset, 0))))
    parts = [orders(part) for part in epoch_of(as_worker, dataset, workers)]
    assert list(itertools.chain(*parts)) == alone


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_laid_end_to_end_are_the_epoch_of_one(as_worker, shuffle, ranks):
    (alone,) = epoch_everywhere(as_worker, 50, 4, "keep", 1, 0, shuffle=shuffle)
    everywhere = epoch_everywhere(as_worker, 50, 4, "keep", ranks, 0, shuffle=shuffle)
    line = list(itertools.chain(*map(samples_of, everywhere)))
    assert line == samples_of(alone)
    if not shuffle:
        assert line == list(range(50))


@pytest.mark.parametrize(("shuffle", "expected"), [(True, "drop"), (False, "pad")])
def test_uneven_is_drop_when_shuffled_and_pad_in_order(as_worker, shuffle, expected):
    default = epoch_everywhere(as_worker, 23, 4, None, 4, 0, shuffle=shuffle)
    named = epoch_everywhere(as_worker, 23, 4, expected, 4, 0, shuffle=shuffle)
    assert [orders(batches) for batches in default] == [orders(batches) for batches in named]


@pytest.mark.parametrize("total", [1, 2, 5, 6, 23])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_in_order_ranks_have_as_many_samples_as_with_torchs_sampler(total, ranks):
    """Also where there are fewer than ranks."""
    everything = []
    for rank in range(ranks):
        theirs = DistributedSampler(range(total), ranks, rank, shuffle=False)
        (whole,) = one_rank(total, total, None, rank, ranks)
        assert len(whole) == len(theirs)
        everything += list(zip(whole.index.tolist(), whole.repeated.tolist(), strict=True))
    assert sorted(number for number, repeated in everything if not repeated) == [*range(total)]
    assert sum(repeated for _, repeated in everything) == -total % ranks


def test_verify_says_which_ranks_differ_and_what_would_help(capsys):
    found = xtd.verify(one_rank(29, 1, "keep", None, None), world_size=20)  # 9 of them have 2
    assert not found.ok and not found
    more = [rank for rank in range(20) if (rank + 1) * 29 // 20 - rank * 29 // 20 == 2]
    told = f"ranks {', '.join(map(str, more[:8]))} and 1 more have 2 batches: "
    assert told in capsys.readouterr().out
    page = found._repr_html_()
    assert told in page
    assert all(word in page for word in ("not ok", "pad", "drop"))


def test_what_is_left_of_a_padded_epoch_is_counted_without_what_is_repeated():
    """The padded sample is over on one rank, and still to come on the other."""
    dataset = one_rank(7, 1, "pad", 0, 2)
    batches = iter(dataset)
    next(batches)
    batches.close()
    dataset = one_rank(7, 1, "pad", None, None)
    dataset.load_state_dict(dataset.plan.state_after(0, 1, 2))
    found = xtd.verify(dataset, world_size=2)
    assert (found.samples, found.repeated, found.missing) == (5, 1, 0)  # 1, 2, 3, 5, 6; and 0
    assert found.batches_per_rank == (3, 3)
    assert found


def test_what_drop_leaves_out_is_not_always_the_same_samples(as_worker):
    left = set()
    for epoch in range(6):
        everywhere = epoch_everywhere(as_worker, 23, 4, "drop", 4, 0, epoch, shuffle=True)
        left |= set(range(23)) - set(itertools.chain(*map(samples_of, everywhere)))
    assert len(left) > 3


def test_more_ranks_than_samples_leave_no_sample_out_under_keep_and_pad(as_worker):
    keep = epoch_everywhere(as_worker, 3, 2, "keep", 4, 0)
    assert_once(list(itertools.chain(*map(samples_of, keep))), 3)
    pad = epoch_everywhere(as_worker, 3, 2, "pad", 4, 0)
    assert [len(samples_of(batches)) for batches in pad] == [1, 1, 1, 1]
    assert set(itertools.chain(*map(samples_of, pad))) == {0, 1, 2}


def test_rank_and_world_size_come_from_the_environment_of_torchrun(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    by_environment = xtd.IterableDataset(numbered(30), {"time": 1}, batch_size=4)
    explicit = one_rank(30, 4, None, 2, 3)
    assert orders(by_environment) == orders(explicit) == [
        (20, 21, 22, 23), (24, 25, 26, 27), (28, 29),
    ]  # fmt: skip
    assert samples_of(one_rank(30, 4, None, 0, 1)) == list(range(30))


@pytest.mark.parametrize(("rank", "world_size"), [("2", "2"), ("-1", "2"), ("0", "0"), ("x", "2")])
def test_an_environment_in_which_there_is_no_such_rank_is_refused(monkeypatch, rank, world_size):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world_size)
    dataset = xtd.IterableDataset(numbered(30), {"time": 1})
    with pytest.raises(ValueError, match=f"RANK='{rank}'"):
        len(dataset)


def test_rank_and_world_size_come_from_torch_distributed_before_the_environment(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda group=None: 2)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group=None: 3)
    assert samples_of(one_rank(30, 4, None, None, None)) == list(range(20, 30))
    # tensor or context parallelism: the caller knows better
    assert samples_of(one_rank(30, 4, None, 1, 2)) == list(range(15, 30))


@pytest.mark.filterwarnings("ignore:an epoch decodes")  # these chunks do not fit in order
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_trillion_samples_cost_nothing_before_they_are_read(shuffle):
    group = zarr.create_group(zarr.storage.MemoryStore())
    group.create_array(
        "a",
        shape=(10**6, 10**6),
        chunks=(1000, 1000),
        dtype="float32",
        dimension_names=("time", "station"),
        fill_value=1.0,
    )
    ds = xr.open_zarr(group.store, consolidated=False, chunks=None)
    tracemalloc.start()
    start = time.process_time()
    dataset = xtd.IterableDataset(
        ds, {"time": 8}, {"time": 7}, inputs="a", batch_size=64, shuffle=shuffle, rank=3,
        world_size=4, memory="64 MiB",
    )  # fmt: skip
    samples = (10**6 - 7) * 10**6
    assert len(dataset.windows) == samples
    assert len(dataset) == -(-samples // 4 // 64)
    iterator = iter(dataset)
    batch = next(iterator)
    took, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert batch.index.min() >= (0 if shuffle else samples // 4 * 3)
    assert batch.x.shape == (64, 8)
    assert (batch.x == 1).all()
    assert took < 10
    assert peak < 300 * 10**6
    iterator.close()


# ---------------------------------------------------------------------------------------------
# verify


def test_verify_cannot_be_changed_and_reads_no_data(capsys):
    def fail(block):
        raise AssertionError("verify has read data")

    ds = forecast(time=40).chunk(time=5)
    lazy = ds.map(lambda v: v.copy(data=v.data.map_blocks(fail, meta=v.data._meta)))
    dataset = xtd.IterableDataset(lazy, {"time": 8}, inputs="a", shuffle=True, batch_size=3)
    report = xtd.verify(dataset, world_size=2, num_workers=2)
    assert (report.samples, report.repeated, report.missing) == (100, 0, 0)
    printed = capsys.readouterr().out
    assert "100" in printed
    assert "missing" in printed
    with pytest.raises(AttributeError):
        report.missing = 1


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 0), (3, 2)])
def test_shares_are_what_each_worker_of_each_rank_yields(ranks, workers):
    plan = xtd.IterableDataset(
        forecast(time=40), {"time": 8}, inputs="a", shuffle=True, batch_size=3, uneven="keep"
    ).plan
    shares = plan.shares(1, ranks, workers)
    assert [len(rank) for rank in shares] == [max(1, workers)] * ranks
    places = [p for rank in shares for worker in rank for a, b in worker for p in range(a, b)]
    assert sorted(places) == list(range(100))
    for rank, share in enumerate(shares):
        sizes = [len(list(plan.batch_sizes(worker))) for worker in share]
        assert sum(sizes) == plan.batches(1, rank, ranks)


def test_verify_takes_either_kind_of_dataset_and_nothing_else():
    counts = xtd.verify(xtd.MapDataset(numbered(8), {"time": 2}))
    assert (counts.samples, counts.repeated, counts.missing) == (4, 0, 0)
    samples = xtd.MapDataset(numbered(8), {"time": 2})
    assert xtd.verify(xtd.DataLoader(samples, batch_size=3), world_size=2).batches_per_rank == (
        1,
        1,
    )
    with pytest.raises(TypeError, match="of a MapDataset, a sampler decides"):
        xtd.verify(xtd.DataLoader(samples, sampler=[0, 0]))
    with pytest.raises(TypeError, match="IterableDataset or MapDataset, not list"):
        xtd.verify([1, 2])


def test_verify_counts_draws_as_draws():
    weighted = {"shuffle": True, "weights": np.arange(33) % 2}
    line = forecast(time=40)["a"].isel(y=0, x=0)
    dataset = xtd.IterableDataset(line, {"time": 8}, OVERLAP, **weighted)
    numbers = samples_of(dataset)
    assert len(set(numbers)) < len(numbers) == 33  # some are drawn again
    counts = xtd.verify(dataset, world_size=2)
    assert (counts.samples, counts.repeated, counts.drawn_from) == (33, 0, 33)
    assert "33 draws of 33 samples, counted as draws: 0 repeated" in str(counts)
    plain = xtd.verify(xtd.IterableDataset(line, {"time": 8}, OVERLAP))
    assert str(plain).startswith("33 samples: 0 repeated")
    assert plain.drawn_from is None


# ---------------------------------------------------------------------------------------------
# Real worker processes


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "forecast.zarr"
    forecast(time=64).to_zarr(
        path, consolidated=False, encoding={name: {"chunks": (6, 4, 5)} for name in "ab"}
    )
    return xtd.open_zarr(path, consolidated=False)


WINDOW = {"time": 8, "y": 4}
OVERLAP = {"time": 7}


def through_workers(ds, **kwargs):
    arguments = {"inputs": ["a", "b"], "targets": "a", "batch_size": 16} | kwargs
    return xtd.IterableDataset(ds, WINDOW, OVERLAP, **arguments)


def test_the_torch_loader_without_workers_is_the_dataset(on_disk):
    loader = torch.utils.data.DataLoader(through_workers(on_disk, shuffle=True), batch_size=None)
    dataset = through_workers(on_disk, shuffle=True)
    for _ in range(2):
        assert orders(loader) == orders(dataset)


def test_our_loader_without_workers_is_the_dataset(on_disk):
    loader = xtd.DataLoader(through_workers(on_disk, shuffle=True))
    dataset = through_workers(on_disk, shuffle=True)
    assert len(loader) == len(dataset)
    for _ in range(2):
        assert orders(loader) == orders(dataset)


def test_lengths_of_the_torch_loader_give_no_warning(on_disk):
    """torch warns when an iterable dataset yields more than its length says."""
    loader = torch.utils.data.DataLoader(through_workers(on_disk, batch_size=7), batch_size=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(loader)) == len(loader)
