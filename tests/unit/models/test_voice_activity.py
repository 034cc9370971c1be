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


def test_the_weights_are_those_of_the_notice() -> None:
    assert sha256(WEIGHTS) in WEIGHTS.with_name("NOTICE").read_text()


def test_digital_silence_and_hiss_are_no_speech() -> None:
    for sound in (np.zeros(32_000), np.random.default_rng(0).normal(0, 0.05, 32_000)):
        activity = VoiceActivity()
        activity.add(sound)
        assert len(activity.probabilities) == 62
        assert max(activity.probabilities) < 0.5
