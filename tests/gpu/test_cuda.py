"""A CUDA device against the CPU. Skipped without one; elsewhere: ``pytest -m gpu``.

TF32 is off where fp32 is compared, so only the order of sums differs, about 1e-6 per layer. Losses
stay that close. In gradients batch normalisation over few values amplifies it: two kinds of CPU
kernels differ by 13 % in the generator's gradient. So gradients are compared by their direction.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from formula import fill, golden_arrays
from helpers import generator_config, syncnet_config, trainer

from face_detection import open_detector
from wav2lip_npu import checkpoint
from wav2lip_npu.config import TrainConfig
from wav2lip_npu.models import Generator
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.training.metrics import MetricsFile

GPU = "cuda"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


@pytest.fixture(autouse=True)
def without_tf32() -> Iterator[None]:
    modules = (torch.backends.cudnn, torch.backends.cuda.matmul)
    allowed = [module.allow_tf32 for module in modules]
    for module in modules:
        module.allow_tf32 = False
    yield
    for module, value in zip(modules, allowed, strict=True):
        module.allow_tf32 = value


@pytest.fixture(params=["syncnet", "generator", "adversarial"])
def config(request: pytest.FixtureRequest, clips: Path, expert_file: Path) -> TrainConfig:
    """One step of a task, with a batch that is not too small for batch normalisation."""
    options = {"batch_size": 8, "max_steps": 1, "log_interval": 1, "eval_windows": 1}
    if request.param == "syncnet":
        return syncnet_config(clips, clips.parent / "cpu", **options)
    options |= {"batch_size": 4, "disc": request.param == "adversarial"}
    return generator_config(clips, clips.parent / "cpu", expert_file, **options)


def on_gpu(config: TrainConfig, **changes: object) -> TrainConfig:
    out = config.checkpoint_dir.with_name("gpu")
    return dataclasses.replace(config, device=GPU, checkpoint_dir=out, **changes)


def train(config: TrainConfig) -> tuple[dict[tuple[str, int], float], torch.Tensor]:
    """Train; returns the training losses by name and step, and the last gradients in one vector."""
    run = trainer(config)
    run.run()
    metrics = MetricsFile(config.checkpoint_dir).read()
    losses = {
        (name, step): value
        for name in ("loss", "l1", "sync", "total", "disc_real", "disc_fake")
        for step, value in metrics.get((name, "train"), {}).items()
    }
    gradients = [
        parameter.grad.flatten().double().cpu()
        for trained in run.task.trained.values()
        for parameter in trained.network.parameters()
        if parameter.grad is not None
    ]
    return losses, torch.cat(gradients)


def test_a_training_step_is_close_to_the_cpus(config: TrainConfig) -> None:
    expected, expected_gradients = train(config)
    losses, gradients = train(on_gpu(config))
    assert losses
    assert losses == pytest.approx(expected, rel=1e-3)
    assert torch.cosine_similarity(gradients, expected_gradients, dim=0) > 0.9  # unrelated: 0


def test_bf16_trains_with_finite_numbers(config: TrainConfig) -> None:
    losses, gradients = train(on_gpu(config, precision="bf16", max_steps=3))
    assert max(step for _, step in losses) == 3
    assert all(map(math.isfinite, losses.values()))
    assert gradients.isfinite().all()


def test_the_generator_draws_what_it_draws_on_the_cpu() -> None:
    random = torch.Generator().manual_seed(0)
    mels = torch.rand(3, 1, 80, 16, generator=random) * 8 - 4
    faces = torch.rand(3, 6, 96, 96, generator=random)
    images = []
    for name in ("cpu", GPU):
        device = Device.open(name, "fp32")
        network = device.prepare(fill(Generator()).eval())
        batch = device.to_device({"mels": mels, "faces": faces})
        with torch.inference_mode(), device.autocast():
            images.append(network(batch["mels"], batch["faces"]).cpu())
    torch.testing.assert_close(images[1], images[0], atol=1e-3, rtol=0)  # a quarter of a grey level


def test_s3fd_finds_the_same_boxes(s3fd_weights: Path) -> None:
    images = list(golden_arrays("s3fd")["images"])
    found, expected = (
        open_detector("s3fd", device=torch.device(name), s3fd_weights=s3fd_weights).detect(images)
        for name in (GPU, "cpu")
    )
    assert sum(map(len, expected)) > 0
    for boxes, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(boxes, wanted, atol=0.01)  # pixels


def test_batches_are_pinned_and_arrive_unchanged(config: TrainConfig) -> None:
    wanted = next(trainer(config)._train_batches(threading.Event()))
    run = trainer(on_gpu(config))
    pinned = next(run._train_batches(threading.Event()))
    assert all(part.is_pinned() for part in pinned.values())
    (moved, *_) = run.device.prefetch(iter([pinned]))
    assert {part.device.type for part in moved.values()} == {GPU}
    assert moved.keys() == wanted.keys()
    assert all(torch.equal(part.cpu(), wanted[name]) for name, part in moved.items())


def test_resuming_continues_the_same_run(config: TrainConfig) -> None:
    """Not to the bit: CUDA sums some gradients in any order."""
    whole, _ = train(on_gpu(config, max_steps=4))
    parts = dataclasses.replace(
        on_gpu(config, max_steps=2), checkpoint_dir=config.checkpoint_dir.with_name("parts")
    )
    train(parts)
    resumed, _ = train(dataclasses.replace(parts, max_steps=4))
    assert checkpoint.read(checkpoint.newest(parts.checkpoint_dir)).global_step == 4
    assert resumed == pytest.approx(whole, rel=0.05, abs=0.01)


def test_a_checkpoint_of_the_cpu_continues_on_the_gpu(config: TrainConfig) -> None:
    train(config)
    continued = dataclasses.replace(config, device=GPU, max_steps=2)
    losses, _ = train(continued)
    saved = checkpoint.read(checkpoint.newest(config.checkpoint_dir))
    assert saved.global_step == 2
    assert all(map(math.isfinite, losses.values()))
