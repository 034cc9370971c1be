"""The loop: resume, evaluation, gate, interruption, and what it leaves behind."""

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from formula import fill
from helpers import THIN_CLI, first_batch, generator_config, syncnet_config, trainer

from wav2lip_npu import checkpoint
from wav2lip_npu.config import TrainConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.models import Generator, VisualQualityDiscriminator
from wav2lip_npu.runtime import device
from wav2lip_npu.training import tasks
from wav2lip_npu.training.metrics import RESOURCE_METRICS, MetricsFile

pytestmark = pytest.mark.usefixtures("thin")  # the loop does not care how large networks are


def same(a: Path, b: Path) -> bool:
    """Whether checkpoints are equal but for the paths and workers of their options."""
    one, other = (torch.load(path, weights_only=True) for path in (a, b))
    for content in (one, other):
        for name in ("checkpoint_dir", "num_workers"):
            del content["wav2lip_npu"]["config"][name]
        assert content["wav2lip_npu"].pop("published")  # where it was interrupted is one more
    leaves = [torch.utils._pytree.tree_flatten(content)[0] for content in (one, other)]
    return all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
        for x, y in zip(*leaves, strict=True)
    )


@pytest.mark.parametrize("kind", ["expert", "generator", "adversarial"])
def test_resumed_training_equals_uninterrupted(
    kind: str, clips: Path, expert_file: Path, tmp_path: Path
) -> None:
    everything = {
        "accumulate": 2,
        "augment_flip": True,
        "augment_colour": 0.2,
        "clip_grad_norm": 1.0,
        "ema": 0.9,
        "warmup_steps": 3,
        "schedule": "cosine",
        "max_steps": 4,
        "eval_interval": 2,
    }

    def config(out: str, **changes: object) -> TrainConfig:
        changes = {**everything, **changes}
        if kind == "expert":
            return syncnet_config(clips, tmp_path / out, **changes)
        changes["disc"] = kind == "adversarial"
        return generator_config(clips, tmp_path / out, expert_file, **changes)

    trainer(config("whole")).run()
    interrupted = trainer(config("parts", num_workers=1))
    step = interrupted.task.step

    def step_and_interrupt(*batches: tasks.Batch, number: int) -> dict[str, torch.Tensor]:
        if number == 1:
            signal.raise_signal(signal.SIGINT)
        return step(*batches, number=number)

    interrupted.task.step = step_and_interrupt
    with pytest.raises(KeyboardInterrupt):
        interrupted.run()
    assert interrupted.step == 2
    trainer(config("parts", num_workers=2)).run()
    for prefix in ["", "disc_"] if kind == "adversarial" else [""]:
        name = prefix + checkpoint.file_name(4)
        assert same(tmp_path / "whole" / name, tmp_path / "parts" / name)
    whole, parts = (MetricsFile(tmp_path / out).read() for out in ("whole", "parts"))
    assert whole.keys() == parts.keys() and len(whole) > 5
    evaluated = [name for name in whole if name[1] == "eval" and name[0] not in RESOURCE_METRICS]
    assert all(whole[name] == parts[name] for name in evaluated)


def test_loaders_start_though_threads_are_running(clips: Path, tmp_path: Path) -> None:
    """A forked loader would wait for OpenCV's threads, which a fork does not have."""
    cv2.setNumThreads(2)
    cv2.resize(cv2.cvtColor(np.zeros((999, 999, 3), np.uint8), cv2.COLOR_BGR2GRAY), (2000, 2000))
    trainer(syncnet_config(clips, tmp_path / "out", max_steps=1, num_workers=1)).run()


def test_published_checkpoint_is_continued(clips: Path, expert_file: Path, tmp_path: Path) -> None:
    content = torch.load(expert_file, weights_only=True)
    del content["wav2lip_npu"]
    content |= {"global_step": 100, "global_epoch": 3, "optimizer": None}
    content["state_dict"] = {f"module.{k}": v for k, v in content["state_dict"].items()}
    published = tmp_path / "lipsync_expert.pth"
    torch.save(content, published)
    out = tmp_path / "out"
    trainer(syncnet_config(clips, out, checkpoint_path=published, max_steps=101)).run()
    assert checkpoint.newest(out) == out / checkpoint.file_name(101)
    # The same command goes on from what it has done, not from where it began …
    run = trainer(syncnet_config(clips, out, checkpoint_path=published))
    assert run.step == 101
    # … unless a step of its own is asked for.
    (out / checkpoint.file_name(102)).write_bytes((out / checkpoint.file_name(101)).read_bytes())
    own = out / checkpoint.file_name(101)
    assert trainer(syncnet_config(clips, out, checkpoint_path=own)).step == 101
    (out / checkpoint.file_name(102)).unlink()
    with pytest.raises(UserError, match="101 steps are done already"):
        trainer(syncnet_config(clips, out, max_steps=101)).run()


def test_a_discriminator_is_started_from_its_own_file(
    clips: Path, expert_file: Path, tmp_path: Path
) -> None:
    network = fill(VisualQualityDiscriminator())
    path = tmp_path / "disc.pth"
    optimizer = torch.optim.Adam(network.parameters())
    checkpoint.save(path, network, optimizer, step=5, epoch=0, extra={})
    config = generator_config(
        clips, tmp_path / "out", expert_file, disc=True, disc_checkpoint_path=path
    )
    run = trainer(config)
    assert run.step == 0
    state = run.task.discriminator.state_dict()
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())


