"""The data check and the overfit check before a training, and what is warned of later."""

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import articulation, make_talking_clip, syncnet_config, trainer, voiced

from wav2lip_npu.constants import SAMPLE_RATE
from wav2lip_npu.data.clips import ClipFiles, load_mel, read_clips
from wav2lip_npu.data.dataset import ClipData
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import write_wav
from wav2lip_npu.training import checks
from wav2lip_npu.training.checks import agreement, check_data
from wav2lip_npu.training.optimization import TrainableNetwork

pytestmark = pytest.mark.usefixtures("thin")

CLIPS = 24


def make_data(
    root: Path,
    lists: Path,
    *,
    late: Callable[[int], int] = lambda number: 0,
    voice: Callable[[int], int] = lambda number: number,
    mouth: Callable[[int], np.ndarray] = articulation,
) -> ClipData:
    """Clips of noise as loud as the mouth is open.

    Args:
        root: where they are made.
        lists: where train.txt and val.txt are written.
        late: frames by which a clip's sound comes late.
        voice: the number of the clip whose sound it is.
        mouth: how open it is in each frame.
    """
    for number in range(CLIPS):
        sound = voiced(np.roll(articulation(voice(number)), late(number)))
        make_talking_clip(root / f"{number:02}", mouth(number), sound)
    lists.mkdir(exist_ok=True)
    names = [f"{number:02}" for number in range(CLIPS)]
    (lists / "train.txt").write_text("\n".join(names))
    (lists / "val.txt").write_text("\n".join(names[:2]))
    return read_data(root, lists)


def read_data(root: Path, lists: Path) -> ClipData:
    clips = read_clips(root, lists / "train.txt", per_frame_mels=False)
    return ClipData(clips=clips, store=ClipFiles(clips))


def next_clip(number: int) -> int:
    return (number + 1) % CLIPS


@pytest.mark.parametrize("late", [0, 4, -3])
def test_sound_and_lips_are_compared(
    late: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "my data"
    data = make_data(root, tmp_path / "lists", late=lambda number: late)
    config = syncnet_config(root, tmp_path)
    with caplog.at_level(logging.INFO, "wav2lip_npu"):
        check_data(data, config)
    (record,) = (r for r in caplog.records if "data check: of 24 clips" in r.getMessage())
    told = {
        0: "Lips move with their own sound",
        4: f"the sound comes 4 frames too late: wav2lip-npu sync --data_root '{root}' --fix",
        -3: f"the sound comes 3 frames too early: wav2lip-npu sync --data_root '{root}' --fix",
    }
    assert told[late] in record.getMessage()
    assert record.levelname == ("WARNING" if late else "INFO")


def test_training_on_swapped_sound_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = syncnet_config(tmp_path / "data", tmp_path / "out", max_steps=1)
    make_data(tmp_path / "data", tmp_path / "lists", voice=next_clip)
    with caplog.at_level(logging.INFO, "wav2lip_npu"):
        trainer(config).run()
    assert "Lips move hardly more with their own sound than with that of other" in caplog.text
    sheet = cv2.imread(str(tmp_path / "out" / checks.SHEET))
    assert sheet.shape == (18 + 20 * 96, 6 * 96, 3)
    # A resumed run does not check again.
    caplog.clear()
    trainer(syncnet_config(tmp_path / "data", tmp_path / "out", max_steps=2)).run()
    assert "data check" not in caplog.text


def test_many_clips_that_are_off_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_data(tmp_path, tmp_path / "lists", late=lambda number: 6 * (number % 3 == 0))
    with caplog.at_level(logging.INFO, "wav2lip_npu"):
        check_data(data, syncnet_config(tmp_path, tmp_path))
    assert f"wav2lip-npu sync --data_root {tmp_path} names them; --fix shifts" in caplog.text
    found = agreement(data.clips)
    assert found.off + found.unclear >= 7
    assert abs(found.common_offset or 0) <= 1


def test_lengths_that_differ_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_data(tmp_path / "data", tmp_path / "lists")
    longer = np.random.default_rng(0).normal(0, 0.1, 5 * SAMPLE_RATE)
    write_wav(tmp_path / "data" / "03" / "audio.wav", longer.astype(np.float32))
    load_mel.cache_clear()
    with caplog.at_level(logging.INFO, "wav2lip_npu"):
        check_data(
            read_data(tmp_path / "data", tmp_path / "lists"),
            syncnet_config(tmp_path / "data", tmp_path),
        )
    assert "in 1 of 24 clips sound and frames differ in length by more than 0.5 s: 03" in (
        caplog.text
    )
    assert "% of the samples faces match" in caplog.text


def test_too_few_clips_need_no_network(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checks, "FaceLandmarks", None)  # it cannot be called
    config = syncnet_config(clips, tmp_path)
    with caplog.at_level(logging.INFO, "wav2lip_npu"):
        check_data(trainer(config).train_data, config)
    assert "2 clips whose lips and sound can be compared, 20 are needed: too few" in caplog.text
    assert "lips and sound: left out" not in caplog.text


def test_motionless_mouths_are_no_fault(tmp_path: Path) -> None:
    data = make_data(tmp_path, tmp_path / "lists", mouth=lambda number: np.full(75, 0.2))
    assert agreement(data.clips).clips == 0


def test_a_clip_that_cannot_be_read_costs_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_data(tmp_path, tmp_path / "lists")
    for path in (tmp_path / "07").iterdir():
        path.unlink()
    found = agreement(data.clips)
    assert found.is_found
    assert found.clips == CLIPS - 1
    assert f"1 clips cannot be compared; the first: {tmp_path / '07'}: no crops" in caplog.text


def test_without_the_network_the_rest_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        raise cv2.error("no such layer")

    monkeypatch.setattr(checks, "FaceLandmarks", fails)
    make_data(tmp_path / "data", tmp_path / "lists")
    run = trainer(syncnet_config(tmp_path / "data", tmp_path / "out", max_steps=1))
    with caplog.at_level(logging.WARNING, "wav2lip_npu"):
        run.run()
    assert caplog.text.count("data check: lips and sound: left out (error: no such layer)") == 1
    assert (tmp_path / "out" / checks.SHEET).is_file()
    assert run.step == 1


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
