"""One video to clips: what is written, which face, which shots, what is told and what rejected."""

import re
import wave
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from helpers import number_of, numbered, tone, write_video

from wav2lip_npu.config import PreprocessConfig
from wav2lip_npu.data.clips import AUDIO
from wav2lip_npu.errors import UserError
from wav2lip_npu.media import video_reader as video
from wav2lip_npu.media.audio import load_audio, write_wav
from wav2lip_npu.media.video_reader import read_frames
from wav2lip_npu.preprocessing import clip
from wav2lip_npu.preprocessing.clip import process_video
from wav2lip_npu.preprocessing.report import ClipReport


class EveryOther:
    """A detector that finds a box by a picture's brightness, and nothing in each third."""

    name = "fake"

    def detect(self, images: list[np.ndarray]) -> list[np.ndarray]:
        found = []
        for image in images:
            n = round(float(image.mean()) / 8)
            boxes = [] if n % 3 == 2 else [[10, 5, 40.9, 35.9, 0.9], [0, 0, 5, 5, 0.6]]
            found.append(np.array(boxes, np.float32).reshape(-1, 5))
        return found


class Script:
    """A detector that finds what is written for each picture, by the order of asking."""

    name = "fake"

    def __init__(self, *boxes: list[list[float]]) -> None:
        self.boxes = list(boxes)
        self.asked = 0

    def detect(self, images: list[np.ndarray]) -> list[np.ndarray]:
        found = self.boxes[self.asked : self.asked + len(images)]
        self.asked += len(images)
        return [np.array(boxes, np.float32).reshape(-1, 5) for boxes in found]


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    write_wav(tmp_path / "sound.wav", tone(1.2))
    return tmp_path / "sound.wav"


def cut(source: Path, work: Path, detector: object, **options: object) -> list[ClipReport]:
    config = PreprocessConfig(data_root=source.parent, preprocessed_root=work, **options)
    report = ClipReport(clip=source.stem, source=source.name)
    return process_video(source, work, report, detector, config)


