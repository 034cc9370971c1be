"""What goes wrong while a training runs: it goes on without, or ends with its steps saved."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import pytest
import torch
from helpers import THIN_CLI, generator_config, syncnet_config, trainer

from wav2lip_npu import checkpoint
from wav2lip_npu.data.batches import Batch
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.files import WriteError
from wav2lip_npu.training import tasks
from wav2lip_npu.training.figures import film_strip
from wav2lip_npu.training.metrics import MetricsFile, silent_tensorboard

pytestmark = pytest.mark.usefixtures("thin")


def entry(**changes: object) -> str:
    return json.dumps({"kind": "train", "step": 1, "loss": 0.5, **changes})


def test_lines_that_are_no_metrics_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    strange = ["{", "[]", "7", "null", entry(kind=3), entry(step="1"), entry(step=-1), "[" * 10**5]
    content = "\n".join([entry(), *strange, entry(step=2, loss="x", l1=2), ""]).encode()
    path.write_bytes(content + b"\xff\xfe\n" + entry(step=3).encode()[:20])
    metrics = MetricsFile(tmp_path)
    expected = {("loss", "train"): {1: 0.5}, ("l1", "train"): {2: 2.0}}
    assert metrics.read() == expected
    assert f"{len(strange) + 2} lines are no metrics" in caplog.text
    # What follows half a line begins a line of its own.
    metrics.write("train", 4, {"loss": 0.25})
    metrics.close()
    expected["loss", "train"][4] = 0.25
    assert metrics.read() == expected
    assert caplog.text.count("are no metrics") == 1


def test_nothing_derived_ends_a_training(
    clips: Path,
    expert_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Folders where files should be, and figures that cannot be made."""
    out = tmp_path / "out"
    for name in ("metrics.jsonl", "data_check.png", "curves.png", "film_strip.png", "best.pth/x",
                 "samples_step000000001.png"):  # fmt: skip
        (out / name).mkdir(parents=True)
    (out / "tensorboard").write_text("no folder")
    (out / "samples_step000000000.png").write_bytes(b"\x89PNG, cut")
    monkeypatch.setattr(tasks.GeneratorTask, "sample_images", lambda *_: torch.zeros(1, 4, 9, 9, 3))
    config = generator_config(clips, out, expert_file, max_steps=2, eval_interval=1, log_interval=1)
    trainer(config).run()
    assert checkpoint.read(checkpoint.newest(out)).global_step == 2
    for name in (
        "metrics.jsonl, step 1",
        "tensorboard: nothing more",
        "curves.png",
        "film_strip.png",
    ):
        assert name in caplog.text
    assert caplog.text.count("tensorboard: nothing more") == 1


def test_tensorboard_fails_in_its_thread_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    metrics = MetricsFile(tmp_path)
    with silent_tensorboard():
        metrics.write("train", 1, {"loss": 1.0})
        (tmp_path / "tensorboard").rename(tmp_path / "moved")  # its thread may be writing
        (tmp_path / "tensorboard").write_text("no folder")
        for step in range(2, 20):
            metrics.write("train", step, {"loss": 1.0})
            time.sleep(0.01)
        metrics.close()
    assert "tensorboard: nothing more is written" in caplog.text
    assert "Traceback" not in capsys.readouterr().err
    assert sorted(metrics.read()["loss", "train"]) == [*range(1, 20)]


def test_a_film_strip_has_the_sheets_that_can_be_read(tmp_path: Path) -> None:
    sheet = np.full((18 + 8, 4 * 8, 3), 7, np.uint8)
    for step, image in ((1, sheet), (2, sheet[:, :9]), (3, sheet)):
        cv2.imwrite(str(tmp_path / f"samples_step{step:09d}.png"), image)
    (tmp_path / "samples_step000000004.png").write_bytes(b"")
    (tmp_path / "samples_step-mine.png").write_bytes(b"")
    strip = film_strip(tmp_path, sheet, 2, 4)
    assert strip.shape == (18 + 8, 3 * 8, 3)  # steps 1 and 3, and the target


