"""Clips, windows and samples against the files they come from."""

import dataclasses
import logging
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import make_clip

from wav2lip_npu.data import clips as clip_files
from wav2lip_npu.data.augmentation import variation
from wav2lip_npu.data.batches import GeneratorBatches, SyncNetBatches
from wav2lip_npu.data.clips import Clip, ClipFiles, read_clips
from wav2lip_npu.data.sampler import (
    GROUP_SIZE,
    GroupSampler,
    RoundRobinSampler,
    StridedSampler,
    Windows,
    WindowSampler,
)
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import load_audio
from wav2lip_npu.mel import last_valid_start, melspectrogram, syncnet_mel_start


def crops(folder: Path, start: int) -> np.ndarray:
    """Five crops as the original reads them."""
    images = [cv2.imread(str(folder / f"{n}.jpg")) for n in range(start, start + 5)]
    return np.stack([cv2.resize(image, (96, 96)) for image in images])


def mel_of(folder: Path) -> np.ndarray:
    return melspectrogram(load_audio(folder / "audio.wav"))


def test_windows_keep_clear_of_gaps_and_of_the_ends(tmp_path: Path) -> None:
    make_clip(tmp_path / "a", frames=30, missing=(10,))
    (tmp_path / "list.txt").write_text("a\n")
    (expert,) = read_clips(tmp_path, tmp_path / "list.txt", per_frame_mels=False)
    (generator,) = read_clips(tmp_path, tmp_path / "list.txt", per_frame_mels=True)
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
        clips = read_clips(tmp_path, tmp_path / "list.txt", per_frame_mels=False)
    assert [clip.folder.name for clip in clips] == ["good", "a space NF"]
    messages = [record.getMessage() for record in caplog.records]
    for name, reason in {
        "absent": "no such folder",
        "short": "15 crops, 16 are needed",
        "mute": "no audio.wav",
        "holes": "no 5 crops in a row",
        "broken": "cannot be read as media",
    }.items():
        assert any(name in line and reason in line for line in messages), (name, messages)


def test_a_list_of_absent_clips_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.txt: no such file"):
        read_clips(tmp_path, tmp_path / "train.txt", per_frame_mels=False)
    (tmp_path / "train.txt").write_text("x\ny\n")
    with pytest.raises(UserError, match=r"none of its 2 clips is usable; the first: .*x: no such"):
        read_clips(tmp_path, tmp_path / "train.txt", per_frame_mels=False)
    (tmp_path / "train.txt").write_text("\n")
    with pytest.raises(UserError, match="none of its 0 clips"):
        read_clips(tmp_path, tmp_path / "train.txt", per_frame_mels=False)


def files_of(folder: Path) -> ClipFiles:
    """A list of two clips, the second of which is this one."""
    return ClipFiles([described(folder.parent / "c"), described(folder)])


def described(folder: Path) -> Clip:
    (found,) = read_clips(folder.parent, one_line(folder), per_frame_mels=False)
    return found


def one_line(folder: Path) -> Path:
    path = folder.parent / "one.txt"
    path.write_text(folder.name + "\n")
    return path


@pytest.mark.parametrize("matched", [True, False])
def test_syncnet_sample(clips: Path, matched: bool) -> None:
    folder = clips / "a"
    windows = Windows(
        clips=np.array([0, 1]),
        target_starts=np.array([3, 7]),
        reference_starts=np.array([4, 2]),
        matched=np.array([True, matched]),
        last_valid_starts=np.array([20, 20]),
    )
    batch = SyncNetBatches().training_batch(files_of(folder), windows)
    np.testing.assert_array_equal(batch["mel"][1], mel_of(folder)[None, :, 22:38])
    np.testing.assert_array_equal(batch["faces"][1], crops(folder, 7 if matched else 2)[:, 48:])
    assert float(batch["label"][1]) == matched
    np.testing.assert_array_equal(batch["faces"][0], crops(clips / "c", 3)[:, 48:])


