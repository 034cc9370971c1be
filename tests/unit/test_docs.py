"""What the docs name is there: files, functions, options, links."""

import importlib
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from wav2lip_npu import cli

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "README.md",
]
# Options of pip, torchrun, docker, the container's script and the benchmarks.
OTHERS = {
    *("index_url", "force_reinstall", "only_binary", "no_deps", "nproc_per_node", "nnodes"),
    *("node_rank", "master_addr", "master_port", "shm_size", "net", "dry_run", "original"),
    *("help", "version", "debug", "dist", "build_arg", "cards", "volume"),
}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_of_the_project_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        pytest.skip("tells of files that have moved")
    text = page.read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:wav2lip_npu|face_detection|tests|docs|scripts|docker)/[\w./]+)`", text
    )
    for name in named:
        assert (ROOT / name).exists() or name.endswith("s3fd.pth"), name
    if page.name == "architecture.md":
        assert len(named) > 50


def test_every_module_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "wav2lip_npu").rglob("*.py")):
        if not path.name.startswith("__") and path.parent.name != "demo":
            assert f"{path.name}`" in text, path


def test_a_walk_passes_each_file_once() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walks = re.findall(r"\n## (A.*?)\n(.*?)(?=\n## )", text, re.DOTALL)
    titles = ["An mp4 becomes crops", "A window becomes a loss", "A frame passes through infer"]
    assert [title for title, _ in walks] == titles
    for title, steps in walks:
        files = re.findall(r"`(wav2lip_npu/[\w/]+\.py)`", steps)
        assert len(files) == len(set(files)) > 10, title


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_options_are_options(page: Path) -> None:
    known = {field.name for command in cli.COMMANDS.values() for field in fields(command.config)}
    if page.parent.name == "benchmarks":
        code = "".join(path.read_text(encoding="utf-8") for path in page.parent.glob("*.py"))
        known |= set(re.findall(r'"--(\w+)"', code))
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for option in re.findall(r"--([a-z][\w-]*\w)", text):
        assert option.replace("-", "_") in known | OTHERS, option


def test_public_names_of_the_changelog_exist() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for _, row in re.findall(r"\n\| `(.*?)\| (`wav2lip_npu.*?) \|", text):
        module = None
        for name in re.findall(r"`([\w.]+)`", row):
            path, _, last = name.rpartition(".")
            module = importlib.import_module(path) if path else module
            assert hasattr(module, last) or importlib.import_module(name), name


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is new in Python 3.11")
def test_the_picture_of_the_layers_is_up_to_date() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import draw_layers
    finally:
        sys.path.remove(str(ROOT / "docs"))
    assert (ROOT / "docs" / "layers.svg").read_text(encoding="utf-8") == draw_layers.draw()
