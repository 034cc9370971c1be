"""Faces in a stream of frames: what the detector is shown, who is chosen, what is remembered."""

from pathlib import Path

import numpy as np
import pytest
from helpers import numbered

from wav2lip_npu.config import LipSyncConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.locate import MissingFacePolicy, locate
from wav2lip_npu.media.video_reader import Frame
from wav2lip_npu.tracking.detection_cache import DetectionCache


class Script:
    """A detector that finds what is written for each picture, told by its brightness."""

    name = "fake"

    def __init__(self, *boxes: list[list[float]]) -> None:
        self.boxes = boxes
        self.asked: list[int] = []

    def detect(self, images: list[np.ndarray]) -> list[np.ndarray]:
        numbers = [int(image[0, 0, 0]) for image in images]
        self.asked += numbers
        return [np.array(self.boxes[n], np.float32).reshape(-1, 5) for n in numbers]


def at(x: float, width: float = 20) -> list[float]:
    return [x, 10, x + width, 40, 0.9]


def located(detector: Script, cache: DetectionCache | None = None, **options: object):
    words = {"smooth": "none", "pads": (0, 0, 0, 0), **options}
    config = LipSyncConfig(checkpoint_path=Path("none"), **words)
    images = (np.full((48, 96, 3), n, np.uint8) for n in range(len(detector.boxes)))
    frames = (Frame(time=n / 25, image=image) for n, image in enumerate(images))
    missing_faces = MissingFacePolicy(policy=config.no_face, fps=25)
    return [
        one.box for one in locate(frames, config, detector, missing_faces, cache)
    ], missing_faces


def lefts(boxes: list) -> list[int | None]:
    return [None if box is None else box[0] for box in boxes]


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_the_detector_is_shown_every_frame_and_each_is_given_back(batch: int) -> None:
    detector = Script(*[[at(n)] for n in range(11)])
    boxes, missing_faces = located(detector, face_det_batch_size=batch)
    assert lefts(boxes) == [*range(11)] == detector.asked
    assert missing_faces.missing == []


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_the_detector_is_shown_few_frames_where_faces_hardly_move(batch: int) -> None:
    detector = Script(*[[at(n / 2)] for n in range(21)])
    boxes, _ = located(detector, detect_every=5, face_det_batch_size=batch)
    assert detector.asked == [0, 5, 10, 15, 20]
    assert lefts(boxes) == [n // 2 for n in range(21)]  # interpolated


def test_the_detector_is_shown_all_frames_where_somebody_comes_goes_or_moves() -> None:
    scenes = [[at(0)]] * 7 + [[]] * 9 + [[at(50)]] * 2 + [[at(8 * n)] for n in range(7, 10)]
    detector = Script(*scenes)
    boxes, missing_faces = located(detector, detect_every=5)
    assert lefts(boxes) == [0] * 7 + [None] * 9 + [50, 50, 56, 64, 72]
    assert missing_faces.missing == [*range(7, 16)]
    assert missing_faces.stretches() == [(7 / 25, 16 / 25)]
    assert sorted(set(detector.asked)) == [0, *range(5, 11), *range(15, 21)]


def test_the_chosen_one_of_two() -> None:
    small, large = [at(5, 12)] * 6, [at(40, 30)] * 6
    two = [list(pair) for pair in zip(small, large, strict=True)]
    assert lefts(located(Script(*two))[0]) == [40] * 6
    assert lefts(located(Script(*two), face_select="first")[0]) == [5] * 6
    assert lefts(located(Script(*two), face_select="track:2")[0]) == [40] * 6
    assert lefts(located(Script(*two), face_select="track:3")[0]) == [None] * 6


def test_margins_and_smoothing() -> None:
    jumps = Script(*[[at(10 + 4 * (n % 2))] for n in range(6)])
    boxes, _ = located(jumps, pads=(2, 3, 4, 5))
    assert boxes[0] == (6, 8, 35, 43)
    smooth, _ = located(Script(*jumps.boxes), smooth="centred")
    assert lefts(smooth) == [11, 12, 11, 12, 12, 12]
    ahead, _ = located(Script(*jumps.boxes), smooth="original")
    assert lefts(ahead)[:2] == [11, 12]
    raw, _ = located(Script(*jumps.boxes), smooth="centred", nosmooth=True)
    assert lefts(raw) == [10, 14] * 3


def test_detections_are_remembered(tmp_path: Path) -> None:
    (tmp_path / "video").write_bytes(b"some frames")
    script = [[at(0)], [], [at(4), at(50)], [at(6)]]

    def cache(**how: object) -> DetectionCache:
        return DetectionCache(tmp_path / "kept", tmp_path / "video", **how)

    first, known = Script(*script), cache(fps=25)
    boxes, _ = located(first, known)
    known.save()
    again = Script(*script)
    assert located(again, cache(fps=25))[0] == boxes
    assert again.asked == []
    other = Script(*script)
    located(other, cache(fps=30))
    assert other.asked == [0, 1, 2, 3]
    (tmp_path / "video").rename(tmp_path / "renamed")
    renamed = DetectionCache(tmp_path / "kept", tmp_path / "renamed", fps=25)
    np.testing.assert_array_equal(renamed.get(2), known.get(2))
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_a_damaged_cache_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "video").write_bytes(b"some frames")
    known = DetectionCache(tmp_path, tmp_path / "video")
    known.put(0, np.zeros((1, 5), np.float32))
    known.save()
    known.path.write_bytes(known.path.read_bytes()[:40])
    assert DetectionCache(tmp_path, tmp_path / "video").get(0) is None
    assert "faces are detected again" in caplog.text


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(UserError, match="--face_cache"):
        DetectionCache(tmp_path / "file" / "kept", tmp_path / "file")


def test_a_fixed_box_needs_no_detector() -> None:
    config = LipSyncConfig(checkpoint_path=Path("none"), box=(1, 20, 3, 30))
    frames = [Frame(time=0.0, image=image) for image in numbered(3)]
    missing_faces = MissingFacePolicy(policy="pass", fps=25)
    boxes = [one.box for one in locate(iter(frames), config, None, missing_faces)]
    assert boxes == [(3, 1, 30, 20)] * 3
