"""The crops for SyncNet v2, against a slow computation pixel by pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from wav2lip_npu.evaluation.lse_protocols import (
    FaceTrack,
    crop_face,
    face_tracks,
    track_crops,
    whole_frames,
)


def picture(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


def slow_crop(image: np.ndarray, half: float, row: float, column: float) -> np.ndarray:
    """A pixel is the frame's where it lies in the frame, else grey; without padding it."""
    pad = int(half * 1.8)
    rows = range(int(row + pad - half) - pad, int(row + pad + half * 1.8) - pad)
    columns = range(int(column + pad - half * 1.4) - pad, int(column + pad + half * 1.4) - pad)
    square = np.full((len(rows), len(columns), 3), 110, np.uint8)
    for y, frame_row in enumerate(rows):
        for x, frame_column in enumerate(columns):
            if 0 <= frame_row < image.shape[0] and 0 <= frame_column < image.shape[1]:
                square[y, x] = image[frame_row, frame_column]
    return cv2.resize(square, (224, 224))


def slow_median(values: np.ndarray) -> np.ndarray:
    padded = [0.0] * 6 + list(values) + [0.0] * 6
    return np.array([sorted(padded[n : n + 13])[6] for n in range(len(values))])


@pytest.mark.parametrize(
    ("half", "row", "column"), [(20, 45, 60), (17.3, 44.7, 61.9), (30, 8.2, 5), (25, 85, 118.6)]
)
def test_a_crop(half: float, row: float, column: float) -> None:
    image = picture(0)
    found = crop_face(image, half, row, column)
    assert found.shape == (224, 224, 3)
    np.testing.assert_array_equal(found, slow_crop(image, half, row, column))


def test_the_crops_of_a_track() -> None:
    random = np.random.default_rng(1)
    middle = np.array([60, 45])
    centres = middle + np.cumsum(random.normal(0, 2, (20, 2)), axis=0)
    sides = random.uniform(25, 40, (20, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    images = [picture(n) for n in range(30)]
    found = list(track_crops(iter(images), FaceTrack(first=7, boxes=boxes)))
    assert len(found) == 20
    halves = slow_median([max(w, h) / 2 for w, h in sides])
    columns, rows = slow_median(centres[:, 0]), slow_median(centres[:, 1])
    for n, crop in enumerate(found):
        expected = slow_crop(images[7 + n], halves[n], rows[n], columns[n])
        np.testing.assert_array_equal(crop, expected)


def test_whole_frames() -> None:
    image = picture(2)
    (found,) = whole_frames([image])
    np.testing.assert_array_equal(found, cv2.resize(image, (224, 224)))


def boxes(frames: range, side: float, step: float = 1.0) -> dict[int, np.ndarray]:
    return {n: np.array([step * n, 5, step * n + side, 5 + side]) for n in frames}


def test_short_gaps_are_filled_and_long_ones_divide() -> None:
    known = boxes(range(0, 130), 20)
    for gone in (*range(30, 50), *range(80, 100)):
        del known[gone]
    (track,) = face_tracks([known])
    assert (track.first, len(track.boxes)) == (0, 130)
    np.testing.assert_allclose(track.boxes[40], [40, 5, 60, 25])
    for gone in range(75, 102):
        known.pop(gone, None)
    (track,) = face_tracks([known])  # what follows the gap has only 28 frames
    assert (track.first, len(track.boxes)) == (0, 75)


def test_the_largest_track_comes_first_and_short_ones_not_at_all() -> None:
    long, large = boxes(range(5, 165), 20), boxes(range(60, 110), 40)
    brief = boxes(range(0, 49), 90)
    assert [track.first for track in face_tracks([long, large, brief])] == [60, 5]
    assert face_tracks([brief]) == face_tracks([]) == []
