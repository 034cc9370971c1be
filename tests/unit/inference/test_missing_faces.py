"""What happens in frames without the face."""

from fractions import Fraction

import pytest

from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.locate import MissingFacePolicy, summarize, targets_of

BOX = (1, 2, 3, 4)
BOXES = [None, BOX, None, None, BOX]


def test_boxes_of_frames_without_a_face() -> None:
    for policy, expected in (
        ("pass", BOXES),
        ("error", BOXES),
        ("hold", [None, BOX, BOX, BOX, BOX]),
    ):
        missing_faces = MissingFacePolicy(policy=policy, fps=Fraction(25))
        assert [missing_faces.resolve(box)[0] for box in BOXES] == expected
    missing_faces = MissingFacePolicy(policy="hold", fps=25)
    assert missing_faces.resolve(BOX, 20.0) == missing_faces.resolve(None) == (BOX, 20.0)
    assert missing_faces.resolve(None, starts_shot=True) == (None, 0.0)


def test_frames_given_out_are_counted() -> None:
    missing_faces = MissingFacePolicy(policy="hold", fps=Fraction(25))
    for box in BOXES:
        missing_faces.resolve(box)  # frames ahead are not counted
    for has_face in (False, True, False):
        missing_faces.count(has_face=has_face)
    assert (missing_faces.missing, missing_faces.frames) == ([0, 2], 3)
    strict = MissingFacePolicy(policy="error", fps=Fraction(25))
    strict.count(has_face=True)
    with pytest.raises(UserError, match=r"frame 1 \(0\.04 s\): no face"):
        strict.count(has_face=False)


def test_a_video_without_any_face_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    targets = targets_of(["largest"], "pass", 25)
    targets[0].missing_faces.count(has_face=False)
    with pytest.raises(UserError, match="no face in any of 1 frames"):
        summarize(targets)
    pair = targets_of(["track:1", "track:2"], "pass", 25)
    for target in pair:
        target.missing_faces.count(has_face=target is pair[0])
    summarize(pair)  # one of them is there
    (line,) = (record.message for record in caplog.records)
    assert line == "track:2: 1 of 1 frames without a face, unchanged, at seconds 0.00–0.04"
