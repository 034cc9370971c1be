"""The site that ``make docs`` builds: whole, and without anything from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("material", reason="the extra docs is not installed")

ROOT = Path(__file__).parents[2]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
LINK_KINDS = {"stylesheet", "icon", "preconnect", "preload", "prefetch", "dns-prefetch"}
# Markdown that was not taken for what it is: a row of a table, an item of a list, a fence.
RAW_MARKDOWN = re.compile(r"^(\|.*\|\s*$|- |\d+\. |```)", re.MULTILINE)


class Reader(HTMLParser):
    """What a page loads, and the text of its paragraphs."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.paragraphs: list[str] = []
        self.depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag in LOADED:
            self.loaded.append(values.get(LOADED[tag], ""))
        if tag == "link" and LINK_KINDS & {*values.get("rel", "").split()}:
            self.loaded.append(values.get("href", ""))
        if tag == "p":
            self.depth = 1
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "p":
            self.depth = 0

    def handle_data(self, data: str) -> None:
        if self.depth:
            self.paragraphs[-1] += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return out


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        loaded = read(page).loaded
        assert len(loaded) > 3
        for address in loaded:
            assert not re.match(r"(\w+:)?//", address), (page, address)
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"url\([\"']?(\w+:)?//|@import", text), style


def test_no_page_has_what_scripts_load_from_elsewhere(site: Path) -> None:
    """The theme's script loads Mermaid for diagrams, and a repository's numbers."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert 'class="mermaid"' not in text and 'data-md-component="source"' not in text, page


def test_markdown_is_understood(site: Path) -> None:
    for page in sorted(site.rglob("*.html")):
        for paragraph in read(page).paragraphs:
            assert not RAW_MARKDOWN.search(paragraph), (page.name, paragraph)


def test_each_page_is_reached(site: Path) -> None:
    """From the first page by its navigation."""
    reached = set(re.findall(r'href="([\w/]+\.html)', (site / "index.html").read_text("utf-8")))
    pages = {page.relative_to(site).as_posix() for page in site.rglob("*.html")}
    assert pages - {"404.html"} <= reached | {"index.html"}
