"""Inference: length, rate, what is changed and what is not."""

import hashlib
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from formula import fill
from helpers import THIN_CLI, rows_heard, tone, write_video

from wav2lip_npu.config import InferConfig
from wav2lip_npu.config.inference import BLENDS
from wav2lip_npu.constants import SAMPLE_RATE
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.backends import GeneratorRunner
from wav2lip_npu.inference.command import infer
from wav2lip_npu.inference.lip_sync import LipSync
from wav2lip_npu.inference.locate import LocatedFace, LocatedFrame, targets_of
from wav2lip_npu.media.audio import load_audio, write_wav
from wav2lip_npu.media.video_reader import Frame, probe, read_frames
from wav2lip_npu.mel import melspectrogram
from wav2lip_npu.models import Generator

pytestmark = pytest.mark.usefixtures("thin")


@pytest.fixture
def talker(tmp_path: Path, face: np.ndarray, speech: Path) -> Path:
    """A second of a face that moves."""
    frames = [np.roll(face, (n % 5, n), axis=(0, 1)) for n in range(25)]
    return write_video(tmp_path / "talker.v1.mp4", frames, audio=speech)


def run(tmp_path: Path, generator: Path, face: Path, audio: Path, **options: object) -> Path:
    common = {"device": "cpu", "precision": "fp32", "detector": "centerface", "blend": "paste"}
    outfile = tmp_path / "new folder" / "out.mp4"
    config = InferConfig(
        **{**common, "outfile": outfile, **options},
        checkpoint_path=generator, face=face, audio=audio,
    )  # fmt: skip
    infer(config)
    return config.outfile


def pictures(path: Path) -> np.ndarray:
    return np.stack([frame.image for frame in read_frames(path)]).astype(int)


def durations(path: Path) -> dict[str, float]:
    with av.open(str(path)) as file:
        return {s.type: float(s.duration * s.time_base) for s in file.streams}


def test_only_the_box_changes(
    tmp_path: Path, generator_file: Path, talker: Path, speech: Path
) -> None:
    top, bottom, left, right = box = (40, 200, 60, 180)
    out = run(tmp_path, generator_file, talker, speech, box=box)
    before, after = pictures(talker), pictures(out)
    assert before.shape == after.shape
    change = np.abs(before - after).max(axis=(0, 3))
    inside = change[top + 4 : bottom - 4, left + 4 : right - 4]
    assert inside.mean() > 40
    outside = (before - after).astype(float)
    outside[:, top - 8 : bottom + 8, left - 8 : right + 8] = 0  # the codec's blocks reach over
    assert np.abs(outside.mean(axis=(0, 1, 2))).max() < 0.5  # no drift of brightness or colour
    assert np.sqrt((outside**2).mean()) < 3
    seconds = durations(out)
    assert abs(seconds["audio"] - seconds["video"]) < 1 / 25


