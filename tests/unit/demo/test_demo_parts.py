"""The demo's voices and faces: what is said, and whether the portrait's mouth says the same."""

import sys
from itertools import pairwise

import numpy as np
import pytest
from portraits import two_portraits

from wav2lip_npu.demo import speech, talking_head
from wav2lip_npu.demo.speech import Speech, speak
from wav2lip_npu.demo.visemes import mouth_track
from wav2lip_npu.errors import UserError

FPS = 25.0


def frames_of(portrait, mouth, seed=0):
    return np.stack(list(talking_head.render(portrait, np.asarray(mouth), seed=seed, fps=FPS)))


@pytest.fixture(scope="module")
def portraits():
    return two_portraits()


@pytest.fixture
def voice():
    pytest.importorskip("espeakng_loader")


@pytest.mark.usefixtures("voice")
class TestSpeak:
    def test_ten_words_take_about_as_long_as_the_rate_says(self):
        text = "one two three four five six seven eight nine ten"
        slow, fast = speak(text, words_per_minute=120), speak(text, words_per_minute=240)
        assert 3 < slow.duration < 7.5  # ten words at 120 words per minute: 5 s
        assert 1.5 < slow.duration / fast.duration < 2.5

    def test_sound_and_phonemes(self):
        said = speak("mama papa", voice="en-us+f3")
        assert said.samples.dtype == np.float32
        assert said.samples.ndim == 1
        assert 0.05 < abs(said.samples).max() <= 1
        starts = [start for start, _ in said.phonemes]
        assert starts == sorted(starts)
        assert 0 <= starts[0] <= starts[-1] <= said.duration
        consonants = [name for _, name in said.phonemes if name in ("m", "p")]
        assert consonants == ["m", "m", "p", "p"]

    def test_an_unknown_voice_is_named(self):
        with pytest.raises(UserError, match="no-such-voice"):
            speak("hello", voice="no-such-voice")


def test_without_espeak_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    speech._espeak.cache_clear()
    with pytest.raises(UserError, match=r"pip install wav2lip-npu\[demo\]") as caught:
        speak("hello")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("voice")
@pytest.mark.parametrize("words_per_minute", [100, 130])
def test_lips_meet_for_m_and_p_and_part_for_the_vowels(words_per_minute):
    said = speak("mama papa mama papa", voice="en-us", words_per_minute=words_per_minute)
    openness = mouth_track(said, FPS)[:, 0]
    middles = (np.arange(len(openness)) + 0.5) / FPS
    for (start, name), (vowel, _) in pairwise(said.phonemes):
        if name in ("m", "p"):
            assert openness[abs(middles - start) < 0.09].min() < 0.05
            assert openness[abs(middles - vowel - 0.05) < 0.06].max() > 0.3


@pytest.mark.usefixtures("voice")
def test_the_mouth_opens_with_the_sound():
    said = speak("The boat was far away, and nobody saw the bright lamp on top of the mast.")
    openness = mouth_track(said, FPS)[:, 0]
    assert len(openness) == int(said.duration * FPS)
    size = int(said.sample_rate / FPS)
    blocks = said.samples[: len(openness) * size].reshape(len(openness), size)
    level = np.sqrt(np.square(blocks).mean(axis=1))
    assert np.corrcoef(openness, level)[0, 1] > 0.5
    assert openness[level < 1e-3].max() < 0.15


def tone(hertz):
    return 0.3 * np.sin(np.arange(16000) * 2 * np.pi * hertz / 16000).astype(np.float32)


def spoken(samples, *phonemes):
    return mouth_track(Speech(samples=samples, sample_rate=16000, phonemes=phonemes), FPS)


def test_silence_closes_the_mouth_and_the_sound_of_open_vowels_opens_it():
    open_vowel = (0.0, "'A:")
    assert spoken(tone(1000), open_vowel)[5:-5, 0].min() > 0.8
    assert spoken(tone(200), open_vowel)[5:-5, 0].max() < 0.3  # a hum
    assert not spoken(0 * tone(1000), open_vowel).any()


@pytest.mark.parametrize(("vowel", "sign"), [("'u:", -1), ("oU", -1), ("'i:", 1), ("eI", 1)])
def test_vowels_round_and_spread_the_lips(vowel, sign):
    width = spoken(tone(1000), (0.0, vowel))[2:-2, 1]
    assert (np.sign(width) == sign).all()


def test_a_consonant_is_spoken_with_the_mouth_of_its_vowels():
    """Between rounded vowels a t is rounder than between spread ones; the tongue is raised."""
    round_t, spread_t = (
        spoken(tone(1000), (0.0, vowel), (0.4, "t"), (0.5, vowel)) for vowel in ("u:", "i:")
    )
    at_t, at_vowel = int(0.45 * FPS), int(0.2 * FPS)
    assert round_t[at_t, 1] < -0.2 and spread_t[at_t, 1] > 0.2
    for track in (round_t, spread_t):
        assert track[at_t, 2] > track[at_vowel, 2] + 0.1


def test_render_yields_one_even_bgr_frame_per_mouth(portraits):
    assert len(portraits) == 2
    for portrait in portraits:
        frames = frames_of(portrait, np.random.default_rng(0).random((7, 3)))
        assert frames.shape == (7, 256, 256, 3)
        assert frames.dtype == np.uint8
    assert list(talking_head.render(portraits[0], np.empty((0, 3)), seed=0, fps=FPS)) == []


def test_the_seed_decides_the_take(portraits):
    mouth = np.full((3, 3), 0.4)
    first, again, other = (frames_of(portraits[0], mouth, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert abs(first.astype(int) - other).mean() > 1


def test_only_the_lower_face_moves_with_the_mouth(portraits):
    for portrait in portraits:
        closed, opened = (frames_of(portrait, [[openness, 0.0, 0.0]] * 2) for openness in (0, 1))
        change = abs(closed.astype(int) - opened).max(axis=(0, 3))
        assert change[:120].max() <= 1
        assert change[:, :40].max() <= 1
        assert change[:, -40:].max() <= 1
        assert change[150:220, 90:170].mean() > 15


def test_a_raised_tongue_is_seen_between_the_lips_alone(portraits):
    low, high = (frames_of(portraits[0], [[0.7, 0.0, tongue]] * 2) for tongue in (0, 1))
    change = abs(low.astype(int) - high).max(axis=(0, 3))
    assert change[150:200, 100:155].max() > 20
    change[150:200, 90:165] = 0
    assert change.max() == 0


def test_closed_lips_are_the_portraits_own(portraits):
    hopper = portraits[1]
    frame = hopper.image.copy()
    talking_head._warp_mouth(frame, hopper, openness=0.0, width=0.0, tongue=0.0)
    assert np.array_equal(frame, hopper.image)
