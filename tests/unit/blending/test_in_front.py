"""What comes before a face that speaks: made things with known masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from portraits import two_portraits

from face_detection import Box
from face_detection.landmarks import CHIN, LOWER_FACE, FaceLandmarks
from wav2lip_npu import LipSync
from wav2lip_npu.blending.aligned_face import SIDE, AlignedFace
from wav2lip_npu.blending.blender import Blender
from wav2lip_npu.blending.in_front import LEARNED, InFront
from wav2lip_npu.config.inference import BLENDS
from wav2lip_npu.demo.talking_head import render

WHOLE: Box = (0, 0, 256, 256)
SPOKEN = 20  # frames, before the thing comes

Video = tuple[list[np.ndarray], list[np.ndarray]]  # frames, and the points of the face in each


@pytest.fixture(scope="module")
def network() -> FaceLandmarks:
    return FaceLandmarks()


@pytest.fixture(scope="module")
def box() -> Box:
    x1, y1, x2, y2 = two_portraits()[1].face_box
    return max(0, x1 - 20), max(0, y1 - 20), min(256, x2 + 20), min(256, y2 + 20)


@pytest.fixture(scope="module")
def speaker(network: FaceLandmarks, box: Box) -> Video:
    """A portrait that opens and shuts its mouth."""
    mouth = np.zeros((40, 3))
    mouth[:, 0] = np.sin(np.arange(40) * 0.7).clip(0)
    frames = list(render(two_portraits()[1], mouth, seed=1, fps=25))
    return frames, [network.detect(image, box) for image in frames]


def bar(image: np.ndarray, points: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """A blue bar that has come up to the mouth in twelve steps: the frame, and where it is."""
    x, y = points[CHIN, :2]
    top = int(y + 20 - 4 * min(step, 12)) + step % 3  # it trembles, as a hand does
    mask = np.zeros(image.shape[:2], bool)
    mask[top:, int(x) - 12 : int(x) + 12] = True
    image = image.copy()
    image[mask] = (150, 40, 30)
    return image, mask


@pytest.fixture(scope="module")
def occluded(speaker: Video, network: FaceLandmarks, box: Box) -> tuple[Video, list[np.ndarray]]:
    """The speaker with the bar from the frame SPOKEN on; its points are what the network sees."""
    frames, masks = [], []
    for number, (image, points) in enumerate(zip(*speaker, strict=True)):
        if number >= SPOKEN:
            image, mask = bar(image, points, number - SPOKEN)
        else:
            mask = np.zeros(image.shape[:2], bool)
        frames.append(image)
        masks.append(mask)
    return (frames, [network.detect(image, box) for image in frames]), masks


def lower_face(points: np.ndarray) -> np.ndarray:
    outline = [np.rint(points[LOWER_FACE, :2]).astype(np.int32)]
    return cv2.fillPoly(np.zeros((256, 256), np.uint8), outline, 1) > 0


def find_all(video: Video, box: Box = WHOLE) -> list[np.ndarray | None]:
    in_front = InFront()
    return [in_front.find(image, box, points) for image, points in zip(*video, strict=True)]


def test_what_comes_is_found_and_little_else(
    speaker: Video, occluded: tuple[Video, list[np.ndarray]]
) -> None:
    video, masks = occluded
    kept, wrong = [], []
    for found, mask, points in zip(find_all(video), masks, speaker[1], strict=True):
        lower = lower_face(points)
        if (mask & lower).sum() < 0.03 * lower.sum():
            continue
        if found is None:
            found = np.zeros(mask.shape, np.float32)
        near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) > 0
        kept.append(found[mask & lower].mean())
        wrong.append(found[~near & lower].mean())
    assert len(kept) > 10
    assert np.mean(kept) > 0.75
    assert np.mean(wrong) < 0.05


def test_a_mask_is_that_of_its_box(occluded: tuple[Video, list[np.ndarray]], box: Box) -> None:
    whole, part = find_all(occluded[0]), find_all(occluded[0], box)
    assert any(mask is not None for mask in whole)
    x1, y1, x2, y2 = box
    for one, other in zip(whole, part, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert other.shape == (y2 - y1, x2 - x1) and other.dtype == np.float32
            np.testing.assert_allclose(one[y1:y2, x1:x2], other, atol=0.05)


def changed(kind: str, image: np.ndarray, points: np.ndarray, number: int) -> Video:
    """The frame in other light, or moved, turned and scaled; and its points."""
    if kind == "light":
        gains = np.linspace(1 - 0.01 * number, 1, 256)[None, :, None]
        return [(image * gains).astype(np.uint8)], [points]
    if kind == "noise":
        noise = np.random.default_rng(number).normal(0, 6, image.shape)
        return [(image + noise).clip(0, 255).astype(np.uint8)], [points]
    matrix = cv2.getRotationMatrix2D((128, 128), 15 * np.sin(number / 4), 1 + 0.005 * number)
    matrix[:, 2] += (number / 4, 5 * np.sin(number / 3))
    turned = cv2.warpAffine(image, matrix, (256, 256), borderMode=cv2.BORDER_REPLICATE)
    return [turned], [np.hstack([points[:, :2] @ matrix[:, :2].T + matrix[:, 2], points[:, 2:]])]


@pytest.mark.parametrize("kind", ["", "light", "noise", "movement"])
def test_with_nothing_before_the_face_nothing_is_kept(kind: str, speaker: Video) -> None:
    in_front = InFront()
    for number, (image, points) in enumerate(zip(*speaker, strict=True)):
        if kind:
            [image], [points] = changed(kind, image, points, number)
        assert in_front.find(image, WHOLE, points) is None


def test_what_was_there_from_the_start_is_taken_for_the_face(
    occluded: tuple[Video, list[np.ndarray]], speaker: Video
) -> None:
    """And when it goes, the face that comes out is not kept for long."""
    (frames, points), _ = occluded
    start = (frames[SPOKEN + 13 :], points[SPOKEN + 13 :])
    in_front = InFront()
    for image, place in zip(*start, strict=True):
        assert in_front.find(image, WHOLE, place) is None
    wrong = []
    for _ in range(3):
        for image, place in zip(*speaker, strict=True):
            found = in_front.find(image, WHOLE, place)
            wrong.append(0.0 if found is None else float(found[lower_face(place)].mean()))
    assert np.mean(wrong) < 0.02


def test_in_the_first_frames_nothing_is_known(occluded: tuple[Video, list[np.ndarray]]) -> None:
    (frames, points), _ = occluded
    few = slice(SPOKEN + 10 - LEARNED + 1, SPOKEN + 10)
    assert all(mask is None for mask in find_all((frames[few], points[few])))


def test_the_picture_of_a_face_does_not_move_with_it(speaker: Video) -> None:
    image, points = speaker[0][0], speaker[1][0]
    face = AlignedFace(points)
    expected = face.align(points).picture(image).astype(int)
    for number in range(5, 40, 7):
        [turned], [moved] = changed("movement", image, points, number)
        found = face.align(moved).picture(turned).astype(int)
        assert np.abs(found - expected).mean() < 4
        # A mask that is made in the picture comes back to its place of the frame.
        back = face.align(moved).to_box(face.lower.astype(np.float32), WHOLE) > 0.5
        truth = lower_face(moved)
        assert (back & truth).sum() / (back | truth).sum() > 0.9
    assert expected.shape == (SIDE, SIDE, 3)


def blend_all(
    video: Video, how: str, *, keep: bool, shots: list[int] | None = None, points: bool = True
) -> list[np.ndarray]:
    blender = Blender(how, "network", keep_in_front=keep)
    generated = np.full((96, 96, 3), (0, 255, 0), np.uint8)
    shots = shots or [0] * len(video[0])
    return [
        blender.blend(
            image, generated, (40, 20, 216, 236), tilt=0.0,
            points=place if points else None, weight=1.0, shot=shot,
        )
        for image, place, shot in zip(*video, shots, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize("how", BLENDS)
def test_it_stays_in_the_frame_whatever_is_generated(
    how: str, occluded: tuple[Video, list[np.ndarray]]
) -> None:
    video, masks = occluded
    before = [image.copy() for image in video[0]]
    without, result = (blend_all(video, how, keep=keep) for keep in (False, True))
    np.testing.assert_array_equal(video[0], before)
    for number in range(SPOKEN):
        np.testing.assert_array_equal(result[number], without[number])
    source, kept, lost = video[0][-5], result[-5], without[-5]
    inside = cv2.erode(masks[-5].astype(np.uint8), np.ones((5, 5))) > 0
    inside &= lower_face(video[1][-5])
    error = [np.abs(one.astype(int) - source)[inside].mean() for one in (kept, lost)]
    assert error[0] < 0.4 * error[1]


def test_another_shot_begins_anew(occluded: tuple[Video, list[np.ndarray]]) -> None:
    video, _ = occluded
    shots = [number // 4 for number in range(40)]  # too short to learn a face
    without = blend_all(video, "mouth", keep=False, shots=shots)
    np.testing.assert_array_equal(blend_all(video, "mouth", keep=True, shots=shots), without)
    assert (np.stack(blend_all(video, "mouth", keep=True)) != np.stack(without)).any()


def test_without_points_nothing_is_kept(occluded: tuple[Video, list[np.ndarray]]) -> None:
    results = [blend_all(occluded[0], "feather", keep=keep, points=False) for keep in (False, True)]
    np.testing.assert_array_equal(*results)


@pytest.mark.usefixtures("thin")
def test_by_the_api_a_face_with_nothing_before_it_is_as_without(
    generator_file: Path, face: np.ndarray
) -> None:
    pictures = [np.roll(face, n % 3, axis=1) for n in range(20)]
    sound = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    plain = {"device": "cpu", "precision": "fp32", "detector": "centerface", "blend": "mouth"}
    results = [
        list(LipSync(generator_file, **plain, keep_in_front=keep)(pictures, sound))
        for keep in (False, True)
    ]
    np.testing.assert_array_equal(*results)
