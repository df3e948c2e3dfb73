"""Mosaics of several ranks, and of processes that are killed."""

import datetime
import errno
import itertools
import os
import threading

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
import xarray as xr
from helpers import in_a_process

import xtorch_data as xtd
from xtorch_data.sources.source import UNFINISHED

RANKS = 4


def source(folder):
    """A store of chunks that windows overlap."""
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {
            "a": (("time", "y"), rng.normal(size=(20, 8)).astype("float32")),
            "kind": (("time", "y"), np.arange(160).reshape(20, 8)),
        },
        coords={"time": xr.date_range("2000-01-01", periods=20), "y": np.arange(8.0)},
    )
    chunks = {"chunks": (5, 4)}
    ds.to_zarr(folder / "source.zarr", consolidated=False, encoding={"a": chunks, "kind": chunks})
    return folder / "source.zarr"


def samples(path, name):
    if name == "events":  # of which neighbors overlap, and two are the same
        ds = xtd.open_zarr(path)
        steps = {"time": [3, 17, 4, 3, 8, 16, 2, 9], "y": [2, 6, 3, 2, 5, 3, 6, 6]}
        centers = {dim: ds[dim].values[at] for dim, at in steps.items()}
        return xtd.MapDataset(ds, {"time": 4, "y": 3}, centers=centers, inputs="a", targets="a")
    overlap = {"time": 2, "y": 2} if name == "a" else {}
    return xtd.MapDataset(
        xtd.open_zarr(path), {"time": 4, "y": 4}, overlap, inputs=name, targets=name
    )


def expected(path, name):
    """What numpy's overlap-add makes of predictions, each more by the number of its sample."""
    ds = xr.open_zarr(path, consolidated=False).load()[[name]]
    stride, values = (2, ds[name].values) if name == "a" else (4, ds[name].values)
    weight = np.ones((4, 4))
    if name == "a":  # windows overlap by half: those of Hann
        weight = np.outer(*[np.sin(np.pi * (np.arange(4) + 0.5) / 4) ** 2] * 2)
    sums, weights = np.zeros(values.shape), np.zeros(values.shape)
    starts = [range(0, size - 3, stride) for size in values.shape]
    for number, (t, y) in enumerate(itertools.product(*starts)):
        sums[t : t + 4, y : y + 4] += weight * (values[t : t + 4, y : y + 4] + number)
        weights[t : t + 4, y : y + 4] += weight
    return ds.copy(data={name: (sums / weights).astype(values.dtype)})


def model(batch):
    """The targets, each more by the number of its sample."""
    return batch.y + batch.index[:, None, None]


def _rank(rank, folder, name, case, results):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=RANKS,
        timeout=datetime.timedelta(seconds=60),
    )  # fmt: skip
    told = None
    try:
        dataset = samples(folder / "source.zarr", name)
        blend = None if name == "kind" else "hann"
        mode = {"replaces": "w", "other": "a"}.get(case, "w-")
        if case == "predict":
            loader = xtd.DataLoader(dataset, batch_size=2, shuffle=True, uneven="pad")
            xtd.predict(None, loader, folder / "field.zarr", forward=model, blend=blend, mode=mode)
        else:
            with xtd.Mosaic(dataset, folder / "field.zarr", blend=blend, mode=mode) as mosaic:
                of_all = case == "twice"
                mine = range(0 if of_all else rank, len(dataset), 1 if of_all else RANKS)
                if case == "other":  # so that tiles are complete before the first rank has come
                    mine = np.array_split(np.arange(len(dataset)), RANKS - 1)[rank - 1]
                    mine = mine if rank else []
                if case == "idle":  # the first rank has nothing to do
                    mine = [n for n in range(len(dataset)) if 1 + n % (RANKS - 1) == rank]
                for number in mine:
                    batch = dataset.fetch([number])
                    if case == "raises" and rank == 1 and number > 4:
                        raise RuntimeError("as meant")
                    mosaic.add(batch, model(batch))
                if case == "full" and rank == 2:
                    mosaic._store.keep = full
            assert mosaic.explain().written == mosaic.explain().chunks
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    results.put((rank, told))
    torch.distributed.destroy_process_group()


