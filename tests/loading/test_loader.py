from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

import xtorch_data as xtd
from xtorch_data.datasets.topology import as_topology, current_topology
from xtorch_data.processes.workers import how_it_ended


def make(**kwargs):
    data = xr.DataArray(
        np.arange(60.0).reshape(20, 3), dims=("time", "x"), coords={"time": np.arange(20)}, name="v"
    )
    return xtd.IterableDataset(data, {"time": 4, "x": -1}, {"time": 3}, batch_size=4, **kwargs)


def line_of_zeros():
    return xr.DataArray(np.zeros(9), dims="x", name="v")


def test_the_loader_yields_what_the_dataset_yields():
    for kwargs in ({}, {"shuffle": True, "seed": 3}):
        plain, loaded = make(**kwargs), xtd.DataLoader(make(**kwargs))
        assert len(loaded) == len(plain) == 5
        for ours, theirs in zip(plain, loaded, strict=True):
            assert torch.equal(ours.index, theirs.index)
            assert torch.equal(ours.x, theirs.x)


def test_a_device_that_is_not_there_is_refused_at_once():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(RuntimeError, match="CUDA is not available"):
        xtd.DataLoader(make(), device="cuda")


def test_pinned_memory_may_be_asked_for_where_there_is_no_accelerator():
    for before, batch in zip(make(), xtd.DataLoader(make(), pin_memory=True), strict=True):
        assert torch.equal(before.x, batch.x)
        assert batch.x.is_pinned() == torch.cuda.is_available()


def test_the_cpu_is_a_device():
    assert [batch.x.device.type for batch in xtd.DataLoader(make(), device="cpu")] == ["cpu"] * 5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_on_the_gpu_with_their_labels(workers):
    expected = [batch.x.clone() for batch in make()]
    for batch, values in zip(
        xtd.DataLoader(make(), num_workers=workers, device="cuda"), expected, strict=True
    ):
        assert batch.x.device.type == "cuda"
        assert torch.equal(batch.x.cpu(), values)
        assert batch.index.device.type == "cpu"
        assert batch.to_xarray()["v"].dims == ("sample", "time", "x")


def test_only_our_datasets_are_taken():
    with pytest.raises(TypeError, match="IterableDataset"):
        xtd.DataLoader([1, 2, 3])
    line = line_of_zeros()
    with pytest.raises(TypeError, match=r"not DataArray; xtorch_data.MapDataset\(data"):
        xtd.DataLoader(line)
    with pytest.raises(TypeError, match="not Split; give one of its parts"):
        xtd.DataLoader(xtd.split(xtd.MapDataset(line, {"x": 2}), "x", fractions=(0.5, 0.5)))

    class Doubled(xtd.IterableDataset):
        def __iter__(self):
            return (batch.replace(x=2 * batch.x) for batch in super().__iter__())

    with pytest.raises(TypeError, match=r"not Doubled; torch\.utils\.data\.DataLoader takes"):
        xtd.DataLoader(Doubled(xr.DataArray(np.zeros(9), dims="x"), {"x": 3}))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (16, r"not 16: batch_size=16 or num_workers=16\?$"),
        ("cuda", r"not 'cuda': device='cuda'\?$"),
        (None, "by name, not None$"),
    ],
)
def test_all_but_the_dataset_is_given_by_name(given, meant):
    for dataset in (make(), xtd.MapDataset(line_of_zeros(), {"x": 2})):
        with pytest.raises(TypeError, match=meant):
            xtd.DataLoader(dataset, given)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"batchsize": 5}, r"'batchsize': did you mean 'batch_size'\?$"),
        ({"num_worker": 2}, r"'num_worker': did you mean 'num_workers'\?$"),
        ({"prefetch_facto": 2}, r"'prefetch_facto': did you mean 'prefetch_factor'\?$"),
        ({"wombat": 2}, r"DataLoader got an unexpected keyword argument 'wombat'$"),
        ({"preprocess": abs, "inputs": "v"}, r"inputs, preprocess, which.*replace\(inputs=…\)$"),
    ],
)
def test_names_that_there_are_not_are_told_with_the_nearest(given, meant):
    samples = xtd.MapDataset(line_of_zeros(), {"x": 2})
    for dataset in (make(), samples, torch.utils.data.Subset(samples, [0])):
        with pytest.raises(TypeError, match=meant):
            xtd.DataLoader(dataset, **given)
    with pytest.raises(TypeError, match=r"not DataArray; xtorch_data.MapDataset\(data"):
        xtd.DataLoader(line_of_zeros(), 16, **given)


