"""``preprocess`` with S3FD on cards: what the CPU cuts, each worker on its card."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from formula import golden_arrays
from helpers import tone, write_video

from wav2lip_npu.doctor.kernel_names import KERNEL_NAMES
from wav2lip_npu.media.audio import write_wav

FRAMES = 3  # of a video


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two videos of what S3FD's weights by formula find faces in."""
    write_wav(tmp_path / "speech.wav", tone(FRAMES / 25))
    (tmp_path / "videos").mkdir()
    for name, image in zip("ab", golden_arrays("s3fd")["images"], strict=False):
        frames = [np.roll(image, n, axis=1) for n in range(FRAMES)]
        write_video(tmp_path / "videos" / f"{name}.mp4", frames, audio=tmp_path / "speech.wav")
    return tmp_path / "videos"


def run(videos: Path, weights: Path, out: Path, *more: str) -> list[str]:
    """Cut the videos; the log of the cards."""
    log = out.with_suffix(".log")
    words = [
        *(sys.executable, "-m", "wav2lip_npu", "preprocess", "--data_root", str(videos)),
        *("--preprocessed_root", str(out), "--detector", "s3fd", "--s3fd", str(weights)),
        *("--precision", "fp32", "--strict_fp32", *more),
    ]
    environment = {**os.environ, "EMULATED_CANN_LOG": str(log)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return log.read_text().splitlines() if log.exists() else []


def test_two_cards_cut_what_the_cpu_cuts(videos: Path, s3fd_weights: Path, tmp_path: Path) -> None:
    on_cpu, on_cards = tmp_path / "cpu", tmp_path / "cards"
    run(videos, s3fd_weights, on_cpu, "--device", "cpu")
    log = run(videos, s3fd_weights, on_cards, "--device", "npu", "--ngpu", "2")

    files = sorted(p.relative_to(on_cpu) for p in on_cpu.rglob("*.jpg"))
    assert len(files) == 2 * FRAMES
    assert files == sorted(p.relative_to(on_cards) for p in on_cards.rglob("*.jpg"))
    for file in files:
        assert (on_cards / file).read_bytes() == (on_cpu / file).read_bytes()

    kernels = [line.split()[1] for line in log if line.startswith("kernel ")]
    assert kernels.count("aclnnConvolution") > 20
    assert set(kernels) <= set(KERNEL_NAMES)  # which the doctor looks for
    taken = {tuple(line.split()[2::2]) for line in log if line.startswith("allocate card")}
    assert sorted(card for card, _ in taken) == ["0", "1"]
    assert len({owner for _, owner in taken}) == 2  # a worker each, and none for both