def test_the_box_holds_what_the_generator_draws(
    tmp_path: Path, generator_file: Path, talker: Path, speech: Path
) -> None:
    """Against the steps of the original done here by hand, with the network of the golden test."""
    top, bottom, left, right = (40, 200, 60, 180)
    source = pictures(talker).astype(np.uint8)
    mel = melspectrogram(load_audio(speech))
    rows = rows_heard(mel.shape[1], 25.0)
    generator = fill(Generator()).eval()
    expected = []
    for image, row in zip(source, rows, strict=False):
        crop = cv2.resize(image[top:bottom, left:right], (96, 96))
        masked = crop.copy()
        masked[48:] = 0
        faces = np.concatenate([masked, crop], axis=2).transpose(2, 0, 1)[None] / 255
        with torch.no_grad():
            heard = torch.from_numpy(mel[None, None, :, row : row + 16])
            drawn = generator(heard, torch.from_numpy(faces).float())[0]
        drawn = (drawn.numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
        expected.append(cv2.resize(drawn, (right - left, bottom - top)))
    options = {"device": "cpu", "precision": "fp32", "wav2lip_batch_size": 4, "blend": "paste"}
    lip_sync = LipSync(generator_file, **options, audio_window="original")
    box = (left, top, right, bottom)
    faces = (LocatedFace(box=box),)
    located = (LocatedFrame(frame=Frame(time=0.0, image=image), faces=faces) for image in source)
    sounds, targets = [("sound", [load_audio(speech)])], targets_of(["largest"], "pass", 25)
    ours = [image for _, image in lip_sync.generate(located, sounds, 25, targets)]
    assert len(ours) == 25 and len(expected) == 22  # the last is held for as long as there is sound
    for image, patch in zip(ours, expected, strict=False):
        error = image[top:bottom, left:right].astype(int) - patch
        assert np.abs(error).max() <= 1  # truncation on either side of a whole number
        assert (error == 0).mean() > 0.99


def test_another_sound_becomes_the_sound_track(
    tmp_path: Path, generator_file: Path, talker: Path, speech: Path
) -> None:
    """The mouth follows ``--audio`` alone, and the result lasts as long."""
    box = (40, 200, 60, 180)
    plain = run(tmp_path, generator_file, talker, speech, box=box, outfile=tmp_path / "a.mp4")
    for seconds in (0.5, 3.0):
        mix = tmp_path / "mix.wav"
        write_wav(mix, tone(seconds, hertz=880.0))
        words = {"box": box, "final_audio": mix, "outfile": tmp_path / "b.mp4"}
        out = run(tmp_path, generator_file, talker, speech, **words)
        np.testing.assert_array_equal(pictures(out), pictures(plain))
        heard = load_audio(out)
        assert len(heard) / SAMPLE_RATE == pytest.approx(min(seconds, 1.0), abs=0.1)
        spectrum = np.abs(np.fft.rfft(heard))
        assert np.argmax(spectrum) * SAMPLE_RATE / len(heard) == pytest.approx(880, abs=5)
    with pytest.raises(UserError, match="is also an input"):
        run(tmp_path, generator_file, talker, speech, final_audio=plain, outfile=plain)


@pytest.mark.parametrize(("seconds", "frames"), [(0.6, 15), (1.0, 25), (2.3, 58)])
def test_the_picture_is_as_long_as_the_sound(
    tmp_path: Path, generator_file: Path, talker: Path, seconds: float, frames: int
) -> None:
    write_wav(tmp_path / "a.wav", tone(seconds))
    out = run(tmp_path, generator_file, talker, tmp_path / "a.wav")
    shown = pictures(out)
    assert abs(len(shown) - frames) <= 1
    assert durations(out)["audio"] == pytest.approx(seconds, abs=1 / 25)
    if seconds > 2:  # the video starts over after its 25 frames
        outside = np.s_[:, 240:, :8]
        assert np.abs(shown[3][outside] - shown[28][outside]).mean() < 2
        assert np.abs(shown[3][outside] - shown[13][outside]).mean() > 2


def delayed(source: Path, target: Path, seconds: float) -> Path:
    """A copy of a video whose sound begins later, by its time stamps."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = {stream.type: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                later = round(seconds / packet.time_base)
                packet.pts, packet.dts = packet.pts + later, packet.dts + later
            packet.stream = streams[packet.stream.type]
            new.mux(packet)
    return target


def test_a_videos_sound_stays_where_it_is(
    tmp_path: Path, generator_file: Path, face: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence comes first where the sound of a video begins later; the mouth hears it there too."""

    def generate(_: GeneratorRunner, crops: list, chunks: list) -> np.ndarray:
        """White where there is sound, black in silence."""
        heard = np.array([255 * (chunk.max() > 0) for chunk in chunks], np.uint8)
        return np.broadcast_to(heard[:, None, None, None], (len(crops), 96, 96, 3))

    monkeypatch.setattr(GeneratorRunner, "generate", generate)
    write_wav(tmp_path / "a.wav", 0.5 * np.sign(tone(1.0)))
    video = write_video(tmp_path / "a.mp4", [face] * 40, audio=tmp_path / "a.wav")
    out = run(
        tmp_path, generator_file, delayed(video, tmp_path / "b.mp4", 0.6), tmp_path / "b.mp4",
        box=(40, 200, 60, 180),
    )  # fmt: skip
    heard = np.flatnonzero(np.abs(load_audio(out)) > 0.1)[0] / SAMPLE_RATE
    assert heard == pytest.approx(0.6, abs=0.01)
    shown = pictures(out)[:, 60:180, 80:160].mean(axis=(1, 2, 3)) > 128
    assert len(shown) in (40, 41)  # AAC ends with a whole packet
    # A frame hears the 0.16 s from its time on, and 0.025 s to each side belong to a row.
    assert np.flatnonzero(shown)[0] / 25 == pytest.approx(0.6 - 0.16, abs=1 / 25)


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(50)])
def test_the_rate_stays(
    tmp_path: Path, generator_file: Path, face: np.ndarray, speech: Path, fps: Fraction
) -> None:
    source = write_video(tmp_path / "a.mp4", [face] * 20, fps=fps)
    out = run(tmp_path, generator_file, source, speech, box=(40, 200, 60, 180))
    assert probe(out).fps == fps
    assert abs(len(pictures(out)) / fps - 1.0) < 1 / 25


