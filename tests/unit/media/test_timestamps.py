"""Times of frames and of sound, where containers tell them in their own ways or not at all."""

import itertools
import logging
import struct
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from helpers import number_of, numbered

from wav2lip_npu.media import container as opening
from wav2lip_npu.media.audio import MonoConverter, open_sound
from wav2lip_npu.media.timestamps import Clocks
from wav2lip_npu.media.video_reader import Frame, VideoInfo, at_rate, open_video

RATE = 48_000
COUNT = 56  # frames


class Samples:
    """What a ``WavWriter`` takes, kept."""

    def __init__(self) -> None:
        self.blocks: list[np.ndarray] = []

    def write(self, samples: np.ndarray) -> None:
        self.blocks.append(samples)

    def clicks(self) -> list[float]:
        """Seconds at which clicks begin."""
        loud = np.flatnonzero(np.abs(np.concatenate(self.blocks)) > 0.3) / 16_000
        return [float(b) for a, b in zip([-1.0, *loud], loud, strict=False) if b - a > 0.05]


def encode(
    path: Path, codec: str, *, sound: str | None = None, format: str | None = None, **options: str
) -> Path:
    """Numbered frames at 25 per second, and a click each quarter of a second."""
    with av.open(str(path), "w", format=format) as output:
        video = output.add_stream(codec, rate=25, options=options)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        video.bit_rate = 5_000_000
        audio = None if sound is None else output.add_stream(sound, rate=RATE, layout="mono")
        if audio is not None:
            audio.bit_rate = 128_000
        samples = np.zeros((1, COUNT * RATE // 25), np.float32)
        for first in range(RATE // 4, samples.shape[1] - 100, RATE // 4):
            samples[0, first : first + 96] = 0.9
        for number, image in enumerate(numbered(COUNT)):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(video.encode(frame))
            if audio is not None:
                part = samples[:, number * RATE // 25 :][:, : RATE // 25]
                block = av.AudioFrame.from_ndarray(part.copy(), format="fltp", layout="mono")
                block.sample_rate, block.time_base = RATE, Fraction(1, RATE)
                block.pts = number * RATE // 25
                output.mux(audio.encode(block))
        output.mux(video.encode(None))
        if audio is not None:
            output.mux(audio.encode(None))
    return path


def read(path: Path, *, with_sound: bool = False) -> tuple[list[Frame], VideoInfo, Samples]:
    samples = Samples()
    with open_video(path, with_sound=with_sound) as video:
        frames = [*video.frames(samples if with_sound else None)]  # type: ignore[arg-type]
        return frames, video.info, samples


B_FRAMES = {"bf": "3", "b_strategy": "0", "g": "24"}


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.asf", "libx264", B_FRAMES),
        ("a.mpg", "mpeg2video", {"bf": "2", "g": "12"}),
        ("a.vob", "mpeg2video", {"bf": "2", "g": "12"}),
        ("a.m1v", "mpeg1video", {"bf": "2"}),
        ("a.m2v", "mpeg2video", {"bf": "2"}),
        ("a.avi", "mpeg4", {"bf": "2", "g": "12"}),
        ("a.nut", "libx264", B_FRAMES),
        ("a.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
    ],
)
def test_frames_come_in_order_and_evenly(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = encode(tmp_path / name, codec, format="vob" if name == "a.vob" else None, **options)
    frames, info, _ = read(path)
    shown = [n % 30 for n in range(COUNT)]
    assert [number_of(frame.image) for frame in frames] == shown
    assert [number_of(frame.image) for frame in at_rate(frames, 25)] == shown
    steps = np.diff([frame.time for frame in frames])
    assert steps == pytest.approx(0.04, abs=0.012)
    assert info.start == frames[0].time
    assert info.fps == 25


def test_a_video_without_times_of_showing_is_in_order(tmp_path: Path) -> None:
    """Some muxers write MP4 with the times of decoding alone."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options=B_FRAMES)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        packets = []
        for number, image in enumerate(numbered(COUNT)):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            packets += stream.encode(frame)
        # The rate varies: frames 20 to 29 stay twice as long.
        ticks = np.cumsum([0, *(1 + (20 <= number < 30) for number in range(COUNT))]).tolist()
        for packet, tick in zip(packets + stream.encode(None), ticks, strict=False):
            packet.pts = packet.dts = tick
            packet.time_base = Fraction(1, 25)
            output.mux(packet)
    frames, info, _ = read(path)
    assert [number_of(frame.image) for frame in frames] == [n % 30 for n in range(COUNT)]
    assert info.start == frames[0].time == 0
    assert all(a.time < b.time for a, b in itertools.pairwise(frames))
    assert frames[-1].time == pytest.approx((COUNT - 1 + 10) / 25, abs=0.1)
    assert not info.is_seekable


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("a.asf", "libx264", "wmav2"),
        ("a.avi", "libx264", "pcm_s16le"),
        ("a.ts", "libx264", "mp2"),
        ("a.mpg", "mpeg2video", "mp2"),
        ("a.mkv", "libx264", "flac"),
    ],
)
def test_sound_and_picture_are_together(tmp_path: Path, name: str, codec: str, sound: str) -> None:
    path = encode(tmp_path / name, codec, sound=sound, bf="2")
    _, _, samples = read(path, with_sound=True)
    expected = np.arange(1, 9) / 4
    assert samples.clicks() == pytest.approx(expected, abs=0.02)


def test_joined_recordings_stay_in_step(tmp_path: Path) -> None:
    """Their sound is longer than their picture; five of them must not add that up."""
    part = encode(tmp_path / "part.ts", "libx264", sound="aac", **B_FRAMES)
    path = tmp_path / "joined.ts"
    path.write_bytes(part.read_bytes() * 5)
    frames, info, samples = read(path, with_sound=True)
    assert [number_of(frame.image) for frame in frames] == [n % 30 for n in range(COUNT)] * 5
    starts = np.array([frames[n * COUNT].time for n in range(5)]) - info.start
    expected = [start + k / 4 for start in starts for k in range(1, 9)]
    assert samples.clicks() == pytest.approx(expected, abs=0.02)
    assert not info.is_seekable


def test_the_frames_of_a_videos_sound_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "a.mp4", "libx264", sound="aac", bf="0")
    decoded: Counter[str] = Counter()
    decode = opening.decode_packet

    def counted(packet: av.Packet, *rest: object) -> list[av.VideoFrame | av.AudioFrame]:
        decoded[packet.stream.type] += 1
        return decode(packet, *rest)

    monkeypatch.setattr(opening, "decode_packet", counted)
    with open_sound(path) as sound:
        assert sum(map(len, sound.mono_blocks())) > 30_000
    assert decoded["audio"] > 100
    assert decoded["video"] < 30  # those by which its times are judged


@pytest.mark.parametrize(("scale", "rate"), [(1, 1_000_000), (1_000_000, 1), (0, 25), (1, 0)])
def test_absurd_frame_rates_count_as_25(tmp_path: Path, scale: int, rate: int) -> None:
    path = encode(tmp_path / "a.avi", "mjpeg", strict="-1")
    content = bytearray(path.read_bytes())
    at = content.index(b"strh") + 8 + 20
    content[at : at + 8] = struct.pack("<II", scale, rate)
    path.write_bytes(content)
    frames, info, _ = read(path)
    assert info.fps == info.mean_fps == 25
    assert len([*at_rate(frames, 25)]) == COUNT


def test_long_silence_comes_second_by_second(tmp_path: Path) -> None:
    def blocks(times: list[float], seconds: float | None) -> list[int]:
        converter = MonoConverter(None, tmp_path, Clocks(tmp_path, seconds))
        lengths = []
        for time in times:
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 4800), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.time_base = RATE, Fraction(1, 1000)
            frame.pts = round(time * 1000)
            lengths += [len(block) for block in converter.convert(frame)]
        return [*lengths, len(converter.flush())]

    gap = blocks([0, 300.1], None)
    assert sum(gap) == 16 * (100 + 300_000 + 100)
    assert max(gap) <= 17_000
    assert sum(blocks([0, 300.1], 10.0)) == 3200  # no gap is longer than the file
    assert sum(blocks([0, 300.1, 0.1, 0.2, 300.4], 10.0)) == 16 * 500


def test_a_clock_set_anew_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks(tmp_path / "a.ts", None)
    with caplog.at_level(logging.WARNING):
        assert clocks.offset(100.0, 5.0) == -95.0
        assert clocks.offset(100.3, 5.2) == -95.0  # the other stream: the same clock
        assert clocks.offset(5.3, 5.3) == 0.0  # a packet of the first clock comes late
        assert clocks.offset(900.0, 6.0) == -894.0
    assert caplog.text.count("clock is set anew") == 1
