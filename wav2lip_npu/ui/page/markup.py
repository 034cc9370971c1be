"""Pieces of HTML; every text from outside is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote


def note(text: str, *, bad: bool = False) -> str:
    """A line of text."""
    return f'<p class="note{" note-bad" if bad else ""}">{escape(text)}</p>' if text else ""


def bar(text: str, share: float | None) -> str:
    """A line of text over a bar that is filled to a share from 0 to 1; None: no bar."""
    if share is None:
        return note(text)
    width = 100 * min(1.0, max(0.0, share))
    return f'{note(text)}<div class="bar"><div style="width:{width:.1f}%"></div></div>'


def url(path: Path) -> str:
    """The address of a file of a visitor."""
    return f"gradio_api/file={quote(str(path))}"


def image(path: Path, caption: str) -> str:
    """A picture, which opens alone on a click."""
    place, text = escape(url(path)), escape(caption)
    return (
        f'<figure class="wide"><figcaption>{text}</figcaption>'
        f'<a href="{place}" target="_blank"><img src="{place}" alt="{text}"></a></figure>'
    )


def side_by_side(source: Path, *, still: bool, result: Path) -> str:
    """Source and result, and a link that downloads the result."""
    first, second = escape(url(source)), escape(url(result))
    shown = f'<img src="{first}" alt="source">' if still else _video(first)
    return (
        f'<div class="side-by-side"><figure><figcaption>source</figcaption>{shown}</figure>'
        f"<figure><figcaption>result</figcaption>{_video(second)}</figure></div>"
        f'<a class="download" id="download" href="{second}" download="{escape(result.name)}">'
        f"download {escape(result.name)}</a>"
    )


def _video(address: str) -> str:
    return f'<video src="{address}" controls preload="metadata"></video>'


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; without a head, if that is empty."""
    titles = "".join(f"<th>{escape(one)}</th>" for one in head)
    titles = f"<tr>{titles}</tr>" if titles else ""
    lines = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<table class="table">{titles}{lines}</table>'
