"""Gradients: accumulated, filtered, clipped; learning rates, moving averages, operations."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from helpers import first_batch, generator_config, syncnet_config, trainer
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from wav2lip_npu import checkpoint
from wav2lip_npu.config import SyncNetConfig
from wav2lip_npu.data.batches import Batch
from wav2lip_npu.errors import UserError
from wav2lip_npu.models import Generator, SyncNet, VisualQualityDiscriminator, inputs
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.distributed import SINGLE_PROCESS
from wav2lip_npu.training import losses, tasks
from wav2lip_npu.training.loss_scaler import LossScaler
from wav2lip_npu.training.optimization import (
    MAX_NORM_RATIO,
    MAX_SKIPPED_STEPS,
    MIN_NORM_HISTORY,
    GradientSpikeFilter,
    TrainableNetwork,
    learning_rate,
)
from wav2lip_npu.training.tasks import base

CPU = Device.open("cpu")
CPU_WITH_SCALER = dataclasses.replace(CPU, dtype=torch.float16)  # a CPU has no fp16 of its own


def config(**changes: object) -> SyncNetConfig:
    return SyncNetConfig(data_root=Path(), checkpoint_dir=Path(), **changes)


def trainable(device: Device = CPU, **changes: object) -> TrainableNetwork:
    """Of a network of one convolution and a batch normalisation."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    options = config(**changes)
    return TrainableNetwork(network, options, 0.9, device, SINGLE_PROCESS, ema=True)


def step(trained: TrainableNetwork, x: torch.Tensor, rate: float = 0.01) -> torch.Tensor:
    trained.zero_grad()
    trained.backward(trained.forward_module()(x).exp().mean())
    return trained.optimizer_step(rate)


def filtered(norms: list[float]) -> tuple[list[int], GradientSpikeFilter]:
    spike_filter = GradientSpikeFilter(CPU)
    return [int(spike_filter.should_skip(torch.tensor(norm))) for norm in norms], spike_filter