class FullError(OSError):
    """An error that cannot be sent, as it comes from no words alone."""

    def __init__(self):
        super().__init__(errno.ENOSPC, "No space left on device")
        self.lock = threading.Lock()


def full(*_):
    raise FullError


def together(folder, name, case):
    """Let ranks lay a field; what each of them was told, if anything."""
    start = torch.multiprocessing.get_context("forkserver")
    results = start.Queue()
    ranks = [
        start.Process(target=_rank, args=(rank, folder, name, case, results))
        for rank in range(RANKS)
    ]
    for each in ranks:
        each.start()
    told = dict(results.get(timeout=90) for _ in ranks)
    for each in ranks:
        each.join(30)
        assert each.exitcode == 0
    return [told[rank] for rank in range(RANKS)]


@pytest.mark.parametrize("name", ["a", "kind"])
@pytest.mark.parametrize("case", ["shares", "idle", "predict", "replaces"])
def test_ranks_lay_a_field_together(name, case, tmp_path):
    wanted = expected(source(tmp_path), name)
    if case == "replaces":
        xtd.open_zarr(tmp_path / "source.zarr").to_zarr(tmp_path / "field.zarr", consolidated=False)
    assert together(tmp_path, name, case) == [None] * RANKS
    result = xtd.open_zarr(tmp_path / "field.zarr").load()
    assert UNFINISHED not in result.attrs and list(result) == [name]
    xr.testing.assert_allclose(result, wanted)
    assert result[name].dtype == wanted[name].dtype
    assert sorted(os.listdir(tmp_path / "field.zarr")) == sorted([name, "time", "y", "zarr.json"])
    assert {*os.listdir(tmp_path)} - {"ranks"} == {"field.zarr", "source.zarr"}


def test_a_sample_of_two_ranks_is_told_to_all(tmp_path):
    source(tmp_path)
    told = together(tmp_path, "a", "twice")
    assert all(each.startswith("ValueError: sample 0 was added by two ranks") for each in told)
    assert UNFINISHED in xr.open_zarr(tmp_path / "field.zarr", consolidated=False).attrs


@pytest.mark.parametrize("case", ["raises", "full"])
def test_an_error_of_one_rank_ends_all_and_the_store_goes_on(case, tmp_path):
    path = source(tmp_path)
    told = together(tmp_path, "a", case)
    assert None not in told, told
    if case == "full":  # others may see that it has gone before they see why
        assert "No space left on device" in told[2]
    assert UNFINISHED in xr.open_zarr(tmp_path / "field.zarr", consolidated=False).attrs
    loader = xtd.DataLoader(samples(path, "a"), batch_size=3)
    result = xtd.predict(
        None, loader, tmp_path / "field.zarr", forward=model, blend="hann", mode="a"
    )
    xr.testing.assert_allclose(result.load(), expected(path, "a"))
    assert sorted(os.listdir(tmp_path / "field.zarr")) == ["a", "time", "y", "zarr.json"]


def test_ranks_add_nothing_to_the_store_of_other_data(tmp_path):
    path = source(tmp_path)
    moved = xtd.open_zarr(path)
    moved["time"] = moved["time"] + np.timedelta64(1, "D")
    other = samples(path, "a").replace(ds=moved)
    with pytest.raises(KeyboardInterrupt):
        with xtd.Mosaic(other, tmp_path / "field.zarr", blend="hann") as mosaic:
            for number in range(4):
                batch = other.fetch([number])
                mosaic.add(batch, batch.y)
            raise KeyboardInterrupt
    before = {each: each.stat().st_mtime_ns for each in tmp_path.rglob("field.zarr/**/*")}
    told = together(tmp_path, "a", "other")
    assert None not in told, told
    assert "the unfinished result of something else" in told[1] and "coordinates" in told[1]
    after = {each: each.stat().st_mtime_ns for each in tmp_path.rglob("field.zarr/**/*")}
    assert before == after


