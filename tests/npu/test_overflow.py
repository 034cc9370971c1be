"""Overflow in fp16, on cards that keep infinities and on cards that saturate.

``tests/integration/test_emulated_cards.py`` runs this file on chips of several kinds.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from helpers import first_batch, syncnet_config, trainer

from wav2lip_npu.config import SyncNetConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.distributed import SINGLE_PROCESS
from wav2lip_npu.training.loss_scaler import FIRST_SCALE
from wav2lip_npu.training.optimization import TrainableNetwork

IS_A2 = os.environ["EMULATED_CANN_SOC"].startswith("Ascend910B")
IS_NEW = IS_A2 or os.environ["EMULATED_CANN_SOC"].startswith("Ascend910_93")
SATURATES = not IS_NEW or os.environ.get("INF_NAN_MODE_FORCE_DISABLE") == "1"
LARGE = 60000.0  # near fp16's largest number, 65504


def overflowing_sum(device: str) -> torch.Tensor:
    large = torch.full((4,), LARGE, dtype=torch.float16).to(device)
    return large + large


def test_what_the_card_does_with_an_overflow() -> None:
    """The emulated card as such: what it gives, and whether its register tells."""
    place = Device.open("npu", "fp16")
    place.clear_overflow()
    assert (overflowing_sum("npu").cpu() == (65504 if SATURATES else math.inf)).all()
    register = place.overflow()
    if not SATURATES:
        assert register is None  # the gradients themselves show it
        return
    assert float(register) == 1
    assert float(place.overflow()) == 1  # until it is cleared
    place.clear_overflow()
    _ = torch.ones(3, device="npu") + 1
    assert float(place.overflow()) == 0


def trainable(place: Device) -> TrainableNetwork:
    torch.manual_seed(0)
    network = torch.nn.Linear(4, 4)
    config = SyncNetConfig(data_root=Path(), checkpoint_dir=Path())
    return TrainableNetwork(network, config, 0.9, place, SINGLE_PROCESS, ema=False)


def step(trained: TrainableNetwork, place: Device, factor: float = 1.0) -> None:
    """With a loss whose gradient is about ``factor``."""
    x = torch.eye(4).to("npu")
    trained.zero_grad()
    with place.autocast():
        output = trained.forward_module()(x)
    trained.backward((output.float() * factor).mean())
    trained.optimizer_step(1e-3)


def numbers(trained: TrainableNetwork) -> list[torch.Tensor]:
    moments = trained.optimizer.state_dict()["state"]
    kept = [value for part in moments.values() for value in part.values()]
    return [value.detach().cpu().clone() for value in (*kept, *trained.network.parameters())]


def test_a_step_that_overflows_is_skipped_and_the_scale_falls() -> None:
    """Neither weights nor moments change; later steps are as if it had not been."""
    place = Device.open("npu", "fp16")
    trained, undisturbed = trainable(place), trainable(place)
    for both in (trained, undisturbed):
        step(both, place)
    before = numbers(trained)
    step(trained, place, factor=1e4)  # times 65,536 this is above fp16's largest number
    assert all(torch.equal(one, other) for one, other in zip(before, numbers(trained), strict=True))
    assert trained.scaler.state() == {"scale": 2.0**15, "_growth_tracker": 0}
    assert trained.spike_filter.skipped_steps() == (1, 1)
    for both in (trained, undisturbed):
        step(both, place)
    for one, other in zip(numbers(trained), numbers(undisturbed), strict=True):
        torch.testing.assert_close(one, other)
    assert trained.spike_filter.skipped_steps() == (1, 0)
    moment = trained.optimizer.state_dict()["state"][0]["exp_avg_sq"]
    assert float(moment.max()) < 1  # with scaled gradients it would be above 1e5


@pytest.mark.usefixtures("thin")
def test_training_goes_on_after_an_overflow(clips: Path, tmp_path: Path) -> None:
    """The expert, for whose first steps the scale is too high."""
    run = trainer(syncnet_config(clips, tmp_path / "out", device="npu", precision="fp16"))
    run.task.set_training(True)
    trained, batch = run.task.trained[""], first_batch(run)
    before = [parameter.detach().clone() for parameter in run.task.syncnet.parameters()]
    losses = [float(run.task.step(batch, number=n)["loss"]) for n in range(24)]
    skipped = trained.spike_filter.skipped_steps()[0]
    assert 1 <= skipped < 12
    assert trained.scaler.state()["scale"] == FIRST_SCALE / 2**skipped
    assert all(map(math.isfinite, losses))
    rate = run.config.learning_rate
    for old, new in zip(before, run.task.syncnet.parameters(), strict=True):
        change = float((new.detach() - old).abs().max())
        assert change < 2 * rate * (24 - skipped)  # Adam's steps are as long as the learning rate
        assert change > 0 or new.dim() == 1  # a normalisation takes biases away again


def test_what_a_card_cannot_do_is_refused() -> None:
    if IS_NEW:
        assert Device.open("npu", "bf16").dtype is torch.bfloat16
        assert Device.open("npu", "auto").dtype is torch.bfloat16
        assert "HF32 in convolutions" in Device.open("npu", "fp32").reason
        return
    with pytest.raises(UserError, match=r"--precision bf16: Ascend\S+ has no bf16; use fp16"):
        Device.open("npu", "bf16")
    assert Device.open("npu", "auto").dtype is torch.float16
    assert "fp16 in convolutions, which is all that this card has" in Device.open("npu").reason
    with pytest.raises(UserError, match=r"--strict_fp32: the matrix unit of Ascend\S+ has fp16"):
        Device.open("npu", strict_fp32=True)
