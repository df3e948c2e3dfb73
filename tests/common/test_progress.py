"""Bars of progress: shown if wanted, and nothing is counted for one that is not shown."""

import sys

import pytest
import tqdm

import xtorch_data as xtd
from xtorch_data.common.progress import bar


def refuse():
    raise AssertionError("counted for nobody")


@pytest.fixture
def shown(monkeypatch):
    """The bars that are made."""
    bars = []

    class Bar(tqdm.tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            bars.append(self)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    return bars


def test_a_bar_that_is_wanted_counts(shown, capsys):
    with bar(lambda: 5, "chunks", "copying", wanted=True) as done:
        done(2)
        done(3)
    assert [(each.n, each.total) for each in shown] == [(5, 5)]
    assert "copying: 100%" in capsys.readouterr().err


def test_a_bar_that_is_not_wanted_is_not_made(shown, capsys):
    with bar(refuse, "chunks", "copying", wanted=False) as done:
        done(1)
    with xtd.set_options(progress=False), bar(refuse, "chunks", "copying") as done:
        done(1)
    assert not shown and capsys.readouterr() == ("", "")


def test_nobody_asked_and_no_terminal_is_there(shown, capsys):
    with bar(refuse, "chunks", "copying") as done:
        done(1)
    assert all(each.disable for each in shown) and capsys.readouterr() == ("", "")


def test_without_tqdm_only_who_wants_a_bar_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with bar(3, "chunks", "copying") as done:
        done(1)
    with pytest.raises(ImportError, match="pip install tqdm"), bar(3, "", "", wanted=True):
        pass
