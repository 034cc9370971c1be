"""The network that hears voices, against Silero's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wav2lip_npu.models.voice_activity import WEIGHTS, VoiceActivity
from wav2lip_npu.runtime.files import sha256

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "voice_activity.npz")
SAMPLES = (GOLDEN["samples"] / 32768).astype(np.float32)


@pytest.mark.parametrize("blocks", [1, 7, 1000])
def test_probabilities_are_those_of_silero(blocks: int) -> None:
    activity = VoiceActivity()
    for block in np.array_split(SAMPLES, blocks):
        activity.add(block)
    np.testing.assert_allclose(activity.probabilities, GOLDEN["probabilities"], atol=1e-4)


def test_what_was_heard_is_asked_for_by_the_number_of_the_window() -> None:
    activity = VoiceActivity()
    activity.add(SAMPLES)
    loud = np.flatnonzero(GOLDEN["probabilities"] >= 0.5)
    assert activity.has(0.5, loud[0], loud[0] + 1)
    assert not activity.has(0.5, 0, loud[0])
    assert not activity.has(0.5, len(GOLDEN["probabilities"]), 10**6)
    last = int(loud[-1])
    activity.add(np.zeros(512 * 985, np.float32))  # all before the last 1000 windows is forgotten
    assert len(activity.probabilities) == 1000
    assert activity.has(0.5, last, last + 1)
    assert not activity.has(0.5, last + 1, last + 9)
    activity.add(np.zeros(512 * 20, np.float32))
    assert not activity.has(0.5, 0, last + 1)


def test_no_number_is_no_end_of_hearing() -> None:
    activity = VoiceActivity()
    broken = SAMPLES.copy()
    broken[100:103] = np.nan, np.inf, -np.inf
    activity.add(broken)
    assert np.isfinite(activity.probabilities).all()
    assert max(activity.probabilities) > 0.9


def test_the_weights_are_those_of_the_notice() -> None:
    assert sha256(WEIGHTS) in WEIGHTS.with_name("NOTICE").read_text()


def test_digital_silence_and_hiss_are_no_speech() -> None:
    for sound in (np.zeros(32_000), np.random.default_rng(0).normal(0, 0.05, 32_000)):
        activity = VoiceActivity()
        activity.add(sound)
        assert len(activity.probabilities) == 62
        assert max(activity.probabilities) < 0.5
