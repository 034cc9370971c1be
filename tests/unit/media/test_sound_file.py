"""A sound that is decoded once, for the networks and for the track of a new video."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from helpers import numbered, tone, write_video

from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import load_audio, open_sound, write_wav
from wav2lip_npu.media.video_writer import VideoWriter


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    write_wav(tmp_path / "sound.wav", tone(3.0))
    return tmp_path / "sound.wav"


def samples_of(path: Path) -> int:
    with av.open(str(path)) as file:
        return sum(frame.samples for frame in file.decode(audio=0))


def test_blocks_are_the_whole_sound(sound: Path) -> None:
    with open_sound(sound) as opened:
        assert opened.announced_seconds == pytest.approx(3.0)
        assert (opened.rate, opened.channels, opened.start) == (16_000, 1, None)
        joined = np.concatenate(list(opened.mono_blocks()))
    np.testing.assert_array_equal(joined, load_audio(sound))


@pytest.mark.parametrize("fps", [1, 4, 25, Fraction(30000, 1001)])
def test_the_track_is_whole_though_the_networks_lag_or_lead(
    sound: Path, tmp_path: Path, fps: float
) -> None:
    """At a frame per second the track asks for sound that the networks have not come to yet."""
    frames = round(3 * fps)
    with open_sound(sound) as opened:
        blocks = opened.mono_blocks()
        with VideoWriter(tmp_path / "out.mp4", fps=fps, sound=opened) as writer:
            for number, image in enumerate(numbered(frames)):
                heard = 0  # as in infer: 0.2 s from the frame's time on
                while heard < 0.25 * 16_000 and (block := next(blocks, None)) is not None:
                    heard += len(block) if number == 0 else len(block) * fps / 4
                writer.write(image)
            blocks.close()
    whole = load_audio(tmp_path / "out.mp4")
    assert abs(len(whole) - 48_000) <= 1024 + 16_000 / fps
    expected = load_audio(sound)[: len(whole)]
    assert np.corrcoef(whole[: len(expected)], expected)[0, 1] > 0.98  # no gap, no shift


def test_the_track_is_cut_to_the_frames(sound: Path, tmp_path: Path) -> None:
    with (
        open_sound(sound) as opened,
        VideoWriter(tmp_path / "out.mp4", fps=25, sound=opened) as writer,
    ):
        for image in numbered(10):
            writer.write(image)
    assert samples_of(tmp_path / "out.mp4") == pytest.approx(0.4 * 16_000, abs=1024)


def test_a_videos_sound_starts_at_its_first_frame(sound: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", numbered(50), audio=sound)
    with open_sound(video) as opened:
        assert opened.start == 0.0
        blocks = np.concatenate(list(opened.mono_blocks()))
    np.testing.assert_array_equal(blocks, load_audio(video, start=0.0))


def test_a_cover_is_no_video(sound: Path, tmp_path: Path) -> None:
    song = tmp_path / "song.mp3"
    with av.open(str(sound)) as source, av.open(str(song), "w") as target:
        track = target.add_stream("libmp3lame", rate=16_000)
        cover = target.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic.value
        picture = av.VideoFrame.from_ndarray(numbered(3)[2], format="bgr24")
        target.mux(cover.encode(picture.reformat(format="rgb24")))
        for frame in source.decode(audio=0):
            target.mux(track.encode(frame))
        target.mux(track.encode(None))
        target.mux(cover.encode(None))
    with open_sound(song) as opened:
        assert opened.start is None
        assert len(np.concatenate(list(opened.mono_blocks()))) == pytest.approx(48_000, abs=2400)


def test_a_sound_without_samples_is_named(tmp_path: Path) -> None:
    write_wav(tmp_path / "empty.wav", np.zeros(0, np.float32))
    with (
        pytest.raises(UserError, match=r"empty\.wav: its audio stream holds no sound"),
        open_sound(tmp_path / "empty.wav") as opened,
    ):
        list(opened.mono_blocks())
    with pytest.raises(UserError, match=r"empty\.wav: its audio stream holds no sound"):
        load_audio(tmp_path / "empty.wav")


def test_a_full_disk_is_not_blamed_on_the_sound(sound: Path, tmp_path: Path) -> None:
    def mux(packets: object) -> None:
        raise av.error.FFmpegError(28, "No space left on device")

    out = tmp_path / "out.mp4"
    with (
        pytest.raises(UserError, match=r"out\.mp4: cannot be written .*No space left") as caught,
        open_sound(sound) as opened,
        VideoWriter(out, fps=25, sound=opened) as writer,
    ):
        container = writer._container
        writer._container = SimpleNamespace(add_stream=container.add_stream, mux=mux)
        for image in numbered(60):
            writer.write(image)
    assert "sound.wav" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["sound.wav"]
