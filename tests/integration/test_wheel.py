"""The wheel and the source distribution: what is in them, and commands that run away from here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import THIN_CLI, tone

from wav2lip_npu.media.audio import write_wav
from wav2lip_npu.media.video_reader import read_frames

ROOT = Path(__file__).parents[2]
PACKAGES = ("face_detection", "wav2lip_npu")
BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2]))
"""


def call(*words: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env={**os.environ, **environment}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, out: Path) -> Path:
    """Build a "sdist" or a "wheel", with the setuptools that is installed."""
    out.mkdir()
    return out / call(sys.executable, "-c", BUILD, kind, out, cwd=source).splitlines()[-1]


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """All files of the project, by their paths in it."""
    if not (ROOT / ".git").exists():
        pytest.skip("no clone: which files belong to the project is not known")
    names = call("git", "ls-files", "-z", cwd=ROOT).split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def sdist(tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves files in its source folder."""
    folder = tmp_path_factory.mktemp("source")
    for name in tracked:
        copy = folder / "project" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    return build("sdist", folder / "project", folder / "out")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what the source distribution has."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as file:
        file.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return build("wheel", unpacked, folder / "out")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel alone."""
    folder = tmp_path_factory.mktemp("installed")
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile")
    call(sys.executable, *pip, "--target", folder, wheel, cwd=folder)
    return folder


def test_the_source_distribution_has_all_files(tracked: list[str], sdist: Path) -> None:
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert set(tracked) <= names


def test_the_wheel_has_all_files_of_the_packages(tracked: list[str], wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
        licences = {name.partition("/licenses/")[2] for name in file.namelist()} - {""}
        metadata = file.read(next(n for n in file.namelist() if n.endswith("/METADATA")))
    assert names == {name for name in tracked if name.startswith(tuple(f"{p}/" for p in PACKAGES))}
    assert {name.rpartition(".")[2] for name in names} >= {"onnx", "tflite", "safetensors", "jpg"}
    assert licences == {"LICENSE"} | {name for name in names if name.endswith("/NOTICE")}
    described = Parser().parsestr(metadata.decode())
    assert described["Requires-Python"] == ">=3.10"
    assert described["License-Expression"] == "Apache-2.0"


@pytest.mark.usefixtures("thin")
def test_commands_of_the_wheel(installed: Path, generator_file: Path, face: np.ndarray) -> None:
    """Away from the checkout: what they need besides Python's packages is in the wheel."""
    work = generator_file.parent / "elsewhere"
    work.mkdir()
    path = os.pathsep.join(map(str, (installed, THIN_CLI.parent)))
    environment = {"PYTHONPATH": path, "TORCH_HOME": str(work)}
    program = installed / "bin" / "wav2lip-npu"
    assert "infer" in call(program, "--help", cwd=work, **environment)
    findings = json.loads(call(program, "doctor", "--json", cwd=work, **environment))["findings"]
    (centerface,) = (each for each in findings if each["name"] == "CenterFace")
    assert centerface["detail"] == str(installed / "face_detection/data/centerface.onnx")
    cv2.imwrite(str(work / "face.png"), face)
    write_wav(work / "speech.wav", tone(0.4))
    files = ("--face", "face.png", "--audio", "speech.wav", "--outfile", "out.mp4")
    infer = ("infer", "--checkpoint_path", generator_file, "--device", "cpu", *files)
    call(sys.executable, THIN_CLI, *infer, cwd=work, **environment)
    assert len(list(read_frames(work / "out.mp4"))) == 10
