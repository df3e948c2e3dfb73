"""xbatcher's own tests of its torch loaders, which are in its wheel, with our classes put in."""

from importlib import reload

import pytest
import xbatcher.loaders.torch
from xbatcher.tests import test_torch_loaders as theirs
from xbatcher.tests.test_torch_loaders import *  # noqa: F403

import xtorch_data.xbatcher as ours

TESTS = [name for name in dir(theirs) if name.startswith("test_")]


@pytest.fixture(scope="module", autouse=True)
def loaders_as_they_were():
    """Some of the tests import xbatcher's loaders without torch or dask."""
    yield
    reload(xbatcher.loaders.torch)


@pytest.fixture(autouse=True)
def our_classes(monkeypatch, request):
    """Put our classes in, and see that a test about datasets has iterated or indexed them."""
    used = set()

    class MapDataset(ours.MapDataset):
        def __getitem__(self, idx):
            used.add("MapDataset")
            return super().__getitem__(idx)

    class IterableDataset(ours.IterableDataset):
        def __iter__(self):
            used.add("IterableDataset")
            return super().__iter__()

    monkeypatch.setattr(theirs, "MapDataset", MapDataset)
    monkeypatch.setattr(theirs, "IterableDataset", IterableDataset)
    yield
    if "ds_xy" in request.fixturenames:
        kind = "IterableDataset" if "iterable" in request.function.__name__ else "MapDataset"
        assert used == {kind}


def test_all_of_their_tests_are_here():
    assert len(TESTS) >= 6
    assert all(globals()[name] is getattr(theirs, name) for name in TESTS)
