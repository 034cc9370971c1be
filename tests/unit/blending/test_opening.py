"""Mouths that are opened more or less, measured by landmarks of the result."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from portraits import two_portraits

from face_detection import Box
from face_detection.landmarks import CHIN, UNDER_NOSE, FaceLandmarks, mouth_shape
from wav2lip_npu.blending.blender import Blender
from wav2lip_npu.blending.opening import scale_opening
from wav2lip_npu.demo.talking_head import render

NETWORK = FaceLandmarks()
Mouth = tuple[np.ndarray, Box, np.ndarray]  # a frame, a box around its face, and its points
MARGIN = 20  # pixels, of that box


@pytest.fixture(scope="module", params=[0, 1])
def mouth(request: pytest.FixtureRequest) -> Mouth:
    """A portrait with its mouth open."""
    portrait = two_portraits()[request.param]
    frames = list(
        render(portrait, np.array([[0.0] * 3] * 5 + [[0.8, 0.0, 0.0]] * 15), seed=1, fps=25)
    )
    x1, y1, x2, y2 = portrait.face_box
    box = (x1 - MARGIN, y1 - MARGIN, x2 + MARGIN, y2 + MARGIN)
    return frames[-1], box, NETWORK.detect(frames[-1], portrait.face_box)


def opening(image: np.ndarray, box: Box) -> float:
    x1, y1, x2, y2 = box
    face = (x1 + MARGIN, y1 + MARGIN, x2 - MARGIN, y2 - MARGIN)
    return float(mouth_shape(NETWORK.detect(image, face))[0])


def test_an_opening_is_scaled(mouth: Mouth) -> None:
    image, box, points = mouth
    before = image.copy()
    found = [opening(scale_opening(image, box, points, x), box) for x in (0.0, 0.5, 1.0, 1.5, 2.0)]
    np.testing.assert_array_equal(image, before)
    assert found[2] > 0.04
    assert found[0] < 0.4 * found[2]
    assert 1.5 * found[0] < found[1] < 0.9 * found[2]
    assert 1.2 * found[2] < found[3] < found[4] + 0.005


def test_nothing_else_changes(mouth: Mouth) -> None:
    image, box, points = mouth
    np.testing.assert_array_equal(scale_opening(image, box, points, 1.0), image)
    for factor in (0.0, 2.0):
        changed = (scale_opening(image, box, points, factor) != image).any(axis=2)
        y, x = np.nonzero(changed)
        assert points[UNDER_NOSE, 1] - 1 <= y.min() and y.max() <= points[CHIN, 1] + 1
        width = points[291, 0] - points[61, 0]
        assert points[61, 0] - 0.2 * width < x.min() and x.max() < points[291, 0] + 0.2 * width
    # Nothing outside of the box, whatever it cuts.
    low = (box[0], box[1], int(points[14, 0]), int(points[14, 1]))
    changed = (scale_opening(image, low, points, 0.0) != image).any(axis=2)
    assert changed.any() and not changed[low[3] :].any() and not changed[:, low[2] :].any()
    away = (0, 0, 5, 5)
    np.testing.assert_array_equal(scale_opening(image, away, points, 0.0), image)


@pytest.mark.parametrize("tilt", [-40.0, 30.0, 90.0])
def test_tilted_faces_are_opened_alike(mouth: Mouth, tilt: float) -> None:
    image, _, points = mouth
    matrix = cv2.getRotationMatrix2D((128, 128), -tilt, 1)
    turned = cv2.warpAffine(image, matrix, (256, 256), borderMode=cv2.BORDER_REFLECT)
    places = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    whole = (0, 0, 256, 256)
    for factor in (0.0, 1.7):
        found = scale_opening(turned, whole, places, factor)
        expected = cv2.warpAffine(
            scale_opening(image, whole, points, factor), matrix, (256, 256),
            borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip
        inside = np.s_[40:216, 40:216]
        error = np.abs(found[inside].astype(int) - expected[inside]).mean()
        moved = np.abs(turned[inside].astype(int) - expected[inside]).mean()
        assert error < 0.25 * moved + 0.2


def test_points_that_are_no_face_do_no_harm(mouth: Mouth) -> None:
    image, box, points = mouth
    same = np.broadcast_to(points[:1], points.shape)
    np.testing.assert_array_equal(scale_opening(image, box, same, 0.0), image)
    rng = np.random.default_rng(0)
    for scale in (1, 50, 5000):
        anywhere = rng.uniform(-scale, scale, (468, 3))
        assert scale_opening(image, box, anywhere, 2.0).shape == image.shape


@pytest.mark.parametrize("how", ["paste", "mouth"])
def test_a_generated_mouth_is_scaled(mouth: Mouth, how: str) -> None:
    """The generated face is the frame's own, so that the result is the frame with another mouth."""
    image, box, points = mouth
    x1, y1, x2, y2 = box
    crop = image[y1:y2, x1:x2]
    found = []
    for strength in (0.0, 1.0, 1.7):
        result = Blender(how, "network", strength=strength).blend(
            image, crop, box, tilt=0.0, points=points, weight=1.0, shot=0
        )
        found.append(opening(result, box))
    assert found[0] < 0.6 * found[1] and found[2] > 1.15 * found[1]
    # Without points it stays as it was generated.
    plain, scaled = (
        Blender(how, "network", strength=strength).blend(
            image, crop, box, tilt=0.0, points=None, weight=1.0, shot=0
        )
        for strength in (1.0, 0.3)
    )
    np.testing.assert_array_equal(plain, scaled)
