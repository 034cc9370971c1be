"""Two processes with a card each, joined by torch_npu's HCCL process group."""

from __future__ import annotations

import dataclasses
import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import assert_joined, generator_config, one_step, syncnet_config

from wav2lip_npu import checkpoint
from wav2lip_npu.config import SyncNetConfig

TESTS = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.mark.usefixtures("thin")
def test_two_cards_are_one_with_the_joined_batch(
    clips: Path, expert_file: Path, tmp_path: Path
) -> None:
    """Both have the same parameters bit for bit, and the gradient of one card on all samples."""
    config = generator_config(
        clips, tmp_path / "out", expert_file,
        device="npu", strict_fp32=True, disc=True, batch_size=1,
    )  # fmt: skip
    pickled = tmp_path / "config"
    pickled.write_bytes(pickle.dumps(config))
    log = tmp_path / "log"
    done = subprocess.run(
        [*TORCHRUN, str(TESTS / "run_one_step.py"), str(pickled), str(tmp_path)],
        env={**os.environ, "EMULATED_CANN_LOG": str(log)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = log.read_text().splitlines()
    assert sum(line.startswith("collective HcclAllReduce") for line in lines) >= 4  # 2 networks
    owners = {tuple(line.split()[2::2]) for line in lines if line.startswith("allocate card")}
    assert len(owners) == len(dict(owners)) == 2  # each card has memory of one process
    one_step(dataclasses.replace(config, batch_size=2), tmp_path)
    first, second, joined = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True, map_location="cpu")
        for name in ("0_of_2", "1_of_2", "0_of_1")
    )
    assert_joined(first, second, joined)


def words(config: SyncNetConfig) -> list[str]:
    given = dataclasses.asdict(config).items()
    return [f"--{name}={value}" for name, value in given if value not in (None, ())]


@pytest.mark.usefixtures("thin")
def test_a_killed_process_is_told_by_the_other_which_saves(clips: Path, tmp_path: Path) -> None:
    """Without torchrun, whose SIGTERM to the others would come first."""
    out = tmp_path / "out"
    config = syncnet_config(clips, out, device="npu", log_interval=1, max_steps=None)
    command = [sys.executable, str(TESTS / "run_thin_cli.py"), "train-syncnet", *words(config)]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    first, second = (
        subprocess.Popen(
            command, env={**os.environ, **group, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in "01"
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (out / checkpoint.file_name(1)).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)  # in the middle of some later step
    second.kill()
    second.communicate()
    _, output = first.communicate(timeout=120)
    assert first.returncode == 2, output
    assert "another process of this run has ended" in output, output
    assert "Traceback" not in output
    last = checkpoint.read(checkpoint.newest(out))
    assert last.global_step > 1
    assert last.extra["items"] == 4 * last.global_step