@pytest.mark.parametrize(
    ("given", "instead"),
    [
        ({"batch_size": 5, "shuffle": True}, r"batch_size, shuffle.*replace\(batch_size=…\)"),
        ({"sampler": range(3)}, "sampler.*MapDataset"),
        ({"collate_fn": list}, "collate_fn.*batch_transform"),
        ({"generator": torch.Generator()}, "generator.*seed"),
        ({"seed": 3, "memory": 9}, r"memory, seed.*replace\(memory=…\)"),
    ],
)
def test_what_is_for_other_datasets_is_refused_with_what_serves_instead(given, instead):
    with pytest.raises(TypeError, match=instead):
        xtd.DataLoader(make(), **given)


@pytest.mark.parametrize("how", [{}, {"device": "cpu"}, {"device": "cpu", "gather": "device"}])
def test_loaders_within_the_workers_of_another_share_the_epoch(how, as_worker):
    found = []
    for number in range(2):
        as_worker(number, 2)
        found += [n for batch in xtd.DataLoader(make(), **how) for n in batch.index.tolist()]
    assert sorted(found) == list(range(17))


def test_a_sample_by_number_is_for_another_dataset():
    with pytest.raises(TypeError, match="xtorch_data.MapDataset"):
        make()[0]


def test_the_global_random_state_is_not_drawn_from():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(xtd.DataLoader(make(shuffle=True)))
    assert torch.equal(torch.get_rng_state(), before)


def test_ranks_default_to_the_environment(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert current_topology() == (1, 3)
    dataset = make()
    assert len(dataset) == 2  # 17 samples, and one again: 6 for each of 3 ranks
    assert [n for batch in dataset for n in batch.index.tolist()] == [6, 7, 8, 9, 10, 11]
    assert as_topology(None, None) is None


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"device": "cpu"},
        {"device": "cpu", "gather": "device"},
        {"device": "cpu", "decode": "device"},
        {"device": "cpu", "gather": "device", "decode": "device"},
        {"device": "cpu", "memory_format": torch.channels_last},
        {"device": "cpu", "augment": lambda batch: batch.replace(x=batch.x + 1)},
    ],
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_what_is_repeated_is_known_however_batches_are_loaded(how, shuffle):
    raw = xr.Dataset({"a": (("time", "y"), np.arange(66, dtype="i2").reshape(11, 6))})
    raw["a"].attrs["scale_factor"] = 0.5
    numbers = []
    for rank in range(5):  # 3 samples each: of the last ones 1 and 3 are repeated
        dataset = xtd.IterableDataset(
            xr.decode_cf(raw), {"time": 1, "y": -1}, batch_size=2, shuffle=shuffle,
            uneven="pad", memory="1 kB", rank=rank, world_size=5,
        )  # fmt: skip
        batches = list(xtd.DataLoader(dataset, **how))
        assert [batch.repeated.tolist() for batch in batches] == (
            [[False, False], [rank == 3]] if rank < 4 else [[True, True], [True]]
        )
        numbers += [n for batch in batches for n in batch.index[~batch.repeated].tolist()]
    assert sorted(numbers) == list(range(11))


@pytest.fixture
def two_ranks(monkeypatch):
    """This process as the first of two ranks of torch.distributed."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)


@pytest.mark.parametrize("of", [iter, lambda dataset: iter(xtd.DataLoader(dataset))])
def test_ranks_that_would_wait_for_each_other_are_warned_of_once(two_ranks, of):
    dataset = make(uneven="keep")  # 17 samples, 4 in a batch: 8 and 9
    told = r"uneven='keep': rank 0 has 2 batches, rank 1 has 3 batches: .* uneven='pad' gives"
    with pytest.warns(UserWarning, match=told) as warned:
        list(of(dataset))
    assert [each.filename for each in warned] == [__file__]
    list(of(dataset))  # warnings are errors


@pytest.mark.parametrize(
    "options", [{}, {"uneven": "drop"}, {"uneven": "keep", "drop_last": True}, {"shuffle": True}]
)
def test_ranks_with_as_many_batches_are_not_warned_of(two_ranks, options):
    list(make(**options))


def test_ranks_of_no_process_group_are_not_warned_of():
    list(make(uneven="keep", rank=0, world_size=2))


def test_ranks_default_to_torch_distributed(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        assert current_topology() == (0, 1)
        assert len(make()) == 5
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("start_method", "exitcode", "told"),
    [("forkserver", 1, True), ("spawn", 1, True), ("fork", 1, False), ("spawn", 3, False)],
)
def test_of_a_worker_that_may_have_run_the_script_again_it_is_said(start_method, exitcode, told):
    worker = SimpleNamespace(pid=12, exitcode=exitcode, _start_method=start_method)
    message = how_it_ended(0, worker)
    assert message.startswith(f"worker 0 (process 12) ended with exit code {exitcode}")
    assert ("if __name__ == '__main__'" in message) is told