def test_a_clip_holds_crops_by_frame_number_and_16_khz_audio(tmp_path: Path, sound: Path) -> None:
    source = write_video(tmp_path / "a b.mp4", numbered(25), audio=sound)
    (report,) = cut(source, tmp_path / "out", EveryOther(), batch_size=4)
    with_face = [n for n in range(25) if n % 3 != 2]
    assert report == ClipReport(
        clip="a b", source="a b.mp4", width=64, height=48, frames=25, faces=len(with_face),
        people=2, shots=1, fps_in=25.0, fps_out=25, box_width=30.0, box_height=30.0,
        box_smallest=30, box_largest=30, audio_seconds=report.audio_seconds, audio_rate=16_000,
        audio_channels=1, warnings=["2 faces: the one that is largest over the clip was taken"],
    )  # fmt: skip
    assert report.audio_seconds == pytest.approx(1.0, abs=0.1)
    names = {path.name for path in (tmp_path / "out" / "a b").iterdir()}
    assert names == {"audio.wav", *(f"{n}.jpg" for n in with_face)}
    for n, frame in enumerate(read_frames(source)):
        if n in with_face:
            crop = cv2.imread(str(tmp_path / "out" / "a b" / f"{n}.jpg"))
            assert crop.shape == (30, 30, 3)
            assert abs(float(crop.mean()) - float(frame.image.mean())) < 1
    with wave.open(str(tmp_path / "out" / "a b" / "audio.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a b"]


@pytest.mark.parametrize("kept", [0, 20_000, 10**9])
def test_what_is_not_kept_is_decoded_again(
    tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(clip, "MAX_KEPT_BYTES", kept)
    source = write_video(tmp_path / "a.mp4", numbered(25), audio=sound)
    cut(source, tmp_path / "out", EveryOther())
    for n, frame in enumerate(read_frames(source)):
        if n % 3 != 2:
            crop = cv2.imread(str(tmp_path / "out" / "a" / f"{n}.jpg"))
            assert abs(float(crop.mean()) - float(frame.image.mean())) < 1


@pytest.mark.parametrize(("fps", "count"), [(50, 50), (30, 30), (12.5, 13)])
def test_any_rate_becomes_25(tmp_path: Path, sound: Path, fps: float, count: int) -> None:
    source = write_video(tmp_path / "a.mp4", numbered(count), fps=fps, audio=sound)
    (report,) = cut(source, tmp_path / "out", EveryOther())
    assert report.fps_in == pytest.approx(fps)
    assert report.frames == pytest.approx(count / fps * 25, abs=1)


def test_audio_of_another_rate_is_aligned_and_resampled(tmp_path: Path, sound: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered(25), audio=sound)
    cut(source, tmp_path / "out", EveryOther())
    expected = load_audio(sound)[:15_000]
    ours = load_audio(tmp_path / "out" / "a" / "audio.wav")[:15_000]
    assert np.corrcoef(expected, ours)[0, 1] > 0.99  # at no lag; AAC is lossy


def test_what_cannot_be_used_is_rejected_with_the_reason(tmp_path: Path, sound: Path) -> None:
    class Blind(EveryOther):
        def detect(self, images: list[np.ndarray]) -> list[np.ndarray]:
            return [np.zeros((0, 5), np.float32)] * len(images)

    mute = write_video(tmp_path / "mute.mp4", numbered(5))
    faceless = write_video(tmp_path / "faceless.mp4", numbered(5), audio=sound)
    text = tmp_path / "text.mp4"
    text.write_text("hello")
    whole = faceless.read_bytes()
    truncated = tmp_path / "truncated.mp4"
    truncated.write_bytes(whole[: len(whole) // 2])
    for source, detector, reason in (
        (mute, EveryOther(), "no audio stream"),
        (faceless, Blind(), "no face in any of its 5 frames"),
        (text, EveryOther(), "cannot be read as media"),
        (truncated, EveryOther(), "cannot be read as media"),
        (sound, EveryOther(), "no video stream"),
    ):
        with pytest.raises(UserError, match=re.escape(reason)) as error:
            cut(source, tmp_path / "out", detector)
        assert str(source) in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_no_half_clip(tmp_path: Path, sound: Path) -> None:
    class Failing(EveryOther):
        def detect(self, images: list[np.ndarray]) -> list[np.ndarray]:
            raise MemoryError

    source = write_video(tmp_path / "a.mp4", numbered(5), audio=sound)
    with pytest.raises(MemoryError):
        cut(source, tmp_path / "out", Failing())
    assert not (tmp_path / "out").exists()


LARGE, SMALL = [4, 4, 34, 44, 0.6], [40, 10, 60, 30, 0.9]


def test_the_largest_track_is_taken_and_never_left(tmp_path: Path, sound: Path) -> None:
    """The surer face is the smaller one; where the larger is missed, nobody stands in for it."""
    source = write_video(tmp_path / "a.mp4", numbered(25), audio=sound)
    script = [[SMALL, LARGE] if n % 4 else [SMALL] for n in range(25)]
    (report,) = cut(source, tmp_path / "out", Script(*script))
    missed = set(range(0, 25, 4))
    crops = sorted(int(path.stem) for path in (tmp_path / "out" / "a").glob("*.jpg"))
    assert crops == sorted(set(range(25)) - missed)
    shapes = {cv2.imread(str(path)).shape for path in (tmp_path / "out" / "a").glob("*.jpg")}
    assert shapes == {(40, 30, 3)}
    assert report.people == 2
    assert "2 faces: the one that is largest over the clip" in report.warnings[0]


def two_scenes(path: Path, sound: Path) -> Path:
    """Ten dark frames, then fifteen light ones."""
    frames = [np.full((48, 64, 3), 30, np.uint8)] * 10 + [np.full((48, 64, 3), 220, np.uint8)] * 15
    return write_video(path, frames, audio=sound)


def test_shots_are_split_with_their_sound(tmp_path: Path, sound: Path) -> None:
    source = two_scenes(tmp_path / "a.mp4", sound)
    script = [[LARGE]] * 10 + [[LARGE, SMALL]] * 5 + [[SMALL]] * 10
    first, second = cut(source, tmp_path / "out", Script(*script), scene_cuts="split")
    assert (first.clip, first.first_frame, first.frames, first.faces) == ("a-shot1", 0, 10, 10)
    assert (second.clip, second.first_frame, second.frames) == ("a-shot2", 10, 15)
    assert second.faces == 5  # the larger one: 5 · 1200 pixels against 15 · 400
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-shot1", "a-shot2"]
    whole = load_audio(source)
    for report in (first, second):
        ours = load_audio(tmp_path / "out" / report.clip / AUDIO)
        start = 640 * report.first_frame
        expected = whole[start : start + 640 * report.frames]
        assert report.audio_seconds == pytest.approx(len(expected) / 16_000, abs=0.001)
        np.testing.assert_allclose(ours, np.clip(expected, -1, 1), atol=1e-4)
        assert (tmp_path / "out" / report.clip / "0.jpg").is_file()


def test_a_video_of_two_shots_is_kept_or_rejected(tmp_path: Path, sound: Path) -> None:
    source = two_scenes(tmp_path / "a.mp4", sound)
    (report,) = cut(source, tmp_path / "out", Script(*[[LARGE]] * 25))
    assert (report.shots, report.faces) == (2, 15)  # of the longer shot
    assert "2 shots: the face that is largest over all was taken" in report.warnings
    with pytest.raises(UserError, match=r"1 shot cuts, at 0.40 s"):
        cut(source, tmp_path / "no", Script(*[[LARGE]] * 25), scene_cuts="reject")
    assert not (tmp_path / "no").exists()


def test_a_shot_without_a_face_is_rejected_alone(tmp_path: Path, sound: Path) -> None:
    source = two_scenes(tmp_path / "a.mp4", sound)
    script = Script(*[[]] * 10, *[[LARGE]] * 15)
    first, second = cut(source, tmp_path / "out", script, scene_cuts="split")
    assert "no face in the shot from 0.00 to 0.40 s" in first.rejected
    assert second.rejected is None
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a-shot2"]


class ByNumber:
    """A detector that finds what is written for a frame, told by its brightness."""

    name = "fake"

    def __init__(self, *boxes: list[float]) -> None:
        self.boxes = boxes
        self.asked: list[int] = []
        self.largest_batch = 0

    def detect(self, images: list[np.ndarray]) -> list[np.ndarray]:
        numbers = [number_of(image) for image in images]
        self.asked += numbers
        self.largest_batch = max(self.largest_batch, len(images))
        return [np.array([self.boxes[n]], np.float32) for n in numbers]


def test_detect_every_shows_the_detector_few_frames_and_cuts_all(
    tmp_path: Path, sound: Path
) -> None:
    """The face moves and grows by half a pixel a frame: the last, 23, is detected too."""
    source = write_video(tmp_path / "a.mp4", numbered(24), audio=sound)
    boxes = [[n / 2, 4, n / 2 + 30, 24 + n / 2, 0.9] for n in range(24)]
    detector = ByNumber(*boxes)
    (report,) = cut(source, tmp_path / "out", detector, detect_every=5)
    assert detector.asked == [0, 5, 10, 15, 20, 23]
    assert report.faces == report.frames == 24
    for n in range(24):
        crop = cv2.imread(str(tmp_path / "out" / "a" / f"{n}.jpg"))
        assert crop.shape == (20 + n // 2, 30, 3)


def test_frames_between_detections_are_detected_where_a_face_moves(
    tmp_path: Path, sound: Path
) -> None:
    """As in infer. The detector is never shown more than a batch at once."""
    source = write_video(tmp_path / "a.mp4", numbered(24), audio=sound)
    boxes = [[2 * min(n, 9), 4, 2 * min(n, 9) + 20, 34, 0.9] for n in range(24)]
    detector = ByNumber(*boxes)
    cut(source, tmp_path / "out", detector, detect_every=10, batch_size=4)
    assert sorted(detector.asked) == [*range(11), 20, 23]
    assert detector.largest_batch == 4


def test_faces_are_detected_on_both_sides_of_a_cut(tmp_path: Path, sound: Path) -> None:
    source = two_scenes(tmp_path / "a.mp4", sound)
    detector = Script(*[[LARGE]] * 25)
    (report,) = cut(source, tmp_path / "out", detector, detect_every=7)
    assert detector.asked == 7  # 0, 7, 9 | 10, 14, 21, 24
    assert report.faces == 15


def test_boxes_are_smoothed_if_asked_for(tmp_path: Path, sound: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered(20), audio=sound)
    script = [[[4, 4, 24 + 10 * (n % 2), 34, 0.9]] for n in range(20)]  # 20 or 30 wide, by turns
    (plain,) = cut(source, tmp_path / "plain", Script(*script))
    (smooth,) = cut(source, tmp_path / "smooth", Script(*script), smooth_boxes=True)

    def widths(root: Path) -> list[int]:
        return [cv2.imread(str(root / "a" / f"{n}.jpg")).shape[1] for n in range(20)]

    assert widths(tmp_path / "plain") == [20, 30] * 10
    # Of three, four and five boxes around: two wide ones in five, or three.
    assert widths(tmp_path / "smooth")[:6] == [23, 25, 24, 26, 24, 26]
    assert plain.box_width == 25.0
    assert (plain.box_smallest, smooth.box_smallest) == (30, 30)


def test_warnings(tmp_path: Path) -> None:
    write_wav(tmp_path / "short.wav", tone(0.3))
    source = write_video(tmp_path / "a.mp4", numbered(25), audio=tmp_path / "short.wav")
    (report,) = cut(source, tmp_path / "out", Script(*[[LARGE]] * 10, *[[]] * 15))
    # 0.7 s; older versions of PyAV count the rest of AAC's last packet, 1024 samples, as sound.
    assert any(re.search(r"sound ends 0\.(68|70) s", text) for text in report.warnings)
    assert any("10 crops: training needs" in text for text in report.warnings)
    assert report.rejected is None
    low = replace(report, audio_rate=8000)
    assert any("8000 Hz" in text for text in clip._clip_warnings(low))


def test_a_file_that_ends_early_is_told(tmp_path: Path, sound: Path) -> None:
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(30)]
    whole = write_video(tmp_path / "whole.mp4", frames, audio=sound)
    early = tmp_path / "early.mp4"  # its index in front, so that the first half can be read
    with (
        av.open(str(whole)) as source,
        av.open(str(early), "w", options={"movflags": "faststart"}) as target,
    ):
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    content = early.read_bytes()
    early.write_bytes(content[: len(content) * 6 // 10])
    (report,) = cut(early, tmp_path / "out", Script(*[[LARGE]] * 30))
    assert report.rejected is None
    assert report.frames < 25
    assert (
        report.warnings[0] == f"truncated: {report.frames / 25:.2f} s of the 1.20 s that "
        "its header tells"
    )


def test_odd_files_are_told_of(tmp_path: Path, sound: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered(5), fps=30, audio=sound)
    info = video.probe(source)
    assert clip._file_warnings(source, info) == []
    (told,) = clip._file_warnings(source, replace(info, mean_fps=Fraction(22)))
    assert told == "the frame rate varies: mean 22.00, at its finest 30.00"
    renamed = source.rename(tmp_path / "a.dat")
    (report,) = cut(renamed, tmp_path / "out", Script(*[[LARGE]] * 5))
    assert "a.dat: no video by its suffix, but by its content" in report.warnings
