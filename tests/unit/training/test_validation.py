"""Validation, its metrics, and the figures made of them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import generator_config, syncnet_config, trainer
from skimage.metrics import peak_signal_noise_ratio
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from wav2lip_npu.data.sampler import RoundRobinSampler
from wav2lip_npu.training import validation
from wav2lip_npu.training.figures import plot_curves
from wav2lip_npu.training.metrics import MetricsFile, RunningMean, similarity

pytestmark = pytest.mark.usefixtures("thin")  # the loop does not care how large networks are


def test_validation_gives_the_same_number_twice(
    clips: Path, expert_file: Path, tmp_path: Path
) -> None:
    run = trainer(generator_config(clips, tmp_path / "out", expert_file))
    before = {k: v.clone() for k, v in run.task.trained[""].network.state_dict().items()}
    first = run.validate()
    torch.rand(10)
    assert run.validate() == first
    after = run.task.trained[""].network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    other_seed = trainer(generator_config(clips, tmp_path / "o", expert_file, seed=5))
    other_seed.task.trained[""].network.load_state_dict(before)
    assert other_seed.validate() == first


def test_validation_is_the_mean_over_its_windows(clips: Path, tmp_path: Path) -> None:
    run = trainer(syncnet_config(clips, tmp_path / "out", eval_windows=3, batch_size=2))
    sampler = RoundRobinSampler(run.val_data.clips, validation.VALIDATION_SEED)
    windows = sampler.sample(range(4))  # 3, in whole twos
    batch = run.task.batches.training_batch(run.val_data.store, windows)
    items = [{name: part[n] for name, part in batch.items()} for n in range(4)]
    network = run.task.trained[""].network.eval()
    losses = []
    for item in items:
        faces = item["faces"].double().permute(0, 3, 1, 2).reshape(1, 15, 48, 96) / 255
        audio, face = network(item["mel"][None], faces.float())
        cosine = (audio * face).sum().double()
        right = cosine if item["label"] else 1 - cosine
        losses.append(-torch.log(right).item())
    assert run.validate()["loss"] == pytest.approx(sum(losses) / 4, abs=1e-5)


def test_audio_is_compared_at_fifteen_places(clips: Path, tmp_path: Path) -> None:
    run = trainer(syncnet_config(clips, tmp_path / "out", batch_size=6))
    sampler = RoundRobinSampler(run.val_data.clips, validation.VALIDATION_SEED)
    windows = sampler.sample(range(6))
    batch = run.task.batches.validation_batch(run.val_data.store, windows)
    network = run.task.syncnet.eval()
    found = []
    for faces, shifted, shifts in zip(
        batch["true_faces"], batch["shifted_mels"], batch["shifts"].tolist(), strict=True
    ):
        inputs = faces.float().permute(0, 3, 1, 2).reshape(1, 15, 48, 96) / 255
        audio, face = network(shifted[:, None], inputs.expand(15, -1, -1, -1))
        best = shifts[int((audio.double() * face.double()).sum(dim=1).argmax())]
        found.append(abs(best) <= 1)
    with torch.no_grad():
        measured = run.task.validation_metrics(batch)["offset_accuracy"]
    assert float(measured) == pytest.approx(sum(found) / 6)


def test_similarity_of_images() -> None:
    random = np.random.default_rng(0)
    target = random.random((2, 3, 5, 48, 96)).astype(np.float32)
    generated = (target + random.normal(0, 0.1, target.shape)).astype(np.float32).clip(0, 1)
    found = similarity(torch.from_numpy(generated), torch.from_numpy(target))
    pairs = [
        (one.transpose(1, 2, 0), other.transpose(1, 2, 0))
        for one, other in zip(
            *(x.transpose(0, 2, 1, 3, 4).reshape(10, 3, 48, 96) for x in (target, generated)),
            strict=True,
        )
    ]
    psnr = np.mean([peak_signal_noise_ratio(*pair, data_range=1.0) for pair in pairs])
    assert float(found["psnr"]) == pytest.approx(psnr, rel=1e-4)
    assert 0.1 < float(found["ssim"]) < 0.95
    same = similarity(torch.from_numpy(target), torch.from_numpy(target))
    assert (float(same["psnr"]), float(same["ssim"])) == (100.0, 1.0)


def test_means_leave_out_what_is_not_finite(tmp_path: Path) -> None:
    means = RunningMean()
    for values in ((1.0, math.nan), (math.inf, math.nan), (3.0, -math.inf)):
        means.add({name: torch.tensor(v) for name, v in zip("ab", values, strict=True)})
    found = means.pop()
    assert found["a"] == 2.0
    assert math.isnan(found["b"])
    metrics = MetricsFile(tmp_path)
    metrics.write("eval", 5, found)
    metrics.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "kind": "eval",
        "step": 5,
        "a": 2.0,
    }
    (events,) = (tmp_path / "tensorboard").iterdir()
    (scalar,) = (
        value for record in EventFileLoader(str(events)).Load() for value in record.summary.value
    )
    assert (scalar.tag, scalar.tensor.float_val[0]) == ("a/eval", 2.0)


def test_metrics_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    lines = [
        {"kind": "train", "step": 5, "loss": 0.7, "items_per_second": 31.0, "peak_share": 0.4},
        {"kind": "train", "step": 10, "loss": 0.6, "samples_per_second": 33.0, "mfu": 0.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves = MetricsFile(tmp_path).read()
    assert curves["samples_per_second", "train"] == {5: 31.0, 10: 33.0}
    assert curves["mfu", "train"] == {5: 0.4, 10: 0.5}
    assert curves["loss", "train"] == {5: 0.7, 10: 0.6}
    assert len(curves) == 3
    assert plot_curves(MetricsFile(tmp_path)).is_file()
