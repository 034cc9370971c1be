"""Faces in a stream of frames: what the detector is shown, who is chosen, what is remembered."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import numbered

from wav2lip_npu.config import LipSyncConfig
from wav2lip_npu.inference.locate import locate, targets_of
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
    words = {"smooth": "none", "pads": (0, 0, 0, 0), "align": "off", **options}
    config = LipSyncConfig(checkpoint_path=Path("none"), **words)
    images = (np.full((48, 96, 3), n, np.uint8) for n in range(len(detector.boxes)))
    frames = (Frame(time=n / 25, image=image) for n, image in enumerate(images))
    targets = targets_of([config.face_select], config.no_face, 25)
    boxes = []
    for one in locate(frames, config, detector, targets, cache):
        (face,) = one.faces
        targets[0].missing_faces.count(has_face=face.found)
        boxes.append(face.box)
    return boxes, targets[0].missing_faces


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


BOXES = np.array([[1, 2, 3, 4, 0.9]], np.float32)
WHOLE = {"frames": np.array([0]), "counts": np.array([1]), "boxes": BOXES}
DAMAGED = {
    "cut": None,
    "a pickle": {"boxes": np.array([{}], object)},
    "no boxes": {"boxes": BOXES[:0]},
    "other shape": {"boxes": BOXES[:, :4]},
    "other type": {"boxes": BOXES.astype(np.float64)},
    "NaN": {"boxes": BOXES * np.nan},
    "fractions": {"frames": np.array([0.5])},
    "negative counts": {"frames": np.array([0, 1]), "counts": np.array([2, -1])},
    "more frames": {"frames": np.array([0, 1])},
    "a table": {"frames": np.array([[0]]), "counts": np.array([[1]])},
    "no array": {"boxes": np.float32(1)},
    "missing": {"boxes": None},
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_cache_is_made_anew(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "video").write_bytes(b"some frames")
    known = DetectionCache(tmp_path, tmp_path / "video")
    known.put(0, BOXES)
    known.save()
    if DAMAGED[case] is None:
        known.path.write_bytes(known.path.read_bytes()[:40])
    else:
        arrays = WHOLE | DAMAGED[case]
        np.savez(known.path, **{name: x for name, x in arrays.items() if x is not None})
    again = DetectionCache(tmp_path, tmp_path / "video")
    assert again.get(0) is None
    assert "faces are detected again" in caplog.text
    again.put(0, BOXES)
    again.save()
    np.testing.assert_array_equal(DetectionCache(tmp_path, tmp_path / "video").get(0), BOXES)


def test_a_cache_that_unpacks_to_gigabytes_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "video").write_bytes(b"some frames")
    path = DetectionCache(tmp_path, tmp_path / "video").path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("boxes.npy", bytes(2**28 + 1))
    assert DetectionCache(tmp_path, tmp_path / "video").get(0) is None
    assert "too large" in caplog.text


def test_a_cache_that_cannot_be_kept_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    cache = DetectionCache(tmp_path / "file" / "kept", tmp_path / "file")
    cache.put(0, BOXES)
    cache.save()
    assert cache.get(0) is BOXES
    assert "detections are not kept" in caplog.text
    caplog.clear()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    cache = DetectionCache(tmp_path / "kept", tmp_path / "file")
    cache.put(0, BOXES)
    cache.save()
    cache.put(1, BOXES)
    cache.save()
    assert caplog.text.count("No space left on device") == 1
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_killed_run_has_saved_its_detections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "video").write_bytes(b"some frames")
    monkeypatch.setattr("wav2lip_npu.tracking.detection_cache.SAVE_SECONDS", 0.0)
    DetectionCache(tmp_path, tmp_path / "video").put(7, BOXES)
    np.testing.assert_array_equal(DetectionCache(tmp_path, tmp_path / "video").get(7), BOXES)


def test_a_fixed_box_needs_no_detector() -> None:
    config = LipSyncConfig(checkpoint_path=Path("none"), box=(1, 20, 3, 30))
    frames = [Frame(time=0.0, image=image) for image in numbered(3)]
    targets = targets_of(["largest"], "pass", 25)
    boxes = [one.faces[0].box for one in locate(iter(frames), config, None, targets)]
    assert boxes == [(3, 1, 30, 20)] * 3
