"""The Chinese pages follow the English ones: sections, code, links, rows, options, messages."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import pytest
from messages import rows

from wav2lip_npu.cli import COMMANDS, parser

ROOT = Path(__file__).parents[2]
CHINESE = {
    "README.md": "README.zh.md",
    "docs/troubleshooting.md": "docs/zh/troubleshooting.md",
    "docs/messages.md": "docs/zh/messages.md",
}
WORKFLOW = "docs/zh/workflow.md"  # has no English page: the README's table is its like
OTHER_LANGUAGE = ("[English](", "[中文](")  # begin a line that leads to the other languages
PAIRS = pytest.mark.parametrize("english", CHINESE)


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    paragraphs = text.split("\n\n")
    kept = (one for one in paragraphs if not one.startswith(OTHER_LANGUAGE))
    return "\n\n".join(kept).splitlines()


def code(name: str) -> list[str]:
    """The lines of code blocks, without comments, which are translated."""
    found, is_code = [], False
    for line in lines(name):
        if line.startswith("```"):
            is_code = not is_code
        elif is_code:
            found.append(re.sub(r"\s+# .*", "", line))
    return found


def links(name: str) -> list[str]:
    """The targets of links, in the order of the page; of a Chinese page the English one."""
    english = {chinese: english for english, chinese in CHINESE.items()}
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(lines(name))):
        path, _, anchor = target.partition("#")
        if "://" in target:
            found.append(target)
            continue
        file = os.path.normpath(Path(name).parent / path) if path else name
        is_translated = file in english or file in CHINESE
        file = english.get(file, file)
        if file != WORKFLOW:
            found.append(file if is_translated or not anchor else f"{file}#{anchor}")
    return found


def sections(name: str) -> list[int]:
    """The levels of headings."""
    return [len(line.partition(" ")[0]) for line in lines(name) if re.match(r"#+ ", line)]


def options_of_rows(name: str) -> list[set[str]]:
    """The options that each row of the tables names."""
    return [set(re.findall(r"--[a-z]\w*", line)) for line in lines(name) if line.startswith("|")]


@PAIRS
@pytest.mark.parametrize("part", [sections, code, links, options_of_rows], ids=lambda f: f.__name__)
def test_a_chinese_page_follows_the_english_one(english: str, part: Callable[[str], list]) -> None:
    wanted, found = part(english), part(CHINESE[english])
    pairs = enumerate(zip_longest(wanted, found, fillvalue="nothing"))
    unlike = next((f"{i}: {a} there, {b} here" for i, (a, b) in pairs if a != b), None)
    assert unlike is None, (
        f"{CHINESE[english]} does not follow {english} any more, change it likewise; "
        f"{part.__name__}, number {unlike}"
    )


def test_messages_are_those_of_the_english_page_in_the_same_order() -> None:
    wanted, found = (
        [row.messages for row in rows(ROOT / name)]
        for name in ("docs/messages.md", CHINESE["docs/messages.md"])
    )
    lacking = [" ".join(f"`{one}`" for one in row) for row in wanted if row not in found]
    assert not lacking, "add to docs/zh/messages.md, in Chinese:\n" + "\n".join(lacking)
    assert found == wanted, "docs/zh/messages.md has other rows, or another order"


def test_the_pages_are_in_chinese() -> None:
    for name in (*CHINESE.values(), WORKFLOW):
        cells = [
            re.sub(r"`[^`]*`|\"[^\"]*\"|\[[^\]]*\]\([^)]*\)", "", cell).strip()
            for line in lines(name)
            if line.startswith("| ")
            for cell in line.strip("|").split("|")
        ]
        english = [cell for cell in cells if re.search(r"[a-z]+ [a-z]+ [a-z]+ [a-z]+", cell)]
        assert not english, f"{name} has cells in English: {english}"


def commands(name: str) -> list[list[str]]:
    """The words of each line of the workflow's code that starts this project's command."""
    text = "\n".join(code(name)).replace("\\\n", " ")
    started = re.findall(
        r"^\$ (?:wav2lip-npu|torchrun .*?-m wav2lip_npu) (.*)$", text, re.MULTILINE
    )
    return [shlex.split(line) for line in started]


def test_the_commands_of_the_workflow_are_right() -> None:
    given = [parser.parse(words, "wav2lip-npu") for words in commands(WORKFLOW)]
    for one in given:
        assert one is not None
        one.make(COMMANDS[one.command].config)
    wanted = {"preprocess", "filelists", "sync", "train-syncnet", "train", "infer", "evaluate"}
    assert {one.command for one in given if one} == wanted | {"doctor"}


def test_each_script_of_the_guide_is_beside_its_command() -> None:
    text = (ROOT / WORKFLOW).read_text(encoding="utf-8")
    row = r"^\| [^|]*\| `(scripts/\w+\.py)` \| `wav2lip-npu ([^`]+)` \|"
    named = dict(re.findall(row, text, re.MULTILINE))
    for path in (ROOT / "scripts").glob("[a-z]*.py"):
        started = re.findall(r"run\((.*)\)", path.read_text(encoding="utf-8"))
        assert named[f"scripts/{path.name}"].split() == re.findall(r'"([^"]+)"', started[0])
