"""The sound track of a new video: rates, channels, and samples that change or are no numbers."""

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from helpers import numbered, tone, write_video

from wav2lip_npu.constants import SAMPLE_RATE
from wav2lip_npu.media.timestamps import Clocks
from wav2lip_npu.media.video_writer import VideoWriter


def heard(path: Path) -> tuple[float, np.ndarray, int]:
    """Time of the first sample, the first channel, and the rate."""
    with av.open(f"file:{path}") as file:
        frames = list(file.decode(audio=0))
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return float(frames[0].time), samples, frames[0].sample_rate


class Sound:
    """Decoded frames of sound, as ``SoundFile`` gives them."""

    start = None
    path = Path("sound.wav")

    def __init__(self, *frames: av.AudioFrame) -> None:
        self.rate, self.channels = frames[0].sample_rate, len(frames[0].layout.channels)
        self._frames = iter(frames)

    def clocks(self) -> Clocks:
        return Clocks(self.path, None)

    def next_decoded(self) -> av.AudioFrame | None:
        return next(self._frames, None)


def sound_frame(
    samples: np.ndarray, rate: int, layout: str, start: int = 0, format: str = "flt"
) -> av.AudioFrame:
    """(n, channels) float samples as a frame."""
    frame = av.AudioFrame(format=format, layout=layout, samples=len(samples))
    if format == "flt":
        frame.planes[0].update(samples.astype("<f4").tobytes())
    else:
        for plane, channel in zip(frame.planes, samples.T, strict=False):
            plane.update(channel.astype("<f4").tobytes().ljust(plane.buffer_size, b"\0"))
    frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
    return frame


def written(tmp_path: Path, sound: Sound, frames: int = 25) -> tuple[np.ndarray, int]:
    out = tmp_path / "out.mp4"
    with VideoWriter(out, fps=25, sound=sound) as writer:
        for image in numbered(frames):
            writer.write(image)
    _, samples, rate = heard(out)
    return samples, rate


@pytest.mark.parametrize("rate", [11, 100, 8000, 11_111, 44_100, 96_000, 768_000])
def test_sound_of_any_rate(rate: int, tmp_path: Path) -> None:
    samples = np.full((4 * rate, 2), 0.25, np.float32)  # s
    out, out_rate = written(tmp_path, Sound(sound_frame(samples, rate, "stereo")), frames=100)
    assert out_rate == (rate if rate in (8000, 44_100) else 48_000)
    assert np.median(out[out_rate : 3 * out_rate]) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 9, 11, 13, 16, 24])
def test_sound_of_any_number_of_channels(channels: int, tmp_path: Path) -> None:
    """A tone in all channels is heard; where channels lie may be unknown."""
    sound = np.rint(np.repeat(tone(1.0)[:, None], channels, axis=1) * 32767).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(sound.tobytes())
    out = write_video(tmp_path / "a.mp4", numbered(25), audio=tmp_path / "a.wav")
    _, samples, rate = heard(out)
    spectrum = np.abs(np.fft.rfft(samples[: rate // 2]))
    assert np.abs(samples).max() > 0.1
    assert spectrum.argmax() * 2 == pytest.approx(440, abs=4)  # Hz


def test_planar_sound_of_eight_channels(tmp_path: Path) -> None:
    sound = np.repeat(tone(1.0, 48_000)[:, None], 8, axis=1)
    out, _ = written(tmp_path, Sound(sound_frame(sound, 48_000, "7.1", format="fltp")))
    assert np.abs(out).max() > 0.1


def test_sound_whose_rate_and_layout_change(tmp_path: Path) -> None:
    loud = np.full((48_000, 2), 0.25, np.float32)
    frames = [
        sound_frame(loud[:24_000], 48_000, "stereo"),
        sound_frame(loud[:11_025, :1], 44_100, "mono", start=22_050),
        sound_frame(loud[:8_000], 16_000, "stereo", start=12_000),
    ]
    out, rate = written(tmp_path, Sound(*frames))
    # FFmpeg lowers mono by 3 dB where it makes stereo of it.
    for second, level in ((0.3, 0.25), (0.6, 0.177), (0.9, 0.25)):
        part = out[int(second * rate) : int((second + 0.05) * rate)]
        assert np.median(part) == pytest.approx(level, abs=0.02)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_samples_that_are_no_numbers_are_silence(value: float, tmp_path: Path) -> None:
    samples = np.full((48_000, 2), 0.25, np.float32)
    samples[10_000:20_000] = value
    out, rate = written(tmp_path, Sound(sound_frame(samples, 48_000, "stereo")))
    assert np.isfinite(out).all()
    assert np.median(out[rate // 2 + 2000 : rate * 3 // 4]) == pytest.approx(0.25, abs=0.02)
    if not np.isfinite(value):
        assert np.abs(out[14_000:16_000]).max() < 0.05