def test_a_best_that_cannot_be_named_is_named_next_time(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = trainer(syncnet_config(clips, tmp_path / "out", max_steps=3))
    named, real = [], checkpoint.name_best

    def fails_once(path: Path, name: str) -> None:
        named.append(path.name)
        if len(named) == 1:
            raise WriteError(f"{name}: cannot be written (Operation not permitted)")
        real(path, name)

    monkeypatch.setattr(checkpoint, "name_best", fails_once)
    for step, score in ((1, 3.0), (2, 3.5), (3, 4.0)):
        run.step = step
        run._keep_best({"loss": score})
    assert named == [checkpoint.file_name(1), checkpoint.file_name(2)]
    assert run.best == 3.5
    assert "step 1 is the best so far, but is not named so" in caplog.text
    assert checkpoint.read(tmp_path / "out" / "best.pth").global_step == 2


def test_a_full_disk_costs_a_checkpoint_only(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    config = syncnet_config(clips, out, max_steps=4, checkpoint_interval=1)
    real = torch.save

    def full(at: set[int]) -> None:
        def save(content: dict[str, object], file: IO[bytes]) -> None:
            if content["global_step"] in at:
                file.write(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
            real(content, file)

        monkeypatch.setattr(torch, "save", save)

    full({2, 3})
    trainer(config).run()
    left = {path.name for path in out.glob("*.pth")}
    assert left == {checkpoint.file_name(1), checkpoint.file_name(4), "best.pth"}
    assert caplog.text.count("No space left on device") == 2
    assert "the training goes on; the last checkpoint is" in caplog.text
    assert not [*out.glob(".*")]
    # The last one must be saved …
    full({5})
    more = syncnet_config(clips, out, max_steps=5)
    with pytest.raises(UserError, match=r"No space left.*; the last checkpoint is .*0004\.pth"):
        trainer(more).run()
    # … and so must the first one: the folder cannot be written.
    full({1})
    with pytest.raises(UserError, match="No space left"):
        trainer(syncnet_config(clips, tmp_path / "new", max_steps=9)).run()


def run_and_fail(run: object, error: Exception, at: int = 2) -> None:
    step = run.task.step

    def fails(*batches: Batch, number: int) -> dict[str, torch.Tensor]:
        if number == at:
            raise error
        return step(*batches, number=number)

    run.task.step = fails
    run.run()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if hasattr(torch, "OutOfMemoryError") else RuntimeError("CUDA out of memory."),
        RuntimeError("NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; 60.96 GiB total"),
        MemoryError(),
    ],
)  # fmt: skip
def test_out_of_memory_is_told_with_what_to_do(
    error: Exception, clips: Path, tmp_path: Path
) -> None:
    run = trainer(syncnet_config(clips, tmp_path / "out"))
    with pytest.raises(UserError, match=r"step 2: out of memory; .*--batch_size") as caught:
        run_and_fail(run, error)
    assert "\n" not in str(caught.value)
    assert checkpoint.read(checkpoint.newest(tmp_path / "out")).global_step == 2


def test_a_card_that_fails_is_told_with_what_to_do(
    clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not give its weights back any more; the checkpoint before stays the last."""
    run = trainer(syncnet_config(clips, tmp_path / "out"))
    save, failed = run.save, RuntimeError("ACL stream synchronize failed, error code:507015")

    def save_before_it_fails(**words: bool) -> None:
        if run.step == 2:
            raise failed
        save(**words)

    run.save = save_before_it_fails
    told = r"^step 2: RuntimeError: ACL .*507015; the card failed .*; the last checkpoint is .*0001"
    with pytest.raises(UserError, match=told):
        run_and_fail(run, failed)
    assert "the last steps are not saved: RuntimeError: ACL" in caplog.text


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), ValueError("a fault")])
def test_steps_are_saved_whatever_ends_a_training(
    error: Exception, clips: Path, tmp_path: Path
) -> None:
    run = trainer(syncnet_config(clips, tmp_path / "out"))
    with pytest.raises((UserError, ValueError), match=r"Input/output error; the last|a fault"):
        run_and_fail(run, error)
    assert checkpoint.read(checkpoint.newest(tmp_path / "out")).global_step == 2


@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_loader_that_dies_of_the_same_signal_is_a_stop(
    where: str, clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may die before the signal is seen here."""
    config = syncnet_config(
        clips, tmp_path / "out", num_workers=1, eval_interval=3, max_steps=10**6
    )
    run = trainer(config)
    task, name = run.task, "step" if where == "training" else "validation_metrics"
    real = getattr(task, name)

    def kill(*batches: Batch, **words: object) -> dict[str, torch.Tensor]:
        if run.step >= 2:
            for process in multiprocessing.active_children():
                process.kill()
            number = (os.getpid(), signal.SIGTERM)
            threading.Timer(0.3, os.kill, number).start()
            setattr(task, name, real)
            time.sleep(0.1)
        return real(*batches, **words)

    setattr(task, name, kill)
    with caplog.at_level("INFO"), pytest.raises(KeyboardInterrupt):
        run.run()
    assert f"stopped at step {run.step}" in caplog.text
    assert "loading failed" not in caplog.text
    assert checkpoint.read(checkpoint.newest(tmp_path / "out")).global_step == run.step >= 2


def processes_below(parent: int) -> set[int]:
    """The ids of all processes that a process has started, and those of these."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            parents[int(folder.name)] = int(fields[1])
    found, grown = {parent}, True
    while grown:
        more = {child for child, of in parents.items() if of in found} - found
        found, grown = found | more, bool(more)
    return found - {parent}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_sigterm_to_all_processes_is_a_stop(clips: Path, tmp_path: Path) -> None:
    """As a container or a scheduler sends it, to the loaders first."""
    out = tmp_path / "out"
    command = [
        *(sys.executable, str(THIN_CLI), "train-syncnet", "--device", "cpu"),
        *("--data-root", str(clips), "--filelists", str(clips.parent / "lists")),
        *("--checkpoint_dir", str(out), "--batch_size=2", "--num_workers", "2"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (out / checkpoint.file_name(1)).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    for child in processes_below(process.pid):
        os.kill(child, signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, output = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "stopped at step" in output
    assert not any(word in output for word in ("Traceback", "loading failed"))
