"""The commands on a card: the bits of the CPU in fp32.

Every kernel of the emulated card is the CPU's own, so there is no tolerance. The CPU that it is
compared with has a card's memory format and Adam; see ``like_a_card``.
"""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from formula import fill, golden_arrays
from helpers import tone, trainer, write_video
from torch import nn

from face_detection import open_detector
from wav2lip_npu import checkpoint, cli
from wav2lip_npu.config import GeneratorConfig, SyncNetConfig, TrainConfig
from wav2lip_npu.inference.backends import GeneratorRunner
from wav2lip_npu.media.audio import write_wav
from wav2lip_npu.models import Generator, SyncNet
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.training.metrics import RESOURCE_METRICS, MetricsFile
from wav2lip_npu.training.tasks import GeneratorTask
from wav2lip_npu.training.trainer import Trainer


@pytest.fixture
def like_a_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The CPU with a card's memory format and implementation of Adam."""

    def plain_layout(layer: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        """Torch adds up in another order where the colours of a pixel lie side by side."""
        if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            return None
        layer.weight.data = layer.weight.data.contiguous()  # of S3FD, which prepares itself
        return (inputs[0].contiguous(),)

    prepare = Device.prepare

    def moved_only(device: Device, network: nn.Module) -> nn.Module:
        return network if device.torch_device.type == "cpu" else prepare(device, network)

    monkeypatch.setattr(Device, "prepare", moved_only)
    monkeypatch.setattr(Device, "adam_options", {"foreach": True})

    def plain_gradient(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and output.requires_grad:
            output.register_hook(torch.Tensor.contiguous)

    module = torch.nn.modules.module
    hooks = (
        module.register_module_forward_pre_hook(plain_layout),
        module.register_module_forward_hook(plain_gradient),
    )
    yield
    for hook in hooks:
        hook.remove()


def assert_equal(found: object, expected: object) -> None:
    """The same structure with the same bits, wherever the tensors are."""
    (values, structure), (wanted, wanted_structure) = map(
        torch.utils._pytree.tree_flatten, (found, expected)
    )
    assert structure == wanted_structure
    for value, want in zip(values, wanted, strict=True):
        if isinstance(want, torch.Tensor):
            assert value.dtype == want.dtype
            assert torch.equal(value.cpu(), want.cpu())
        else:
            assert value == want


# -------------------------------------------------------------------------------- the commands


def save_weights(path: Path, network: nn.Module) -> Path:
    optimizer = torch.optim.Adam(network.parameters())
    checkpoint.save(path, network, optimizer, step=0, epoch=0, extra={})
    return path


def options(clips: Path, **changes: object) -> dict[str, object]:
    """A training of one step and one evaluation on the CPU."""
    common = {
        "device": "cpu", "precision": "fp32", "strict_fp32": True, "batch_size": 1,
        "num_workers": 0, "max_steps": 1,
        "eval_windows": 1, "log_interval": 1, "data_root": clips,
        "filelists": clips.parent / "lists", "checkpoint_dir": clips.parent / "cpu",
    }  # fmt: skip
    return {**common, **changes}


def on_npu(config: TrainConfig, out: Path, *, card: int = 0) -> list[str]:
    """The command that does what ``config`` describes, on the NPU and into another folder."""
    words = ["train-syncnet" if isinstance(config, SyncNetConfig) else "train"]
    changes = {"device": f"npu:{card}", "checkpoint_dir": out}
    for name, value in (dataclasses.asdict(config) | changes).items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None and value is not False and value != ():
            words += [f"--{name}", str(value)]
    return words


def main_in_its_own_process(words: list[str]) -> int:
    words = [sys.executable, "-m", "wav2lip_npu", *words]
    return subprocess.run(words).returncode


def assert_cpu_agrees(config: TrainConfig, out: Path) -> checkpoint.Checkpoint:
    """Train on the CPU, and find the same in what the NPU wrote; the newest file of that."""
    expected = trainer(config)
    with pytest.MonkeyPatch.context() as patch:
        # Compared as it is in memory.
        patch.setattr(Trainer, "save", lambda self, best=False: None)
        patch.setattr(Trainer, "_name_best", lambda self: True)
        expected.run()
    for prefix, trained in expected.task.trained.items():
        found = checkpoint.read(out / (prefix + checkpoint.file_name(expected.step)))
        assert_equal(found.state_dict, dict(trained.network.state_dict()))
        assert_equal(found.optimizer["state"], trained.optimizer.state_dict()["state"])
        assert "random" not in found.extra  # nothing draws from torch's numbers in training
        known = {"items": expected.samples}
        assert found.extra["best"] == {"metric": expected.metric, "value": expected.best}
        known |= {**expected.task.state(), **trained.state()}
        assert_equal({name: found.extra[name] for name in known}, known)
    # Means are added up in another order: their inputs have another layout.
    assert curves(out) == pytest.approx(curves(config.checkpoint_dir), rel=1e-6)
    for sheet in config.checkpoint_dir.glob("samples*.png"):
        assert (out / sheet.name).read_bytes() == sheet.read_bytes()
    return found


def curves(folder: Path) -> dict[tuple[str, str, int], float]:
    return {
        (name, kind, step): value
        for (name, kind), curve in MetricsFile(folder).read().items()
        for step, value in curve.items()
        if name not in RESOURCE_METRICS
    }


@pytest.mark.usefixtures("like_a_card")
def test_train_syncnet(clips: Path, tmp_path: Path) -> None:
    """One step, read by a worker; and another in a process of its own, on another card."""
    out = tmp_path / "npu"
    config = SyncNetConfig(**options(clips, batch_size=2, num_workers=1))
    assert cli.main(on_npu(config, out)) == 0
    first = assert_cpu_agrees(config, out)

    config = dataclasses.replace(config, max_steps=2, num_workers=0)
    shutil.copy(first.path, config.checkpoint_dir)  # the CPU goes on from the same
    assert main_in_its_own_process(on_npu(config, out, card=1)) == 0
    assert_cpu_agrees(config, out)


@pytest.mark.usefixtures("like_a_card", "thin")
def test_train_syncnet_with_the_contrastive_objective(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "npu"
    config = SyncNetConfig(**options(clips, objective="contrastive", batch_size=8, max_steps=2))
    assert cli.main(on_npu(config, out)) == 0
    assert_cpu_agrees(config, out)


@pytest.mark.usefixtures("like_a_card", "thin")
def test_train_and_train_with_the_discriminator(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of the generator, and one more against a discriminator, with the gate open."""
    monkeypatch.setattr(
        GeneratorTask, "gate_threshold", float("inf")
    )  # opens at the first evaluation
    out = tmp_path / "npu"
    expert = save_weights(tmp_path / "expert.pth", fill(SyncNet()))
    config = GeneratorConfig(**options(clips), syncnet_checkpoint_path=expert)
    assert cli.main(on_npu(config, out)) == 0
    first = assert_cpu_agrees(config, out)
    assert first.extra["sync_weight"] > 0  # so the expert takes part in the next step

    config = dataclasses.replace(config, max_steps=2, disc=True)
    shutil.copy(first.path, config.checkpoint_dir)  # the CPU goes on from the same
    assert cli.main(on_npu(config, out)) == 0
    assert_cpu_agrees(config, out)


@pytest.mark.usefixtures("like_a_card")
def test_infer(tmp_path: Path, face: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same faces, before the encoder, which is not the same in each run."""
    weights = save_weights(tmp_path / "wav2lip.pth", fill(Generator()))
    talker = write_video(tmp_path / "talker.mp4", [np.roll(face, n, axis=1) for n in range(6)])
    write_wav(tmp_path / "speech.wav", tone(6 / 25))
    generate, generated = GeneratorRunner.generate, []

    def kept(runner: GeneratorRunner, *batch: list[np.ndarray]) -> np.ndarray:
        generated.append(generate(runner, *batch))
        return generated[-1]

    monkeypatch.setattr(GeneratorRunner, "generate", kept)
    for device in ("npu", "cpu"):
        words = [
            *("infer", "--device", device, "--precision", "fp32", "--strict_fp32"),
            *("--wav2lip_batch_size", "4", "--box", "40", "200", "60", "180"),
            *("--checkpoint_path", str(weights), "--face", str(talker)),
            *("--audio", str(tmp_path / "speech.wav"), "--outfile", str(tmp_path / "out.mp4")),
        ]
        assert cli.main(words) == 0
    assert [len(faces) for faces in generated] == [4, 2] * 2
    on_card, on_cpu = np.concatenate(generated[:2]), np.concatenate(generated[2:])
    np.testing.assert_array_equal(on_card, on_cpu)
    assert on_card.std() > 1


@pytest.mark.usefixtures("exact_fp32", "like_a_card")
def test_face_detector(s3fd_weights: Path) -> None:
    images = list(golden_arrays("s3fd")["images"])
    found, expected = (
        open_detector("s3fd", device=torch.device(device), s3fd_weights=s3fd_weights).detect(images)
        for device in ("npu", "cpu")
    )
    assert sum(map(len, expected)) > 0
    for boxes, wanted in zip(found, expected, strict=True):
        # Intel's processors round sums otherwise where memory is aligned otherwise.
        np.testing.assert_allclose(boxes, wanted, rtol=1e-6, atol=1e-4)
