"""Sound that is odd or damaged: gaps, clocks that jump, any channels, what is no number."""

import logging
import subprocess
import sys
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from helpers import tone

from wav2lip_npu.media.audio import MonoConverter, load_audio, open_sound
from wav2lip_npu.media.timestamps import Clocks

RATE = 16_000


def mono(path: Path) -> np.ndarray:
    with open_sound(path) as sound:
        return np.concatenate([*sound.mono_blocks()])


def write_packets(path: Path, kept: Callable[[int], bool], codec: str = "aac") -> np.ndarray:
    """A tone of four seconds, a click each half second, of which some packets are missing."""
    samples = 0.1 * tone(4.0, rate=44_100)
    samples[::22_050] = 0.9
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=44_100, layout="mono")
        for first in range(0, len(samples), 1024):
            block = samples[None, first : first + 1024]
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44_100, first
            for packet in stream.encode(frame):
                if kept(first // 1024):
                    output.mux(packet)
        output.mux(stream.encode(None))
    return samples


def test_a_gap_in_the_sound_is_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_packets(tmp_path / "whole.mkv", lambda n: True)
    write_packets(tmp_path / "gap.mkv", lambda n: not 60 <= n < 103)  # one second
    with caplog.at_level(logging.WARNING):
        whole = load_audio(tmp_path / "whole.mkv")
        assert not caplog.text
        for samples in (load_audio(tmp_path / "gap.mkv"), mono(tmp_path / "gap.mkv")):
            assert "sound is missing in places" in caplog.text
            assert abs(len(samples) - len(whole)) < 400
            late = slice(50_000, 60_000)  # after the gap
            assert np.argmax(whole[late]) == pytest.approx(np.argmax(samples[late]), abs=200)
            assert np.abs(samples[25_000:36_000]).max() == 0


def test_sound_whose_clock_jumps_is_no_gigabyte_of_silence(tmp_path: Path) -> None:
    def convert(times: list[float]) -> int:
        converter = MonoConverter(None, tmp_path, Clocks(tmp_path, None))
        count = 0
        for time in times:
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1600), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.time_base = RATE, Fraction(1, 1000)
            frame.pts = round(time * 1000)
            count += sum(map(len, converter.convert(frame)))
        return count

    assert convert([0, 0.1, 0.2]) == 4800
    assert convert([0, 0.1, 0.21]) == 4800  # jitter
    assert convert([0, 0.1, 1.2]) == 4800 + 16_000
    assert convert([0, 0.1, 36_000.0, 36_000.1]) == 6400
    assert convert([5, 5.1, 0, 0.1]) == 6400
    assert convert([0, 0.1, 0.15, 0.25]) == 6400  # overlapping: nothing is cut


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 9, 16, 24])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_any_number_of_channels(tmp_path: Path, channels: int, suffix: str) -> None:
    """The mean of all, in a process of its own: PyAV's to_ndarray crashes from eight on."""
    if suffix == ".flac" and channels > 8:
        pytest.skip("FLAC has eight channels at most")
    layout = {1: "mono", 2: "stereo", 3: "2.1", 6: "5.1", 8: "7.1"}.get(channels)
    samples = np.random.default_rng(0).integers(-9000, 9000, (RATE, channels)).astype("<i2")
    raw = tmp_path / "raw.wav"
    with wave.open(str(raw), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    path = raw
    if suffix == ".flac":
        path = tmp_path / "a.flac"
        with av.open(str(path), "w") as output:
            stream = output.add_stream("flac", rate=RATE, layout=layout)
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
            frame.sample_rate = RATE
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    code = (
        "import sys, numpy; from wav2lip_npu.media.audio import load_audio;"
        "numpy.save(sys.argv[2], load_audio(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "mono.npy")]
    subprocess.run(command, check=True)
    expected = samples.mean(axis=1) / 32768
    np.testing.assert_allclose(np.load(tmp_path / "mono.npy"), expected, atol=1e-6)


def test_samples_that_are_no_numbers_are_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = tone(1.0)
    samples[100:200] = np.nan
    samples[300] = np.inf
    with av.open(str(tmp_path / "a.wav"), "w") as output:
        stream = output.add_stream("pcm_f32le", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = RATE
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with caplog.at_level(logging.WARNING):
        found = load_audio(tmp_path / "a.wav")
    assert caplog.text.count("some samples are no numbers") == 1
    np.testing.assert_array_equal(found, np.where(np.isfinite(samples), samples, 0))
