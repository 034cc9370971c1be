"""Speech from espeak-ng, and the movement of the mouth that speaks it.

``speak`` returns the sound and the time of every phoneme, so no speech recognition is needed. Each
phoneme has a *viseme*, the mouth shape of its pronunciation. ``mouth_track`` moves the mouth from
one viseme to the next and opens it further where the voice is louder.
"""

import ctypes
import functools
import importlib
import os
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from wav2lip_npu.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Speech:
    """A spoken text: its sound, and its phonemes in order of time."""

    samples: np.ndarray
    """The sound: float32 mono in [-1, 1], shape (samples,)."""
    sample_rate: int
    """Samples per second, in Hz."""
    phonemes: tuple[tuple[float, str], ...]
    """(start in seconds, espeak mnemonic), each lasting until the next one starts."""

    @property
    def duration(self) -> float:
        """The length of the sound, in seconds."""
        return len(self.samples) / self.sample_rate


# --- The voice: libespeak-ng through ctypes, with the values of its header speak_lib.h ---

_AUDIO_OUTPUT_SYNCHRONOUS = 2  # samples go to the callback, and espeak_Synth returns when spoken
_INITIALIZE_PHONEME_EVENTS = 0x0001
_INITIALIZE_DONT_EXIT = 0x8000
_EVENT_LIST_TERMINATED, _EVENT_PHONEME = 0, 7
_RATE, _PITCH = 1, 3
_POSITION_CHARACTER = 1
_CHARS_UTF8 = 1


