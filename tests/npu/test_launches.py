"""How often a training step asks the card for something: a budget, as each costs the CPU time.

A step that launches too many kernels, or waits for the card, leaves it idle. The numbers do not
depend on how wide the networks are, nor on the size of the batch.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from ascend import recorded
from helpers import first_batch, generator_config, syncnet_config, trainer

from wav2lip_npu.config import TrainConfig
from wav2lip_npu.doctor.kernel_names import KERNEL_NAMES

pytestmark = pytest.mark.usefixtures("thin")


def counts_of_a_step(config: TrainConfig, log: Path) -> Counter[str]:
    run = trainer(config)
    run.task.set_training(True)
    if hasattr(run.task, "sync_weight"):
        run.task.sync_weight = run.task.final_sync_weight  # with SyncNet in the loss
    batch = first_batch(run)
    run.task.step(batch)  # makes the optimizer's state
    with recorded(log) as counts:
        run.task.step(batch)
    return counts


@pytest.mark.parametrize(
    ("kind", "precision", "launches"),
    [
        ("bce", "fp32", 520),
        ("bce", "bf16", 650),  # weights are cast
        ("contrastive", "fp32", 500),
        ("generator", "fp32", 960),
        ("discriminator", "fp32", 1270),
    ],
)
def test_a_step_keeps_its_budget(
    kind: str, precision: str, launches: int, clips: Path, expert_file: Path, tmp_path: Path
) -> None:
    common = {"device": "npu", "precision": precision, "batch_size": 2}
    config: TrainConfig
    if kind in ("bce", "contrastive"):
        batch = 16 if kind == "contrastive" else 2
        config = syncnet_config(
            clips, tmp_path / "out", **{**common, "objective": kind, "batch_size": batch}
        )
    else:
        disc = kind == "discriminator"
        config = generator_config(clips, tmp_path / "out", expert_file, disc=disc, **common)
    counts = counts_of_a_step(config, tmp_path / "log")
    kernels = sum(n for name, n in counts.items() if name.startswith(("kernel ", "operator ")))
    assert kernels <= launches
    assert kernels > 0.9 * launches, "the budget can be lowered"
    named = {name.removeprefix("kernel ") for name in counts if name.startswith("kernel ")}
    assert named <= set(KERNEL_NAMES)  # which the doctor looks for
    learners = 2 if kind == "discriminator" else 1
    # Each learner reads once whether to skip the step; nothing else waits for the card.
    assert counts["copy device-to-host blocking"] == learners
    assert counts["synchronize stream"] == learners
    assert counts["copy host-to-device blocking"] == 0
    assert counts["synchronize card"] == 0
