"""Several sounds as one: against sums that NumPy makes of the same samples."""

from __future__ import annotations

import logging
import wave
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from wav2lip_npu.media.audio import open_sound
from wav2lip_npu.media.mix import Mix


def write(path: Path, samples: np.ndarray, rate: int) -> Path:
    """A 16-bit WAV file of samples (channels, n) in [-1, 1]."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(samples.T * 32767).astype("<i2").tobytes())
    return path


def mixed(folder: Path, *sounds: tuple[np.ndarray, int, float]) -> tuple[np.ndarray, Mix]:
    with ExitStack() as files:
        opened = []
        for number, (samples, rate, gain) in enumerate(sounds):
            path = write(folder / f"{number}.wav", samples, rate)
            opened.append((files.enter_context(open_sound(path)), gain))
        mix = Mix(folder / "list.csv", opened)
        frames = []
        while (frame := mix.next_decoded()) is not None:
            assert frame.sample_rate == mix.rate and frame.pts == sum(map(len, frames), 0)
            frames.append(frame.to_ndarray().T)
    return np.concatenate(frames).T, mix


def noise(seed: int, channels: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.4, 0.4, (channels, count)).astype(np.float32)


def test_a_sum_with_gains(tmp_path: Path) -> None:
    one, other = noise(0, 1, 30_001), noise(1, 1, 12_345)
    found, mix = mixed(tmp_path, (one, 22050, -6.0), (other, 22050, 3.0))
    expected = one * 10 ** (-6 / 20)
    expected[:, : other.shape[1]] += other * 10 ** (3 / 20)
    assert (mix.rate, mix.channels) == (22050, 1)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4  # 16 bits
    assert mix.announced_seconds == pytest.approx(30_001 / 22050)


def test_the_best_rate_and_layout_are_kept(tmp_path: Path) -> None:
    wide = noise(0, 2, 48_000)
    time = np.arange(16_000) / 16_000
    sine = 0.3 * np.sin(2 * np.pi * 440 * time)[None].astype(np.float32)
    found, mix = mixed(tmp_path, (sine, 16_000, 0.0), (wide, 48_000, 0.0))
    assert (mix.rate, mix.channels) == (48_000, 2) and found.shape[0] == 2
    rest = found[:, :48_000] - wide
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    for channel in rest:  # FFmpeg shares a mono sound out between both, 3 dB softer each
        scale = float(channel @ expected / (expected @ expected))
        assert scale == pytest.approx(1.0, abs=0.35)
        assert np.abs(channel - scale * expected)[500:-500].max() < 5e-3


def test_what_is_too_loud_is_cut_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    loud = np.full((1, 5000), 0.75, np.float32)
    found, _ = mixed(tmp_path, (loud, 16_000, 0.0), (loud, 16_000, 0.0))
    assert found.max() == 1
    (line,) = (record.message for record in caplog.records)
    assert line.endswith("list.csv: the mix is up to 3.5 dB above full scale, and cut there; "
                         "lower the gains")  # fmt: skip
