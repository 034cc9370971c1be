"""What happens in frames without the face."""

from fractions import Fraction

import pytest

from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.locate import MissingFacePolicy


def test_policies_for_frames_without_a_face() -> None:
    box = (1, 2, 3, 4)
    boxes = [None, box, None, None, box]
    passing = MissingFacePolicy(policy="pass", fps=Fraction(25))
    assert [passing.resolve(b) for b in boxes] == boxes
    assert passing.missing == [0, 2, 3]
    holding = MissingFacePolicy(policy="hold", fps=Fraction(25))
    assert [holding.resolve(b) for b in boxes] == [None, box, box, box, box]
    strict = MissingFacePolicy(policy="error", fps=Fraction(25))
    strict.resolve(box)
    with pytest.raises(UserError, match=r"frame 1 \(0\.04 s\): no face"):
        strict.resolve(None)


def test_a_video_without_any_face_is_an_error() -> None:
    missing_faces = MissingFacePolicy(policy="pass", fps=Fraction(25))
    missing_faces.resolve(None)
    with pytest.raises(UserError, match="no face in any of 1 frames"):
        missing_faces.summarize()
