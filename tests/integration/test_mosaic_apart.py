"""Mosaics of processes that do not wait for each other: at once, one after the other, killed."""

import itertools
import multiprocessing
import os
import signal
import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore

import xtorch_data as xtd
from xtorch_data.sources.source import UNFINISHED
from xtorch_data.writing.mosaic_store import MosaicStore

SIZES = {"time": 20, "y": 8}


def source(folder):
    """A store of chunks that windows overlap."""
    values = np.random.default_rng(0).normal(size=(20, 8)).astype("float32")
    ds = xr.Dataset(
        {"a": (("time", "y"), values), "kind": (("time", "y"), np.arange(160).reshape(20, 8))},
        coords={"time": xr.date_range("2000-01-01", periods=20), "y": np.arange(8.0)},
        attrs={"title": "a test"},
    )
    chunks = {"chunks": (5, 4)}
    ds.to_zarr(folder / "source.zarr", consolidated=False, encoding={"a": chunks, "kind": chunks})
    return folder / "source.zarr"


def samples(path, name="a"):
    overlap = {"time": 2, "y": 2} if name == "a" else {}
    return xtd.MapDataset(
        xtd.open_zarr(path), {"time": 4, "y": 4}, overlap, inputs=name, targets=name
    )


def stream(path, rank, size, name="a", **options):
    """Samples of one of some processes."""
    overlap = {"time": 2, "y": 2} if name == "a" else {}
    return xtd.IterableDataset(
        xtd.open_zarr(path), {"time": 4, "y": 4}, overlap, inputs=name, targets=name,
        rank=rank, world_size=size, shuffle=True, batch_size=2, uneven="pad", **options,
    )  # fmt: skip


def model(batch):
    """The targets, each more by the number of its sample."""
    return batch.y + batch.index[:, None, None]


def expected(path, name="a"):
    """What numpy's overlap-add makes of these predictions."""
    ds = xr.open_zarr(path, consolidated=False).load()[[name]]
    values, stride = ds[name].values, 2 if name == "a" else 4
    sums, weights = np.zeros(values.shape), np.zeros(values.shape)
    number = 0
    for t in range(0, 17, stride):
        for y in range(0, 5, stride):
            sums[t : t + 4, y : y + 4] += values[t : t + 4, y : y + 4] + number
            weights[t : t + 4, y : y + 4] += 1
            number += 1
    return ds.copy(data={name: (sums / weights).astype(values.dtype)})


def predict(path, rank, size, name="a", **options):
    blend = "mean" if name == "a" else None
    return xtd.predict(
        None, stream(path, rank, size, name), path.parent / "field.zarr", forward=model,
        blend=blend, **options,
    )  # fmt: skip


def require_whole(path, name="a"):
    """The store is complete, has nothing but the result, and this is right."""
    field = path.parent / "field.zarr"
    result = xtd.open_zarr(field).load()
    assert UNFINISHED not in result.attrs and result.attrs == {"title": "a test"}
    xr.testing.assert_allclose(result, expected(path, name))
    assert sorted(os.listdir(field)) == sorted([name, "time", "y", "zarr.json"])


@pytest.mark.parametrize("name", ["a", "kind"])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_one_after_the_other_the_last_one_completes_the_store(order, name, tmp_path):
    path = source(tmp_path)
    *others, last = order
    for rank in others:
        with pytest.warns(UserWarning, match=f"rank.*{last}.* of 3 have not closed theirs"):
            found = predict(path, rank, 3, name)
        assert UNFINISHED in found.attrs
        with pytest.raises(ValueError, match="has not finished"):
            xtd.IterableDataset(found, {"time": 4})
    result = predict(path, last, 3, name)
    xr.testing.assert_allclose(result.load(), expected(path, name))
    require_whole(path, name)
    with pytest.raises(FileExistsError, match="is no unfinished result: remove it"):
        predict(path, 0, 3, name)


START = multiprocessing.get_context("forkserver")


def _at_once(path, rank, size, begin):
    warnings.simplefilter("ignore")
    begin.wait(60)
    predict(path, rank, size)


def test_at_once_processes_begin_and_complete_one_store(tmp_path):
    path, size = source(tmp_path), 4
    begin = START.Barrier(size)
    started = [
        START.Process(target=_at_once, args=(path, rank, size, begin)) for rank in range(size)
    ]
    for each in started:
        each.start()
    for each in started:
        each.join(90)
        assert each.exitcode == 0
    require_whole(path)


def _killed(path, rank, before):
    """Predict, and be killed at a call that writes, after so many of them."""
    warnings.simplefilter("ignore")
    calls = itertools.count()

    def watched(real):
        def called(*arguments):
            if next(calls) == before:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        return called

    for name in ("keep", "write", "finish"):
        setattr(MosaicStore, name, watched(getattr(MosaicStore, name)))
    predict(path, rank, 2)


