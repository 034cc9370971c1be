"""What the docs name is there: files, functions, options, links."""

import importlib
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from pkgutil import resolve_name

import pytest

from wav2lip_npu import cli
from wav2lip_npu.config import CommonOptions

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "README.zh.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "benchmarks" / "README.md",
]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
WALKS = ["An mp4 becomes crops", "A window becomes a loss", "A frame passes through infer"]
FOLDERS = "wav2lip_npu|face_detection|tests|docs|scripts|docker|benchmarks"
# Options of pip, torchrun, docker, pytest, ruff, the container's script and the parser itself.
OTHER_PROGRAMS = {
    *("index_url", "force_reinstall", "only_binary", "no_deps", "nproc_per_node", "nnodes"),
    *("node_rank", "master_addr", "master_port", "shm_size", "net", "dry_run", "original"),
    *("help", "version", "dist", "build_arg", "cards", "volume", "format", "check"),
}
MODULE = re.compile(r"`((?:wav2lip_npu|face_detection)/[\w/]+)\.py`")
# A function as ``name()``, a class as ``CamelCase``.
NAME = re.compile(r"`([A-Za-z_][\w.]*)\(\)`|`([A-Z]\w*[a-z]\w*|[A-Z]{3,})`")


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", read(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_of_the_project_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        pytest.skip("names files that have moved")
    named = re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", read(page))
    for name in named:
        assert (ROOT / name).exists() or name.endswith("s3fd.pth"), name
    if page == ARCHITECTURE:
        assert len(named) > 80


def test_every_module_is_in_the_architecture() -> None:
    text = read(ARCHITECTURE)
    for path in sorted((ROOT / "wav2lip_npu").rglob("*.py")):
        if not path.name.startswith("__") and path.parent.name != "demo":
            assert f"{path.name}`" in text, path


def walks() -> dict[str, list[str]]:
    """The steps of each walk of the architecture."""
    found = re.findall(r"\n## (A.*?)\n(.*?)(?=\n## )", read(ARCHITECTURE), re.DOTALL)
    return {
        title: re.findall(r"^\d+\. (.*?)(?=^\d+\. |\Z)", steps, re.DOTALL | re.MULTILINE)
        for title, steps in found
    }


@pytest.mark.parametrize("title", WALKS)
def test_a_walk_passes_each_file_once(title: str) -> None:
    steps = walks()[title]
    files = [file for step in steps for file in MODULE.findall(step)]
    assert len(steps) > 10 and all(map(MODULE.search, steps))
    assert len(files) == len(set(files))


def test_functions_and_classes_of_the_architecture_are_in_their_files() -> None:
    rows = [line for line in read(ARCHITECTURE).splitlines() if line.startswith("|")]
    named = 0
    for text in [*rows, *(step for steps in walks().values() for step in steps)]:
        modules = [name.replace("/", ".") for name in MODULE.findall(text)]
        for function, type_name in NAME.findall(text):
            if not modules:  # a word of the glossary
                continue
            named += 1
            name = function or type_name
            assert any(is_there(module, name) for module in modules), (modules, name)
    assert named > 80


def is_there(module: str, name: str) -> bool:
    try:
        resolve_name(f"{module}:{name}")
    except AttributeError:
        return False
    return True


def options_of(config: type) -> set[str]:
    names = ({field.name, *field.metadata["other_names"]} for field in fields(config))
    return set().union(*names)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_options_are_options(page: Path) -> None:
    configs = [command.config for command in cli.COMMANDS.values()]
    known = set().union(*map(options_of, [*configs, CommonOptions]))
    if page.parent.name == "benchmarks":
        code = "".join(read(path) for path in page.parent.glob("*.py"))
        known |= set(re.findall(r'"--(\w+)"', code))
    text = re.sub(r"```.*?```", "", read(page), flags=re.DOTALL)
    for option in re.findall(r"--([a-z][\w-]*\w)", text):
        assert option.replace("-", "_") in known | OTHER_PROGRAMS, option


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_can_be_typed(page: Path) -> None:
    """The options of each command line are those of its command."""
    text = read(page).replace("\\\n", " ")
    program = r"(?:wav2lip-npu|torchrun .*?-m wav2lip_npu)"
    for line in re.findall(rf"(?:^\$ |`){program} ([^`\n]+)", text, re.MULTILINE):
        line = line.partition("#")[0].strip()
        name, *words = shlex.split(line.replace("…", ""))
        assert name in cli.COMMANDS, line
        given = [word[2:].replace("-", "_") for word in words if word.startswith("--")]
        known = options_of(cli.COMMANDS[name].config) | options_of(CommonOptions) | {"help"}
        assert set(given) <= known, line


@pytest.mark.parametrize("script", ["infer", "loader", "preprocess", "training"])
def test_benchmarks_of_the_docs_exist(script: str) -> None:
    assert f"benchmarks.{script} " in read(ROOT / "benchmarks" / "README.md")
    assert (ROOT / "benchmarks" / f"{script}.py").is_file()


def test_public_names_of_the_changelog_exist() -> None:
    rows = re.findall(r"^\| (`.*`) \| (`wav2lip_npu.*`) \|$", read(ROOT / "CHANGELOG.md"), re.M)
    assert len(rows) > 10
    for _, now in rows:
        for name in re.findall(r"`([\w.]+)`", now):
            assert name.startswith("wav2lip_npu.")
            resolve_name(name)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is new in Python 3.11")
def test_the_picture_of_the_layers_is_up_to_date() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        draw_layers = importlib.import_module("draw_layers")
    finally:
        sys.path.remove(str(ROOT / "docs"))
    assert read(ROOT / "docs" / "layers.svg") == draw_layers.draw()