def test_workers_that_live_on_do_not_hold_the_store(tmp_path):
    script = """
        import sys, torch
        import xtorch_data as xtd
        dataset = xtd.IterableDataset(
            xtd.open_zarr(sys.argv[1]), {"time": 4, "y": 4}, inputs="a", targets="a", batch_size=2
        )
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=None, num_workers=1, persistent_workers=True,
            multiprocessing_context="fork",
        )
        for _ in range(2):
            result = xtd.predict(torch.nn.Identity(), loader, sys.argv[2], mode="w")
        assert result["a"].notnull().all()
    """
    found = in_a_process(
        script, source(tmp_path), tmp_path / "field.zarr", warnings_as_errors=False
    )
    assert found.returncode == 0, found.stderr


def test_ranks_lay_predictions_around_events_together(tmp_path):
    ds = xr.open_zarr(source(tmp_path), consolidated=False).load()
    assert together(tmp_path, "events", "shares") == [None] * RANKS
    result = xtd.open_zarr(tmp_path / "field.zarr").load()["a"]
    weight = np.outer(*(np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2 for size in (4, 3)))
    sums, weights = xr.zeros_like(ds["a"], dtype="float64"), xr.zeros_like(ds["a"], dtype="float64")
    for number, window in enumerate(samples(tmp_path / "source.zarr", "events").windows):
        sums[window] += weight * (ds["a"][window] + number)
        weights[window] += weight
    wanted = (sums / weights).sel(time=result["time"], y=result["y"])  # NaN where no event is
    assert 0 < wanted.isnull().sum() == (weights == 0).sum() - (weights.size - wanted.size)
    np.testing.assert_allclose(result, wanted, rtol=1e-5)


def test_what_is_there_is_refused_on_each_rank(tmp_path):
    source(tmp_path)
    xtd.open_zarr(tmp_path / "source.zarr").to_zarr(tmp_path / "field.zarr", consolidated=False)
    told = together(tmp_path, "a", "shares")
    assert all("FileExistsError" in each and "mode='w' replaces it" in each for each in told)


def test_a_process_that_is_killed_leaves_a_store_that_goes_on_and_nothing_else(tmp_path):
    path = source(tmp_path)
    script = """
        import os, signal, sys
        import xtorch_data as xtd
        dataset = xtd.MapDataset(
            xtd.open_zarr(sys.argv[1]), {"time": 4, "y": 4}, {"time": 2, "y": 2},
            inputs="a", targets="a", memory="100 B",
        )
        mosaic = xtd.Mosaic(dataset, sys.argv[2], blend="mean", encoding={"a": {"chunks": (5, 4)}})
        for number in range(15):
            batch = dataset.fetch([number])
            mosaic.add(batch, batch.y)
        assert mosaic.explain().set_aside
        os.kill(os.getpid(), signal.SIGKILL)
    """
    found = in_a_process(script, path, tmp_path / "field.zarr", warnings_as_errors=False)
    assert found.returncode == -9, found.stderr
    assert sorted(os.listdir(tmp_path)) == ["field.zarr", "source.zarr"]
    with pytest.raises(ValueError, match="has not finished"):
        samples(tmp_path / "field.zarr", "a")
    dataset = samples(path, "a").replace(memory="1 MiB")
    asked = []

    def forward(batch):
        asked.extend(batch.index.tolist())
        return batch.y

    loader = xtd.DataLoader(dataset, batch_size=1)
    encoding = {"a": {"chunks": (5, 4)}}
    result = xtd.predict(
        None, loader, tmp_path / "field.zarr", forward=forward, blend="mean", mode="a",
        encoding=encoding,
    )  # fmt: skip
    assert 0 < len(asked) < len(dataset)
    xr.testing.assert_allclose(result.load(), xtd.open_zarr(path)[["a"]].load())
