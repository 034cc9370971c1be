"""Speech from espeak-ng: the sound, and the time of every phoneme without speech recognition."""

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


# --- libespeak-ng through ctypes, with the values of its header speak_lib.h ---

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
