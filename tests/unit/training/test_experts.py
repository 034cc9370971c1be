"""Several experts and views, the weight that rises, and generated faces that match no sound."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import first_batch, generator_config, syncnet_config, trainer
from torch.nn import functional as F

from wav2lip_npu import checkpoint
from wav2lip_npu.errors import UserError

pytestmark = pytest.mark.usefixtures("thin")


@pytest.fixture
def two_experts(clips: Path, tmp_path: Path) -> list[Path]:
    """Experts of two seeds, after a step each."""
    paths = []
    for seed in (0, 1):
        out = tmp_path / f"expert{seed}"
        trainer(syncnet_config(clips, out, max_steps=1, seed=seed)).run()
        paths.append(checkpoint.newest(out))
    return paths


def test_the_sync_loss_is_the_mean_of_all_experts_and_views(
    clips: Path, tmp_path: Path, two_experts: list[Path]
) -> None:
    first, second = two_experts
    options = {"sync_views": 3, "sync_view_shift": 0.1}
    config = generator_config(clips, tmp_path / "g", first, more_experts=(second,), **options)
    task = trainer(config).task
    torch.manual_seed(0)
    generated, mel = torch.rand(2, 3, 5, 96, 96), torch.randn(2, 80, 16)
    moved = torch.zeros(2, 4, 3)
    moved[:, 1, 0] = 1.0  # to the right by 9.6 pixels
    moved[:, 2, 0] = 6 / 9.6
    with torch.no_grad():
        plain = task.experts.loss(mel, generated)
        varied = task.experts.loss(mel, generated, moved)

    def judged(faces: torch.Tensor) -> float:
        total = 0.0
        for network in task.experts.networks:
            window = faces[..., 48:, :].permute(0, 2, 1, 3, 4).reshape(2, 15, 48, 96)
            cosine = F.cosine_similarity(*network(mel[:, None], window))
            total += float(F.binary_cross_entropy(cosine.clamp(max=1), torch.ones(2))) / 2
        return total

    with torch.no_grad():
        assert float(plain) == pytest.approx(judged(generated), abs=1e-5)
        shifted = [generated]
        for pixels in (9.6, 6.0):
            whole = int(pixels)
            parts = [
                torch.cat([generated[..., :1].expand(*generated.shape[:-1], n), generated], -1)
                for n in (whole, whole + 1)
            ]
            near, far = (part[..., :96] for part in parts)
            shifted.append(near + (pixels - whole) * (far - near))
        expected = sum(map(judged, shifted)) / 3
    assert float(varied) == pytest.approx(expected, abs=2e-4)
    assert float(varied) != pytest.approx(float(plain), abs=1e-6)
    assert task.experts.windows_per_sample == 6


def test_views_need_no_flip_to_be_drawn(
    clips: Path, tmp_path: Path, two_experts: list[Path]
) -> None:
    run = trainer(generator_config(clips, tmp_path / "g", two_experts[0], sync_views=2))
    run.task.sync_weight = run.task.final_sync_weight
    batch = first_batch(run)
    assert batch["moved"].shape == (2, 4, 3)
    run.task.set_training(True)
    assert torch.isfinite(run.task.step(batch)["sync"])


def test_the_weight_rises_by_steps_and_is_resumed(
    clips: Path, tmp_path: Path, two_experts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {
        "sync_weight": 0.08, "sync_weight_steps": 4, "eval_interval": 2, "log_interval": 1,
        "more_experts": (two_experts[1],),
    }  # fmt: skip
    config = generator_config(clips, tmp_path / "g", two_experts[0], max_steps=5, **options)
    run = trainer(config)
    monkeypatch.setattr(run.task, "gate_threshold", 1e9)
    run.run()
    assert (run.task.sync_steps, run.task.sync_weight) == (3, pytest.approx(0.06))
    saved = checkpoint.newest(tmp_path / "g")
    written = checkpoint.read(saved, run.task.generator).extra["config"]
    assert written["more_experts"] == [str(two_experts[1])]
    again = trainer(generator_config(
        clips, tmp_path / "g", two_experts[0], max_steps=9, **options
    ))  # fmt: skip
    assert (again.task.sync_steps, again.task.sync_weight) == (3, pytest.approx(0.06))
    again.run()
    assert (again.task.sync_steps, again.task.sync_weight) == (7, pytest.approx(0.08))


@pytest.mark.parametrize("objective", [pytest.param("bce", marks=pytest.mark.slow), "contrastive"])
def test_generated_faces_match_no_sound(
    clips: Path, tmp_path: Path, two_experts: list[Path], objective: str
) -> None:
    trainer(generator_config(clips, tmp_path / "g", two_experts[0], max_steps=1)).run()
    generator = checkpoint.newest(tmp_path / "g")
    varied = {"augment_flip": True, "augment_colour": 0.1, "augment_move": 0.05}
    options = {"generator_path": generator, "objective": objective, "batch_size": 16, **varied}
    run = trainer(syncnet_config(clips, tmp_path / "e", **options))
    batch = first_batch(run)
    assert batch["generator_mel"].shape == (2, 5, 80, 16)
    assert batch["target"].shape == batch["reference"].shape == (2, 5, 96, 96, 3)
    assert not torch.equal(batch["target"], batch["reference"])
    assert torch.equal(batch["target"][..., 48:, :, :], batch["faces"][:2]) or objective == "bce"
    run.task.set_training(True)
    losses = [float(run.task.step(batch)["generated"]) for _ in range(12)]
    assert losses[-1] < losses[0]
    frozen = [p.requires_grad for p in run.task.generator.parameters()]
    assert not any(frozen)
    assert "generated" not in run.validate()


def test_what_cannot_be_asked_for(clips: Path, tmp_path: Path, expert_file: Path) -> None:
    for config, options, told in (
        (syncnet_config, {"augment_move": 0.3}, "--augment_move 0.3: must be from 0 to 0.2"),
        (syncnet_config, {"augment_quality": 1.1}, "--augment_quality 1.1: must be from 0 to 1"),
        (generator_config, {"sync_views": 5}, "--sync_views 5: must be 4 or less"),
        (generator_config, {"sync_views": 0}, "--sync_views 0: must be 1 or more"),
        (generator_config, {"sync_weight": -0.1}, "--sync_weight -0.1: must be 0 or more"),
        (generator_config, {"sync_weight": 0.0, "sync_views": 2}, "have no effect with it"),
        (generator_config, {"closed_gate_frames": 0}, "must be from 1 to 5"),
        (generator_config, {"closed_gate_frames": 6}, "must be from 1 to 5"),
        (generator_config, {"sync_weight_steps": 0}, "must be 1 or more"),
        (generator_config, {"sync_view_shift": -0.1}, "--sync_view_shift -0.1: must be from 0"),
    ):
        more = (expert_file,) if config is generator_config else ()
        with pytest.raises(UserError, match=told):
            config(clips, tmp_path, *more, **options)
    with pytest.raises(UserError, match="the generator is wanted"):
        trainer(syncnet_config(clips, tmp_path / "x", generator_path=expert_file))
