"""A progress bar for long work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .notebooks import in_notebook
from .options import options

__all__ = ["bar", "text_bar"]

# A bar that nobody asked for appears after so many seconds.
DELAY = 2.0


def text_bar(**how: Any) -> Any:
    """A bar of tqdm made of text, in notebooks as well: a widget is lost when one is saved.

    Its last line stays. In a notebook it is not on stderr, which is shown as if it were an error.
    Raises ImportError if tqdm is missing.
    """
    from tqdm import tqdm

    return tqdm(**({"file": sys.stdout} if in_notebook() else {}), **how)


@contextmanager
def bar(
    total: int | Callable[[], int], unit: str, title: str, wanted: bool | None = None
) -> Iterator[Callable[[int], object]]:
    """A function that tells a bar of tqdm how many more are done; a callable `total` counts them.

    A bar is shown if it is `wanted`; None asks `set_options`. If that says None, too: in a terminal
    or notebook, if tqdm is installed and it takes a while. Raises ImportError if a bar is wanted
    and tqdm is missing.
    """
    if wanted is None:
        wanted = options["progress"]
    if wanted is False:
        yield lambda done: None
        return
    # Output of a notebook is no terminal, so that tqdm would show nothing there by itself.
    how = {} if wanted else {"delay": DELAY, "disable": False if in_notebook() else None}
    try:
        made = text_bar(unit=unit, desc=title, **how)
    except ImportError as error:
        if wanted:
            raise ImportError("progress=True shows a bar of tqdm: pip install tqdm") from error
        yield lambda done: None
        return
    with made as shown:
        if not shown.disable:
            shown.total = total() if callable(total) else total
            if wanted:  # others wait for their delay, which this would not
                shown.refresh()
        yield shown.update