@pytest.mark.parametrize("before", [0, 1, 3, 6])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_was_killed_is_run_again(rank, before, tmp_path):
    """Rank 0 is killed as it adds and leaves its sums, rank 1 also as it completes the store."""
    path = source(tmp_path)
    for each in range(rank):
        with pytest.warns(UserWarning, match="have not closed"):
            predict(path, each, 2)
    killed = START.Process(target=_killed, args=(path, rank, before))
    killed.start()
    killed.join(90)
    assert killed.exitcode == -signal.SIGKILL
    if before:
        with pytest.raises(FileExistsError, match=f"rank {rank} of 2 has begun .* mode='a'"):
            predict(path, rank, 2)
    if rank == 0:
        with pytest.warns(UserWarning, match="have not closed"):
            predict(path, 0, 2, mode="a")
    predict(path, 1, 2, mode="a")
    require_whole(path)


def test_whoever_was_killed_as_the_last_one_any_process_completes_the_store(tmp_path):
    path = source(tmp_path)
    with pytest.warns(UserWarning, match="have not closed"):
        predict(path, 1, 2)
    with pytest.MonkeyPatch.context() as patch:

        def broken(*_):
            raise KeyboardInterrupt

        patch.setattr(MosaicStore, "finish", broken)
        with pytest.raises(KeyboardInterrupt):
            predict(path, 0, 2)
    asked = []
    xtd.predict(
        None, stream(path, 1, 2), tmp_path / "field.zarr", forward=asked.append, blend="mean",
        mode="a",
    )  # fmt: skip
    assert not asked
    require_whole(path)


def test_processes_without_samples_take_part(tmp_path):
    """Before anybody has begun the store, after, and as the last one."""
    path, size = source(tmp_path), 5
    mosaics = [
        xtd.Mosaic(stream(path, rank, size), tmp_path / "field.zarr", blend="mean")
        for rank in range(size)
    ]  # fmt: skip
    dataset = samples(path)
    mosaics[3].close()
    for number in range(len(dataset)):
        batch = dataset.fetch([number])
        mosaics[number % 2].add(batch, model(batch))
    for rank in (0, 2, 1):
        mosaics[rank].close()
        with pytest.raises(ValueError, match="ranks? .*4.* of 5 have not closed theirs"):
            mosaics[rank].to_xarray()
    mosaics[4].close()
    for each in mosaics:
        xr.testing.assert_allclose(each.to_xarray().load(), expected(path))
    require_whole(path)


def test_where_there_are_no_locks_one_of_them_completes_the_store(tmp_path):
    path, field = source(tmp_path), f"memory://{tmp_path.name}/field.zarr"
    for rank in range(2):
        with pytest.warns(UserWarning, match="have not closed"):
            predict_at(field, path, rank)
    predict_at(field, path, 2)
    result = xtd.open_zarr(field).load()
    assert UNFINISHED not in result.attrs
    xr.testing.assert_allclose(result, expected(path))


def predict_at(place, path, rank):
    xtd.predict(None, stream(path, rank, 3), place, forward=model, blend="mean")


def test_of_samples_that_nobody_added_places_are_missing_and_it_is_told(tmp_path):
    path = source(tmp_path)
    streams = [stream(path, rank, 2) for rank in range(2)]
    mosaics = [xtd.Mosaic(each, tmp_path / "field.zarr", blend="mean") for each in streams]
    dataset = samples(path)
    for number in range(len(dataset) - 3):  # all but the last window along time
        batch = dataset.fetch([number])
        mosaics[number % 2].add(batch, batch.y)
    mosaics[0].close()
    mosaics[1].close()
    assert mosaics[1].lacking == 3
    result = mosaics[0].to_xarray()["a"].load()
    truth = xr.open_zarr(path, consolidated=False)["a"].load()
    xr.testing.assert_allclose(result, truth.where(np.arange(20)[:, None] < 18))


def test_processes_of_something_else_are_refused(tmp_path):
    path = source(tmp_path)
    with pytest.warns(UserWarning, match="have not closed"):
        predict(path, 0, 2)
    with pytest.raises(FileExistsError, match="ranks"):
        predict(path, 1, 3)
    with pytest.raises(FileExistsError, match="blend"):
        xtd.predict(None, stream(path, 1, 2), tmp_path / "field.zarr", forward=model, blend="hann")
    with pytest.raises(FileExistsError, match="predictions"):
        xtd.predict(
            None, stream(path, 1, 2), tmp_path / "field.zarr", blend="mean", mode="a",
            forward=lambda batch: model(batch).double(),
        )  # fmt: skip
    predict(path, 1, 2, mode="a")
    require_whole(path)


