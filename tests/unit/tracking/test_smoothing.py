"""A face's boxes: interpolated between detections, in whole pixels, smoothed."""

import numpy as np
import pytest
from formula import golden_json

from wav2lip_npu.boxes import iou, to_pixels
from wav2lip_npu.tracking.smoothing import FaceBox, interpolate_boxes, smooth_boxes

SMOOTHING = golden_json("numbers")["windows"]["smoothing"]
LEFT, RIGHT = (10.0, 20.0, 50.0, 80.0), (100.0, 30.0, 130.0, 60.0)


def moved(right: float, down: float) -> np.ndarray:
    """LEFT, elsewhere."""
    return np.add(LEFT, [right, down, right, down])


def face(number: int, box: object = None, *, detected: bool = True, cut: bool = False) -> FaceBox:
    known = None if box is None else np.array(box, float)
    return FaceBox(item=number, starts_shot=cut, detected=detected, box=known)


def smoothed(boxes: list, method: str, cuts: tuple[int, ...] = ()) -> list:
    pairs = ((face(n, cut=n in cuts), box) for n, box in enumerate(boxes))
    given = list(smooth_boxes(pairs, method))
    assert [one.item for one, _ in given] == [*range(len(boxes))]
    return [box for _, box in given]


def test_original_smoothing_is_the_originals() -> None:
    boxes = [tuple(box) for box in SMOOTHING["in"]]
    assert smoothed(boxes, "original") == [tuple(box) for box in SMOOTHING["out"]]


@pytest.mark.parametrize("method", ["original", "centred", "none"])
@pytest.mark.parametrize("frames", [0, 1, 2, 4, 5, 6])
def test_smoothing_gives_a_box_for_every_frame(frames: int, method: str) -> None:
    assert smoothed([(10, 10, 20, 20)] * frames, method) == [(10, 10, 20, 20)] * frames


def test_original_smoothing_leaves_out_frames_without_a_face() -> None:
    boxes = [(0, 0, 10, 10), None, (20, 20, 30, 30), None, (40, 40, 50, 50), (60, 60, 70, 70)]
    smooth = smoothed(boxes, "original")
    assert [box is None for box in smooth] == [box is None for box in boxes]
    assert smooth[0] == (20, 20, 30, 30)  # the mean of the three in its window


def test_centred_smoothing_ends_at_cuts_and_gaps() -> None:
    boxes = [None if n == 2 else (10 * n, 0, 10 * n + 10, 10) for n in range(8)]
    lefts = [box and box[0] for box in smoothed(boxes, "centred", cuts=(6,))]
    assert lefts == [5, 5, None, 40, 40, 40, 65, 65]


def test_boxes_between_detections_are_interpolated_but_not_gaps() -> None:
    given = [
        face(0, LEFT),
        *(face(n, detected=False) for n in (1, 2, 3)),
        face(4, moved(8, -4)),
        face(5, detected=False),
        face(6),  # the detector found nobody
        face(7, detected=False),
        face(8, LEFT),
    ]
    found = list(interpolate_boxes(iter(given)))
    assert [one.item for one in found] == [*range(9)]
    assert [one.item for one in found if one.box is not None] == [0, 1, 2, 3, 4, 8]
    np.testing.assert_allclose(found[1].box, moved(2, -1))
    np.testing.assert_allclose(found[3].box, moved(6, -3))
    np.testing.assert_array_equal(found[4].box, moved(8, -4))


def test_intersection_over_union() -> None:
    boxes = np.array([LEFT, RIGHT, moved(20, 0)])
    np.testing.assert_allclose(iou(boxes[:2], boxes), [[1, 0, 1 / 3], [0, 1, 0]])
    assert iou(np.zeros((1, 4)), np.zeros((1, 4))) == 0


def test_boxes_in_pixels_stay_within_the_frame() -> None:
    size = (80, 100)
    assert to_pixels(np.array([5.9, 5, 75, 95]), size) == (5, 5, 75, 95)
    assert to_pixels(np.array([-3.0, 5, 85, 99.9]), size) == (0, 5, 80, 99)
    assert to_pixels(np.array([5.0, 5, 75, 95]), size, (10, 10, 10, 10)) == (0, 0, 80, 100)
    assert to_pixels(np.array([5.0, 5, 20, 20]), size, (0, 10, 0, 0)) == (5, 5, 20, 30)
    for outside in ([90.0, 5, 95, 20], [-9.0, 5, -1, 20], [5.0, 5, 5.5, 20]):
        assert to_pixels(np.array(outside), size) is None
