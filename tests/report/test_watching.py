"""What `watch` shows, and that it changes nothing."""

import itertools
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

import xtorch_data as xtd
from xtorch_data.report import watching


def ours():
    """Threads of the engine; tqdm has one that goes on."""
    return [each for each in threading.enumerate() if each.name.startswith("xtorch_data-")]


def make(**kwargs):
    data = xr.DataArray(np.arange(400.0).reshape(100, 4), dims=("time", "x"), name="v")
    return xtd.IterableDataset(data, {"time": 5, "x": -1}, batch_size=4, **kwargs)


@pytest.mark.parametrize("loader", [make, lambda: xtd.DataLoader(make())])
def test_a_bar_names_rate_waiting_and_the_stage_that_limits(loader, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # so that nothing is cut off
    loader = loader()
    for epoch in range(2):
        numbers = [n for batch in xtd.watch(loader) for n in batch.index.tolist()]
        assert numbers == list(range(20))
        shown = capsys.readouterr().err
        for text in (
            f"epoch {epoch}: 100%",
            "5/5",
            "samples/s, waits ",
            "limited by ",
            "MB/s read",
        ):
            assert text in shown


@pytest.mark.parametrize("kind", [xtd.DataLoader, torch.utils.data.DataLoader])
def test_samples_by_number_are_watched_too(kind, capsys):
    data = xr.DataArray(np.arange(400.0).reshape(100, 4), dims=("time", "x"), name="v")
    dataset = xtd.MapDataset(data, {"time": 5, "x": -1})
    assert len(list(xtd.watch(kind(dataset, batch_size=4)))) == 5
    assert "5/5" in capsys.readouterr().err


def test_waiting_is_the_share_of_time_in_which_there_was_no_batch(capsys, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(watching, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def made():
        for number in range(5):
            clock.now += 3.0
            yield number

    for _ in xtd.watch(made()):
        clock.now += 1.0
    assert "waits 75%" in capsys.readouterr().err


def test_no_batch_is_held_while_the_next_is_waited_for():
    class Something:
        pass

    known = []

    def made():
        for _ in range(3):
            assert all(each() is None for each in known)
            thing = Something()
            known.append(weakref.ref(thing))
            yield thing
            del thing

    for thing in xtd.watch(made()):
        del thing
    assert len(known) == 3


def test_leaving_early_ends_the_iteration():
    watched = xtd.watch(make())
    assert len(list(itertools.islice(watched, 2))) == 2
    assert ours()
    watched.close()
    assert not ours()


def test_errors_come_through(capsys):
    def failing():
        yield 1
        raise KeyError("what")

    with pytest.raises(KeyError, match="what"):
        list(xtd.watch(failing()))
    with pytest.raises(TypeError, match="must be iterable, not int"):
        xtd.watch(3)


def test_one_option_turns_every_bar_off_or_on(capsys):
    def wanted(sample):
        return sample.v.mean() > 50

    def everything():
        list(xtd.watch(make()))
        xtd.Normalize.fit(make())
        make(where=wanted)
        return capsys.readouterr().err

    with xtd.set_options(progress=False):
        assert everything() == ""
    with xtd.set_options(progress=True):
        shown = everything()
        assert all(text in shown for text in ("epoch 0:", "fitting:", "where:", "20/20"))
        xtd.Normalize.fit(make(), progress=False)
        assert capsys.readouterr().err == ""
    shown = everything()  # as before: what was asked for
    assert "epoch 0:" in shown
    assert "fitting" not in shown
    with pytest.raises(ValueError, match="progress must be True, False or None, not 'yes'"):
        xtd.set_options(progress="yes")
    assert everything() != ""
