"""The commands that the pages show."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r" *```(\w*)$")
CONSOLE = "console"
PROMPT = "$ "
FILE_NAME = re.compile(r"# ([\w./-]+\.(?:yaml|csv))$")  # the first line of a block that is a file
CELL = re.compile(r"`(wav2lip-npu [^`]+)`")  # a command in a table


@dataclass(frozen=True, kw_only=True)
class Line:
    """A command of a page."""

    page: str  # relative to the project
    number: int  # of its first line in the page, from 1 on
    text: str  # lines joined, comments included

    @property
    def words(self) -> list[str]:
        """The words of a command without quotes and comments."""
        return shlex.split(self.text, comments=True)

    def __str__(self) -> str:
        return f"{self.page}:{self.number}: $ {self.text}"


def named_files(page: str) -> dict[str, str]:
    """The files that a page shows: blocks that begin with a comment of a name alone."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```\w+\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    firsts = {block: FILE_NAME.match(block.splitlines()[0]) for block in blocks if block}
    return {first[1]: block for block, first in firsts.items() if first}


def pages() -> list[Path]:
    """The pages whose commands count."""
    names = ("README.md", "README.zh.md", "CONTRIBUTING.md")
    found = [*(ROOT / name for name in names), *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in found if path.is_file()]


def collect(page: Path) -> list[Line]:
    """The commands of a page in their order: of console blocks, and of tables in a README."""
    name = page.relative_to(ROOT).as_posix()
    with_tables = page.name.startswith("README")
    found: list[Line] = []
    block: str | None = None  # the kind of the block that the line is in
    continues = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if fence := FENCE.match(line):
            block = fence[1] if block is None else None
            continue
        text = line.strip()
        if block == CONSOLE and continues:
            before = found.pop()
            joined = before.text.removesuffix("\\").rstrip() + " " + text
            found.append(Line(page=name, number=before.number, text=joined))
        elif block == CONSOLE and text.startswith(PROMPT):
            found.append(Line(page=name, number=number, text=text.removeprefix(PROMPT)))
        elif block is None and with_tables and text.startswith("|"):
            found += [Line(page=name, number=number, text=cell) for cell in CELL.findall(text)]
        continues = block == CONSOLE and text.endswith("\\")
    return found
