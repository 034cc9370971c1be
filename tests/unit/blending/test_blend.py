"""How a generated face comes into a picture."""

import cv2
import numpy as np
import pytest

from face_detection.landmarks import LOWER_FACE, OUTER_LIPS, FaceLandmarks
from wav2lip_npu.blending.blend import blend
from wav2lip_npu.blending.masks import mouth_mask
from wav2lip_npu.config.inference import BLENDS

BOX = (60, 40, 180, 200)


def generated_from(face: np.ndarray, offset: int = 0) -> np.ndarray:
    """What a perfect generator would draw, in colours that are off."""
    x1, y1, x2, y2 = BOX
    crop = cv2.resize(face[y1:y2, x1:x2], (96, 96)).astype(int) + offset
    return crop.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("how", BLENDS)
@pytest.mark.parametrize("box", [BOX, (0, 0, 256, 256), (3, 5, 40, 33), (250, 250, 256, 256)])
def test_nothing_outside_of_the_box_changes(
    how: str, box: tuple[int, int, int, int], face: np.ndarray
) -> None:
    before = face.copy()
    image = blend(how, face, np.full((96, 96, 3), 200, np.uint8), box)
    np.testing.assert_array_equal(face, before)
    x1, y1, x2, y2 = box
    assert (image[y1:y2, x1:x2] != face[y1:y2, x1:x2]).any()
    image[y1:y2, x1:x2] = face[y1:y2, x1:x2]
    np.testing.assert_array_equal(image, face)


def test_paste_is_the_originals(face: np.ndarray) -> None:
    x1, y1, x2, y2 = BOX
    generated = generated_from(face, 30)
    image = blend("paste", face, generated, BOX)
    np.testing.assert_array_equal(image[y1:y2, x1:x2], cv2.resize(generated, (x2 - x1, y2 - y1)))


@pytest.fixture(scope="module")
def landmarks() -> FaceLandmarks:
    return FaceLandmarks()


def test_by_landmarks_nothing_changes_outside_of_the_lower_face(
    face: np.ndarray, landmarks: FaceLandmarks
) -> None:
    points = landmarks.detect(face, BOX)
    generated = np.full((96, 96, 3), 200, np.uint8)
    generated[60:] = (0, 0, 255)
    image = blend("mouth", face, generated, BOX, points=points)
    outline = cv2.convexHull(np.rint(points[list(LOWER_FACE), :2]).astype(np.int32))
    inside = cv2.fillPoly(np.zeros(face.shape[:2], np.uint8), [outline], 1)
    inside = cv2.dilate(inside, np.ones((5, 5), np.uint8)) > 0  # rounding, and mask pixels
    changed = np.abs(image.astype(int) - face).max(axis=2)
    assert not changed[~inside].any()
    lips = cv2.fillPoly(
        np.zeros(face.shape[:2], np.uint8),
        [np.rint(points[list(OUTER_LIPS), :2]).astype(np.int32)],
        1,
    )
    assert changed[lips > 0].min() > 0
    # A generated face that is the frame's own changes nothing but sharpness.
    same = blend("mouth", face, generated_from(face), BOX, points=points)
    assert np.abs(same.astype(int) - face).mean() < 0.5


def test_by_landmarks_the_lips_are_the_generated_ones(
    face: np.ndarray, landmarks: FaceLandmarks
) -> None:
    points = landmarks.detect(face, BOX)
    lips = mask_of(points)[points_within(points[list(OUTER_LIPS), :2])]
    assert lips.min() > 0.9
    np.testing.assert_array_equal(
        blend("mouth", face, generated_from(face, 9), BOX),  # no points
        blend("feather", face, generated_from(face, 9), BOX),
    )


def test_a_mask_follows_the_face(face: np.ndarray, landmarks: FaceLandmarks) -> None:
    """Of a face moved within its box the mask moves as much."""
    points = landmarks.detect(face, BOX)
    moved = points + np.array([15, -5, 0])  # whole pixels of the mask
    one, other = mask_of(points), mask_of(moved)
    np.testing.assert_allclose(other[40:-20, 30:-20], one[45:-15, 15:-35], atol=0.03)


def mask_of(points: np.ndarray) -> np.ndarray:
    return mouth_mask(points[:, :2] - BOX[:2], (BOX[2] - BOX[0], BOX[3] - BOX[1]))


