"""Clips, windows and items against the files they come from."""

import logging
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import make_clip

from wav2lip_npu import data
from wav2lip_npu.audio import load_audio, melspectrogram
from wav2lip_npu.data import EXPERT, GENERATOR, Window, WindowSampler, read_clips
from wav2lip_npu.errors import UserError


def crops(folder: Path, start: int) -> np.ndarray:
    """Five crops as the original reads them."""
    images = [cv2.imread(str(folder / f"{n}.jpg")) for n in range(start, start + 5)]
    return np.stack([cv2.resize(image, (96, 96)) for image in images])


def mel_of(folder: Path) -> np.ndarray:
    return melspectrogram(load_audio(folder / "audio.wav"))


def test_windows_keep_clear_of_gaps_and_of_the_ends(tmp_path: Path) -> None:
    make_clip(tmp_path / "a", frames=30, missing=(10,))
    (tmp_path / "list.txt").write_text("a\n")
    (expert,) = read_clips(tmp_path, tmp_path / "list.txt", EXPERT.mel_rows)
    (generator,) = read_clips(tmp_path, tmp_path / "list.txt", GENERATOR.mel_rows)
    whole = [*range(6), *range(11, 26)]  # five crops from here, none of them the missing one
    assert expert.windows.tolist() == whole
    rows = mel_of(tmp_path / "a").shape[1]
    assert rows == 97
    assert expert.targets.tolist() == [s for s in whole if 80 * s // 25 + 16 <= rows]
    # The generator's last frame hears the rows of frame s + 3, its first those of frame s − 1.
    last = [s for s in whole if s >= 1 and 80 * (s + 3) // 25 + 16 <= rows]
    assert generator.targets.tolist() == last
    assert max(last) < max(expert.targets)


def test_unusable_clips_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_clip(tmp_path / "good")
    make_clip(tmp_path / "a space")
    make_clip(tmp_path / "short", frames=15)
    make_clip(tmp_path / "mute")
    (tmp_path / "mute" / "audio.wav").unlink()
    make_clip(tmp_path / "holes", missing=tuple(range(4, 25, 5)), frames=25)
    make_clip(tmp_path / "broken")
    (tmp_path / "broken" / "audio.wav").write_text("no sound")
    names = ["good", "a space", "absent", "short", "mute", "holes", "broken"]
    (tmp_path / "list.txt").write_text("".join(f"{name} NF\n" for name in names) + "\n")
    (tmp_path / "a space").rename(tmp_path / "a space NF")
    with caplog.at_level(logging.WARNING):
        clips = read_clips(tmp_path, tmp_path / "list.txt", EXPERT.mel_rows)
    assert [clip.folder.name for clip in clips] == ["good", "a space NF"]
    told = [record.getMessage() for record in caplog.records]
    for name, reason in {
        "absent": "no such folder",
        "short": "15 crops, 16 are needed",
        "mute": "no such file",
        "holes": "no 5 crops in a row",
        "broken": "cannot be read as media",
    }.items():
        assert any(name in line and reason in line for line in told), (name, told)


def test_a_list_of_absent_clips_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.txt: no such file"):
        read_clips(tmp_path, tmp_path / "train.txt", EXPERT.mel_rows)
    (tmp_path / "train.txt").write_text("x\ny\n")
    with pytest.raises(UserError, match=r"none of its 2 clips is usable; the first: .*x: no such"):
        read_clips(tmp_path, tmp_path / "train.txt", EXPERT.mel_rows)
    (tmp_path / "train.txt").write_text("\n")
    with pytest.raises(UserError, match="none of its 0 clips"):
        read_clips(tmp_path, tmp_path / "train.txt", EXPERT.mel_rows)


@pytest.mark.parametrize("matched", [True, False])
def test_expert_item(clips: Path, matched: bool) -> None:
    folder = clips / "a"
    clip = data.Clip(folder=folder, targets=np.array([7]), windows=np.array([2, 7]))
    item = EXPERT.load(Window(clip=clip, target=7, other=2, matched=matched))
    np.testing.assert_array_equal(item["mel"], mel_of(folder)[None, :, 22:38])
    np.testing.assert_array_equal(item["faces"], crops(folder, 7 if matched else 2)[:, 48:])
    assert float(item["label"]) == matched


def test_generator_item(clips: Path) -> None:
    folder = clips / "b"
    clip = data.Clip(folder=folder, targets=np.array([7]), windows=np.array([2, 7]))
    item = GENERATOR.load(Window(clip=clip, target=7, other=2, matched=False))
    mel = mel_of(folder)
    starts = [22, 19, 22, 25, 28, 32]  # frame 7; then frames 6, 7, 8, 9, 10
    np.testing.assert_array_equal(item["mel"], np.stack([mel[:, r : r + 16] for r in starts]))
    np.testing.assert_array_equal(item["target"], crops(folder, 7))
    np.testing.assert_array_equal(item["reference"], crops(folder, 2))


def test_draws_are_a_function_of_seed_and_number(clips: Path, tmp_path: Path) -> None:
    found = read_clips(clips, tmp_path / "lists" / "train.txt", EXPERT.mel_rows)
    draws = [WindowSampler(found, seed=3).window(n) for n in range(2000)]
    assert draws[1234] == WindowSampler(found, seed=3).window(1234)
    assert draws != [WindowSampler(found, seed=4).window(n) for n in range(2000)]
    # Fair to within four standard deviations, of clips, labels and frames.
    assert abs(sum(draw.matched for draw in draws) - 1000) < 90
    assert abs(Counter(draw.clip.folder.name for draw in draws)["a"] - 1000) < 90
    targets = Counter(draw.target for draw in draws if draw.clip is found[0])
    assert set(targets) == set(found[0].targets.tolist())
    assert max(targets.values()) < 2 * min(targets.values())
    assert all(draw.other != draw.target for draw in draws)
    others = {draw.other for draw in draws if draw.clip is found[0]}
    assert others == set(found[0].windows.tolist())


def test_evaluation_draws_from_every_clip_alike(clips: Path, tmp_path: Path) -> None:
    found = read_clips(clips, tmp_path / "lists" / "train.txt", EXPERT.mel_rows)
    draws = [WindowSampler(found, seed=0).window_of_each(n) for n in range(20)]
    assert [draw.clip for draw in draws] == found * 10


def test_mel_is_computed_once(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = clips / "a"
    expected = mel_of(folder)
    data.load_mel.cache_clear()
    np.testing.assert_array_equal(data.load_mel(folder), expected)
    data.load_mel.cache_clear()
    monkeypatch.setattr(data, "melspectrogram", lambda samples: pytest.fail("computed again"))
    np.testing.assert_array_equal(data.load_mel(folder), expected)
    assert sorted(p.name for p in folder.iterdir() if p.suffix != ".jpg") == [
        "audio.wav",
        "mel.npy",
    ]


def test_a_crop_that_cannot_be_read_is_named(clips: Path) -> None:
    (clips / "a" / "4.jpg").write_text("no image")
    clip = data.Clip(folder=clips / "a", targets=np.array([2]), windows=np.array([2, 7]))
    with pytest.raises(UserError, match=r"a/4\.jpg: cannot be read"):
        data.load_faces(clip, 2)
