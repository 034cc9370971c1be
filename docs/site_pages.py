"""A hook of MkDocs: pages of files that are not in docs/, and links that lead to them.

Links are written as GitHub needs them, relative to the file that they are in. On the site the files
have other places, so the links are written anew. ``mkdocs.yml`` names this hook.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# The place on the site of each Markdown file that is not in docs/.
PAGES = {
    "README.md": "overview.md",
    "README.zh.md": "zh/overview.md",
    "CONTRIBUTING.md": "development.md",
    "CHANGELOG.md": "changes.md",
    "benchmarks/README.md": "benchmarks.md",
}
FILES = "files"  # the site's folder for other files that pages link to
LINK = re.compile(r'(?<=\]\()[^)\s]+(?=\))|(?<=src=")[^"]+(?=")')
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the files that any page links to."""
    for path, place in PAGES.items():
        if (ROOT / path).is_file():
            files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    for page in files.documentation_pages():
        for target in _links(page.content_string, _source(page)):
            place = _place(target)
            if target.is_file() and files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links lead to the places of their files on the site."""
    source = _source(page.file)
    folder = Path(page.file.src_uri).parent

    def moved(link: re.Match[str]) -> str:
        target, _, anchor = link[0].partition("#")
        if not target or "://" in target:
            return link[0]
        place = Path(os.path.relpath(_place(_resolved(target, source)), folder)).as_posix()
        return place + ("#" + anchor if anchor else "")

    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(moved, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join(parts) + LINK.sub(moved, markdown[end:])


def _links(markdown: str, source: Path) -> Iterator[Path]:
    """The files that a page links to."""
    for link in LINK.findall(FENCE.sub("", markdown)):
        target = link.partition("#")[0]
        if target and "://" not in target:
            yield _resolved(target, source)


def _resolved(target: str, source: Path) -> Path:
    return Path(os.path.normpath(source.parent / target))


def _source(file: File) -> Path:
    return Path(str(file.abs_src_path)).resolve()


def _place(path: Path) -> str:
    """Where a file of the project is on the site; a name without a suffix gets one."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()
    return PAGES.get(name, f"{FILES}/{name}" + ("" if path.suffix else ".txt"))
