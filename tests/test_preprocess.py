"""Videos to clips: what is written, what is rejected, and where a run goes on."""

import json
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import numbered, tone, write_video

import face_detection
from wav2lip_npu import preprocess as module
from wav2lip_npu.audio import load_audio, write_wav
from wav2lip_npu.config import PreprocessConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.preprocess import ClipReport, cut_clip, find_videos, preprocess
from wav2lip_npu.video import read_frames


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


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    write_wav(tmp_path / "sound.wav", tone(1.2))
    return tmp_path / "sound.wav"


def test_a_clip_holds_crops_by_frame_number_and_16_khz_audio(tmp_path: Path, sound: Path) -> None:
    source = write_video(tmp_path / "a b.mp4", numbered(25), audio=sound)
    report = cut_clip(source, tmp_path / "out" / "a b", "a b", EveryOther(), batch_size=4)
    with_face = [n for n in range(25) if n % 3 != 2]
    assert report == ClipReport(
        clip="a b", frames=25, faces=len(with_face), fps=25.0, audio_seconds=report.audio_seconds
    )
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


@pytest.mark.parametrize(("fps", "count"), [(50, 50), (30, 30), (12.5, 13)])
def test_any_rate_becomes_25(tmp_path: Path, sound: Path, fps: float, count: int) -> None:
    source = write_video(tmp_path / "a.mp4", numbered(count), fps=fps, audio=sound)
    report = cut_clip(source, tmp_path / "a", "a", EveryOther(), batch_size=32)
    assert report.fps == pytest.approx(fps)
    assert report.frames == pytest.approx(count / fps * 25, abs=1)


def test_audio_of_another_rate_is_aligned_and_resampled(tmp_path: Path, sound: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered(25), audio=sound)
    cut_clip(source, tmp_path / "a", "a", EveryOther(), batch_size=32)
    expected = load_audio(sound)[:15_000]
    ours = load_audio(tmp_path / "a" / "audio.wav")[:15_000]
    assert np.corrcoef(expected, ours)[0, 1] > 0.99  # at no lag; AAC is lossy


def test_what_cannot_be_used_is_rejected_with_the_reason(tmp_path: Path, sound: Path) -> None:
    class Blind(EveryOther):
        def detect(self, images: list[np.ndarray]) -> list[np.ndarray]:
            return [np.zeros((0, 5), np.float32)] * len(images)

    mute = write_video(tmp_path / "mute.mp4", numbered(5))
    faceless = write_video(tmp_path / "faceless.mp4", numbered(5), audio=sound)
    text = tmp_path / "text.mp4"
    text.write_text("hello")
    cut = faceless.read_bytes()
    truncated = tmp_path / "truncated.mp4"
    truncated.write_bytes(cut[: len(cut) // 2])
    for source, detector, reason in (
        (mute, EveryOther(), "no audio stream"),
        (faceless, Blind(), "no face in any of its 5 frames"),
        (text, EveryOther(), "cannot be read as media"),
        (truncated, EveryOther(), "cannot be read as media"),
        (sound, EveryOther(), "no video stream"),
    ):
        report = cut_clip(source, tmp_path / "out" / "x", "x", detector, batch_size=8)
        assert report.rejected is not None
        assert reason in report.rejected
        assert str(source) in report.rejected
    assert not list((tmp_path / "out").glob("*"))


def test_a_failure_leaves_no_half_clip(tmp_path: Path, sound: Path) -> None:
    class Failing(EveryOther):
        def detect(self, images: list[np.ndarray]) -> list[np.ndarray]:
            raise MemoryError

    source = write_video(tmp_path / "a.mp4", numbered(5), audio=sound)
    with pytest.raises(MemoryError):
        cut_clip(source, tmp_path / "out" / "a", "a", Failing(), batch_size=8)
    assert not list((tmp_path / "out").glob("*"))


def test_layouts(tmp_path: Path) -> None:
    for name in ("main/1.mp4", "main/s2/2.MPG", "3.mkv", "main/notes.txt", "main/.s/4.avi"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert set(find_videos(tmp_path)) == {"3", "main/.s/4", "main/1", "main/s2/2"}
    (tmp_path / "3.mp4").touch()
    with pytest.raises(UserError, match="would both become 3"):
        find_videos(tmp_path)


def test_two_runs_with_the_real_detector(
    tmp_path: Path, sound: Path, face: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = tmp_path / "raw", tmp_path / "cut"
    write_video(root / "main" / "00001.mp4", [face] * 6, audio=sound)
    (root / "main" / "bad.mp4").write_text("no video")
    config = PreprocessConfig(
        data_root=root, preprocessed_root=out, detector="centerface", device="cpu", num_workers=2
    )
    reports = {report.clip: report for report in preprocess(config)}
    assert (reports["main/00001"].frames, reports["main/00001"].faces) == (6, 6)
    assert reports["main/bad"].rejected is not None
    (found,) = face_detection.open_detector("centerface").detect([face])
    x1, y1, x2, y2 = face_detection.best_box(found)
    crop = cv2.imread(str(out / "main" / "00001" / "0.jpg"))
    assert np.abs(np.array(crop.shape[:2]) - (y2 - y1, x2 - x1)).max() <= 3
    lines = (out / module.REPORT).read_text().splitlines()
    assert {json.loads(line)["clip"] for line in lines} == set(reports)

    write_video(root / "main" / "00002.mp4", [face] * 4, audio=sound)
    (out / module.REPORT).write_text("")  # as an interrupted run may leave it
    before = (out / "main" / "00001" / "0.jpg").stat().st_mtime_ns
    again = {report.clip: report for report in preprocess(config)}
    assert again["main/00001"].faces == reports["main/00001"].faces
    assert again["main/00002"].faces == 4
    assert (out / "main" / "00001" / "0.jpg").stat().st_mtime_ns == before


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    config = PreprocessConfig(
        data_root=tmp_path, preprocessed_root=tmp_path / "out", detector="centerface", device="cpu",
        num_workers=1,
    )  # fmt: skip
    with pytest.raises(UserError, match="not one of 1 videos is usable"):
        preprocess(config)
