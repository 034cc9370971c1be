"""bf16 and fp16 on a card: as far from fp32 as autocast on the CPU is, and no farther.

Which operators compute in which type is each device's own list, so the bits differ.
"""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import pytest
import torch
from helpers import first_batch, generator_config, syncnet_config, trainer

from wav2lip_npu.config import TrainConfig
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("thin")

FARTHER = 1.5  # times the error of the CPU's autocast, for another order of rounding


@pytest.fixture(params=["bf16", "fp16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    if request.param == "bf16":
        return torch.bfloat16
    with warnings.catch_warnings(record=True):
        if not torch.autocast("cpu", torch.float16)._enabled:  # before torch 2.3
            pytest.skip("autocast on the CPU has no fp16")
    return torch.float16


def losses_and_gradients(
    config: TrainConfig, dtype: torch.dtype | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the first batch, with the same weights on each device."""

    def opened(name: str, precision: str, *, strict_fp32: bool) -> Device:
        """The CPU's fp16 is for tests only."""
        return dataclasses.replace(open_device(name, "fp32", strict_fp32=True), dtype=dtype)

    open_device = Device.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Device, "open", opened)
        run: Trainer = trainer(config)
    run.task.set_training(True)
    if hasattr(run.task, "sync_weight"):
        run.task.sync_weight = 0.03
    batch = first_batch(run)
    for trained in run.task.trained.values():
        for module in trained.network.modules():  # else roundings grow with each layer's statistics
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        trained.scaler._scale.fill_(256.0 if dtype is torch.float16 else 1.0)
        trained.zero_grad()
    metrics = run.task.accumulate_gradients(batch)
    gradients = [
        (parameter.grad / trained.scaler._scale).flatten().cpu()
        for trained in run.task.trained.values()
        for parameter in trained.network.parameters()
        if parameter.grad is not None
    ]
    return torch.stack([metrics[name].cpu() for name in sorted(metrics)]), torch.cat(gradients)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("network", ["bce", "contrastive", "discriminator"])
def test_half_precision_is_as_exact_as_on_the_cpu(
    network: str, dtype: torch.dtype, clips: Path, expert_file: Path, tmp_path: Path
) -> None:
    if network == "discriminator":
        config: TrainConfig = generator_config(
            clips, tmp_path / "out", expert_file, disc=True, batch_size=1
        )
    else:
        config = syncnet_config(clips, tmp_path / "out", objective=network, batch_size=8)
    exact = losses_and_gradients(config, None)
    on_cpu = losses_and_gradients(config, dtype)
    on_card = losses_and_gradients(dataclasses.replace(config, device="npu"), dtype)
    (losses, gradients), (cpu_losses, cpu_gradients), (card_losses, card_gradients) = (
        exact, on_cpu, on_card,
    )  # fmt: skip
    rounding = torch.finfo(dtype).eps
    assert distance(cpu_losses, losses) < 4 * rounding  # the reference itself
    assert 0 < distance(card_losses, losses) < 4 * rounding
    found, allowed = distance(card_gradients, gradients), distance(cpu_gradients, gradients)
    print(f"{network}, {dtype}: gradients differ by {found:.2g}, on the CPU by {allowed:.2g}")
    assert 0 < found < FARTHER * allowed