def test_gradients_that_are_not_finite_or_far_above_are_skipped() -> None:
    sound = [1.0, 1.5, 0.7] * (MIN_NORM_HISTORY // 3 + 1)
    skips, spike_filter = filtered([*sound, math.nan, math.inf, 3.4e38, 0.9 * MAX_NORM_RATIO, 1.0])
    assert skips == [0] * len(sound) + [1, 1, 1, 0, 0]
    assert spike_filter.skipped_steps() == (3, 0)
    # What is high from the beginning has no history to be above.
    assert filtered([1.0, 1e6, math.nan, 1e6])[0] == [0, 0, 1, 0]


def test_a_gradient_that_stays_high_becomes_the_history() -> None:
    skips, spike_filter = filtered([1.0] * MIN_NORM_HISTORY + [2 * MAX_NORM_RATIO] * 60)
    high = skips[MIN_NORM_HISTORY:]
    assert 0 < sum(high) < MAX_SKIPPED_STEPS
    assert high == sorted(high, reverse=True)
    assert spike_filter.skipped_steps() == (sum(high), 0)
    saturated, _ = filtered([1.0] * MIN_NORM_HISTORY + [3e38] * 60)
    assert saturated[MIN_NORM_HISTORY:] == [1] * 60


# Norms of a discriminator's gradient in a real training, from its first steps on.
RISING_NORMS = (
    *(0.0027, 0.00025, 0.0027, 0.00018, 0.00018, 0.00017, 0.00035, 0.0027, 0.00028, 0.0027),
    *(9.8e-05, 0.00013, 0.0027, 0.00034, 0.0028, 0.00032, 0.00027, 0.0028, 0.00071, 0.011),
    *(0.0022, 0.0053, 0.0052, 0.021, 0.024, 0.078, 0.13, 0.16, 0.89, 34.0),
    *(18.0, 0.82, 0.21, 0.1, 0.058, 0.054, 0.046, 0.037, 0.043, 0.034),
)


def test_a_discriminator_whose_gradient_rises_is_no_fault() -> None:
    """However long it was undecided before: its gradient rises a hundred thousand times."""
    skips, spike_filter = filtered([*RISING_NORMS[:18] * 30, *RISING_NORMS])
    assert sum(skips) <= 1
    assert spike_filter.skipped_steps()[1] == 0


@pytest.mark.parametrize("fused", [True, False])
def test_a_skipped_step_leaves_everything_as_it_was(
    fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fused and not CPU.has_fused_adam:
        pytest.skip("this torch fuses no Adam on a CPU")
    monkeypatch.setattr(Device, "has_fused_adam", fused)
    trained = trainable(ema=0.5)
    x = torch.randn(4, 2, 8, 8)
    step(trained, x)
    trained.repair_statistics()
    weights, moments = trained.network.state_dict(), trained.optimizer.state_dict()["state"]
    before = [{k: v.clone() for k, v in part.items()} for part in (weights, *moments.values())]
    norm = step(trained, x * math.nan)
    assert norm.isnan()
    trained.repair_statistics()
    assert trained.spike_filter.skipped_steps() == (1, 1)
    weights, moments = trained.network.state_dict(), trained.optimizer.state_dict()["state"]
    counter = "1.num_batches_tracked"
    for old, new in zip(before, (weights, *moments.values()), strict=True):
        assert all(torch.equal(old[k], new[k]) for k in old if k != counter)
    assert all(v.isfinite().all() for v in trained.ema.network.state_dict().values())
    step(trained, x)
    assert trained.spike_filter.skipped_steps() == (1, 0)
    assert not torch.equal(trained.network[0].weight, before[0]["0.weight"])


def test_fused_or_not_is_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    if not CPU.has_fused_adam:
        pytest.skip("this torch fuses no Adam on a CPU")
    torch.manual_seed(1)
    x = torch.randn(4, 2, 8, 8)
    results = []
    for fused in (True, False):
        monkeypatch.setattr(Device, "has_fused_adam", fused)
        trained = trainable(clip_grad_norm=0.1)
        for _ in range(3):
            step(trained, x)
        # The normalisation takes a bias away again: its gradient is rounding, its step is not.
        results.append({k: v for k, v in trained.network.named_parameters() if k != "0.bias"})
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)


def test_a_loaded_optimiser_goes_on_as_it_was(tmp_path: Path) -> None:
    """Fused steps take moments to lie in memory as the parameters do, which files do not keep."""
    x = torch.randn(4, 2, 8, 8)
    whole, saved, resumed = trainable(), trainable(), trainable()
    for trained in (whole, saved):
        step(trained, x)
    path = tmp_path / "a.pth"
    checkpoint.save(path, saved.network, saved.optimizer, step=1, epoch=0, extra={})
    loaded = checkpoint.read(path)
    assert all(group["fused"] is None for group in loaded.optimizer["param_groups"])
    resumed.network.load_state_dict(loaded.state_dict)
    checkpoint.load_optimizer(resumed.optimizer, loaded)
    for trained in (whole, resumed):
        step(trained, x)
    for one, other in zip(whole.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("fused", [True, False])
def test_scaled_gradients_make_the_same_steps(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale is a power of two, and so is exact."""
    if fused and not CPU.has_fused_adam:
        pytest.skip("this torch fuses no Adam on a CPU")
    monkeypatch.setattr(Device, "has_fused_adam", fused)
    x, plain = torch.randn(4, 2, 8, 8), trainable(clip_grad_norm=0.05)
    scaled = trainable(CPU_WITH_SCALER, clip_grad_norm=0.05)
    for _ in range(3):
        torch.testing.assert_close(step(plain, x), step(scaled, x), rtol=1e-6, atol=0)
    assert scaled.scaler.state() == {"scale": 65536.0, "_growth_tracker": 3}
    for one, other in zip(plain.network.parameters(), scaled.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("how", ["nan", "inf", "the card's register"])
def test_an_overflow_halves_the_scale_and_nothing_else(
    how: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fused and not CPU.has_fused_adam:
        pytest.skip("this torch fuses no Adam on a CPU")
    monkeypatch.setattr(Device, "has_fused_adam", fused)
    trained, x = trainable(CPU_WITH_SCALER), torch.randn(4, 2, 8, 8)
    step(trained, x)
    moments = trained.optimizer.state_dict()["state"]
    before = [v.clone() for part in moments.values() for v in part.values()]
    weights = [p.detach().clone() for p in trained.network.parameters()]
    with monkeypatch.context() as patch:
        if how in ("nan", "inf"):
            step(trained, x * float(how))
        else:  # gradients are finite, and wrong
            patch.setattr(Device, "overflow", lambda self: torch.ones(()))
            step(trained, x)
    assert trained.scaler.state() == {"scale": 32768.0, "_growth_tracker": 0}
    assert trained.spike_filter.skipped_steps() == (1, 1)
    moments = trained.optimizer.state_dict()["state"]
    after = [v for part in moments.values() for v in part.values()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    for one, other in zip(weights, trained.network.parameters(), strict=True):
        assert torch.equal(one, other)
    step(trained, x)
    assert trained.scaler.state() == {"scale": 32768.0, "_growth_tracker": 1}
    assert not torch.equal(weights[0], trained.network[0].weight)


def test_the_scale_is_that_of_torchs_scaler() -> None:
    """It grows after 2,000 steps, falls at once, and takes up the state of torch's own."""
    if not hasattr(torch.amp, "GradScaler"):
        pytest.skip("this torch has no gradient scaler for the CPU")
    own, reference = LossScaler(CPU_WITH_SCALER), torch.amp.GradScaler("cpu")
    reference.scale(torch.ones(()))  # it makes its state at the first call
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    for number in range(4100):
        skipped = float(number in (0, 1, 1999, 4050))
        own.update(torch.tensor(skipped))
        parameter.grad = torch.tensor([math.inf if skipped else 1.0])
        reference.step(optimizer)
        reference.update()
        assert float(own.scale(torch.ones(()))) == reference.get_scale()
    assert own.state().items() <= reference.state_dict().items()
    resumed = LossScaler(CPU_WITH_SCALER)
    resumed.restore(reference.state_dict())
    assert resumed.state() == own.state()
    assert float(own.unscale_factor()) == 1 / reference.get_scale()
    plain = LossScaler(CPU)
    plain.restore(reference.state_dict())
    assert plain.state() == {} and float(plain.scale(torch.ones(()))) == 1


def test_clipping_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, x = trainable(clip_grad_norm=0.01), torch.randn(4, 2, 8, 8)
    norm = step(trained, x)
    found = [p.grad.clone() for p in trained.network.parameters()]
    plain = trainable()
    assert step(plain, x) == norm
    whole = nn.utils.clip_grad_norm_(plain.network.parameters(), 0.01)
    torch.testing.assert_close(whole, norm)
    for one, other in zip(found, plain.network.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)


def test_the_average_forgets_the_beginning_faster() -> None:
    trained, x = trainable(ema=0.5), torch.randn(4, 2, 8, 8)
    expected = None
    for count in range(12):
        step(trained, x)
        now = {k: v.double().clone() for k, v in trained.network.state_dict().items()}
        kept = min(0.5, count / (10 + count))
        expected = {k: kept * expected[k] + (1 - kept) * now[k] for k in now} if expected else now
    for name, value in trained.ema.network.state_dict().items():
        if name != "1.num_batches_tracked":
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_adam_looks_back_as_far_as_asked() -> None:
    assert trainable(adam_beta2=0.5).optimizer.param_groups[0]["betas"] == (0.9, 0.5)


def test_learning_rates() -> None:
    def rates(steps: list[int], **changes: object) -> list[float]:
        options = config(learning_rate=2.0, **changes)
        return [learning_rate(options, step) for step in steps]

    assert rates([0, 7, 10**6]) == [2.0, 2.0, 2.0]
    assert rates([0, 1, 3, 4, 9], warmup_steps=4) == [0.5, 1.0, 2.0, 2.0, 2.0]
    cosine = {"warmup_steps": 10, "schedule": "cosine", "max_steps": 110}
    assert rates([9, 10, 60, 110], **cosine) == pytest.approx([2.0, 2.0, 1.0, 0.0])
    reference = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=100)
    for step in range(100):
        assert rates([10 + step], **cosine) == pytest.approx(schedule.get_last_lr())
        reference.step()
        schedule.step()


@pytest.mark.usefixtures("thin")
def test_accumulated_batches_are_one_large_batch(clips: Path, tmp_path: Path) -> None:
    whole = trainer(syncnet_config(clips, tmp_path / "a", batch_size=4))
    parts = trainer(syncnet_config(clips, tmp_path / "b", batch_size=2, accumulate=2))
    assert whole.global_batch_size == parts.global_batch_size == 4
    batch = first_batch(whole)
    halves = [{name: part[n : n + 2] for name, part in batch.items()} for n in (0, 2)]
    results = []
    for run, batches in ((whole, [batch]), (parts, halves)):
        run.task.set_training(False)  # batch statistics would be of the halves
        metrics = run.task.step(*batches)
        results.append((metrics, [p.grad for p in run.task.syncnet.parameters()]))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


def test_contrastive_loss_is_that_of_all_pairs_of_a_group() -> None:
    torch.manual_seed(0)
    speech, face = (F.normalize(torch.rand(8, 512).square(), dim=1) for _ in range(2))
    right, wrong = [], []
    for one in range(8):
        for other in range(8):
            cosine = float((speech[one].double() * face[other].double()).sum())
            if one == other:
                right.append(-math.log(cosine))
            elif one // 4 == other // 4:
                wrong.append(-math.log(1 - cosine))
    expected = (sum(right) / 8 + sum(wrong) / 24) / 2
    assert len(wrong) == 24
    assert losses.contrastive_loss(speech, face, 4).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.usefixtures("thin")
def test_the_contrastive_objective(clips: Path, tmp_path: Path) -> None:
    run = trainer(
        syncnet_config(clips, tmp_path, batch_size=4, objective="contrastive", max_steps=1)
    )
    run.task.set_training(True)
    batch = first_batch(run)
    assert batch["label"].tolist() == [1, 1, 1, 1]
    speech, face = run.task.syncnet(batch["mel"], run.task._windows(batch, "faces"))
    expected = losses.contrastive_loss(speech, face, 4)
    torch.testing.assert_close(run.task.step(batch)["loss"], expected.detach())
    run.run()


@pytest.mark.usefixtures("thin")
def test_mirrored_and_coloured(clips: Path, tmp_path: Path) -> None:
    run = trainer(syncnet_config(clips, tmp_path, augment_flip=True, augment_colour=0.5))
    faces = torch.randint(0, 256, (2, 5, 48, 96, 3), dtype=torch.uint8)
    colour = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.5, -0.5, 0.0, 1.0]])
    batch = {"faces": faces, "mirrored": torch.tensor([True, False]), "colour": colour}
    plain = inputs.to_float(faces)
    found = run.task.faces(batch, "faces")
    assert torch.equal(found[0], plain[0].flip(-1))
    gains = torch.tensor([1.25, 0.75, 1.0]).view(1, 3, 1, 1)
    assert torch.equal(found[1], (plain[1] * gains + 0.25).clamp(0, 1))
    # Validation augments nothing.
    del batch["mirrored"], batch["colour"]
    assert torch.equal(run.task.faces(batch, "faces"), plain)


