"""The shapes of mouths that are kept beside the crops."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import make_clip

from face_detection.landmarks import FaceLandmarks, mouth_shape
from wav2lip_npu.data import clips
from wav2lip_npu.data.clips import MOUTH, remove_clip
from wav2lip_npu.data.mouths import load_mouth
from wav2lip_npu.errors import UserError


class Counting(FaceLandmarks):
    """Counts the faces."""

    faces = 0

    def detect(self, image: np.ndarray, box: object = None) -> np.ndarray:
        self.faces += 1
        return super().detect(image)


def test_each_frame_has_the_shape_of_its_crop(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "a", frames=6, missing=(2,))
    (folder / "4.jpg").write_bytes(b"no image" * 40)
    network = FaceLandmarks()
    mouth = load_mouth(folder, network)
    assert mouth.shape == (6, 3)
    assert np.isnan(mouth).all(axis=1).tolist() == [False, False, True, False, True, False]
    crop = cv2.imread(str(folder / "3.jpg"))
    np.testing.assert_array_equal(mouth[3], mouth_shape(network.detect(crop)))


def test_it_is_computed_once_for_each_state_of_the_crops(tmp_path: Path) -> None:
    folder, network = make_clip(tmp_path / "a", frames=4), Counting()
    first = load_mouth(folder, network)
    np.testing.assert_array_equal(load_mouth(folder, network), first)
    assert network.faces == 4
    make_clip(tmp_path / "b", frames=4, seed=1)
    (tmp_path / "b" / "1.jpg").replace(folder / "1.jpg")
    assert not np.array_equal(load_mouth(folder, network), first)
    assert network.faces == 8
    (folder / MOUTH).write_bytes(b"damaged")
    load_mouth(folder, network)
    assert network.faces == 12
    (folder / MOUTH).unlink()
    os.mkfifo(folder / MOUTH)  # nobody writes to it
    load_mouth(folder, network)
    assert network.faces == 16
    remove_clip(folder)
    assert not folder.exists()


def test_a_folder_without_crops_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}: no crops"):
        load_mouth(tmp_path, FaceLandmarks())
    folder = make_clip(tmp_path / "a", frames=3)
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(b"no image" * 40)
    with pytest.raises(UserError, match="none of its 3 crops is an image"):
        load_mouth(folder, FaceLandmarks())
    with pytest.raises(UserError, match="none: No such file"):
        load_mouth(tmp_path / "none", FaceLandmarks())


def test_what_the_disk_does_not_give_is_not_kept_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, network = make_clip(tmp_path / "a", frames=3), FaceLandmarks()

    def denied(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(clips, "read_bytes", denied)
        with pytest.raises(UserError, match="Permission denied"):
            load_mouth(folder, network)
    assert np.isfinite(load_mouth(folder, network)).all()


def test_ten_minutes_of_a_clip_are_looked_at(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "a", frames=6)
    for number in (14_999, 15_000, 999_999):
        (folder / f"{number}.jpg").write_bytes((folder / "0.jpg").read_bytes())
    assert load_mouth(folder, FaceLandmarks()).shape == (15_000, 3)


def test_what_is_kept_of_some_frames_is_not_taken_for_the_whole_clip(tmp_path: Path) -> None:
    folder, network = make_clip(tmp_path / "a", frames=8, missing=(2,)), Counting()
    first = load_mouth(folder, network, 4)
    assert first.shape == (4, 3)
    np.testing.assert_array_equal(load_mouth(folder, network, 4), first)
    assert network.faces == 3
    whole = load_mouth(folder, network)
    assert np.isfinite(whole[4:]).all()
    np.testing.assert_array_equal(whole[:4], first)
    # Fewer frames are taken from it, and do not replace it.
    kept, faces = (folder / MOUTH).read_bytes(), network.faces
    np.testing.assert_array_equal(load_mouth(folder, network, 4), first)
    np.testing.assert_array_equal(load_mouth(folder, network), whole)
    assert (folder / MOUTH).read_bytes() == kept
    assert network.faces == faces
    with pytest.raises(UserError, match="no crops in its first 0 frames"):
        load_mouth(folder, network, 0)


def test_what_others_keep_under_its_name_is_computed_again(tmp_path: Path) -> None:
    folder, network = make_clip(tmp_path / "a", frames=4), FaceLandmarks()
    mouth = load_mouth(folder, network)
    state = np.load(folder / MOUTH)["state"]
    for content in ({"mouth": mouth[0, 0], "state": state}, {"mouth": mouth, "state": 7},
                    {"mouth": mouth[:2], "state": state}, {"mouth": mouth[:, :2], "state": state},
                    {"mouth": mouth.astype(int), "state": state}):  # fmt: skip
        np.savez(folder / MOUTH, **content)
        np.testing.assert_array_equal(load_mouth(folder, network), mouth)
