"""While the sync gate is closed: fewer frames of each window, if so asked; a gate kept closed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import first_batch, generator_config, syncnet_config, trainer

from wav2lip_npu import checkpoint
from wav2lip_npu.training.losses import reconstruction_loss
from wav2lip_npu.training.tasks.base import GENERATOR_FLOPS, TRAINED_PASSES

pytestmark = pytest.mark.usefixtures("thin")


@pytest.fixture
def expert(clips: Path, tmp_path: Path) -> Path:
    run = trainer(syncnet_config(clips, tmp_path / "expert", max_steps=1))
    run.run()
    path = checkpoint.newest(tmp_path / "expert")
    assert path is not None
    return path


@pytest.mark.parametrize(("frames", "first", "last"), [(1, 2, 2), (3, 1, 3), (5, 0, 4)])
def test_a_step_learns_from_the_middle_frames(
    clips: Path, tmp_path: Path, expert: Path, frames: int, first: int, last: int
) -> None:
    run = trainer(generator_config(clips, tmp_path / "g", expert, closed_gate_frames=frames))
    batch = first_batch(run)
    network = run.task.trained[""].network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run.task.set_training(True)
    metrics = run.task.accumulate_gradients(batch)
    found = [parameter.grad.clone() for parameter in network.parameters()]

    network.load_state_dict(before)
    network.zero_grad()
    chosen = range(first, last + 1)
    target = batch["target"].float() / 255  # (B, 5, 96, 96, 3)
    masked = target.clone()
    masked[:, :, 48:] = 0
    reference = batch["reference"].float() / 255
    faces = torch.cat([masked, reference], dim=4)
    rows = [(window, frame) for frame in chosen for window in range(len(target))]  # by frames
    generated = network(
        torch.stack([batch["mel"][window, 1 + frame][None] for window, frame in rows]),
        torch.stack([faces[window, frame].permute(2, 0, 1) for window, frame in rows]),
    )
    true = torch.stack([target[window, frame].permute(2, 0, 1) for window, frame in rows])
    l1 = (generated - true).abs().mean()
    l1.backward()
    assert metrics["l1"].item() == pytest.approx(l1.item(), rel=1e-5)
    for one, parameter in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-3, atol=1e-7)
    assert run.task.flops_per_sample() == frames * TRAINED_PASSES * GENERATOR_FLOPS


def test_an_open_gate_takes_whole_windows(clips: Path, tmp_path: Path, expert: Path) -> None:
    configs = [
        generator_config(clips, tmp_path / str(frames), expert, closed_gate_frames=frames)
        for frames in (1, 5)
    ]
    losses = []
    for config in configs:
        run = trainer(config)
        run.task.after_validation({"sync": 0.7})
        assert run.task.sync_weight == 0.01
        losses.append(run.task.step(first_batch(run))["total"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("disc", [False, True])
def test_weight_0_keeps_the_gate_closed(
    clips: Path, tmp_path: Path, expert: Path, disc: bool
) -> None:
    options = {"sync_weight": 0.0, "closed_gate_frames": 1, "disc": disc}
    run = trainer(generator_config(clips, tmp_path / "g", expert, **options))
    assert run.task.after_validation({"sync": 0.1}) == (
        "sync gate closed, and stays so: --sync_weight 0"
    )
    assert run.task.sync_weight == 0
    assert "sync" not in run.task.step(first_batch(run))


@pytest.mark.parametrize("weight", [1.0, 1.5, 8.0])
def test_each_pixel_of_the_mouth_counts_so_often(weight: float) -> None:
    generated, target = torch.rand(2, 2, 3, 5, 96, 96, generator=torch.Generator().manual_seed(0))
    pixels = np.ones((96, 96))
    pixels[54:88, 24:72] = weight
    difference = np.abs(generated.numpy() - target.numpy())
    error = np.where((pixels > 1), difference + 5 * difference**2, difference)
    expected = np.average(error, weights=np.broadcast_to(pixels, difference.shape))
    l1, weighted = reconstruction_loss(generated, target, weight)
    assert float(l1) == pytest.approx(difference.mean(), rel=1e-5)
    assert float(weighted) == pytest.approx(expected, rel=1e-5)


def test_the_weight_of_the_mouth_is_that_of_the_option(
    clips: Path, tmp_path: Path, expert: Path
) -> None:
    config = generator_config(clips, tmp_path / "g", expert, mouth_weight=8.0)
    run = trainer(config)
    batch = first_batch(run)
    metrics = run.task.step(batch)
    assert float(metrics["l1"]) > 0
    assert float(metrics["total"]) != float(metrics["l1"])