def test_a_still_image_speaks(
    tmp_path: Path, generator_file: Path, face: np.ndarray, speech: Path
) -> None:
    still = tmp_path / "face.of.hers.png"
    cv2.imwrite(str(still), face)
    out = run(tmp_path, generator_file, still, speech, fps=20.0)
    assert probe(out).fps == 20
    shown = pictures(out)
    assert len(shown) == 20
    assert np.abs(shown[:, :30] - face[:30]).mean() < 4


def test_static_keeps_the_first_frame(
    tmp_path: Path, generator_file: Path, talker: Path, speech: Path
) -> None:
    out = pictures(run(tmp_path, generator_file, talker, speech, static=True))
    assert np.abs(out[20, 200:, :40] - out[0, 200:, :40]).mean() < 2


def test_resize_rotate_and_crop(
    tmp_path: Path, generator_file: Path, talker: Path, speech: Path
) -> None:
    box = (10, 50, 10, 50)
    options = {"resize_factor": 2, "rotate": True, "crop": (0, 100, 28, -1), "box": box}
    out = pictures(run(tmp_path, generator_file, talker, speech, **options))
    first = pictures(talker)[0].astype(np.uint8)
    expected = np.rot90(cv2.resize(first, (128, 128)), -1)[0:100, 28:]
    assert out[0].shape == expected.shape == (100, 100, 3)
    assert np.abs(out[0][60:] - expected[60:].astype(int)).mean() < 4


def test_frames_without_a_face(
    tmp_path: Path, generator_file: Path, face: np.ndarray, speech: Path, caplog: object
) -> None:
    grey = np.full_like(face, 90)
    covered = face.copy()
    covered[40:200, 70:190] = face[40:200, 70:190].mean(axis=(0, 1))  # and the scene goes on
    source = write_video(tmp_path / "a.mp4", [face] * 10 + [covered] * 5 + [face] * 10)
    with caplog.at_level("WARNING"):
        out = pictures(run(tmp_path, generator_file, source, speech, crf=0))
    untouched = pictures(source)[10:15]
    assert np.abs(out[10:15] - untouched).max() <= 2
    assert "5 of 25 frames without a face, unchanged, at seconds 0.40–0.60" in caplog.text
    held = pictures(run(tmp_path, generator_file, source, speech, no_face="hold"))
    assert np.abs(held[12] - untouched[2]).max() > 20
    other = write_video(tmp_path / "cut.mp4", [face] * 10 + [grey] * 5 + [face] * 10)
    over_a_cut = pictures(run(tmp_path, generator_file, other, speech, no_face="hold", crf=0))
    assert np.abs(over_a_cut[12] - 90).max() <= 5
    with pytest.raises(UserError, match=r"frame 10 \(0\.40 s\): no face"):
        run(tmp_path, generator_file, source, speech, no_face="error", outfile=tmp_path / "e.mp4")
    blank = write_video(tmp_path / "blank.mp4", [grey] * 25)
    with pytest.raises(UserError, match="no face in any of 25 frames"):
        run(tmp_path, generator_file, blank, speech, outfile=tmp_path / "e.mp4")
    assert not list(tmp_path.glob("*e.*mp4*"))


