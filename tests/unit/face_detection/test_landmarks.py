"""Points of a face, on the portrait that scikit-image carries."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from face_detection import landmarks, open_detector
from face_detection.landmarks import FaceLandmarks, mouth_shape, tilt_of
from wav2lip_npu.runtime.files import sha256

# Measured by eye in the portrait, in pixels; about two pixels exact.
BY_EYE = {
    landmarks.MOUTH_CORNERS[0]: (107, 141),
    landmarks.MOUTH_CORNERS[1]: (148, 142),
    landmarks.UPPER_LIP_INNER: (127, 143),
    landmarks.LOWER_LIP_INNER: (127, 149),
    landmarks.CHIN: (126, 176),
    33: (97, 101),  # outer corners of the eyes
    263: (161, 104),
}


@pytest.fixture(scope="module")
def network() -> FaceLandmarks:
    return FaceLandmarks()


def test_the_network_is_the_published_one() -> None:
    notice = landmarks.WEIGHTS.with_name("NOTICE").read_text()
    assert sha256(landmarks.WEIGHTS) in notice


def test_points_are_where_one_sees_them(network: FaceLandmarks, face: np.ndarray) -> None:
    (found,) = open_detector("centerface").detect([face])
    points = network.detect(face, found[0])
    assert points.shape == (468, 3)
    for number, place in BY_EYE.items():
        assert np.hypot(*(points[number, :2] - place)) < 4, number


def test_a_crop_gives_the_points_of_its_picture(network: FaceLandmarks, face: np.ndarray) -> None:
    """Though its surroundings are cut off; and so does a crop of half the size."""
    (found,) = open_detector("centerface").detect([face])
    x1, y1, x2, y2 = found[0, :4].astype(int)
    crop = face[y1:y2, x1:x2]
    whole = network.detect(face, (x1, y1, x2, y2))
    cut = network.detect(crop)
    assert np.abs(cut[:, :2] + (x1, y1) - whole[:, :2]).mean() < 1.5
    half = network.detect(cv2.resize(crop, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    np.testing.assert_allclose(mouth_shape(half), mouth_shape(whole), atol=0.03)


def test_a_mirrored_picture_gives_mirrored_points(network: FaceLandmarks, face: np.ndarray) -> None:
    (found,) = open_detector("centerface").detect([face])
    x1, y1, x2, y2 = found[0, :4]
    width = face.shape[1]
    mirrored = np.ascontiguousarray(face[:, ::-1])
    left, right = landmarks.MOUTH_CORNERS
    straight = network.detect(face, (x1, y1, x2, y2))
    turned = network.detect(mirrored, (width - x2, y1, width - x1, y2))
    assert abs(width - turned[right, 0] - straight[left, 0]) < 3
    assert abs(width - turned[left, 0] - straight[right, 0]) < 3


@pytest.mark.parametrize("degrees", [-45, -20, 20, 45])
def test_a_tilted_head_has_the_points_of_the_upright_one(
    network: FaceLandmarks, face: np.ndarray, degrees: int
) -> None:
    detector = open_detector("centerface")
    (upright,) = detector.detect([face])
    matrix = cv2.getRotationMatrix2D((128, 128), -degrees, 1)  # OpenCV counts the other way round
    tilted = cv2.warpAffine(face, matrix, (256, 256), borderMode=cv2.BORDER_REPLICATE)
    (found,) = detector.detect([tilted])
    points = network.detect_tilted(tilted, found[0])
    expected = network.detect(face, upright[0])[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    height = np.linalg.norm(expected[landmarks.FOREHEAD] - expected[landmarks.CHIN])
    assert np.linalg.norm(points[:, :2] - expected, axis=1).mean() < 0.03 * height
    assert tilt_of(points) - tilt_of(network.detect(face, upright[0])) == pytest.approx(
        degrees, abs=5
    )
    if abs(degrees) > 30:  # what it gives without turning
        plain = network.detect(tilted, found[0])
        assert np.linalg.norm(plain[:, :2] - expected, axis=1).mean() > 0.1 * height
    # Where the tilt is about known, as from the frame before, fewer looks do.
    again = network.detect_tilted(tilted, found[0], degrees + 8.0)
    assert np.linalg.norm(again[:, :2] - expected, axis=1).mean() < 0.03 * height


def test_tilts_are_counted_clockwise() -> None:
    points = np.zeros((468, 3))
    points[landmarks.MOUTH_CORNERS, :2] = [(0, 10), (0, 10)]
    assert tilt_of(points) == 0
    points[landmarks.MOUTH_CORNERS, :2] = [(-10, 10), (-10, 10)]  # the chin swings to the left
    assert tilt_of(points) == pytest.approx(45)
    points[landmarks.MOUTH_CORNERS, :2] = [(10, 0), (10, 0)]
    assert tilt_of(points) == pytest.approx(-90)


def test_the_shape_of_a_mouth_is_in_heights_of_the_face() -> None:
    points = np.zeros((2, 468, 3))
    points[:, landmarks.CHIN, 1] = 200
    points[:, landmarks.LOWER_LIP_INNER, 1] = [0, 20]
    points[:, landmarks.MOUTH_CORNERS[1], 0] = [60, 50]
    points[:, landmarks.LOWER_LIP_OUTER, 1] = 30
    points[:, :, 2] = 1000  # depth is not looked at
    np.testing.assert_allclose(mouth_shape(points), [[0, 0.3, 0.15], [0.1, 0.25, 0.15]])
    np.testing.assert_allclose(mouth_shape(3 * points), mouth_shape(points))
