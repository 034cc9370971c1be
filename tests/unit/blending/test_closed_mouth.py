"""Mouths that are shut by what was seen before, on a portrait that speaks."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from portraits import two_portraits

from face_detection import Box
from face_detection.landmarks import FaceLandmarks, mouth_shape
from wav2lip_npu.blending.closed_mouth import SHUT, ClosedMouth
from wav2lip_npu.blending.opening import scale_opening
from wav2lip_npu.demo.talking_head import render

Look = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def speaker() -> tuple[list[np.ndarray], Box]:
    """A portrait whose mouth is shut, then wide open, then half open; and a box around its face."""
    portrait = two_portraits()[1]
    mouth = np.zeros((40, 3))
    mouth[10:25, 0], mouth[25:, 0] = 1.0, 0.5
    frames = list(render(portrait, mouth, seed=1, fps=25))
    x1, y1, x2, y2 = portrait.face_box
    return frames, (max(0, x1 - 20), max(0, y1 - 20), min(256, x2 + 20), min(256, y2 + 20))


@pytest.fixture(scope="module")
def look(speaker: tuple[list[np.ndarray], Box]) -> Look:
    network = FaceLandmarks()
    return lambda image: network.detect(image, speaker[1])


def opening(points: np.ndarray) -> float:
    return float(mouth_shape(points)[0])


def test_an_open_mouth_is_shut(speaker: tuple[list[np.ndarray], Box], look: Look) -> None:
    frames, box = speaker
    closed = ClosedMouth()
    for image in frames[:10]:
        closed.see(image, box, look(image))
    least = min(opening(look(image)) for image in frames[:10])
    for image in frames[10:]:
        points = look(image)
        before = image.copy()
        result = closed.shut(image, box, points)
        np.testing.assert_array_equal(image, before)
        assert opening(points) > least + 0.02
        # What is left is the shut mouth, stretched with the jaw; it was 0.06 to 0.09.
        assert opening(look(result)) < least + 0.013
        changed = np.abs(result.astype(int) - image).max(axis=2) > 0
        assert 0.02 < changed.mean() < 0.2
        eyes = int(points[[33, 263], 1].max()) + 5
        assert not changed[:eyes].any()


def test_a_mouth_that_is_shut_is_left_alone(
    speaker: tuple[list[np.ndarray], Box], look: Look
) -> None:
    frames, box = speaker
    closed, first = ClosedMouth(), look(frames[0])
    np.testing.assert_array_equal(closed.shut(frames[0], box, first), frames[0])  # nothing seen
    closed.see(frames[0], box, first)
    for image in frames[:3]:
        assert opening(look(image)) <= max(SHUT, opening(first)) + 0.002
    np.testing.assert_array_equal(closed.shut(frames[0], box, first), frames[0])


def test_it_follows_the_head(speaker: tuple[list[np.ndarray], Box], look: Look) -> None:
    """Shut in a frame that is moved, turned and scaled, the mouth is that of the frame, turned."""
    frames, box = speaker
    closed = ClosedMouth()
    closed.see(frames[0], box, look(frames[0]))
    image, points = frames[15], look(frames[15])
    matrix = cv2.getRotationMatrix2D((128, 128), 12, 1.1)
    matrix[:, 2] += (6, -4)
    turned = cv2.warpAffine(image, matrix, (256, 256), borderMode=cv2.BORDER_REPLICATE)
    moved = np.hstack([points[:, :2] @ matrix[:, :2].T + matrix[:, 2], points[:, 2:]])
    expected = cv2.warpAffine(
        closed.shut(image, box, points), matrix, (256, 256), borderMode=cv2.BORDER_REPLICATE
    )
    found = closed.shut(turned, (0, 0, 256, 256), moved)
    assert np.abs(found.astype(int) - expected).mean() < 0.6
    assert np.abs(turned.astype(int) - expected).mean() > 1.0


def test_a_face_from_another_side_is_not_used(
    speaker: tuple[list[np.ndarray], Box], look: Look
) -> None:
    frames, box = speaker
    closed, points = ClosedMouth(), look(frames[0])
    turned = points.copy()
    turned[:, 0] += 0.6 * turned[:, 2]  # as if the head had turned
    closed.see(frames[0], box, turned)
    own = look(frames[15])
    moved = scale_opening(frames[15], box, own, 0.0)
    np.testing.assert_array_equal(closed.shut(frames[15], box, own), moved)
    closed.see(frames[1], box, look(frames[1]))  # another view of it
    assert (closed.shut(frames[15], box, own) != moved).any()


def test_a_mouth_that_is_never_seen_shut_is_shut_by_its_lips(
    speaker: tuple[list[np.ndarray], Box], look: Look
) -> None:
    frames, box = speaker
    closed = ClosedMouth()
    widths = []
    for image in frames[12:25]:  # wide open
        closed.see(image, box, look(image))
        result = look(closed.shut(image, box, look(image)))
        assert opening(result) < 0.5 * opening(look(image))
        widths.append(mouth_shape(result)[1])
    assert np.ptp(widths) < 0.02  # the same picture in all of them
    (first,) = closed._seen
    for image in frames[25:]:  # half open: less open than before, but no more than by half
        closed.see(image, box, look(image))
    assert len(closed._seen) == 1 and (closed._seen[0] is first) == (
        min(opening(look(image)) for image in frames[25:]) >= 0.5 * first.opening
    )
    closed.see(frames[2], box, look(frames[2]))  # shut
    assert not min(closed._seen, key=lambda one: one.opening).is_warped


def test_of_one_side_the_mouth_that_is_shut_most_is_remembered(
    speaker: tuple[list[np.ndarray], Box], look: Look
) -> None:
    frames, box = speaker
    one, other = ClosedMouth(), ClosedMouth()
    for image in (frames[30], frames[15], frames[0]):  # half open, wide open, shut
        one.see(image, box, look(image))
    other.see(frames[0], box, look(frames[0]))
    results = [closed.shut(frames[16], box, look(frames[16])) for closed in (one, other)]
    np.testing.assert_array_equal(*results)