def test_syncnet_validation_batch(clips: Path) -> None:
    folder, store = clips / "a", files_of(clips / "a")
    mel = mel_of(folder)
    last = last_valid_start(mel.shape[1])
    assert syncnet_mel_start(last) + 16 <= mel.shape[1] < syncnet_mel_start(last + 1) + 16
    targets = np.array([2, 10, last])
    windows = Windows(
        clips=np.ones(3, int),
        target_starts=targets,
        reference_starts=np.array([4, 4, 4]),
        matched=np.array([True, False, False]),
        last_valid_starts=np.full(3, last),
    )
    batch = SyncNetBatches().validation_batch(store, windows)
    trained = SyncNetBatches().training_batch(store, windows)
    assert all(torch.equal(batch[name], part) for name, part in trained.items())
    for place, target in enumerate(targets):
        np.testing.assert_array_equal(batch["true_faces"][place], crops(folder, target)[:, 48:])
        frames = [min(max(target + shift, 0), last) for shift in range(-7, 8)]
        assert batch["shifts"][place].tolist() == [frame - target for frame in frames]
        for frame, shifted in zip(frames, batch["shifted_mels"][place], strict=True):
            row = 80 * frame // 25
            np.testing.assert_array_equal(shifted, mel[:, row : row + 16])


def test_windows_of_a_clip_come_in_groups(clips: Path) -> None:
    listed = read_clips(clips, clips.parent / "lists" / "train.txt", per_frame_mels=False)
    sampler = GroupSampler(listed, 3)
    sampled = sampler.sample(range(40_000))
    assert sampled.matched.all()
    groups = sampled.target_starts.reshape(-1, GROUP_SIZE)
    assert (sampled.clips.reshape(-1, GROUP_SIZE) == sampled.clips[::GROUP_SIZE, None]).all()
    assert Counter(sampled.clips.tolist()).keys() == {0, 1}
    assert all(len(set(group)) == GROUP_SIZE for group in groups.tolist())
    # Each frame as often as any other, at each place of a group.
    targets = listed[0].targets
    for place in range(GROUP_SIZE):
        found = Counter(groups[sampled.clips[::GROUP_SIZE] == 0, place].tolist())
        assert found.keys() == set(targets.tolist())
        assert min(found.values()) > 0.75 * 5000 / len(targets)
    again = sampler.sample(range(400, 408))
    assert again.target_starts.tolist() == sampled.target_starts[400:408].tolist()
    # A clip with too few windows gives one twice.
    few = dataclasses.replace(listed[0], targets=listed[0].targets[:2])
    assert set(GroupSampler([few], 0).sample(range(8)).target_starts.tolist()) <= {0, 1}


def test_augmentation_is_a_function_of_the_index(clips: Path) -> None:
    sampler = WindowSampler(
        read_clips(clips, clips.parent / "lists" / "train.txt", per_frame_mels=False),
        3,
        augment=True,
    )
    many = variation(sampler.sample(range(5000)))
    few = variation(sampler.sample([4999, 17]))
    assert all(torch.equal(few[name], part[[4999, 17]]) for name, part in many.items())
    assert many["mirrored"].float().mean() == pytest.approx(0.5, abs=0.03)
    assert -1 <= many["colour"].min() < -0.99 < 0.99 < many["colour"].max() <= 1
    # Windows and augmentation are independent.
    matched = sampler.sample(range(5000)).matched
    assert np.mean(matched == many["mirrored"].numpy()) == pytest.approx(0.5, abs=0.03)


def test_generator_sample(clips: Path) -> None:
    folder = clips / "b"
    windows = Windows(
        clips=np.array([1]),
        target_starts=np.array([7]),
        reference_starts=np.array([2]),
        matched=np.array([False]),
        last_valid_starts=np.array([20]),
    )
    batch = GeneratorBatches().training_batch(files_of(folder), windows)
    mel = mel_of(folder)
    starts = [22, 19, 22, 25, 28, 32]  # frame 7; then frames 6, 7, 8, 9, 10
    np.testing.assert_array_equal(batch["mel"][0], np.stack([mel[:, r : r + 16] for r in starts]))
    np.testing.assert_array_equal(batch["target"][0], crops(folder, 7))
    np.testing.assert_array_equal(batch["reference"][0], crops(folder, 2))


