"""What mouths do where nobody speaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wav2lip_npu import LipSync
from wav2lip_npu.inference.hearing import SpeechWeights
from wav2lip_npu.mel import iter_mel_chunks

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "voice_activity.npz")
VOICE = (GOLDEN["samples"][8000:27_200] / 32768).astype(np.float32)  # 1.2 s of speech
PAUSE = np.zeros(16_000, np.float32)  # 1 s


def weights_of(sound: np.ndarray, fps: float, blocks: int = 1) -> np.ndarray:
    speech = SpeechWeights(fps)
    parts = speech.listen(np.array_split(sound, blocks))
    return np.array([speech.next() for _ in iter_mel_chunks(parts, fps)])


@pytest.mark.parametrize("fps", [24.0, 25.0, 60.0])
def test_speech_is_not_clipped_and_pauses_are_silent(fps: float) -> None:
    sound = np.concatenate([PAUSE, VOICE, PAUSE, VOICE, PAUSE])
    weights = weights_of(sound, fps)
    assert len(weights) == round(len(sound) / 16_000 * fps)
    seconds = np.arange(len(weights)) / fps
    speaks = ((seconds >= 1) & (seconds < 2.2)) | ((seconds >= 3.2) & (seconds < 4.4))
    assert (weights[speaks] == 1).all()
    silent = (seconds < 0.7) | ((seconds > 2.5) & (seconds < 2.9)) | (seconds > 4.7)
    assert silent.sum() > 1.5 * fps
    assert not weights[silent].any()
    # From one to the other in 0.12 s: three frames at 25 a second.
    assert np.abs(np.diff(weights)).max() <= 1 / (0.12 * fps + 1) + 1e-9
    if fps == 25:
        assert set(np.unique(weights)) == {0, 0.25, 0.5, 0.75, 1}


@pytest.mark.parametrize("fps", [5.0, 12.0, 25.0])
def test_speech_is_whole_from_its_first_frame_on(fps: float) -> None:
    """Also where the sound begins with it, and where frames are longer than a fade."""
    for before in (0.0, 1.0):
        sound = np.concatenate([np.zeros(round(16_000 * before)), VOICE])
        weights = weights_of(sound, fps)
        seconds = np.arange(len(weights)) / fps
        voiced = (seconds >= before + 0.02) & (seconds < before + 1.1)
        assert (weights[voiced] == 1).all()
        assert not weights[seconds < before - 0.3].any()


def test_pauses_between_words_do_not_shut_the_mouth() -> None:
    for seconds, shuts in ((0.2, False), (0.8, True)):
        sound = np.concatenate([VOICE, np.zeros(round(16_000 * seconds)), VOICE])
        between = weights_of(sound, 25.0)[20:40]
        assert (between.min() == 0) == shuts
        assert (between.min() == 1) != shuts


def test_weights_do_not_depend_on_how_the_sound_comes() -> None:
    sound = np.concatenate([PAUSE, VOICE, PAUSE])
    one = weights_of(sound, 25.0)
    for blocks in (10, 1000):
        np.testing.assert_array_equal(weights_of(sound, 25.0, blocks), one)


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("blend", ["paste", "mouth"])
def test_policies(generator_file: Path, face: np.ndarray, blend: str) -> None:
    sound = np.concatenate([VOICE, PAUSE])
    pictures = [np.roll(face, n % 3, axis=1) for n in range(55)]

    def result(silence: str) -> np.ndarray:
        options = {"device": "cpu", "precision": "fp32", "detector": "centerface", "blend": blend}
        lip_sync = LipSync(generator_file, **options, silence=silence, wav2lip_batch_size=5)
        return np.stack(list(lip_sync(pictures, sound, fps=25)))

    network, source = result("network"), result("source")
    assert len(network) == len(source) == 55
    weights = weights_of(sound, 25.0)
    same = [np.array_equal(a, b) for a, b in zip(source, network, strict=True)]
    assert same == [weight == 1 for weight in weights]
    own = [np.array_equal(a, b) for a, b in zip(source, pictures, strict=True)]
    assert own == [weight == 0 for weight in weights]
    assert 25 < sum(same) < 40 and 12 < sum(own) < 25
    for number in np.flatnonzero((weights > 0) & (weights < 1)):
        mixed = pictures[number] + weights[number] * (
            network[number].astype(float) - pictures[number]
        )
        assert np.abs(source[number] - mixed).max() <= 1
    if blend == "mouth":
        still = result("still")
        spoken = weights == 1
        np.testing.assert_array_equal(still[spoken], network[spoken])


@pytest.mark.usefixtures("thin")
def test_live_use_waits_for_no_more_sound(generator_file: Path, face: np.ndarray) -> None:
    lip_sync = LipSync(
        generator_file, device="cpu", detector="centerface", silence="source",
        wav2lip_batch_size=1, face_det_batch_size=1,
    )  # fmt: skip
    whole = list(lip_sync([face] * 30, VOICE, fps=25))
    blocks = list(lip_sync([face] * 30, iter(np.array_split(VOICE, 75)), fps=25))
    for one, other in zip(whole, blocks, strict=True):
        np.testing.assert_array_equal(one, other)
