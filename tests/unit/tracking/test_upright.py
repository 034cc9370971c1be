"""Boxes that are turned, and faces that are turned upright."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from face_detection import open_detector
from face_detection.landmarks import CHIN, FOREHEAD, FaceLandmarks
from wav2lip_npu.boxes import bounds, cut, from_crop, iou, to_crop, to_pixels
from wav2lip_npu.media.video_reader import Frame
from wav2lip_npu.tracking.smoothing import FaceBox, smooth_boxes
from wav2lip_npu.tracking.upright import align, upright_box


def faces_at(images: list[np.ndarray], boxes: list[np.ndarray | None]) -> list[FaceBox[Frame]]:
    return [
        FaceBox(item=Frame(time=n / 25, image=image), starts_shot=False, detected=True, box=box)
        for n, (image, box) in enumerate(zip(images, boxes, strict=True))
    ]


def turned(image: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture turned clockwise about its middle, and the matrix that did it."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1)
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), matrix


def test_a_turned_box_cuts_the_upright_picture_out(face: np.ndarray) -> None:
    smooth = cv2.GaussianBlur(face, (0, 0), 3)
    picture, _ = turned(smooth, 30)
    box = (68, 58, 188, 198)  # about the middle of the picture
    error = np.abs(cut(picture, box, 30).astype(int) - smooth[58:198, 68:188])
    assert error.max() < 6
    np.testing.assert_array_equal(cut(smooth, box), smooth[58:198, 68:188])
    # A quarter turn is a transposition: exact.
    np.testing.assert_array_equal(cut(face, (10, 20, 51, 61), 90), np.rot90(face[20:61, 10:51]))


def test_points_of_the_frame_in_the_crop_and_back() -> None:
    box, points = (10, 20, 50, 80), np.array([[30.0, 50, 7], [0, 0, 7]])
    for tilt in (0.0, 30, -100):
        matrix = from_crop(box, tilt)
        found = to_crop(points, box, tilt)
        back = found @ matrix[:, :2].T + matrix[:, 2]
        np.testing.assert_allclose(back, points[:, :2], atol=1e-9)
    np.testing.assert_allclose(to_crop(points, box, 0), points[:, :2] - [10, 20])
    # Of a head tilted clockwise, what is above in the crop is to the right in the frame.
    np.testing.assert_allclose(from_crop((0, 0, 11, 11), 90) @ [5, 0, 1], [10, 5], atol=1e-9)


def test_the_bounds_of_a_turned_box() -> None:
    assert bounds((10, 20, 30, 40), 0, (100, 100)) == (10, 20, 30, 40)
    # 40 wide and 20 high, turned by 90 degrees: 20 wide and 40 high, and a pixel on each side.
    assert bounds((10, 30, 50, 50), 90, (100, 100)) == pytest.approx((19, 19, 41, 61), abs=1)
    assert bounds((10, 30, 50, 50), 90, (30, 50)) == pytest.approx((19, 19, 30, 50), abs=1)
    assert bounds((-50, -50, -10, -10), 45, (30, 30)) is None
    assert to_pixels(np.array([-50.0, -50, -10, -10]), (30, 30), tilt=45) is None
    assert to_pixels(np.array([-9.5, 5, 15.9, 25]), (30, 30), (1, 2, 3, 4), 20) == (-12, 4, 19, 27)


@pytest.mark.parametrize("degrees", [-40, -20, 20, 40])
def test_the_box_of_a_tilted_face_is_that_of_the_upright_one(
    face: np.ndarray, degrees: int
) -> None:
    detector = open_detector("centerface")
    wide = cv2.copyMakeBorder(face, 64, 64, 64, 64, cv2.BORDER_REPLICATE)
    picture, matrix = turned(wide, degrees)
    (upright,), (tilted,) = (detector.detect([one])[0][:1, :4] for one in (wide, picture))
    (found,) = align(iter(faces_at([picture], [tilted])))
    assert found.tilt == pytest.approx(degrees, abs=7)  # the head is tilted a little itself
    # Both by their middle and size: the one's middle is moved as the picture was.
    middle = matrix[:, :2] @ (upright[:2] + upright[2:]) / 2 + matrix[:, 2]
    half = (upright[2:] - upright[:2]) / 2
    expected = np.concatenate([middle - half, middle + half])
    assert iou(expected[None], found.box[None])[0, 0] > 0.8
    assert iou(expected[None], tilted[None])[0, 0] < iou(expected[None], found.box[None])[0, 0]
    points = to_crop(found.points, to_pixels(found.box, (384, 384), tilt=found.tilt), found.tilt)
    across, down = points[CHIN] - points[FOREHEAD]
    assert abs(across) < 0.12 * down  # upright in the crop


def test_the_box_of_an_upright_face_stays(face: np.ndarray) -> None:
    points = FaceLandmarks().detect(face, (80, 60, 180, 190))
    x, y = 160.0, 110.0
    points[[78, 308, 33, 263], :2] = [(x, y + 40), (x, y + 40), (x, y), (x, y)]  # no tilt at all
    box = np.array([80.25, 60, 180, 190])
    np.testing.assert_allclose(upright_box(box, points), box, atol=1e-4)


def test_a_face_that_is_not_there_is_not_looked_for(face: np.ndarray) -> None:
    box = np.array([80.0, 60, 180, 190])
    given = faces_at([face, face, face], [box, None, box])
    found = list(align(iter(given)))
    assert found[1] is given[1]
    assert found[0].points is not None
    np.testing.assert_array_equal(found[0].points, found[2].points)


@pytest.mark.parametrize(("method", "expected"), [("centred", 10.0), ("original", 20.0)])
def test_tilts_are_averaged_with_the_boxes(method: str, expected: float) -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    given = [
        (FaceBox(item=n, starts_shot=False, detected=True, box=image, tilt=10.0 * n), (n, 0, 9, 9))
        for n in range(5)
    ]
    first, *_ = smooth_boxes(iter(given), method)
    assert first[0].tilt == expected
    assert first[0].item == 0
    assert first[1] == (int(expected / 10), 0, 9, 9)


def test_turned_boxes_are_not_averaged_with_others() -> None:
    """Heads are turned upright up to a tilt; beyond it boxes stay as they are."""
    points = np.zeros((468, 3))
    tilts = [74.0, 74, 74, 0, 0, 0]
    given = [
        (
            FaceBox(
                item=n, starts_shot=False, detected=True, box=np.zeros(4), tilt=tilt,
                points=points if tilt else None,
            ),
            (n, 0, 9, 9),
        )
        for n, tilt in enumerate(tilts)
    ]  # fmt: skip
    for method in ("centred", "original"):
        assert [face.tilt for face, _ in smooth_boxes(iter(given), method)] == tilts


def test_a_known_tilt_that_is_wrong_is_found_out(face: np.ndarray) -> None:
    """As after a cut that was not noticed, to a head that is tilted the other way."""
    wide = cv2.copyMakeBorder(face, 64, 64, 64, 64, cv2.BORDER_REPLICATE)
    picture, _ = turned(wide, -40)
    box = open_detector("centerface").detect([picture])[0][0, :4].tolist()
    network = FaceLandmarks()
    expected = network.detect_tilted(picture, box)
    found = network.detect_tilted(picture, box, 40.0)
    height = np.linalg.norm(expected[FOREHEAD] - expected[CHIN])
    assert np.linalg.norm(found - expected, axis=1).mean() < 0.04 * height
