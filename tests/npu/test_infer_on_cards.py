"""``infer`` on several cards: jobs are shared, and each process keeps to its card."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import tone, write_video

from wav2lip_npu.doctor.kernel_names import KERNEL_NAMES
from wav2lip_npu.media.audio import write_wav


@pytest.fixture
def jobs(tmp_path: Path, face: np.ndarray) -> Path:
    """A list of four jobs."""
    write_video(tmp_path / "talker.mp4", [face] * 6)
    write_wav(tmp_path / "speech.wav", tone(6 / 25))
    lines = [f"talker.mp4,speech.wav,out{n}.mp4" for n in range(4)]
    (tmp_path / "jobs.csv").write_text("\n".join(["face,audio,outfile", *lines]) + "\n")
    return tmp_path / "jobs.csv"


def run(
    jobs: Path, generator_file: Path, *more: str, launcher: tuple[str, ...] = (), card: str = "npu"
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    log = jobs.parent / "log"
    words = [
        *(sys.executable, *launcher, "-m", "wav2lip_npu", "infer", "--device", card),
        *("--precision", "fp32", "--box", "40", "200", "60", "180"),
        *("--checkpoint_path", str(generator_file), *more),
    ]
    environment = {**os.environ, "EMULATED_CANN_LOG": str(log)}
    done = subprocess.run(words, env=environment, cwd=jobs.parent, capture_output=True, text=True)
    return done, log.read_text().splitlines() if log.exists() else []


def owners(lines: list[str]) -> set[tuple[str, str]]:
    """Cards on which memory was taken, and the process that took it."""
    found = {tuple(line.split()[2::2]) for line in lines if line.startswith("allocate card")}
    return {(card, pid) for card, pid in found}


@pytest.mark.parametrize(
    "launcher",
    [(), ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")],
    ids=["devices", "torchrun"],
)
def test_jobs_are_shared_by_cards(
    launcher: tuple[str, ...], jobs: Path, generator_file: Path
) -> None:
    more = () if launcher else ("--devices", "0,1")
    done, lines = run(jobs, generator_file, "--jobs", "jobs.csv", *more, launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert all((jobs.parent / f"out{n}.mp4").stat().st_size > 1000 for n in range(4))
    assert done.stderr.count(" is done, ") == 4
    cards = owners(lines)
    assert sorted(card for card, _ in cards) == ["0", "1"]
    assert len({pid for _, pid in cards}) == 2


def test_threads_keep_to_the_card_of_their_process(jobs: Path, generator_file: Path) -> None:
    """A thread that was not told would change the card at every operation."""
    words = ("--face", "talker.mp4", "--audio", "speech.wav", "--outfile", "out.mp4")
    done, lines = run(jobs, generator_file, *words, card="npu:1")
    assert done.returncode == 0, done.stderr
    assert {card for card, _ in owners(lines)} == {"1"}
    kernels = [line.split()[1] for line in lines if line.startswith("kernel ")]
    assert len(kernels) > 40
    assert set(kernels) <= set(KERNEL_NAMES)  # which the doctor looks for
    # At the start and the end torch_npu itself looks at card 0.
    assert sum(line.startswith("set_device") for line in lines) < len(kernels) / 4


def test_one_video_cannot_be_shared(jobs: Path, generator_file: Path) -> None:
    words = ("--face", "talker.mp4", "--audio", "speech.wav", "--outfile", "out.mp4")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    done, _ = run(jobs, generator_file, *words, launcher=launcher)
    assert done.returncode != 0
    assert "torchrun shares the lines of --jobs, and cannot share one video" in done.stderr
