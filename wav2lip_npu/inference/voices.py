"""Who says what: the list of ``--voices``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.config import InferConfig
from wav2lip_npu.config.inference import FACE_RULES, is_face_rule
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.files import read_text

VOICE_COLUMNS = ("person", "audio", "gain")
MAX_GAIN = 40.0  # dB, louder or softer; more is a slip of the pen


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A line of the list."""

    person: str  # a rule, see ``tracking.selection.TargetSelector``
    audio: Path
    gain: float = 0.0  # dB


def split_line(line: str) -> list[str]:
    """The fields of a line of a list; a line is a record, so that an open quote costs one alone.

    Raises:
        csv.Error: it cannot be read.
    """
    return [field.strip() for field in next(csv.reader([line.rstrip("\n")]), [])]


def to_path(word: str) -> Path:
    """A file that a list names; ~/ is the home folder."""
    return Path(word).expanduser() if word.startswith("~/") else Path(word)


def voices_of(config: InferConfig) -> list[Voice]:
    """Who says what: the list of ``--voices``, or the one face and ``--audio``.

    Raises:
        UserError: see ``read_voices``.
    """
    if config.voices is not None:
        return read_voices(config.voices)
    assert config.audio is not None
    return [Voice(person=config.face_select, audio=config.audio)]


def inputs_of(config: InferConfig) -> list[Path]:
    """The files that are seen or heard in one video.

    Raises:
        UserError: see ``read_voices``.
    """
    files = [config.face, config.voices, config.final_audio]
    return [*filter(None, files), *(voice.audio for voice in voices_of(config))]


def read_voices(path: Path) -> list[Voice]:
    """The voices of a list; their files are relative to the current folder.

    Raises:
        UserError: no such file; not of these columns; or a line that cannot be used.
    """
    voices: list[Voice] = []
    names: list[str] = []
    for number, line in enumerate(io.StringIO(read_text(path), newline=None), start=1):
        try:
            words = split_line(line)
            if not any(words):
                continue
            if names:
                voices.append(_voice(names, words, voices))
            elif {"person", "audio"} <= {*words} <= {*VOICE_COLUMNS}:
                names = words
            else:
                break
        except (csv.Error, ValueError) as error:
            raise UserError(f"{path}: line {number}: {error}") from error
    if not names:
        raise UserError(f"{path}: its first line must be {','.join(VOICE_COLUMNS)}")
    if not voices:
        raise UserError(f"{path}: has no voices")
    return voices


def _voice(names: Sequence[str], words: Sequence[str], others: Sequence[Voice]) -> Voice:
    """Raise ValueError where the line cannot be used."""
    if len(words) != len(names):
        raise ValueError(f"{','.join(names)} are wanted, {len(words)} fields are there")
    given = dict(zip(names, words, strict=True))
    person = given["person"]
    if not is_face_rule(person):
        rules = ", ".join((*FACE_RULES, "track:N"))
        raise ValueError(f"person {person}: choose from {rules}")
    if any(_same_person(person, other.person) for other in others):
        raise ValueError(f"{person} has a voice already")
    if not given["audio"]:
        raise ValueError("audio is missing")
    gain = given.get("gain") or "0"
    try:
        decibels = float(gain.lower().removesuffix("db"))
    except ValueError:
        raise ValueError(f"gain {gain}: must be a number of dB") from None
    if not -MAX_GAIN <= decibels <= MAX_GAIN:
        raise ValueError(f"gain {gain}: must be from -{MAX_GAIN:.0f} to {MAX_GAIN:.0f} dB")
    return Voice(person=person, audio=to_path(given["audio"]), gain=decibels)


def _same_person(one: str, other: str) -> bool:
    first, second = ("track:1" if rule == "first" else rule for rule in (one, other))
    return first == second
