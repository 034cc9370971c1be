"""Margins of face boxes, and what happens where there is no face."""

from fractions import Fraction

import numpy as np
import pytest

from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.locate import Misses, padded

PICTURE = np.zeros((100, 80, 3), np.uint8)


def test_boxes_stay_within_the_picture() -> None:
    assert padded((5, 5, 75, 95), (10, 10, 10, 10), PICTURE) == (0, 0, 80, 100)
    assert padded((5, 5, 20, 20), (0, 10, 0, 0), PICTURE) == (5, 5, 20, 30)
    assert padded((90, 5, 95, 20), (0, 0, 0, 0), PICTURE) is None


def test_policies_for_frames_without_a_face() -> None:
    box = (1, 2, 3, 4)
    seen = [None, box, None, None, box]
    passing = Misses(policy="pass", fps=Fraction(25))
    assert [passing.settle(b) for b in seen] == seen
    assert passing.frames == [0, 2, 3]
    holding = Misses(policy="hold", fps=Fraction(25))
    assert [holding.settle(b) for b in seen] == [None, box, box, box, box]
    strict = Misses(policy="error", fps=Fraction(25))
    strict.settle(box)
    with pytest.raises(UserError, match=r"frame 1 \(0\.04 s\): no face"):
        strict.settle(None)


def test_a_video_without_any_face_is_an_error() -> None:
    misses = Misses(policy="pass", fps=Fraction(25))
    misses.settle(None)
    with pytest.raises(UserError, match="no face in any of 1 frames"):
        misses.conclude()