def test_a_sample_of_two_processes_is_an_error(tmp_path):
    path = source(tmp_path)
    with pytest.warns(UserWarning, match="have not closed"):
        predict(path, 0, 2)
    batch = next(iter(stream(path, 0, 2)))
    mosaic = xtd.Mosaic(
        stream(path, 1, 2), tmp_path / "field.zarr",
        blend="mean",
    )  # fmt: skip
    mosaic.add(batch, batch.y)
    with pytest.raises(ValueError, match="was added by two ranks"):
        mosaic.close()


def test_one_alone_keeps_the_store_from_others(tmp_path):
    path = source(tmp_path)
    alone = xtd.Mosaic(samples(path), tmp_path / "field.zarr", blend="mean")
    mine = stream(path, 1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xtorch_data.writing.store_lock.PATIENCE", 0.05)
        with pytest.raises(FileExistsError, match="another Mosaic copies into"):
            xtd.Mosaic(mine, tmp_path / "field.zarr", blend="mean")
    alone.__exit__(KeyboardInterrupt, None, None)
    shared = xtd.Mosaic(mine, tmp_path / "field.zarr", blend="mean")
    with pytest.raises(FileExistsError, match="another Mosaic copies into"):
        xtd.Mosaic(samples(path), tmp_path / "field.zarr", blend="mean")
    shared.__exit__(KeyboardInterrupt, None, None)


class KilledError(BaseException):
    """Stands for the end of a process: nothing is written afterwards."""


def killing(patch, key, often):
    """Let a process end after so many writes below a local store whose keys have some text."""
    real, count = LocalStore.set, []

    async def called(self, path, *arguments):
        if len(count) >= often:
            raise KilledError
        await real(self, path, *arguments)
        if key in path:
            count.append(path)

    patch.setattr(LocalStore, "set", called)


@pytest.mark.parametrize(
    ("key", "often"),
    [
        ("1 left", 1),
        ("1 began", 1),
        ("1 added", 1),
        ("done/zarr.json", 1),
        ("a/c", 3),
        ("done/c", 3),
    ],
)
def test_after_whichever_write_the_last_one_was_killed_it_is_run_again(key, often, tmp_path):
    path = source(tmp_path)
    if key != "done/zarr.json":
        with pytest.warns(UserWarning, match="have not closed"):
            predict(path, 0, 2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        killing(patch, key, often)
        predict(path, 1, 2)
    if key == "done/zarr.json":
        with pytest.warns(UserWarning, match="have not closed"):
            predict(path, 0, 2)
    predict(path, 1, 2, mode="a")
    require_whole(path)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("left", ["everything", "half", "nothing"])
def test_a_store_that_is_whole_but_for_its_record_is_finished(left, rank, tmp_path):
    """Whoever completed it was killed as it removed the record."""
    path, field = source(tmp_path), tmp_path / "field.zarr"
    with pytest.warns(UserWarning, match="have not closed"):
        predict(path, 0, 2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        real = LocalStore.delete_dir

        async def killed(store, key):
            if key != "rechunk_record":
                return await real(store, key)
            files = [each for each in (field / key).rglob("*") if each.is_file()]
            for each in {"everything": [], "half": sorted(files)[::2], "nothing": files}[left]:
                each.unlink()
            raise KilledError

        patch.setattr(LocalStore, "delete_dir", killed)
        predict(path, 1, 2)
    assert UNFINISHED in (field / "zarr.json").read_text()
    with pytest.raises(FileExistsError, match="has begun .* before: mode='a' goes on"):
        predict(path, rank, 2)
    predict(path, rank, 2, mode="a")
    require_whole(path)


def test_one_alone_that_was_killed_as_the_last_goes_on(tmp_path):
    """Predictions are of float64, and none is left to be made."""
    path, asked = source(tmp_path), []
    options = {"blend": "mean", "forward": lambda batch: model(batch).double()}
    for name in ("finish", "begin"):  # of a store that has all values, and has been marked so
        whole = xtd.IterableDataset(
            xtd.open_zarr(path), {"time": 4, "y": 4}, {"time": 2, "y": 2}, inputs="a", targets="a"
        )
        field = tmp_path / f"{name}.zarr"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):

            def killed(*_, **options):
                raise KilledError

            if name == "finish":
                patch.setattr("xtorch_data.writing.zarr_target.Target.finish", killed)
            else:
                patch.setattr("zarr.consolidate_metadata", killed)
            xtd.predict(None, whole, field, **options)
        result = xtd.predict(None, whole, field, mode="a", blend="mean", forward=asked.append)
        assert not asked and result["a"].dtype == np.float64
        xr.testing.assert_allclose(result.load(), expected(path).astype("float64"), rtol=1e-5)


def test_what_a_killed_process_was_writing_is_removed_though_others_were_there(tmp_path):
    path, field = source(tmp_path), tmp_path / "field.zarr"
    other = xtd.Mosaic(stream(path, 1, 2), field, blend="mean")
    with pytest.warns(UserWarning, match="have not closed"):
        predict(path, 0, 2)
    (field / "a" / "c").mkdir(exist_ok=True)
    (field / "a" / "c" / "0.partial").write_bytes(b"half")
    for batch in stream(path, 1, 2):
        other.add(batch, model(batch))
    other.close()
    require_whole(path)
    assert not list(field.rglob("*.partial"))


def test_of_two_that_begin_something_else_at_one_moment_one_is_refused(tmp_path):
    path, field = source(tmp_path), tmp_path / "field.zarr"
    mosaics = [xtd.Mosaic(stream(path, rank, 2), field, blend="mean") for rank in range(2)]
    batches = [next(iter(stream(path, rank, 2))) for rank in range(2)]
    mosaics[0].add(batches[0], model(batches[0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xtorch_data.writing.zarr_target.Target.begun", False)  # when it looked
        with pytest.raises(FileExistsError, match="something else: .*predictions differ"):
            mosaics[1].add(batches[1], model(batches[1]).double())
    for each in mosaics:
        each.__exit__(KeyboardInterrupt, None, None)
    assert xr.open_zarr(field, consolidated=False)["a"].dtype == np.float32


def test_a_process_that_finds_the_store_complete_misses_nothing(tmp_path):
    """Nothing is said of samples of others, which it has not seen."""
    path, real = source(tmp_path), MosaicStore.is_last

    def overtaken(self):
        if self._ranks.rank == 0:
            self._target.lock.release()
            predict(path, 1, 2)
        return real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MosaicStore, "is_last", overtaken)
        result = predict(path, 0, 2)
    xr.testing.assert_allclose(result.load(), expected(path))
    require_whole(path)


@pytest.mark.parametrize("other", [None, 0])
def test_where_there_are_no_locks_one_of_two_at_one_moment_completes_it(other, tmp_path):
    from xtorch_data.writing import mosaic_store

    path, field = source(tmp_path), f"memory://{tmp_path.name}/field.zarr"
    mosaic = xtd.Mosaic(stream(path, 1, 2), field, blend="mean")

    def slept(_):
        if other is not None:  # it found no note, and its own has come a little later
            mosaic_store.leave_note(mosaic._store._target.place("completes"), {"rank": other})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mosaic_store.time, "sleep", slept)
        assert mosaic._store._claimed() == (other is None)
        assert mosaic._store._claimed() == (other is None)


def test_a_store_that_another_process_puts_there_at_this_moment_is_joined(tmp_path):
    path, field = source(tmp_path), tmp_path / "field.zarr"
    others = []

    def looked(folder):
        if others:
            return False
        others.append(folder)
        xtd.Mosaic(stream(path, 0, 2), field, blend="mean")
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xtorch_data.writing.store_lock.fcntl", None)
        patch.setattr("xtorch_data.writing.zarr_target._is_full", looked)
        xtd.Mosaic(stream(path, 1, 2), field, blend="mean")


def test_locks_that_are_shared_alone_are_none(tmp_path):
    """As of some file systems in a network."""
    import fcntl

    from xtorch_data.writing.store_lock import StoreLock

    real = fcntl.flock

    def flock(descriptor, kind):
        if kind & fcntl.LOCK_EX:
            raise OSError("bad file descriptor")
        real(descriptor, kind)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        lock = StoreLock(str(tmp_path))
        assert lock.take(share=True)
        lock.share()
        assert lock.take_alone() and not lock.works
        lock.release()


@given(st.data())
@settings(max_examples=8)
def test_whoever_adds_what_in_any_order(tmp_path_factory, data):
    path = source(tmp_path_factory.mktemp("any"))
    dataset, size = samples(path), data.draw(st.integers(2, 4))
    owners = data.draw(
        st.lists(st.integers(0, size - 1), min_size=len(dataset), max_size=len(dataset))
    )
    order = data.draw(st.permutations(range(size)))
    together = data.draw(st.booleans())
    streams = [stream(path, rank, size, memory="300 B") for rank in range(size)]
    field, mosaics = path.parent / "field.zarr", {}
    for rank in order:
        mosaics[rank] = xtd.Mosaic(streams[rank], field, blend="mean")
        if together:
            continue
        add_all(mosaics[rank], dataset, owners, rank)
        mosaics[rank].close()
    if together:
        for rank in data.draw(st.permutations(range(size))):
            add_all(mosaics[rank], dataset, owners, rank)
        for rank in data.draw(st.permutations(range(size))):
            mosaics[rank].close()
    require_whole(path)


def add_all(mosaic, dataset, owners, rank):
    for number in np.flatnonzero(np.array(owners) == rank).tolist():
        batch = dataset.fetch([number])
        mosaic.add(batch, model(batch))
