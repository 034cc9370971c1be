"""The movement of the mouth that speaks a text.

Each phoneme has a *viseme*, the mouth shape of its pronunciation. ``mouth_track`` blends the
visemes of neighbouring phonemes by their dominance, opens the mouth further where the voice is
louder, and shuts it for m, b and p.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy import signal

from wav2lip_npu.demo.speech import Speech


class Viseme(NamedTuple):
    """A mouth shape, and how much it prevails over its neighbours'."""

    openness: float  # 0 shut to 1 wide open
    width: float  # -1 rounded to 1 spread
    tongue: float  # 0 at rest to 1 at the upper teeth
    dominance: float  # of vowels 1; a consonant that any mouth can speak has little


SHUT = Viseme(0.0, 0.0, 0.0, 1.0)
_STRESS_MARKS = "',%=\"|"

VISEMES: dict[str, Viseme] = {
    # open vowels
    **dict.fromkeys("aA", Viseme(1.0, 0.1, 0.0, 1.0)),
    **dict.fromkeys("V&", Viseme(0.9, 0.1, 0.0, 1.0)),
    **dict.fromkeys("0", Viseme(0.95, -0.4, 0.0, 1.0)),
    # spread vowels
    **dict.fromkeys("E", Viseme(0.8, 0.5, 0.1, 1.0)),
    **dict.fromkeys("e", Viseme(0.7, 0.7, 0.2, 1.0)),
    **dict.fromkeys("I", Viseme(0.65, 0.7, 0.2, 0.8)),
    **dict.fromkeys("i", Viseme(0.6, 1.0, 0.3, 1.0)),
    # rounded vowels
    **dict.fromkeys("O", Viseme(0.85, -0.7, 0.0, 1.0)),
    **dict.fromkeys("oW", Viseme(0.7, -0.85, 0.0, 1.0)),
    **dict.fromkeys("UYuyw", Viseme(0.55, -1.0, 0.0, 1.2)),
    # central vowels
    **dict.fromkeys("@3", Viseme(0.7, 0.0, 0.1, 0.5)),
    # lips together; lower lip to the teeth
    **dict.fromkeys("mbp", SHUT),
    **dict.fromkeys("fvBF", Viseme(0.12, 0.2, 0.0, 1.5)),
    # tongue, teeth and throat
    **dict.fromkeys("TD", Viseme(0.5, 0.1, 1.0, 0.7)),
    **dict.fromkeys("tdnl*", Viseme(0.55, 0.2, 1.0, 0.5)),
    **dict.fromkeys("szc", Viseme(0.4, 0.5, 0.5, 0.8)),
    **dict.fromkeys("SZ", Viseme(0.5, -0.6, 0.4, 0.9)),
    **dict.fromkeys("rR", Viseme(0.55, -0.4, 0.5, 0.6)),
    **dict.fromkeys("jC", Viseme(0.5, 0.6, 0.5, 0.6)),
    **dict.fromkeys("kgNxhQGXH", Viseme(0.6, 0.0, 0.0, 0.3)),
}
"""The viseme of each letter of an espeak mnemonic.

A mnemonic has one letter, or several for diphthongs and affricates ("aU", "tS"), and marks of
stress, length and variant ("'A:", "I2"). A digit counts as a letter only in first position.
"""

_TRACK_HZ = 500  # steps per second of the track, which is then sampled at each frame
# How fast the dominance of a viseme falls before and after its phoneme, as in M. Cohen and
# D. Massaro, Modeling coarticulation in synthetic visual speech, 1993.
_DOMINANCE_SECONDS = 0.05
_LIPS_SECONDS = 0.04  # in which the lips close or open
_MIN_CLOSURE_SECONDS = 0.08  # so that at 25 fps one frame shows the lips fully closed
_P_CLOSURE_SECONDS = 0.06  # espeak reports a p when the lips open: they are closed before
_MB_CLOSURE_SHARE = 0.65  # of the duration of an m or b; the rest leads to the next sound
# The bands in which an open mouth is heard: the first formant of open vowels, and the second one.
_OPEN_MOUTH_HZ = ((450.0, 750.0), (750.0, 1150.0), (1150.0, 1650.0))
_LOUDNESS_SECONDS = 0.08  # width of the window that smooths the loudness
_SILENT_DB, _LOUD_DB = -50.0, -28.0  # their mean: for a closed mouth, for a fully open one


def visemes(mnemonic: str) -> list[Viseme]:
    """The mouth shapes of an espeak mnemonic, in order."""
    if mnemonic.startswith("_"):
        return [SHUT]
    letters = mnemonic.lstrip(_STRESS_MARKS)
    letters = letters[:1] + "".join(c for c in letters[1:] if not c.isdigit())
    return [VISEMES[c] for c in letters if c in VISEMES] or [VISEMES["t"]]


