"""Representations for notebooks: collapsible sections, in xarray's manner, without JavaScript."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from html import escape as _escaped
from importlib import resources
from typing import Any

from .redact import printable, printable_lines
from .text import Fact, lines_of

__all__ = ["bullets", "code", "facts", "page", "section", "table"]

# What is longer is cut: a page stays small whatever it is about.
MAX_CELL, MAX_TEXT, MAX_SHORT, MAX_ROWS = 300, 6_000, 24, 40


def page(kind: str, head: str, parts: Iterable[str], text: str) -> str:
    """Page of an object in a notebook: its kind, a line, and `parts`, which are HTML.

    `text`, its plain repr, is shown where styles are not allowed.
    """
    plain = escape(_shortened(text, MAX_TEXT))
    return (
        f"<div><style>{_style()}</style><pre class='xtd-text'>{plain}</pre>"
        "<div class='xtd-wrap' style='display:none'>"
        f"<div class='xtd-head'><span class='xtd-kind'>{escape(kind)}</span>"
        f"{escape(_shortened(head, MAX_CELL))}</div>"
        f"{''.join(parts)}</div></div>"
    )


def facts(pairs: Iterable[Fact]) -> str:
    """Names and values side by side."""
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{_cell(' '.join(map(str, lines_of(value))))}</dd>"
        for name, value in pairs
    )
    return f"<dl class='xtd-facts'>{rows}</dl>"


def section(title: str, inline: str, body: str, *, opened: bool = False) -> str:
    """Foldable part of a page; `body` is HTML, the others are text."""
    return (
        f"<details class='xtd-section'{' open' if opened else ''}><summary>{escape(title)}"
        f"<span class='xtd-inline'>{escape(_shortened(inline, MAX_CELL))}</span></summary>"
        f"<div class='xtd-body'>{body}</div></details>"
    )


def table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows of values under the names of the columns."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td{_mark(value)}>{_cell(value)}</td>' for value in row)}</tr>"
        for row in rows[:MAX_ROWS]
    )
    more = len(rows) - MAX_ROWS
    if more > 0:
        body += f"<tr><td colspan='{len(names)}'>and {more:,} more</td></tr>"
    return f"<table class='xtd-table'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def bullets(texts: Iterable[str]) -> str:
    """Sentences, one below the other."""
    return f"<ul class='xtd-list'>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def code(text: str) -> str:
    """Text as it is, in lines."""
    return f"<pre class='xtd-code'>{escape(_shortened(text, MAX_TEXT))}</pre>"


# Colors are those of the page: text as it is around, lines and shades mixed from it, so that the
# same page is right on light and on dark. Where a dark page leaves text black (the marks are those
# that xarray knows), text is made white. What a system prefers is not asked: a notebook that is
# white nevertheless would get white text. The rules that seem needless undo what JupyterLab and
# mkdocs-material do to any table and details.
@functools.cache
def _style() -> str:
    """The style sheet of all pages."""
    return "\n" + resources.files("xtorch_data.common").joinpath("page.css").read_text("utf-8")


def _mark(value: Any) -> str:
    """Class that keeps short text in one line; longer text is broken wherever it has to be."""
    return " class='xtd-short'" if len(str(value)) <= MAX_SHORT else ""


def _cell(value: Any) -> str:
    return escape(_shortened(printable(value), MAX_CELL))


def escape(text: str) -> str:
    """Text as HTML, which neither marks nor the direction of writing can break out of."""
    return _escaped(printable_lines(text))


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
