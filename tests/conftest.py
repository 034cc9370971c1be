"""Small media and data sets that tests share, made on the spot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

# One thread in every process of the tests, alone and side by side. Torch splits a sum by the number
# of threads, which is not the same in the main thread, in autograd's thread of a card and in the
# thread that fills page-locked memory: with two threads equality of bits is a matter of luck.
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import pytest
import torch
from formula import fill
from skimage import data as pictures
from torch import nn

from wav2lip_npu import checkpoint
from wav2lip_npu.audio import SAMPLE_RATE, write_wav
from wav2lip_npu.models import SyncExpert, blocks, discriminator, generator
from wav2lip_npu.video_writer import VideoWriter


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests write gigabytes of checkpoints that nobody keeps."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def face() -> np.ndarray:
    """A picture with one face, (256, 256, 3) BGR; CenterFace finds it."""
    astronaut = pictures.astronaut()[:256, 96:352, ::-1]
    return np.ascontiguousarray(astronaut)


def tone(seconds: float, rate: int = SAMPLE_RATE, hertz: float = 440.0) -> np.ndarray:
    """A tone that swells twice a second, float32 mono."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * hertz * t) * np.sin(2 * np.pi * t) ** 2).astype(np.float32)


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """One second of sound as WAV."""
    path = tmp_path / "speech.wav"
    write_wav(path, tone(1.0))
    return path


def rows_heard(mel_rows: int, fps: float) -> list[int]:
    """First mel row for each output frame of an utterance that is there as a whole."""
    last = mel_rows - 16
    rows = [int(n * (80 / fps)) for n in range(mel_rows) if int(n * (80 / fps)) <= last]
    return [*rows, last]


def write_video(
    path: Path, frames: list[np.ndarray], fps: float = 25, audio: Path | None = None
) -> Path:
    with VideoWriter(path, fps=fps, audio=audio, crf=10, preset="ultrafast") as writer:
        for frame in frames:
            writer.write(frame)
    return path


def numbered(count: int, size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    """Grey pictures that tell their number (modulo 30) by their brightness: 8·n."""
    width, height = size
    return [np.full((height, width, 3), 8 * (n % 30), np.uint8) for n in range(count)]


def number_of(image: np.ndarray) -> int:
    return round(float(image.mean()) / 8)


def make_clip(folder: Path, frames: int = 25, seed: int = 0, missing: tuple[int, ...] = ()) -> Path:
    """A preprocessed clip: crops of varying size, and as much audio."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(frames):
        if number not in missing:
            crop = random.integers(0, 256, (6, 5, 3), dtype=np.uint8)
            crop = cv2.resize(crop, (70 + number % 3, 90), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / f"{number}.jpg"), crop)
    write_wav(folder / "audio.wav", tone(frames / 25, hertz=200 + 50 * seed))
    return folder


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


def thin_networks(patch: pytest.MonkeyPatch) -> None:
    """Build the three networks with an eighth of their channels, where their size is no matter."""

    def thinned(layer: type[nn.Module]) -> Callable[..., nn.Module]:
        def build(*channels: int, **options: int) -> nn.Module:
            counts = 1 if layer is nn.BatchNorm2d else 2
            few = [n // 8 if n % 16 == 0 else n for n in channels[:counts]]
            return layer(*few, *channels[counts:], **options)

        return build

    thin = ModuleType("thin")
    thin.__dict__.update(nn.__dict__)
    for layer in (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d):
        setattr(thin, layer.__name__, thinned(layer))
    for module in (blocks, discriminator, generator):
        patch.setattr(module, "nn", thin)


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """See ``thin_networks``."""
    thin_networks(monkeypatch)


@pytest.fixture
def expert_file(tmp_path: Path) -> Path:
    """A checkpoint of an expert that has learned nothing."""
    torch.manual_seed(1)
    expert = SyncExpert()
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
