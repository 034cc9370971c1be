"""Reading and writing media: time, rotation, colours, sound, and bad files."""

import struct
import wave
from fractions import Fraction
from pathlib import Path

import av
import cv2
import librosa
import numpy as np
import pytest
from helpers import number_of, numbered, tone, write_video

from wav2lip_npu.constants import SAMPLE_RATE
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import load_audio, write_wav
from wav2lip_npu.media.images import is_image, read_image
from wav2lip_npu.media.video_reader import Frame, at_rate, probe, read_frames
from wav2lip_npu.media.video_writer import VideoWriter


def write_any_wav(path: Path, samples: np.ndarray, rate: int) -> Path:
    """(n, channels) floats as a 16-bit WAV of any rate."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
    return path


def streams(path: Path) -> dict[str, tuple[str, float]]:
    with av.open(str(path)) as file:
        return {
            s.type: (s.codec_context.name, float(s.duration * s.time_base)) for s in file.streams
        }


def test_frames_are_what_opencv_decodes(tmp_path: Path, face: np.ndarray) -> None:
    path = write_video(tmp_path / "a b.mp4", [np.roll(face, 4 * n, axis=1) for n in range(10)])
    capture = cv2.VideoCapture(str(path))
    ours = list(read_frames(path))
    assert len(ours) == 10
    for number, frame in enumerate(ours):
        assert frame.time == pytest.approx(number / 25)
        np.testing.assert_array_equal(frame.image, capture.read()[1])


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_rotated_video_is_upright(tmp_path: Path, quarter_turns: int) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:20, :30] = 255
    path = write_video(tmp_path / "phone.mp4", [picture] * 3)
    # The matrix of the track header, 16.16 fixed point, as a phone writes it.
    matrix = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[quarter_turns]
    a, b, c, d = (v << 16 for v in matrix)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    struct.pack_into(">9i", content, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # some of its releases turn it, others do not
    turn = {1: cv2.ROTATE_90_CLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_COUNTERCLOCKWISE}
    expected = cv2.rotate(capture.read()[1], turn[quarter_turns])
    first = next(iter(read_frames(path))).image
    assert first.shape == expected.shape
    np.testing.assert_array_equal(first, expected)


def at_times(times: list[float]) -> list[Frame]:
    return [
        Frame(time=t, image=image) for t, image in zip(times, numbered(len(times)), strict=True)
    ]


@pytest.mark.parametrize("start", [0.0, 1.4])
def test_same_rate_passes_unchanged(start: float) -> None:
    frames = at_times([start + n / 25 for n in range(30)])
    assert [number_of(frame.image) for frame in at_rate(frames, 25)] == list(range(30))


@pytest.mark.parametrize("fps", [10, 24, Fraction(30000, 1001), 50, 60])
def test_every_moment_shows_the_nearest_frame(fps: Fraction) -> None:
    count = 28
    times = [float(n / fps) for n in range(count)]
    shown = [number_of(frame.image) for frame in at_rate(at_times(times), 25)]
    expected = [int(np.abs(np.array(times) - n / 25).argmin()) for n in range(len(shown))]
    assert all(abs(times[s] - n / 25) <= abs(times[e] - n / 25) + 1e-9
               for n, (s, e) in enumerate(zip(shown, expected, strict=True)))  # fmt: skip
    assert len(shown) / 25 == pytest.approx(float(count / fps), abs=0.5 / 25 + 1e-6)


def test_varying_rate_keeps_time() -> None:
    frames = at_times([0.0, 0.04, 0.20, 0.24])  # frame 1 stays for four
    assert [number_of(frame.image) for frame in at_rate(frames, 25)] == [0, 1, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("fps", [25, Fraction(30000, 1001), 12.5])
def test_sound_and_picture_end_together(tmp_path: Path, fps: float) -> None:
    sound = write_any_wav(tmp_path / "long.wav", np.stack([tone(3.0, 44_100)] * 2, axis=1), 44_100)
    path = write_video(tmp_path / "out.mp4", numbered(30), fps=fps, audio=sound)
    (video_codec, video_seconds), (audio_codec, audio_seconds) = streams(path).values()
    assert (video_codec, audio_codec) == ("h264", "aac")
    assert video_seconds == pytest.approx(30 / float(fps), abs=1e-3)
    assert abs(audio_seconds - video_seconds) < 1 / float(fps)
    assert probe(path).fps == pytest.approx(Fraction(fps))


def test_sound_starts_with_the_picture(tmp_path: Path) -> None:
    samples = np.zeros(SAMPLE_RATE, np.float32)
    samples[8000:8400] = tone(0.025, hertz=1000)[:400] + 0.3  # a click at 0.5 s
    write_wav(tmp_path / "click.wav", samples)
    path = write_video(tmp_path / "click.mp4", numbered(25), audio=tmp_path / "click.wav")
    heard = load_audio(path, start=probe(path).start)
    assert np.abs(heard).argmax() == pytest.approx(8200, abs=300)


def test_no_half_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with pytest.raises(RuntimeError), VideoWriter(path, fps=25) as writer:
        writer.write(numbered(1)[0])
        raise RuntimeError
    with pytest.raises(UserError, match="no frame"), VideoWriter(path, fps=25):
        pass
    assert list(tmp_path.iterdir()) == []


def test_odd_sizes_become_even(tmp_path: Path) -> None:
    path = write_video(tmp_path / "odd.mp4", numbered(3, size=(63, 47)))
    assert next(iter(read_frames(path))).image.shape == (48, 64, 3)


@pytest.mark.parametrize("colorspace", [1, 2, 5])
@pytest.mark.parametrize("color_range", [1, 2])
def test_colours_survive(tmp_path: Path, colorspace: int, color_range: int) -> None:
    source = tmp_path / "source.mp4"
    with av.open(str(source), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace = colorspace
        stream.codec_context.color_range = color_range
        stream.codec_context.color_primaries = 9  # BT.2020's
        stream.codec_context.color_trc = 18  # HLG, as telephones take it
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        picture = av.VideoFrame(64, 64, "yuv420p")
        for plane, value in zip(picture.planes, (120, 90, 170), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
    info = probe(source)
    target = tmp_path / "target.mp4"
    with VideoWriter(target, fps=info.fps, like=info, crf=1) as writer:
        writer.write(next(iter(read_frames(source))).image)
    with av.open(str(target)) as file:
        copied = next(file.decode(video=0))
        kept = file.streams.video[0].codec_context
    planes = [np.frombuffer(plane, np.uint8)[0] for plane in copied.planes]
    assert np.abs(np.array(planes, int) - (120, 90, 170)).max() <= 3
    assert (int(copied.colorspace), int(copied.color_range)) == (colorspace, color_range)
    assert (int(kept.color_primaries), int(kept.color_trc)) == (9, 18)
    assert kept.sample_aspect_ratio == Fraction(16, 11)


def test_audio_at_16_khz_is_exact(tmp_path: Path) -> None:
    samples = np.rint(tone(0.7) * 32768) / 32768
    write_wav(tmp_path / "a.wav", samples)
    np.testing.assert_array_equal(load_audio(tmp_path / "a.wav"), samples.astype(np.float32))


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_other_audio_is_as_librosa_reads_it(tmp_path: Path, rate: int) -> None:
    stereo = np.stack([tone(1.5, rate), tone(1.5, rate, hertz=300)], axis=1)
    path = write_any_wav(tmp_path / "a.wav", stereo, rate)
    expected, _ = librosa.load(path, sr=SAMPLE_RATE)
    ours = load_audio(path)
    assert abs(len(ours) - len(expected)) <= 1
    shorter = min(len(ours), len(expected)) - 50  # the resampler's end
    np.testing.assert_allclose(ours[:shorter], expected[:shorter], atol=2e-4)


def test_audio_is_moved_to_the_videos_zero(tmp_path: Path) -> None:
    samples = tone(1.0)
    write_wav(tmp_path / "a.wav", samples)
    late = load_audio(tmp_path / "a.wav", start=-0.25)
    early = load_audio(tmp_path / "a.wav", start=0.25)
    assert len(late) == len(samples) + 4000
    assert not late[:4000].any()
    np.testing.assert_array_equal(late[4000:], load_audio(tmp_path / "a.wav"))
    np.testing.assert_array_equal(early, load_audio(tmp_path / "a.wav")[4000:])


def test_bad_files_are_named(tmp_path: Path, speech: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    silent = write_video(tmp_path / "silent.mp4", numbered(3))
    slow = tmp_path / "slow.wav"
    with wave.open(str(slow), "wb") as wav:
        wav.setparams((1, 2, 7, 7, "NONE", ""))
        wav.writeframes(bytes(14))
    for call, path, reason in (
        (probe, tmp_path / "absent.mp4", "no such file"),
        (probe, tmp_path, "is a folder"),
        (probe, text, "cannot be read as media"),
        (probe, empty, "is empty"),
        (probe, speech, "no video stream"),
        (load_audio, silent, "no audio stream"),
        (load_audio, slow, "7 samples per second"),
        (read_image, text, "cannot be read as media"),
    ):
        with pytest.raises(UserError, match=reason) as caught:
            call(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_images_are_told_by_their_content(tmp_path: Path, face: np.ndarray) -> None:
    for suffix in (".jpg", ".png", ".bmp"):
        cv2.imwrite(str(tmp_path / f"a.b{suffix}"), face)
        assert is_image(tmp_path / f"a.b{suffix}")
    misnamed = tmp_path / "picture.mp4"
    misnamed.write_bytes((tmp_path / "a.b.png").read_bytes())
    assert is_image(misnamed)
    assert not is_image(write_video(tmp_path / "video.mp4", numbered(3)))