def listed(windows: Windows) -> list[tuple[int, int, int, bool]]:
    arrays = (windows.clips, windows.target_starts, windows.reference_starts, windows.matched)
    return list(zip(*(array.tolist() for array in arrays), strict=True))


def test_samples_are_a_function_of_seed_and_index(clips: Path, tmp_path: Path) -> None:
    make_clip(clips / "holes", frames=40, missing=(20,), seed=5)
    (tmp_path / "lists" / "train.txt").write_text("a\nholes\n")
    found = read_clips(clips, tmp_path / "lists" / "train.txt", per_frame_mels=False)
    many = 5000  # more than one block of random numbers
    samples = listed(WindowSampler(found, seed=3).sample(range(many)))
    for numbers in ([1234], [4999, 7], range(4000, 4200)):  # however they are asked for
        assert listed(WindowSampler(found, seed=3).sample(numbers)) == [samples[n] for n in numbers]
    assert samples != listed(WindowSampler(found, seed=4).sample(range(many)))
    assert len(set(samples[:4096]) - set(samples[4096:])) > 100  # a block is not the one before
    # Fair to within four standard deviations, of clips, labels and frames.
    assert abs(sum(matched for *_, matched in samples) - many / 2) < 142
    assert abs(sum(clip == 0 for clip, *_ in samples) - many / 2) < 142
    for number, clip in enumerate(found):
        targets = Counter(target for place, target, *_ in samples if place == number)
        assert set(targets) == set(clip.targets.tolist())
        assert max(targets.values()) < 2 * min(targets.values())
        others = {other for place, _, other, _ in samples if place == number}
        assert others == set(clip.windows.tolist())
    assert all(other != target for _, target, other, _ in samples)


def test_processes_share_the_indices(clips: Path) -> None:
    alone = list(StridedSampler(6, 18))
    shares = [list(StridedSampler(6 + rank, 18, 3)) for rank in range(3)]
    assert sorted(number for share in shares for number in share) == alone == [*range(6, 18)]


def test_validation_samples_every_clip_alike(clips: Path, tmp_path: Path) -> None:
    found = read_clips(clips, tmp_path / "lists" / "train.txt", per_frame_mels=False)
    samples = RoundRobinSampler(found, seed=0).sample(range(20))
    assert samples.clips.tolist() == [0, 1] * 10


def test_mel_is_computed_once(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = clips / "a"
    expected = mel_of(folder)
    clip_files.load_mel.cache_clear()
    np.testing.assert_array_equal(clip_files.load_mel(folder), expected)
    clip_files.load_mel.cache_clear()
    monkeypatch.setattr(clip_files, "melspectrogram", lambda samples: pytest.fail("computed again"))
    np.testing.assert_array_equal(clip_files.load_mel(folder), expected)
    assert sorted(p.name for p in folder.iterdir() if p.suffix != ".jpg") == [
        "audio.wav",
        "mel.npy",
    ]


def test_a_crop_that_cannot_be_read_is_named(clips: Path) -> None:
    files = files_of(clips / "a")
    (clips / "a" / "4.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"a/4\.jpg: cannot be read"):
        files.faces(np.array([1]), np.array([2]))


def test_a_folder_of_crops_is_listed_in_one_way(clips: Path) -> None:
    folder = make_clip(clips / "d", frames=20, missing=(4,))
    for other in ("x.jpg", "5.png", "-1.jpg", "1.5.jpg", "thumb.jpg", "notes.txt"):
        (folder / other).write_text("no crop")
    assert clip_files.list_crops(folder) == [n for n in range(20) if n != 4]
    # Frame 12 is 12.jpg: with another name it would be looked for in vain.
    assert clip_files.crop_number("0012.jpg") is None
    assert clip_files.crop_number("٣.jpg") is None
    assert clip_files.crop_number("1" * 30 + ".jpg") is None
    assert clip_files.clip_fault(15, has_audio=True) == "15 crops, 16 are needed"
    assert clip_files.clip_fault(16, has_audio=False) == "no audio.wav"
    assert clip_files.clip_fault(16, has_audio=True) is None