def test_a_run_ends_at_the_loss_or_the_hour_asked_for(clips: Path, tmp_path: Path) -> None:
    run = trainer(syncnet_config(clips, tmp_path / "a", eval_interval=2, stop_at_loss=1e9))
    run.run()
    assert run.step == 2
    assert checkpoint.read(checkpoint.newest(tmp_path / "a")).global_step == 2
    run = trainer(syncnet_config(clips, tmp_path / "b", max_hours=1e-9))
    run.run()
    assert run.step == 0 and run.ended == "--max_hours 1e-09"


def test_the_last_and_the_best_checkpoints_are_kept(
    clips: Path, expert_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    network = Generator()
    foreign = out / checkpoint.file_name(1)  # of the original, say
    checkpoint.save(
        foreign, network, torch.optim.Adam(network.parameters()), step=1, epoch=0, extra={}
    )
    config = generator_config(
        clips, out, expert_file, disc=True, keep_last=2, checkpoint_interval=1, eval_interval=1
    )
    run = trainer(dataclasses.replace(config, max_steps=5))
    assert run.step == 1
    scores = iter([3.0, 1.0, 2.0, 2.5])
    run.task.after_validation = lambda metrics: metrics.update(sync=next(scores))
    run.run()
    of_both = [(prefix, step) for prefix in ("", "disc_") for step in (4, 5)]
    assert {path.name for path in out.glob("*.pth")} == {
        foreign.name,
        *(prefix + checkpoint.file_name(step) for prefix, step in of_both),
        "best.pth",
        "disc_best.pth",
    }
    best = checkpoint.read(out / "best.pth")
    assert (best.global_step, best.extra["best"]) == (3, 1.0)
    assert best.extra["config"]["keep_last"] == 2
    # The same command goes on, knows the best, and removes what it had written before.
    run = trainer(dataclasses.replace(config, max_steps=6, eval_interval=10))
    assert run.best == 1.0
    run.run()
    left = sorted(path.name for path in out.glob("checkpoint*.pth"))
    assert left == [checkpoint.file_name(step) for step in (1, 5, 6)]


def test_the_gate_opens_once_and_is_remembered(
    clips: Path, expert_file: Path, tmp_path: Path
) -> None:
    for disc, weight in ((False, 0.01), (True, 0.03)):
        out = tmp_path / f"out{disc}"
        config = generator_config(clips, out, expert_file, disc=disc)
        run = trainer(config)
        assert "closed" in run.task.status()
        assert "0.812" in run.task.after_validation({"sync": 0.812})
        assert run.task.sync_weight == 0
        assert f"weight {weight}" in run.task.after_validation({"sync": 0.749})
        run.task.after_validation({"sync": 2.0})
        assert run.task.sync_weight == weight
        run.step = 1
        run.save()
        assert trainer(config).task.sync_weight == weight


def test_a_gate_opened_at_the_last_step_is_saved(
    clips: Path, expert_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.GeneratorTask, "gate_threshold", 1e9)
    config = generator_config(clips, tmp_path / "out", expert_file, max_steps=1)
    trainer(config).run()
    saved = checkpoint.read(checkpoint.newest(tmp_path / "out"))
    assert saved.extra["sync_weight"] == 0.01
    assert saved.extra["last_sync"] == MetricsFile(tmp_path / "out").read()["sync", "eval"][1]


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


def test_a_crop_broken_while_training_loses_nothing(clips: Path, tmp_path: Path) -> None:
    config = syncnet_config(clips, tmp_path / "out", max_steps=50, num_workers=1, cache_gb=0)
    run = trainer(config)
    for path in (clips / "a").glob("*.jpg"):
        path.write_text("no image")
    run.step, run.samples = 3, 6
    with pytest.raises(UserError, match=r"\d+\.jpg: cannot be read") as caught:
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

    def step_and_kill(batch: tasks.Batch, number: int) -> dict[str, torch.Tensor]:
        if run.step == 2:
            for process in multiprocessing.active_children():
                process.kill()
        return step(batch, number=number)

    run.task.step = step_and_kill
    with pytest.raises(UserError, match=r"loading failed .*(exited unexpectedly|killed by signal)"):
        run.run()
    assert checkpoint.read(checkpoint.newest(tmp_path / "out")).global_step == run.step >= 3


def test_the_frozen_expert_learns_nothing(clips: Path, expert_file: Path, tmp_path: Path) -> None:
    for mode in ("eval", "train"):
        config = generator_config(clips, tmp_path / mode, expert_file, expert_mode=mode)
        run = trainer(config)
        run.task.sync_weight = 0.5
        before = {key: value.clone() for key, value in run.task.syncnet.state_dict().items()}
        run.task.set_training(True)
        run.task.step(first_batch(run))
        changed = {
            key.rpartition(".")[2]
            for key, value in run.task.syncnet.state_dict().items()
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
    drawn, target = run.task._generate(batch)
    network = run.task.discriminator
    real, fake = run.task._discriminator_losses(drawn.detach(), target)
    expected = torch.autograd.grad(real + fake, list(network.parameters()))
    run.task.step(batch)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "the same command continues" in told
    assert "Traceback" not in told
    last = checkpoint.read(checkpoint.newest(out))
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert last.global_step == max(steps)
    assert last.extra["items"] == 2 * last.global_step


def test_precision_auto_trains(clips: Path, tmp_path: Path) -> None:
    run = trainer(syncnet_config(clips, tmp_path / "out", precision="bf16", max_steps=2))
    assert run.device.dtype is torch.bfloat16
    run.run()
    state = checkpoint.read(checkpoint.newest(tmp_path / "out")).state_dict
    assert all(
        v.dtype in (torch.float32, torch.int64) and v.isfinite().all() for v in state.values()
    )
    assert device.Device.open("cpu", "auto").dtype in (None, torch.bfloat16)