def test_inputs_stay_as_they_are(
    tmp_path: Path, generator_file: Path, talker: Path, speech: Path
) -> None:
    files = (talker, speech, generator_file)
    before = [hashlib.sha256(path.read_bytes()).digest() for path in files]
    run(tmp_path, generator_file, talker, speech)
    with pytest.raises(UserError, match="is also an input"):
        run(tmp_path, generator_file, talker, speech, outfile=talker.parent / "." / talker.name)
    assert [hashlib.sha256(path.read_bytes()).digest() for path in files] == before


def test_too_little_sound_and_boxes_outside_are_explained(
    tmp_path: Path, generator_file: Path, talker: Path, speech: Path
) -> None:
    write_wav(tmp_path / "blip.wav", tone(0.1))
    with pytest.raises(UserError, match=r"0\.10 s of sound, at least 0\.2 s"):
        run(tmp_path, generator_file, talker, tmp_path / "blip.wav")
    with pytest.raises(UserError, match="within 256 × 256 pixels"):
        run(tmp_path, generator_file, talker, speech, box=(0, 300, 0, 100))
    with pytest.raises(UserError, match="within 256 × 256 pixels"):
        run(tmp_path, generator_file, talker, speech, crop=(200, 300, 0, -1))


@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.0, 2.0])
@pytest.mark.parametrize("loop", ["repeat", "cut", "hold", "pingpong"])
def test_a_video_without_a_face_is_always_an_error(
    tmp_path: Path, generator_file: Path, seconds: float, loop: str
) -> None:
    """However long the sound: it is decided by the frames written, not by how far threads are."""
    source = write_video(tmp_path / "black.mp4", [np.zeros((64, 64, 3), np.uint8)] * 25)
    write_wav(tmp_path / "a.wav", tone(seconds))
    for _ in range(3):
        with pytest.raises(UserError, match="no face in any of"):
            run(tmp_path, generator_file, source, tmp_path / "a.wav", loop=loop)
    assert list((tmp_path / "new folder").iterdir()) == []


