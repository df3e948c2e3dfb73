"""IPython as a notebook runs it, if it does: nothing here imports it."""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["cell", "display", "in_notebook"]


def _shell() -> Any:
    """The shell of IPython that shows HTML, or None; the one in a terminal shows text alone."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    formats = getattr(getattr(shell, "display_formatter", None), "active_types", ())
    return shell if "text/html" in formats else None


def in_notebook() -> bool:
    """Whether what is displayed is shown as HTML."""
    return _shell() is not None


def cell() -> tuple[int, int] | None:
    """The cell that runs: its process and its number, or None outside notebooks."""
    shell = _shell()
    return None if shell is None else (os.getpid(), shell.execution_count)


def display(page: str, text: str) -> None:
    """Show a page in the cell that runs, and its text where HTML is not shown."""
    _shell().display_pub.publish({"text/html": page, "text/plain": text})
