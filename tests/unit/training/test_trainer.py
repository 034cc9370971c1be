"""The loop: what it writes, how it ends, and what a failure or a signal leaves behind."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import THIN_CLI, first_batch, generator_config, syncnet_config, trainer

from wav2lip_npu import checkpoint
from wav2lip_npu.data.batches import Batch
from wav2lip_npu.errors import UserError
from wav2lip_npu.training.metrics import MetricsFile

pytestmark = pytest.mark.usefixtures("thin")  # the loop does not care how large networks are


def test_loaders_start_though_threads_are_running(clips: Path, tmp_path: Path) -> None:
    """A forked loader would wait for OpenCV's threads, which a fork does not have."""
    cv2.setNumThreads(2)
    cv2.resize(cv2.cvtColor(np.zeros((999, 999, 3), np.uint8), cv2.COLOR_BGR2GRAY), (2000, 2000))
    trainer(syncnet_config(clips, tmp_path / "out", max_steps=1, num_workers=1)).run()


def test_a_run_ends_at_the_loss_or_the_hour_asked_for(clips: Path, tmp_path: Path) -> None:
    run = trainer(syncnet_config(clips, tmp_path / "a", eval_interval=2, stop_at_loss=1e9))
    run.run()
    assert run.step == 2
    assert checkpoint.read(checkpoint.newest(tmp_path / "a")).global_step == 2
    run = trainer(syncnet_config(clips, tmp_path / "b", max_hours=1e-9))
    run.run()
    assert run.step == 0 and run.ended == "--max_hours 1e-09"


