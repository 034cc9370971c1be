"""Who is followed from frame to frame, where between detections, and box smoothing."""

import numpy as np
import pytest
from formula import golden_json

from wav2lip_npu.tracking.smoothing import PATIENCE, Track, filled, follow, overlaps, smoothed

SMOOTHING = golden_json("numbers")["windows"]["smoothing"]
FRAME = "any"


def boxes_of(located):
    return [box for _, box in located]


def test_smoothing_is_the_originals() -> None:
    located = [(FRAME, tuple(box)) for box in SMOOTHING["in"]]
    assert boxes_of(smoothed(located)) == [tuple(box) for box in SMOOTHING["out"]]


@pytest.mark.parametrize("frames", [0, 1, 2, 4, 5, 6])
def test_smoothing_gives_a_box_for_every_frame(frames: int) -> None:
    located = [(FRAME, (10, 10, 20, 20))] * frames
    assert boxes_of(smoothed(located)) == [(10, 10, 20, 20)] * frames


def test_smoothing_passes_over_frames_without_a_face() -> None:
    boxes = [(0, 0, 10, 10), None, (20, 20, 30, 30), None, (40, 40, 50, 50), (60, 60, 70, 70)]
    smooth = boxes_of(smoothed([(FRAME, box) for box in boxes]))
    assert [box is None for box in smooth] == [box is None for box in boxes]
    assert smooth[0] == (20, 20, 30, 30)  # the mean of the three in its window


def found(*boxes: tuple[float, ...]) -> np.ndarray:
    """Detections as a detector gives them, with falling scores."""
    scores = 0.9 - 0.1 * np.arange(len(boxes))
    return np.array([[*box, s] for box, s in zip(boxes, scores, strict=True)]).reshape(-1, 5)


def moved(box: tuple[float, ...], x: float, y: float = 0) -> tuple[float, ...]:
    x1, y1, x2, y2 = box
    return x1 + x, y1 + y, x2 + x, y2 + y


LEFT, RIGHT = (10.0, 20.0, 50.0, 80.0), (100.0, 30.0, 130.0, 60.0)


def test_two_people_are_told_apart_whoever_is_surer() -> None:
    seen = {
        n: found(*([moved(LEFT, n), RIGHT] if n % 2 else [RIGHT, moved(LEFT, n)]))
        for n in range(30)
    }
    left, right = sorted(follow(seen, []), key=lambda track: track.boxes[0][0])
    assert len(left.boxes) == len(right.boxes) == 30
    np.testing.assert_array_equal(left.boxes[29], moved(LEFT, 29))
    np.testing.assert_array_equal(right.boxes[29], RIGHT)
    assert left.size == 30 * 40 * 60 > right.size == 30 * 30 * 30


def test_a_face_that_is_missed_is_known_again_for_a_second() -> None:
    def gap(frames: int) -> dict[int, np.ndarray]:
        return {n: found(*([LEFT] if n < 5 or n >= 4 + frames else [])) for n in range(50)}

    assert len(follow(gap(PATIENCE), [])) == 1
    assert len(follow(gap(PATIENCE + 1), [])) == 2
    # In the gap another appears elsewhere: it is not taken for the first.
    seen = {0: found(LEFT), 1: found(RIGHT), 2: found(LEFT)}
    assert [sorted(track.boxes) for track in follow(seen, [])] == [[0, 2], [1]]


def test_nobody_is_followed_over_a_cut() -> None:
    seen = {n: found(LEFT) for n in range(0, 20, 4)}  # 0, 4, 8, 12, 16
    tracks = follow(seen, [3, 9, 12])
    assert [sorted(track.boxes) for track in tracks] == [[0], [4, 8], [12, 16]]
    assert [track.shot for track in tracks] == [0, 3, 12]


def test_the_best_overlap_goes_first() -> None:
    seen = {0: found(LEFT, moved(LEFT, 30)), 1: found(moved(LEFT, 15), moved(LEFT, 31))}
    first, second = follow(seen, [])
    np.testing.assert_array_equal(second.boxes[1], moved(LEFT, 31))
    np.testing.assert_array_equal(first.boxes[1], moved(LEFT, 15))


def test_overlaps() -> None:
    boxes = np.array([LEFT, RIGHT, moved(LEFT, 20)])
    expected = [[1, 0, 1 / 3], [0, 1, 0]]
    np.testing.assert_allclose(overlaps(boxes[:2], boxes), expected)
    assert overlaps(np.zeros((1, 4)), np.zeros((1, 4))) == 0


def test_frames_between_detections_are_interpolated_but_not_gaps() -> None:
    boxes = {0: np.array(LEFT), 4: np.array(moved(LEFT, 8, -4)), 12: np.array(LEFT)}
    whole = filled(Track(shot=0, boxes=boxes), every=4)
    assert list(whole.boxes) == [0, 1, 2, 3, 4, 12]
    np.testing.assert_allclose(whole.boxes[1], moved(LEFT, 2, -1))
    np.testing.assert_allclose(whole.boxes[3], moved(LEFT, 6, -3))
    np.testing.assert_array_equal(whole.boxes[4], boxes[4])
    assert list(filled(Track(shot=0, boxes=boxes), every=1).boxes) == [0, 4, 12]
