"""What notebooks are shown, with a shell that stands for the one of IPython."""

import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import xtorch_data as xtd
from xtorch_data.common.notebooks import in_notebook
from xtorch_data.common.progress import bar


class Shell:
    """What is asked of a shell of IPython: which formats it shows, which cell runs."""

    def __init__(self, *formats):
        self.display_formatter = SimpleNamespace(active_types=list(formats))
        self.execution_count, self.shown = 1, []
        self.display_pub = SimpleNamespace(publish=self.shown.append)

    def is_left_to_show(self, obj):
        """Whether IPython shows an object itself, at the end of a cell."""
        try:
            obj._ipython_display_()
        except NotImplementedError:
            return True
        return False


@pytest.fixture
def shell(monkeypatch):
    found = Shell("text/plain", "text/html")
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: found))
    return found


def dataset():
    return xtd.MapDataset(xr.DataArray(np.arange(50.0), dims="time", name="a"), {"time": 5})


def test_a_notebook_shows_a_proof_once(shell, capsys):
    found = xtd.verify(dataset())
    [page] = shell.shown
    assert page == {"text/html": found._repr_html_(), "text/plain": str(found)}
    assert capsys.readouterr().out == ""
    assert not shell.is_left_to_show(found)
    shell.execution_count = 2
    assert shell.is_left_to_show(found)  # asked for again, in another cell
    assert "_shown_in" not in asdict(found)


def test_elsewhere_a_proof_is_printed(monkeypatch, capsys):
    for ipython in (
        None,
        SimpleNamespace(get_ipython=lambda: None),
        SimpleNamespace(get_ipython=lambda: Shell("text/plain")),  # in a terminal
    ):
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        assert not in_notebook()
        found = xtd.verify(dataset())
        assert capsys.readouterr().out == f"{found}\n"
        assert Shell().is_left_to_show(found)


def test_bars_are_text_in_a_notebook_and_leave_one_line(shell, capsys):
    with bar(3, "chunk", "copying", wanted=True) as done:
        done(1)
        done(2)
    out, err = capsys.readouterr()
    assert err == ""
    assert out.endswith("\n")
    assert out.count("\n") == 1
    assert out.rpartition("\r")[2].startswith("copying: 100%")
    list(xtd.watch(xtd.DataLoader(dataset(), batch_size=5)))
    out, err = capsys.readouterr()
    assert "2/2" in out.rpartition("\r")[2]
    assert err == ""


def test_a_bar_that_nobody_asked_for_is_shown_in_a_notebook_if_it_takes_long(
    shell, capsys, monkeypatch
):
    with bar(1, "chunk", "copying") as done:
        done(1)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("xtorch_data.common.progress.DELAY", 0)
    with bar(1, "chunk", "copying") as done:
        done(1)
    assert "copying: 100%" in capsys.readouterr().out
