"""Small media and data sets that tests share, made on the spot."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

# One thread in every process of the tests, alone and side by side. Torch splits a sum by the number
# of threads, which is not the same in the main thread, in autograd's thread of a card and in the
# thread that fills page-locked memory: with two threads equality of bits is a matter of luck.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch
from formula import fill, golden_json, weight
from helpers import make_clip, thin_networks, tone
from skimage import data as pictures

from wav2lip_npu import checkpoint
from wav2lip_npu.media.audio import write_wav
from wav2lip_npu.models import SyncNet, generator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what a test printed: names of files that are no UTF-8 would end pytest-xdist."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def no_fsync(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn ``os.fsync`` off to save time: tests write gigabytes of checkpoints.

    Tests marked ``fsync`` keep it.
    """
    if request.node.get_closest_marker("fsync") is None:
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def face() -> np.ndarray:
    """A picture with one face, (256, 256, 3) BGR; CenterFace finds it."""
    astronaut = pictures.astronaut()[:256, 96:352, ::-1]
    return np.ascontiguousarray(astronaut)


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """One second of sound as WAV."""
    path = tmp_path / "speech.wav"
    write_wav(path, tone(1.0))
    return path


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A data root of three clips with file lists in ``lists``."""
    for seed, name in enumerate(("a", "b", "c")):
        make_clip(tmp_path / "data" / name, seed=seed)
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\n")
    return tmp_path / "data"


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """See ``thin_networks``."""
    thin_networks(monkeypatch)


@pytest.fixture
def expert_file(tmp_path: Path) -> Path:
    """A checkpoint of an expert that has learned nothing."""
    torch.manual_seed(1)
    expert = SyncNet()
    path = tmp_path / "expert.pth"
    optimizer = torch.optim.Adam(expert.parameters())
    checkpoint.save(path, expert, optimizer, step=0, epoch=0, extra={})
    return path


@pytest.fixture
def generator_file(tmp_path: Path) -> Path:
    """A checkpoint of a generator with weights by formula."""
    network = fill(generator.Generator())
    path = tmp_path / "wav2lip.pth"
    optimizer = torch.optim.Adam(network.parameters())
    checkpoint.save(path, network, optimizer, step=0, epoch=0, extra={})
    return path


@pytest.fixture(scope="session")
def s3fd_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file by formula, changed so that there is something to find."""
    shapes = golden_json("state_dict_names")["s3fd"]
    state = {name: weight(name, tuple(shape)) for name, shape in shapes.items()}
    for layer, scale in (("conv3_3", 10.0), ("conv4_3", 8.0), ("conv5_3", 5.0)):
        state[f"{layer}_norm.weight"].fill_(scale)
    for name, value in state.items():
        if name.endswith("mbox_conf.bias"):
            value.zero_()
            value[0] = 1.2 if len(value) == 4 else 2.0
    path = tmp_path_factory.mktemp("weights") / "s3fd.pth"
    torch.save(state, path)
    return path
