"""Mel spectrograms and the arithmetic of windows against the original's."""

import math
from fractions import Fraction

import numpy as np
import pytest
from formula import golden_arrays, golden_json
from helpers import rows_heard

from wav2lip_npu.mel import (
    generator_mel_starts,
    inference_mel_start,
    iter_mel_chunks,
    melspectrogram,
    syncnet_mel_start,
)

SECOND = np.arange(16_000) / 16_000
SIGNALS = {
    "chirp": 0.5 * np.sin(2 * np.pi * (80 * (t := np.arange(32_000) / 16_000) + 1500 * t**2)),
    "silence": np.zeros(16_000),
    "noise": 0.1 * np.random.default_rng(7).standard_normal(16_000),
    "short": 0.3 * np.sin(2 * np.pi * 440 * SECOND[:4000]),
}
WINDOWS = golden_json("numbers")["windows"]


@pytest.mark.parametrize("name", SIGNALS)
def test_mel_is_the_originals(name: str) -> None:
    mel = melspectrogram(SIGNALS[name].astype(np.float32))
    expected = golden_arrays("mel")[f"{name}_mel"]
    assert mel.dtype == np.float32
    np.testing.assert_allclose(mel, expected, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 200, 400, 401])
def test_mel_of_a_moment_has_its_rows(samples: int) -> None:
    mel = melspectrogram(np.full(samples, 0.1, np.float32))
    assert mel.shape == (80, 1 + samples // 200)
    assert np.isfinite(mel).all()


def test_expert_rows() -> None:
    for frame, row in WINDOWS["expert_start_rows"].items():
        assert syncnet_mel_start(int(frame)) == row


def test_expert_rows_are_the_originals_floats_for_hours() -> None:
    frames = range(0, 3 * 3600 * 25)  # three hours
    assert [syncnet_mel_start(f) for f in frames] == [int(80.0 * (f / 25.0)) for f in frames]


def test_generator_rows() -> None:
    for frame, rows in WINDOWS["generator_rows"].items():
        assert generator_mel_starts(int(frame)).tolist() == rows
    with pytest.raises(ValueError, match="frame 1"):
        generator_mel_starts(0)


def test_a_frame_hears_in_inference_what_it_heard_in_training() -> None:
    hours = np.arange(1, 3 * 3600 * 25)
    heard = [inference_mel_start(int(frame), 25.0, as_trained=True) for frame in hours]
    np.testing.assert_array_equal(heard, generator_mel_starts(hours)[:, 0])
    assert inference_mel_start(0, 25.0, as_trained=True) == 0


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(30), Fraction(30000, 1001), Fraction(60)])
def test_at_any_rate_it_hears_from_40_ms_before_its_time(fps: Fraction) -> None:
    for frame in range(100_000):
        row = max(0, math.floor(80 * (frame / fps - Fraction(1, 25))))
        assert inference_mel_start(frame, float(fps), as_trained=True) == row


@pytest.mark.parametrize("case", WINDOWS["inference_chunks"])
def test_inference_chunks(case: str) -> None:
    fps, rows = case.split("/")
    expected = WINDOWS["inference_chunks"][case]
    chunks = rows_heard(int(rows), float(fps))
    assert len(chunks) == expected["count"]
    assert chunks[: len(expected["first"])] == expected["first"]
    assert chunks[-len(expected["last"]) :] == expected["last"]
    # Each row of the mel spectrogram of noise is like no other.
    noise = np.random.default_rng(0).normal(0, 0.1, (int(rows) - 1) * 200).astype(np.float32)
    mel = melspectrogram(noise)
    windows = list(iter_mel_chunks([noise], float(fps)))
    assert mel.shape[1] == int(rows) and len(windows) >= len(chunks)
    for window, row in zip(windows, chunks, strict=False):
        np.testing.assert_allclose(window, mel[:, row : row + 16], atol=2e-6)
