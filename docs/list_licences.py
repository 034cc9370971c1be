"""Writes the packages of docs/licences.md from those of this environment: ``make licences``.

It has the plain install and all extras. Licences are read by pip-licenses from the
metadata of the packages; what each is needed for follows from the requirements in it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "wav2lip-npu"
FOR_DEVELOPERS = ("docs", "dev", "release")  # what their packages need is not listed
MAX_LICENCE_CHARACTERS = 200  # of a cell; some packages give the whole text
PAGE = ROOT / "docs" / "licences.md"
TABLE_HEAD = "| package | version | licence | needed for |\n| --- | --- | --- | --- |\n"


def main() -> None:
    """Write the table of the page, whose other text stays."""
    needed_for = _needed_for()
    licences = _licences()
    rows = []
    for name in sorted(needed_for):
        if (found := licences.get(name)) is None:
            sys.exit(f"{name} is not installed: run make licences")
        cells = (found["Name"], found["Version"], _short(found["License"]), needed_for[name])
        rows.append(f"| {' | '.join(cells)} |\n")
    text, _, _ = PAGE.read_text(encoding="utf-8").partition(TABLE_HEAD)
    PAGE.write_text(text + TABLE_HEAD + "".join(rows), encoding="utf-8")


def _needed_for() -> dict[str, str]:
    """For each package the installs that name it, or the packages that need it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].items()
    installs = {"plain install": project["dependencies"]}
    installs |= {f"extra `{extra}`": words for extra, words in extras}
    found: dict[str, list[str]] = {}
    for install, words in installs.items():
        for name in map(_name, words):
            if name != PROJECT:
                found.setdefault(name, []).append(install)
    developers = {f"extra `{extra}`" for extra in FOR_DEVELOPERS}
    waiting = [name for name, by in found.items() if not developers.issuperset(by)]
    direct = set(found)
    while waiting:
        parent = waiting.pop()
        for name in _requirements(parent):
            if name not in found:
                waiting.append(name)
            if name not in direct:
                found.setdefault(name, []).append(parent)
    return {name: ", ".join(sorted(set(reasons))) for name, reasons in found.items()}


def _requirements(package: str) -> list[str]:
    """What an installed package needs here, without its extras."""
    words = [Requirement(word) for word in requires(package) or []]
    needed = [one for one in words if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [canonicalize_name(one.name) for one in needed]


def _licences() -> dict[str, dict[str, str]]:
    """Name, version and licence of each installed package."""
    words = ("-m", "piplicenses", "--with-system", "--from", "mixed", "--format", "json")
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    return {canonicalize_name(one["Name"]): one for one in json.loads(done.stdout)}


def _name(requirement: str) -> str:
    return canonicalize_name(Requirement(requirement).name)


def _short(licence: str) -> str:
    """The first line, without what would break a table."""
    line = re.sub(r"\s+", " ", licence.strip().splitlines()[0]).replace("|", "/")
    return line if len(line) <= MAX_LICENCE_CHARACTERS else line[:MAX_LICENCE_CHARACTERS] + "…"


if __name__ == "__main__":
    main()
