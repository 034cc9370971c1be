"""Checkpoints of a training: resumed, started from others, the best and the last ones kept."""

import dataclasses
import signal
from pathlib import Path

import pytest
import torch
from helpers import first_batch, generator_config, syncnet_config, trainer

from wav2lip_npu import checkpoint
from wav2lip_npu.config import TrainConfig
from wav2lip_npu.data.batches import Batch
from wav2lip_npu.models import Generator
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


@pytest.mark.parametrize(
    "kind", ["expert", pytest.param("generator", marks=pytest.mark.slow), "adversarial"]
)
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

    def step_and_interrupt(*batches: Batch, number: int) -> dict[str, torch.Tensor]:
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


def test_state_of_earlier_versions_is_taken_up(
    clips: Path, expert_file: Path, tmp_path: Path
) -> None:
    """Version 0.1 also saved random numbers; all of its other keys are read as they were."""
    out = tmp_path / "out"
    config = generator_config(clips, out, expert_file, disc=True, ema=0.9, batch_size=2)
    trainer(dataclasses.replace(config, max_steps=1)).run()
    watch = {"highest": 2.5, "known": 104.0, "skipped": 4.0, "in_a_row": 2.0}
    for prefix, keys in (("", {"ema", "averaged"}), ("disc_", set())):
        path = out / (prefix + checkpoint.file_name(1))
        content = torch.load(path, weights_only=True)
        extra = content["wav2lip_npu"]
        assert extra["watch"].keys() == watch.keys()
        keys |= {
            "items",
            "config",
            "best",
            "published",
            "sync_weight",
            "sync_steps",
            "last_sync",
            "watch",
        }
        assert extra.keys() == keys | {"scaler"}
        extra |= {"items": 46, "best": 0.5, "published": [1, 7], "sync_weight": 0.03}
        extra |= {"last_sync": 0.25, "random": {"cpu": torch.get_rng_state()}}
        extra["watch"] = {name: torch.tensor(value) for name, value in watch.items()}
        if prefix == "":
            extra["averaged"] = 23
            extra["ema"] = {name: value / 2 for name, value in extra["ema"].items()}
            average = extra["ema"]
        content["global_step"] = 23
        torch.save(content, path.with_name(prefix + checkpoint.file_name(23)))
    random_state = torch.get_rng_state()
    run = trainer(config)
    assert (run.step, run.samples, run.best, run.files.published) == (23, 46, 0.5, [1, 7])
    assert (run.task.sync_weight, run.task.last_sync) == (0.03, 0.25)
    for trained in run.task.trained.values():
        assert {name: float(value) for name, value in trained.spike_filter.state().items()} == watch
        assert trained.spike_filter.skipped_steps() == (4, 2)
    ema = run.task.trained[""].ema
    assert ema.updates == 23
    assert all(torch.equal(v, average[k]) for k, v in ema.network.state_dict().items())
    run.task.set_training(True)
    batch = first_batch(run)
    torch.set_rng_state(random_state)
    run.task.step(batch)  # nothing in a step depends on torch's random numbers or changes them
    run.validate()
    assert torch.equal(torch.get_rng_state(), random_state)


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
    assert (best.global_step, best.extra["best"]) == (3, {"metric": "sync", "value": 1.0})
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