def mouth_track(speech: Speech, fps: float) -> np.ndarray:
    """The mouth in every whole video frame of the speech.

    Returns:
        float32 (frames, 3): openness 0 to 1, width -1 (rounded) to 1 (spread) and tongue 0 to 1, at
        the middle of each frame; all are 0 in silence.
    """
    steps = max(1, int(np.ceil(speech.duration * _TRACK_HZ)))
    shape = np.zeros((steps, 3))
    weight = np.full((steps, 1), 1e-6)  # where nothing is spoken, nothing is divided by 0
    closed = np.zeros(steps)
    seconds = np.arange(steps) / _TRACK_HZ
    for viseme, start, end in _timed_visemes(speech):
        distance = np.maximum(np.maximum(start - seconds, seconds - end), 0)
        dominance = viseme.dominance * np.exp(-distance / _DOMINANCE_SECONDS)[:, None]
        shape += dominance * (viseme.openness, viseme.width, viseme.tongue)
        weight += dominance
    for start, end in _closures(speech):
        margin = max(0.0, (_MIN_CLOSURE_SECONDS - (end - start)) / 2)
        closed[_steps(start - margin, end + margin)] = 1

    track = shape / weight * _loudness(speech, steps)[:, None]
    track *= 1 - _smooth(closed, _LIPS_SECONDS)[:, None] * (1, 0, 1)
    frames = int(speech.duration * fps)
    middles = ((np.arange(frames) + 0.5) / fps * _TRACK_HZ).astype(int)
    return track[middles].astype(np.float32)


def _timed_phonemes(speech: Speech) -> list[tuple[str, float, float]]:
    """Each mnemonic with its start and end, in seconds."""
    ends = [start for start, _ in speech.phonemes[1:]] + [speech.duration]
    return [(name, start, end) for (start, name), end in zip(speech.phonemes, ends, strict=True)]


def _timed_visemes(speech: Speech) -> list[tuple[Viseme, float, float]]:
    """Each viseme with its start and end; those of a diphthong share its time."""
    timed = []
    for name, start, end in _timed_phonemes(speech):
        shapes = visemes(name)
        borders = np.linspace(start, end, len(shapes) + 1)
        timed += [
            (shape, float(since), float(until))
            for shape, (since, until) in zip(shapes, itertools.pairwise(borders), strict=True)
        ]
    return timed


def _closures(speech: Speech) -> list[tuple[float, float]]:
    """From when to when the lips are shut for m, b and p, in seconds."""
    found = []
    for name, start, end in _timed_phonemes(speech):
        letter = name.lstrip(_STRESS_MARKS)[:1]
        if letter == "p":
            found.append((start - _P_CLOSURE_SECONDS, start))
        elif letter in ("m", "b"):
            found.append((start, start + _MB_CLOSURE_SHARE * (end - start)))
    return found


def _loudness(speech: Speech, steps: int) -> np.ndarray:
    """Loudness of ``_OPEN_MOUTH_HZ`` in each step, 0 to 1, linear in decibels: (steps,)."""
    decibels = np.mean([_decibels(speech, band, steps) for band in _OPEN_MOUTH_HZ], axis=0)
    return ((decibels - _SILENT_DB) / (_LOUD_DB - _SILENT_DB)).clip(0, 1)


def _decibels(speech: Speech, band: tuple[float, float], steps: int) -> np.ndarray:
    """Power of a band of the speech in each step, in dB of full scale: (steps,)."""
    edges = signal.butter(2, band, "bandpass", fs=speech.sample_rate, output="sos")
    heard = signal.sosfiltfilt(edges, speech.samples.astype(np.float64))
    size = speech.sample_rate / _TRACK_HZ
    power = np.concatenate([[0.0], np.cumsum(np.square(heard))])
    borders = np.minimum(np.arange(steps + 1) * size, len(heard)).astype(int)
    energy = np.diff(power[borders]) / size
    return 10 * np.log10(_smooth(energy, _LOUDNESS_SECONDS).clip(1e-10))


def _smooth(track: np.ndarray, seconds: float) -> np.ndarray:
    """A track (steps,) averaged with a Hann window of this full width."""
    window = np.hanning(2 * round(seconds * _TRACK_HZ / 2) + 3)
    padded = np.pad(track, len(window) // 2, mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")


def _steps(start: float, end: float) -> slice:
    """The steps between two times in seconds."""
    return slice(max(0, round(start * _TRACK_HZ)), max(0, round(end * _TRACK_HZ)))
