"""Representations for notebooks: collapsible sections, in xarray's manner, without JavaScript."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape as _escaped
from typing import Any

from .redact import printable, printable_lines
from .text import Fact, lines_of

__all__ = ["bullets", "code", "facts", "page", "section", "table"]

# What is longer is cut: a page stays small whatever it is about.
MAX_CELL, MAX_TEXT, MAX_SHORT, MAX_ROWS = 300, 6_000, 24, 40

# Colors are those of the page: text as it is around, lines and shades mixed from it, so that the
# same page is right on light and on dark. Where a dark page leaves text black (the marks are those
# that xarray knows), text is made white. What a system prefers is not asked: a notebook that is
# white nevertheless would get white text. The rules that seem needless undo what JupyterLab and
# mkdocs-material do to any table and details.
STYLE = """
.xtd-text { display: none; }
.xtd-wrap {
  --xtd-line: rgba(128, 128, 128, 0.35); --xtd-shade: rgba(128, 128, 128, 0.09);
  --xtd-faint: rgba(128, 128, 128, 1);
  display: block !important; max-width: 760px; line-height: 1.55; padding-bottom: 4px;
  color: var(--jp-content-font-color1, var(--vscode-foreground, inherit));
}
html[theme="dark"] .xtd-wrap, html[data-theme="dark"] .xtd-wrap,
body[data-theme="dark"] .xtd-wrap, body.vscode-dark .xtd-wrap {
  color: var(--jp-content-font-color1, var(--vscode-foreground, rgba(255, 255, 255, 0.87)));
}
@supports (color: color-mix(in srgb, red, blue)) {
  .xtd-wrap {
    --xtd-line: color-mix(in srgb, currentColor 25%, transparent);
    --xtd-shade: color-mix(in srgb, currentColor 6%, transparent);
    --xtd-faint: color-mix(in srgb, currentColor 68%, transparent);
  }
}
.xtd-wrap .xr-wrap {
  --xr-font-color0: currentColor; --xr-font-color2: var(--xtd-faint);
  --xr-font-color3: var(--xtd-faint); --xr-disabled-color: var(--xtd-line);
  --xr-border-color: var(--xtd-line); --xr-background-color: transparent;
  --xr-background-color-row-even: transparent; --xr-background-color-row-odd: transparent;
}
.xtd-head { border-bottom: 1px solid var(--xtd-line); margin-bottom: 4px; padding: 6px 2px; }
.xtd-kind { color: var(--xtd-faint); margin-right: 10px; }
.xtd-wrap dl.xtd-facts {
  display: grid; grid-template-columns: minmax(90px, max-content) 1fr; gap: 1px 14px;
  margin: 6px 2px; font-size: 0.95em;
}
.xtd-wrap dl.xtd-facts dt { color: var(--xtd-faint); font-weight: normal; margin: 0; padding: 0; }
.xtd-wrap dl.xtd-facts dd { margin: 0; padding: 0; overflow-wrap: anywhere; min-width: 0; }
.xtd-wrap details.xtd-section {
  margin: 2px 0; padding: 0; border: 0; background: none; box-shadow: none; font-size: 1em;
}
.xtd-wrap details.xtd-section > summary {
  display: list-item; list-style: disclosure-closed inside; cursor: pointer; margin: 0;
  padding: 2px; background: none; border: 0; font-weight: 500; overflow-wrap: anywhere;
}
.xtd-wrap details.xtd-section[open] > summary { list-style-type: disclosure-open; }
.xtd-wrap details.xtd-section > summary::before, .xtd-wrap details.xtd-section > summary::after {
  display: none;
}
.xtd-wrap summary .xtd-inline { color: var(--xtd-faint); font-weight: normal; margin-left: 8px; }
.xtd-body { margin: 2px 0 8px 18px; overflow-x: auto; }
.xtd-wrap table.xtd-table {
  display: table; border-collapse: collapse; border: 0; margin: 0; font-size: 0.92em;
}
.xtd-wrap table.xtd-table tr { background: none; border: 0; }
.xtd-wrap table.xtd-table tbody tr:nth-child(odd) { background: var(--xtd-shade); }
.xtd-wrap table.xtd-table th, .xtd-wrap table.xtd-table td {
  text-align: left; vertical-align: top; padding: 2px 12px 2px 4px; border: 0; min-width: 0;
  max-width: 260px; overflow-wrap: anywhere; white-space: normal;
}
.xtd-wrap table.xtd-table th { color: var(--xtd-faint); font-weight: normal; white-space: nowrap; }
.xtd-wrap table.xtd-table td.xtd-short { white-space: nowrap; }
.xtd-wrap ul.xtd-list {
  margin: 0; padding: 0 0 0 16px; list-style: disc; font-size: 0.95em; overflow-wrap: anywhere;
}
.xtd-wrap pre.xtd-code {
  margin: 0; padding: 2px 4px; white-space: pre-wrap; overflow-wrap: anywhere; background: none;
  color: inherit; font-size: 0.92em;
}
"""


def page(kind: str, head: str, parts: Iterable[str], text: str) -> str:
    """Page of an object in a notebook: its kind, a line, and `parts`, which are HTML.

    `text`, its plain repr, is shown where styles are not allowed.
    """
    plain = escape(_shortened(text, MAX_TEXT))
    return (
        f"<div><style>{STYLE}</style><pre class='xtd-text'>{plain}</pre>"
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