def test_what_a_run_leaves(clips: Path, expert_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = generator_config(clips, out, expert_file, max_steps=2, eval_interval=1, log_interval=1)
    trainer(config).run()
    assert {path.name for path in out.iterdir()} == {
        *(checkpoint.file_name(step) for step in (1, 2)),
        *(f"samples_step{step:09d}.png" for step in (1, 2)),
        "best.pth",
        "film_strip.png",
        "data_check.png",
        "metrics.jsonl",
        "curves.png",
        "tensorboard",
    }
    sheet = cv2.imread(str(out / "samples_step000000002.png"))
    # Two windows; reference, masked, generated, target.
    assert sheet.shape == (18 + 2 * 96, 4 * 96, 3)
    reference, masked, _, target = (sheet[18:114, 96 * n : 96 * (n + 1)] for n in range(4))
    assert not masked[48:].any()
    assert (masked[:48] == target[:48]).all()
    assert (reference != target).any()
    curves = MetricsFile(out).read()
    assert sorted(curves["l1", "train"]) == [1, 2]
    assert sorted(curves["sync", "eval"]) == [1, 2]
    assert cv2.imread(str(out / "curves.png")).std() > 5


def test_crops_broken_while_training_lose_nothing(clips: Path, tmp_path: Path) -> None:
    config = syncnet_config(clips, tmp_path / "out", max_steps=50, num_workers=1, cache_gb=0)
    run = trainer(config)
    for path in clips.glob("[ab]/*.jpg"):  # all that is trained on: there are no other samples
        path.write_text("no image")
    run.step, run.samples = 3, 6
    with pytest.raises(UserError, match=r"samples in a row .*/\d+\.jpg: cannot be read") as caught:
        run.run()
    assert "\n" not in str(caught.value)
    assert checkpoint.newest(tmp_path / "out") is not None
    # The error still holds the loader: at exit Python ends its processes thus, and waits for them.
    for process in multiprocessing.active_children():
        process.terminate()
        process.join(30)
        assert process.exitcode is not None


def test_a_loader_that_is_killed_loses_nothing(clips: Path, tmp_path: Path) -> None:
    config = syncnet_config(clips, tmp_path / "out", max_steps=10**6, num_workers=1)
    run = trainer(config)
    step = run.task.step

    def step_and_kill(batch: Batch, number: int) -> dict[str, torch.Tensor]:
        if run.step == 2:
            for process in multiprocessing.active_children():
                process.kill()
        return step(batch, number=number)

    run.task.step = step_and_kill
    with pytest.raises(UserError, match=r"loading failed .*(exited unexpectedly|killed by signal)"):
        run.run()
    assert checkpoint.read(checkpoint.newest(tmp_path / "out")).global_step == run.step >= 3


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "refused"), EOFError()])
def test_a_batch_that_a_killed_loader_leaves_loses_nothing(
    error: Exception, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch fetches the batch's memory from the process that made it, by a socket."""
    run = trainer(syncnet_config(clips, tmp_path / "out", max_steps=10))
    batch = first_batch(run)

    def loader(*_: object, **__: object) -> Iterator[Batch]:
        yield batch
        yield batch
        raise error

    monkeypatch.setattr("wav2lip_npu.training.trainer.open_loader", loader)
    with pytest.raises(UserError, match=r"loading failed \(a loader process exited unexpectedly"):
        run.run()
    assert checkpoint.read(checkpoint.newest(tmp_path / "out")).global_step == 2


def test_the_frozen_expert_learns_nothing(clips: Path, expert_file: Path, tmp_path: Path) -> None:
    for mode in ("eval", "train"):
        config = generator_config(clips, tmp_path / mode, expert_file, expert_mode=mode)
        run = trainer(config)
        run.task.sync_weight = 0.5
        (expert,) = run.task.experts.networks
        before = {key: value.clone() for key, value in expert.state_dict().items()}
        run.task.set_training(True)
        run.task.step(first_batch(run))
        changed = {
            key.rpartition(".")[2]
            for key, value in expert.state_dict().items()
            if not torch.equal(value, before[key])
        }
        statistics = {"running_mean", "running_var", "num_batches_tracked"}
        assert changed == (statistics if mode == "train" else set())


def test_discriminator_and_generator_learn_from_their_own_losses_only(
    clips: Path, expert_file: Path, tmp_path: Path
) -> None:
    run = trainer(generator_config(clips, tmp_path / "out", expert_file, disc=True))
    run.task.set_training(True)
    batch = first_batch(run)
    generated, target = run.task._generate(batch)
    network = run.task.discriminator
    real, fake = run.task._discriminator_losses(generated.detach(), target)
    expected = torch.autograd.grad(real + fake, list(network.parameters()))
    run.task.step(batch)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_interrupted_training_saves_and_continues(
    number: signal.Signals, clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [
        *(sys.executable, str(THIN_CLI), "train-syncnet", "--device", "cpu"),
        *("--data-root", str(clips), "--filelists", str(clips.parent / "lists")),
        *("--checkpoint_dir", str(out), "--batch_size=2", "--num_workers", "1"),
        *("--log_interval", "1"),
    ]
    # Signals go to the whole group, as a terminal's and a container's do.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (out / checkpoint.file_name(1)).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, number)
    _, output = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "the same command continues" in output
    assert "Traceback" not in output
    last = checkpoint.read(checkpoint.newest(out))
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert last.global_step == max(steps)
    assert last.extra["items"] == 2 * last.global_step


def test_bf16_trains(clips: Path, tmp_path: Path) -> None:
    run = trainer(syncnet_config(clips, tmp_path / "out", precision="bf16", max_steps=2))
    assert run.device.dtype is torch.bfloat16
    run.run()
    state = checkpoint.read(checkpoint.newest(tmp_path / "out")).state_dict
    assert all(
        v.dtype in (torch.float32, torch.int64) and v.isfinite().all() for v in state.values()
    )


def test_compiled_training_makes_the_same_steps(
    clips: Path, expert_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is traced, without the compiler, which takes minutes: it must be the whole step."""
    compile_network = torch.compile
    compiled = []

    def traced(network: torch.nn.Module) -> object:
        compiled.append(type(network).__name__)
        return compile_network(network, backend="eager")

    monkeypatch.setattr(torch, "compile", traced)
    states = []
    for name in ("plain", "compiled"):
        out = tmp_path / name
        run = trainer(
            generator_config(
                clips, out, expert_file, disc=True, max_steps=2, compile=name == "compiled"
            )
        )
        run.run()
        states.append(checkpoint.read(checkpoint.newest(out)).state_dict)
    assert compiled == ["Generator", "VisualQualityDiscriminator"]
    assert states[0].keys() == states[1].keys()
    torch.testing.assert_close(*states, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("thin")
def test_a_profile_has_the_steps_asked_for(clips: Path, tmp_path: Path) -> None:
    """Each forward pass of the expert has 31 convolutions."""
    out = tmp_path / "out"
    trainer(syncnet_config(clips, out, max_steps=14, profile=2, eval_interval=100)).run()
    (trace,) = (out / "profile").iterdir()
    events = json.loads(trace.read_text())["traceEvents"]
    convolutions = sum(event.get("name") == "aten::conv2d" for event in events)
    assert convolutions == 2 * 31