def test_only_frames_that_are_written_decide(
    tmp_path: Path, generator_file: Path, face: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    """Those behind the end of the sound are looked at, but do not matter."""
    black = np.zeros_like(face)
    write_wav(tmp_path / "a.wav", tone(0.4))
    late = write_video(tmp_path / "late.mp4", [black] * 12 + [face] * 30)
    ends = write_video(tmp_path / "ends.mp4", [face] * 10 + [black] * 30)
    for _ in range(2):
        with pytest.raises(UserError, match="no face in any of 10 frames"):
            run(tmp_path, generator_file, late, tmp_path / "a.wav")
        out = run(tmp_path, generator_file, ends, tmp_path / "a.wav", no_face="error")
        assert len(pictures(out)) == 10
    assert "without a face" not in caplog.text


def test_jobs(tmp_path: Path, generator_file: Path, talker: Path, speech: Path) -> None:
    """By the command, with the networks in a process of their own."""
    (tmp_path / "text.mp4").write_text("no video")
    lines = [f"{face},{speech},{tmp_path / out}" for face, out in (
        ("none.mp4", "1.mp4"), (talker, "2.mp4"), (tmp_path / "text.mp4", "3.mp4"),
        (talker, "4.ogv"), (talker, "5.mkv"),
    )]  # fmt: skip
    (tmp_path / "jobs.csv").write_text("\n".join(["face,audio,outfile", *lines]))
    words = [
        *(sys.executable, str(THIN_CLI), "infer", "--checkpoint_path", str(generator_file)),
        *("--jobs", str(tmp_path / "jobs.csv"), "--device", "cpu", "--precision", "fp32"),
        *("--box", "40", "200", "60", "180", "--blend", "paste"),
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "3 of 5 jobs failed: line 5, " in done.stderr.splitlines()[-1]
    assert f"{tmp_path / '1.mp4'}: none.mp4: no such file" in done.stderr
    assert f"{tmp_path / '3.mp4'}: {tmp_path / 'text.mp4'}: cannot be read as media" in done.stderr
    assert "Traceback" not in done.stderr
    alone = pictures(run(tmp_path, generator_file, talker, speech, box=(40, 200, 60, 180)))
    for name in ("2.mp4", "5.mkv"):
        np.testing.assert_array_equal(pictures(tmp_path / name), alone)
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


@pytest.mark.parametrize(
    "name", [pytest.param("SIGINT", marks=pytest.mark.slow), "SIGTERM", "SIGKILL"]
)
def test_an_interrupted_run(
    name: str, tmp_path: Path, generator_file: Path, talker: Path, speech: Path
) -> None:
    """It leaves no half file, and the former one; after a kill the next run tidies up."""
    write_wav(tmp_path / "long.wav", tone(600.0))
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "o.mp4").write_text("former")
    words = [
        *(sys.executable, str(THIN_CLI), "infer", "--checkpoint_path", str(generator_file)),
        *("--face", str(talker), "--audio", str(tmp_path / "long.wav"), "--device", "cpu"),
        *("--outfile", str(folder / "o.mp4"), "--box", "40", "200", "60", "180"),
    ]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as run_:
        deadline = time.monotonic() + 60
        while not any(file.stat().st_size > 50_000 for file in folder.glob(".o.*")):
            assert time.monotonic() < deadline and run_.poll() is None
            time.sleep(0.05)
        run_.send_signal(getattr(signal, name))
        code = run_.wait(timeout=20)  # the ten minutes of sound would take longer
        assert "Traceback" not in run_.stderr.read()
    assert (folder / "o.mp4").read_text() == "former"
    left = [file.name for file in folder.iterdir()]
    if name == "SIGKILL":
        assert len(left) == 2
        run(tmp_path, generator_file, talker, speech, box=(40, 200, 60, 180),
            outfile=folder / "o.mp4")  # fmt: skip
        assert len(pictures(folder / "o.mp4")) == 25
    else:
        assert code == 130
    assert [file.name for file in folder.iterdir() if file.suffix != ".yaml"] == ["o.mp4"]


@pytest.mark.parametrize("blend", BLENDS)
def test_frames_and_boxes_of_any_size(
    tmp_path: Path, generator_file: Path, speech: Path, blend: str
) -> None:
    """Of one pixel, and boxes at the edge; outside of the box nothing changes."""
    grey = tmp_path / "grey.png"
    for (height, width), box in (
        ((1, 1), (0, 1, 0, 1)), ((2, 2), (0, 2, 0, 1)), ((16, 16), (15, 16, 15, 16)),
        ((48, 64), (0, 48, 40, 64)), ((48, 65), (20, 48, 0, 9)), ((8, 4000), (0, 8, 0, 4000)),
    ):  # fmt: skip
        cv2.imwrite(str(grey), np.full((height, width), 90, np.uint8))
        out = run(tmp_path, generator_file, grey, speech, box=box, fps=10, blend=blend, crf=1)
        shown = pictures(out)
        assert shown.shape == (10, height + height % 2, width + width % 2, 3)
        outside = np.ones(shown.shape[1:3], bool)
        outside[max(0, box[0] - 9) : box[1] + 9, max(0, box[2] - 9) : box[3] + 9] = False
        assert np.abs(shown[:, outside] - 90).max(initial=0) < 12
        if max(height, width) < 400:
            with pytest.raises(UserError, match="no face in any of"):
                run(tmp_path, generator_file, grey, speech, fps=10)
    cv2.imwrite(str(grey), np.full((8, 17_000), 90, np.uint8))
    with pytest.raises(UserError, match=r"17000 × 8 pixels; H\.264 has up to 16384"):
        run(tmp_path, generator_file, grey, speech, box=(0, 8, 0, 8))


def test_the_outfile_is_checked_before_anything_is_read(tmp_path: Path, speech: Path) -> None:
    for name, fault in (("x.ogv", "the suffix"), ("x", "no suffix"), (".", "no suffix")):
        with pytest.raises(UserError, match=fault):
            run(tmp_path, tmp_path / "none.pth", speech, speech, outfile=tmp_path / name)
    (tmp_path / "link.mp4").symlink_to(speech)
    with pytest.raises(UserError, match="is also an input"):
        run(tmp_path, tmp_path / "none.pth", speech, speech, outfile=tmp_path / "link.mp4")
