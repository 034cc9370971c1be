"""The data check and the overfit check before a training, and what is warned of later."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import syncnet_config, trainer

from wav2lip_npu.constants import SAMPLE_RATE
from wav2lip_npu.data.clips import ClipFiles, load_mel, read_clips
from wav2lip_npu.data.dataset import ClipData
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import write_wav
from wav2lip_npu.training import checks
from wav2lip_npu.training.checks import agreement, check_data
from wav2lip_npu.training.optimization import TrainableNetwork

pytestmark = pytest.mark.usefixtures("thin")

CLIPS, FRAMES = 24, 50
PER_FRAME = SAMPLE_RATE // 25


def make_talking_clips(root: Path, lists: Path, *, late: int = 0, other: int = 0) -> ClipData:
    """Clips of noise that swells at random, and of faces that are the darker the louder it is.

    Args:
        root: where they are made.
        lists: where train.txt and val.txt are written.
        late: frames by which the sound comes after the faces.
        other: a clip has the sound of the one so many further on.
    """
    random = np.random.default_rng(0)
    volumes = random.uniform(0.0, 0.4, (CLIPS, FRAMES + 20))
    for number in range(CLIPS):
        folder = root / f"{number:02}"
        folder.mkdir(parents=True)
        for frame in range(FRAMES):
            crop = np.full((96, 96, 3), 160, np.uint8)
            crop[60:84, 30:66] = round(160 - 300 * volumes[number, 10 + frame])
            cv2.imwrite(str(folder / f"{frame}.jpg"), crop)
        loudness = volumes[(number + other) % CLIPS, 10 - late : 10 - late + FRAMES]
        noise = random.normal(0, 0.3, FRAMES * PER_FRAME).astype(np.float32)
        write_wav(folder / "audio.wav", noise * np.repeat(loudness, PER_FRAME).astype(np.float32))
    lists.mkdir(exist_ok=True)
    names = [f"{number:02}" for number in range(CLIPS)]
    (lists / "train.txt").write_text("\n".join(names))
    (lists / "val.txt").write_text("\n".join(names[:2]))
    clips = read_clips(root, lists / "train.txt", per_frame_mels=False)
    return ClipData(clips=clips, store=ClipFiles(clips))


@pytest.mark.parametrize("late", [0, 4, -3])
def test_sound_and_lips_are_compared(
    late: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = agreement(make_talking_clips(tmp_path / "data", tmp_path / "lists", late=late))
    assert found.found
    assert found.clips == CLIPS
    assert abs(found.av_offset - late) <= 1
    with caplog.at_level(logging.INFO, "wav2lip_npu"):
        checks._log_agreement(found)
    words = {0: "lips move with their sound", 4: "frames later, so it comes too late"}
    assert words.get(late, "frames earlier, so it comes too early") in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING" if late else "INFO"]


def test_training_on_swapped_sound_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = syncnet_config(tmp_path / "data", tmp_path / "out", max_steps=1)
    assert not agreement(make_talking_clips(tmp_path / "data", tmp_path / "lists", other=1)).found
    with caplog.at_level(logging.INFO, "wav2lip_npu"):
        trainer(config).run()
    assert "in 24 clips the lips move no more with their own sound" in caplog.text
    sheet = cv2.imread(str(tmp_path / "out" / checks.SHEET))
    assert sheet.shape == (18 + 20 * 96, 6 * 96, 3)
    # A resumed run does not check again.
    caplog.clear()
    trainer(syncnet_config(tmp_path / "data", tmp_path / "out", max_steps=2)).run()
    assert "data check" not in caplog.text


def test_lengths_that_differ_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_talking_clips(tmp_path / "data", tmp_path / "lists")
    longer = np.random.default_rng(0).normal(0, 0.1, 4 * SAMPLE_RATE)
    write_wav(tmp_path / "data" / "03" / "audio.wav", longer.astype(np.float32))
    load_mel.cache_clear()
    clips = read_clips(tmp_path / "data", tmp_path / "lists" / "train.txt", per_frame_mels=False)
    whole = ClipData(clips=clips, store=ClipFiles(clips))
    with caplog.at_level(logging.INFO, "wav2lip_npu"):
        check_data(whole, 0, tmp_path)
    assert "in 1 of 24 clips sound and frames differ in length by more than 0.5 s: 03" in (
        caplog.text
    )
    assert "% of the samples faces match" in caplog.text


def test_too_few_or_motionless_clips_are_no_fault(
    clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = trainer(syncnet_config(clips, tmp_path))
    with caplog.at_level(logging.INFO, "wav2lip_npu"):
        check_data(run.train_data, 0, tmp_path)
    assert "2 clips with sound and lips that move, too few to compare them" in caplog.text
    for folder in clips.iterdir():
        for path in folder.glob("*.jpg"):  # all alike: nothing to correlate
            cv2.imwrite(str(path), np.full((96, 96, 3), 9, np.uint8))
    run = trainer(syncnet_config(clips, tmp_path))
    assert agreement(run.train_data).clips == 0


def test_the_plateau_is_named(clips: Path, tmp_path: Path) -> None:
    task = trainer(syncnet_config(clips, tmp_path)).task
    stuck = {"loss": 0.697, "accuracy": 0.51, "offset_accuracy": 0.2}
    assert "51% of pairs right (50%), 20% of audio" in task.after_validation(stuck)
    assert task.after_validation({**stuck, "accuracy": 0.6}) is None
    assert task.after_validation({**stuck, "loss": 0.5}) is None
    assert task.after_validation({**stuck, "loss": 1.1}) is None


def test_networks_that_learn_nothing_are_named(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checks, "OVERFIT_STEPS", 40)
    config = syncnet_config(clips, tmp_path, overfit_check=True, max_steps=1)
    run = trainer(config)
    with caplog.at_level(logging.INFO, "wav2lip_npu"):
        checks.check_overfit(type(run.task), config, run.device, run.train_data)
    assert "overfit check: 40 steps on 8 windows" in caplog.text
    monkeypatch.setattr(TrainableNetwork, "optimizer_step", lambda self, rate: torch.zeros(()))
    with pytest.raises(UserError, match=r"--overfit_check: 40 steps .* it should fall by half"):
        run.run()