class _EventId(ctypes.Union):
    _fields_ = (
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_speaking = threading.Lock()  # espeak-ng keeps its state in globals


@functools.cache
def _espeak() -> tuple[ctypes.CDLL, int]:
    """The initialised library, and the sample rate of its voices in Hz."""
    try:
        loader = importlib.import_module("espeakng_loader")
        library = ctypes.CDLL(loader.get_library_path())
    except (ImportError, OSError) as error:
        raise UserError(
            f"the demo needs espeak-ng ({error}): run pip install wav2lip-npu[demo]"
        ) from error
    library.espeak_Synth.argtypes = (
        *(ctypes.c_char_p, ctypes.c_size_t),
        *(ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
        *(ctypes.c_void_p, ctypes.c_void_p),
    )
    data = loader.get_data_path()
    sample_rate: int = library.espeak_Initialize(
        _AUDIO_OUTPUT_SYNCHRONOUS,
        0,
        os.fsencode(data),
        _INITIALIZE_PHONEME_EVENTS | _INITIALIZE_DONT_EXIT,
    )
    if sample_rate <= 0:
        raise UserError(
            f"espeak-ng cannot read its data in {data}; its path must be shorter than 160 bytes: "
            "use a virtual environment in a folder with a shorter path"
        )
    return library, sample_rate


def speak(text: str, *, voice: str = "en", words_per_minute: int = 160, pitch: int = 50) -> Speech:
    """Speak a text.

    The voices vary a little: a process never speaks the same text twice in the same way, but a new
    process that makes the same calls gets the same sound.

    Args:
        text: what to say.
        voice: of espeak-ng, such as "en", "en-us" or its variant "en-us+f3".
        words_per_minute: 80 to 450.
        pitch: 0 to 100; 50 is the voice's own.

    Raises:
        UserError: espeak-ng is not installed, has no such voice, or fails.
    """
    library, sample_rate = _espeak()
    blocks: list[np.ndarray] = [np.empty(0, np.int16)]
    phonemes: list[tuple[float, str]] = []

    def receive(samples: Any, count: int, events: Any) -> int:
        if samples and count:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        for event in events:
            if event.type == _EVENT_LIST_TERMINATED:
                break
            if event.type == _EVENT_PHONEME:
                mnemonic = event.id.string.decode("utf-8", "replace")
                phonemes.append((event.sample / sample_rate, mnemonic))
        return 0  # go on

    callback = _SynthCallback(receive)
    encoded = text.encode()
    with _speaking:
        if library.espeak_SetVoiceByName(voice.encode()):
            raise UserError(f"espeak-ng has no voice {voice!r}; try 'en' or 'en-us'")
        library.espeak_SetParameter(_RATE, words_per_minute, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        library.espeak_SetSynthCallback(callback)
        status = library.espeak_Synth(
            encoded, len(encoded) + 1, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None
        )
    if status:
        raise UserError(f"espeak-ng could not speak the text (error {status})")
    samples = np.concatenate(blocks).astype(np.float32) / 32768
    return Speech(samples=samples, sample_rate=sample_rate, phonemes=tuple(phonemes))


# --- The mouth ---

CLOSED = (0.0, 0.0)
_STRESS_MARKS = "',%=\"|"

VISEMES: dict[str, tuple[float, float]] = {
    # open vowels
    **dict.fromkeys("aA", (1.0, 0.1)),
    **dict.fromkeys("V&", (0.8, 0.1)),
    **dict.fromkeys("0", (0.85, -0.4)),
    # spread vowels
    **dict.fromkeys("E", (0.7, 0.5)),
    **dict.fromkeys("e", (0.55, 0.7)),
    **dict.fromkeys("I", (0.4, 0.7)),
    **dict.fromkeys("i", (0.3, 1.0)),
    # rounded vowels
    **dict.fromkeys("O", (0.75, -0.7)),
    **dict.fromkeys("oW", (0.55, -0.85)),
    **dict.fromkeys("UYuyw", (0.3, -1.0)),
    # central vowels
    **dict.fromkeys("@3", (0.5, 0.0)),
    # lips together; lower lip to the teeth
    **dict.fromkeys("mbp", CLOSED),
    **dict.fromkeys("fvBF", (0.1, 0.2)),
    # tongue, teeth and throat
    **dict.fromkeys("TD", (0.25, 0.1)),
    **dict.fromkeys("tdnl*", (0.25, 0.2)),
    **dict.fromkeys("szc", (0.15, 0.5)),
    **dict.fromkeys("SZ", (0.25, -0.6)),
    **dict.fromkeys("rR", (0.3, -0.4)),
    **dict.fromkeys("jC", (0.25, 0.6)),
    **dict.fromkeys("kgNxhQGXH", (0.35, 0.0)),
}
"""(openness 0..1, width -1 rounded .. 1 spread) by the letter of an espeak mnemonic.

A mnemonic has one letter, or several for diphthongs and affricates ("aU", "tS"), and marks of
stress, length and variant ("'A:", "I2"). A digit counts as a letter only in first position.
"""

_TRACK_HZ = 500  # steps per second of the track, which is then sampled at each frame
_COARTICULATION_SECONDS = 0.10  # in which one mouth shape changes into the next
_LIPS_SECONDS = 0.04  # in which the lips close or open
_MIN_CLOSURE_SECONDS = 0.08  # so that at 25 fps one frame shows the lips fully closed
_P_CLOSURE_SECONDS = 0.06  # espeak reports a p when the lips open: they are closed before
_MB_CLOSURE_SHARE = 0.65  # of the duration of an m or b; the rest leads to the next sound
_LOUDNESS_SECONDS = 0.12  # width of the window that smooths the loudness
_SILENT_DBFS, _LOUD_DBFS = -50.0, -16.0  # for a closed mouth, for a fully open one


def visemes(mnemonic: str) -> list[tuple[float, float]]:
    """The mouth shapes (openness, width) of an espeak mnemonic, in order."""
    if mnemonic.startswith("_"):
        return [CLOSED]
    letters = mnemonic.lstrip(_STRESS_MARKS)
    letters = letters[:1] + "".join(c for c in letters[1:] if not c.isdigit())
    return [VISEMES[c] for c in letters if c in VISEMES] or [VISEMES["t"]]


def mouth_track(speech: Speech, fps: float) -> np.ndarray:
    """The mouth in every whole video frame of the speech.

    Returns:
        float32 (frames, 2): openness 0 to 1, and width -1 (rounded) to 1 (spread), at the middle of
        each frame; both are 0 in silence.
    """
    steps = max(1, int(np.ceil(speech.duration * _TRACK_HZ)))
    shape = np.zeros((steps, 2))
    closed = np.zeros(steps)
    begin = 0.0
    ends = [start for start, _ in speech.phonemes[1:]] + [speech.duration]
    for (start, mnemonic), end in zip(speech.phonemes, ends, strict=True):
        letter = mnemonic.lstrip(_STRESS_MARKS)[:1]
        if letter == "p":
            begin, end = start - _P_CLOSURE_SECONDS, start
        elif letter in ("m", "b"):
            begin, end = start, start + _MB_CLOSURE_SHARE * (end - start)
        if letter in ("p", "m", "b"):
            margin = max(0.0, (_MIN_CLOSURE_SECONDS - (end - begin)) / 2)
            closed[_steps(begin - margin, end + margin)] = 1
        targets = visemes(mnemonic)
        borders = np.linspace(begin, end, len(targets) + 1)
        for target, since, until in zip(targets, borders[:-1], borders[1:], strict=True):
            shape[_steps(since, until)] = target
        begin = end

    track = np.stack([_smooth(s, _COARTICULATION_SECONDS) for s in shape.T], axis=1)
    track *= _smooth(_loudness(speech, steps), _LOUDNESS_SECONDS)[:, None]
    track[:, 0] *= 1 - _smooth(closed, _LIPS_SECONDS)
    frames = int(speech.duration * fps)
    middles = ((np.arange(frames) + 0.5) / fps * _TRACK_HZ).astype(int)
    return track[middles].astype(np.float32)


def _loudness(speech: Speech, steps: int) -> np.ndarray:
    """Loudness in each step, 0 (silent) to 1 (loud), linear in decibels: (steps,)."""
    size = speech.sample_rate / _TRACK_HZ
    power = np.concatenate([[0.0], np.cumsum(np.square(speech.samples, dtype=np.float64))])
    borders = np.minimum(np.arange(steps + 1) * size, len(speech.samples)).astype(int)
    energy = np.diff(power[borders]) / size
    decibels = 10 * np.log10(_smooth(energy, 0.03).clip(1e-10))
    return ((decibels - _SILENT_DBFS) / (_LOUD_DBFS - _SILENT_DBFS)).clip(0, 1)


def _smooth(track: np.ndarray, seconds: float) -> np.ndarray:
    """A track (steps,) averaged with a Hann window of this full width."""
    window = np.hanning(2 * round(seconds * _TRACK_HZ / 2) + 3)
    padded = np.pad(track, len(window) // 2, mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")


def _steps(start: float, end: float) -> slice:
    """The steps between two times in seconds."""
    return slice(max(0, round(start * _TRACK_HZ)), max(0, round(end * _TRACK_HZ)))
