"""Two processes on this machine, started by torchrun, that exchange over gloo."""

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import (
    THIN_CLI,
    assert_joined,
    generator_config,
    one_step,
    syncnet_config,
    tone,
    trainer,
    write_video,
)

from wav2lip_npu import checkpoint
from wav2lip_npu.config import SyncNetConfig
from wav2lip_npu.media.audio import write_wav
from wav2lip_npu.preprocessing.command import OPTIONS
from wav2lip_npu.preprocessing.report import REPORT, SHEET, read_reports
from wav2lip_npu.runtime.locks import LOCK
from wav2lip_npu.training.metrics import MetricsFile

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    """Run two processes to their end."""
    command = [*TORCHRUN, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


def options(config: SyncNetConfig) -> list[str]:
    given = dataclasses.asdict(config).items()
    return [f"--{name}={value}" for name, value in given if value not in (None, ())]


@pytest.mark.usefixtures("thin")
def test_two_processes_are_one_with_the_joined_batch(
    clips: Path, expert_file: Path, tmp_path: Path
) -> None:
    config = generator_config(clips, tmp_path / "out", expert_file, disc=True, batch_size=1)
    pickled = tmp_path / "config"
    pickled.write_bytes(pickle.dumps(config))
    script = Path(__file__).parents[1] / "run_one_step.py"
    done = torchrun(script, pickled, tmp_path)
    assert done.returncode == 0, done.stderr
    one_step(dataclasses.replace(config, batch_size=2), tmp_path)
    first, second, joined = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True)
        for name in ("0_of_2", "1_of_2", "0_of_1")
    )
    # Together they have the samples that one process has, and none of them twice.
    for name, part in joined["batch"].items():
        assert torch.equal(torch.cat([first["batch"][name], second["batch"][name]]), part)
    assert not torch.equal(first["batch"]["target"], second["batch"]["target"])
    assert_joined(first, second, joined)
    assert first["means"] == second["means"] == pytest.approx(joined["means"], abs=1e-6)


@pytest.mark.usefixtures("thin")
def test_from_two_processes_to_one_and_back(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = syncnet_config(clips, out, max_steps=2, log_interval=1, cache_gb=0)
    done = torchrun(THIN_CLI, "train-syncnet", *options(config))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("processes: 2; samples per step: 4") == 1
    assert checkpoint.read(checkpoint.newest(out)).extra["items"] == 8
    trainer(dataclasses.replace(config, max_steps=3)).run()
    assert checkpoint.read(checkpoint.newest(out)).extra["items"] == 10

    # Back to two; then one of them comes upon crops that it cannot read, and both end.
    config = dataclasses.replace(config, max_steps=10**6, num_workers=1, checkpoint_interval=10**6)
    for path in clips.glob("[ab]/*.jpg"):
        path.write_text("no image" * 50)
    done = torchrun(THIN_CLI, "train-syncnet", *options(config))
    assert done.returncode != 0
    assert "jpg: cannot be read as an image" in done.stderr, done.stderr
    assert "UserError" not in done.stderr
    last = checkpoint.read(checkpoint.newest(out))
    assert last.extra["items"] == 10 + 4 * (last.global_step - 3)
    losses = MetricsFile(out).read()["loss", "train"]
    assert sorted(losses) == list(range(1, last.global_step + 1))
    written = (out / "metrics.jsonl").read_text().count('"kind": "train"')
    assert written == len(losses)  # by one process


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_a_signal_to_torchrun_saves_what_both_have_done(
    number: signal.Signals, clips: Path, tmp_path: Path
) -> None:
    """Ctrl-C in a terminal goes to all of the group, a scheduler's SIGTERM as well."""
    out = tmp_path / "out"
    config = syncnet_config(clips, out, log_interval=1, num_workers=1, max_steps=None)
    words = [*TORCHRUN, str(THIN_CLI), "train-syncnet", *options(config)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        deadline = time.monotonic() + 120
        while not (out / checkpoint.file_name(1)).exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(run.pid, number)
        _, output = run.communicate(timeout=120)
    assert output.count("the same command continues") == 1, output
    assert "wav2lip-npu: error" not in output
    assert "wav2lip_npu/" not in output  # torchrun prints a traceback of its own
    last = checkpoint.read(checkpoint.newest(out))
    assert last.extra["items"] == 4 * last.global_step
    assert sorted(MetricsFile(out).read()["loss", "train"])[-1] == last.global_step


PARENT = """
import multiprocessing, time
from wav2lip_npu.runtime.workers import end_with_parent

def work():
    end_with_parent()
    print(multiprocessing.current_process().pid, flush=True)
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    context.Process(target=work, daemon=True).start()
    time.sleep(600)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)  # it is there
    os.killpg(worker, 0)  # in a group of its own
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(worker, 0)
            time.sleep(0.1)
    parent.stdout.close()


def test_preprocess_in_shares(tmp_path: Path, face: np.ndarray) -> None:
    write_wav(tmp_path / "sound.wav", tone(0.4))
    for name in "abc":
        frames = [face] * (5 + ord(name) % 3)
        write_video(tmp_path / "data" / f"{name}.mp4", frames, audio=tmp_path / "sound.wav")
    (tmp_path / "data" / "d.mp4").write_text("no video")
    out = tmp_path / "out"
    done = torchrun(
        *("-m", "wav2lip_npu", "preprocess", "--detector", "centerface", "--num_workers", 1),
        *("--data_root", tmp_path / "data", "--preprocessed_root", out, "--device", "cpu"),
    )
    assert done.returncode == 0, done.stderr
    assert "3 of 4 clips usable" in done.stderr
    reports = {entry.clip: entry for (entry,) in read_reports(out / REPORT).values()}
    assert sorted(reports) == ["a", "b", "c", "d"]
    assert [reports[name].faces for name in "abc"] == [5 + ord(name) % 3 for name in "abc"]
    assert reports["d"].rejected
    written = sorted(path.name for path in out.iterdir())
    assert written == sorted(
        ["a", "b", "c", REPORT, SHEET, OPTIONS, LOCK, "options_preprocess.yaml"]
    )