def points_within(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The indices of places in an array of the box."""
    x, y = np.rint(places - BOX[:2]).astype(int).T
    return y, x


@pytest.mark.parametrize("how", BLENDS)
def test_a_turned_box_is_blended_as_the_upright_one(
    how: str, face: np.ndarray, landmarks: FaceLandmarks
) -> None:
    """The picture turned, blended and turned back is the upright picture, blended."""
    wide = cv2.copyMakeBorder(face, 64, 64, 64, 64, cv2.BORDER_REPLICATE)
    box = tuple(side + 64 for side in BOX)
    points = landmarks.detect(wide, box)
    middle = ((box[0] + box[2] - 1) / 2, (box[1] + box[3] - 1) / 2)
    turn = cv2.getRotationMatrix2D(middle, -30, 1)
    turned = cv2.warpAffine(wide, turn, wide.shape[1::-1], flags=cv2.INTER_CUBIC)
    moved = points[:, :2] @ turn[:, :2].T + turn[:, 2]
    generated = generated_from(face, 25)
    result = blend(how, turned, generated, box, tilt=30, points=moved)
    back = cv2.WARP_INVERSE_MAP | cv2.INTER_CUBIC
    shown = cv2.warpAffine(result, turn, wide.shape[1::-1], flags=back)
    again = cv2.warpAffine(turned, turn, wide.shape[1::-1], flags=back)  # blurred as often
    expected = blend(how, wide, generated, box, points=points).astype(int) - wide
    error = (shown.astype(int) - again - expected)[64:-64, 64:-64]
    inner = np.s_[BOX[1] + 4 : BOX[3] - 4, BOX[0] + 4 : BOX[2] - 4]
    assert np.abs(error[inner]).mean() < (4 if how == "poisson" else 2.5)
    error[BOX[1] - 3 : BOX[3] + 3, BOX[0] - 3 : BOX[2] + 3] = 0
    assert np.abs(error).max() <= 2  # turning back reaches over the edge


@pytest.mark.parametrize("how", ["feather", "poisson"])
def test_colours_that_are_off_are_matched(how: str, face: np.ndarray) -> None:
    """The same face generated 25 too bright comes out as the face itself, but for sharpness."""
    x1, y1, x2, y2 = BOX
    same = blend(how, face, generated_from(face), BOX).astype(int)
    off = blend(how, face, generated_from(face, 25), BOX).astype(int)
    lower = np.s_[y1 + 96 : y2 - 24, x1 + 24 : x2 - 24]
    pasted = blend("paste", face, generated_from(face, 25), BOX).astype(int)
    assert np.abs(pasted - same)[lower].mean() > 20
    assert np.abs(off - same)[lower].mean() < 4


@pytest.mark.parametrize("how", ["feather", "poisson"])
def test_the_mouth_is_the_drawn_one_and_the_eyes_are_not(how: str, face: np.ndarray) -> None:
    x1, y1, x2, _ = BOX
    stripes = generated_from(face)
    stripes[70:74] = 0
    image = blend(how, face, stripes, BOX).astype(int)
    plain = blend(how, face, generated_from(face), BOX).astype(int)
    mouth = np.s_[y1 + 118 : y1 + 122, x1 + 40 : x2 - 40]
    assert np.abs(image - plain)[mouth].mean() > 25
    eyes = np.s_[y1 : y1 + 64, x1:x2]
    np.testing.assert_array_equal(image[eyes], face[eyes])


def test_no_edge_is_left_at_the_box(face: np.ndarray) -> None:
    """Across the box's lower edge and sides the picture is as smooth as it was."""
    x1, y1, x2, y2 = BOX
    generated = generated_from(face, 40)

    def step(image: np.ndarray) -> float:
        change = image.astype(int) - face
        below = np.abs(change[y2 - 1, x1:x2] - change[y2, x1:x2]).mean()
        return max(float(below), float(np.abs(change[y1:y2, x1] - change[y1:y2, x1 - 1]).mean()))

    assert step(blend("paste", face, generated, BOX)) > 30
    assert step(blend("feather", face, generated, BOX)) < 1


@pytest.mark.parametrize("how", BLENDS)
def test_boxes_of_any_size(how: str) -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (60, 60, 3), dtype=np.uint8)
    face = np.zeros((96, 96, 3), np.uint8)
    for height in (1, 2, 7, 8, 9, 10, 40):
        for width in (1, 2, 7, 8, 9, 10, 40):
            points = random.uniform(0, 60, (468, 3)).astype(np.float32)
            blended = blend(how, image, face, (5, 5, 5 + width, 5 + height), points=points)
            changed = np.abs(blended.astype(int) - image).max(axis=2)
            # Poisson blending takes gradients, and this face has none; these points no face.
            assert how in ("poisson", "mouth") or changed[5 : 5 + height, 5 : 5 + width].any()
            changed[5 : 5 + height, 5 : 5 + width] = 0
            assert not changed.any()