@pytest.mark.usefixtures("thin")
def test_the_frozen_syncnet_is_an_average_where_asked_for(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "expert"
    trainer(syncnet_config(clips, out, ema=0.9, max_steps=3)).run()
    saved = checkpoint.newest(out)
    loaded = checkpoint.read(saved)
    experts = [
        trainer(
            generator_config(clips, tmp_path / "g", saved, syncnet_ema=ema)
        ).task.experts.networks[0]
        for ema in (False, True)
    ]
    for expert, state in zip(experts, (loaded.state_dict, loaded.extra["ema"]), strict=True):
        assert all(torch.equal(value, state[key]) for key, value in expert.state_dict().items())
    assert not torch.equal(*(next(expert.parameters()) for expert in experts))
    plain = tmp_path / "plain"
    trainer(syncnet_config(clips, plain, max_steps=1)).run()
    with pytest.raises(UserError, match="has no moving average"):
        trainer(generator_config(clips, tmp_path / "h", checkpoint.newest(plain), syncnet_ema=True))


@pytest.mark.usefixtures("thin")
def test_too_many_skipped_steps_end_a_run(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wav2lip_npu.training.trainer.MAX_SKIPPED_STEPS", 3)
    run = trainer(syncnet_config(clips, tmp_path, max_steps=20, log_interval=1))
    accumulate = run.task.accumulate_gradients

    def diverge(batch: Batch) -> tasks.Metrics:
        broken = batch["mel"] * (math.nan if run.step >= 4 else 1)
        return accumulate({**batch, "mel": broken})

    run.task.accumulate_gradients = diverge
    with pytest.raises(UserError, match=r"step 7: the last 3 gradients .*step000000001\.pth"):
        run.run()
    assert "1 steps skipped in all" in caplog.text


def test_operations_are_as_torch_counts_them() -> None:
    mel, faces = torch.empty(1, 1, 80, 16, device="meta"), torch.empty(1, 6, 96, 96, device="meta")
    window = torch.empty(1, 15, 48, 96, device="meta")
    frame = torch.empty(1, 3, 1, 96, 96, device="meta")
    for build, arguments, expected in (
        (SyncNet, (mel, window), base.SYNCNET_FLOPS),
        (Generator, (mel, faces), base.GENERATOR_FLOPS),
        (VisualQualityDiscriminator, (frame,), base.DISC_FLOPS),
    ):
        network = build().to("meta").eval()
        with FlopCounterMode(display=False) as counter:
            network(*arguments)
        assert counter.get_total_flops() == pytest.approx(expected, rel=0.005)


def test_options_that_do_not_go_together() -> None:
    for changes, message in (
        ({"ema": 1.0}, "--ema 1.0: must be between"),
        ({"schedule": "cosine"}, "--schedule cosine: needs --max_steps"),
        ({"augment_colour": 0.6}, "--augment_colour 0.6"),
        ({"clip_grad_norm": 0.0}, "--clip_grad_norm 0.0: must be above 0"),
        ({"max_hours": -1.0}, "--max_hours -1.0"),
        ({"objective": "contrastive", "batch_size": 6}, "--batch_size 6 must be a multiple of 4"),
        ({"accumulate": 0}, "--accumulate 0"),
    ):
        with pytest.raises(UserError, match=message):
            config(**changes)
    assert dataclasses.asdict(config())["ema"] is None
