"""Move the sound of a preprocessed clip against its crops; the sound as it was is kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from wav2lip_npu.constants import SAMPLES_PER_FRAME
from wav2lip_npu.data.clips import AUDIO, MEL, SHIFT, original_audio
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import load_audio, write_wav
from wav2lip_npu.runtime.files import atomic_write, file_state, sha256, write_text


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What was done to a clip's sound: a file beside it."""

    original: str  # name of the file with the sound as it was
    late: float  # frames by which that came late
    sha256: str  # of the sound that was made of it


def shift_sound(folder: Path, late: float, measured: tuple[int, int]) -> None:
    """Let the sound of a clip come earlier by ``late`` frames, or later if that is below 0.

    Its length stays; what is missing at one end is silence. It is made of the first sound again if
    it was shifted before, so nothing is lost by shifting twice.

    Args:
        folder: of the clip.
        late: in frames; rounded to samples, 640 a frame.
        measured: ``file_state`` of the sound that was measured.

    Raises:
        UserError: the sound is another one than was measured, or cannot be read or written.
        OSError: the disk does not allow it.
    """
    path = folder / AUDIO
    if file_state(path) != measured:
        raise UserError(f"{path}: has changed since it was measured; run sync again")
    former = _former_shift(folder)
    if former is not None:
        original, late = folder / former.original, former.late + late
    else:
        original = _keep(path)
    with atomic_write(path) as partial:
        write_wav(partial, shifted(load_audio(original), late))
        done = Shift(original=original.name, late=late, sha256=sha256(partial))
        write_text(folder / SHIFT, json.dumps(asdict(done)) + "\n")
    (folder / MEL).unlink(missing_ok=True)  # it is computed of the new sound


def _former_shift(folder: Path) -> Shift | None:
    """What made the sound that is there; None if that is nobody knows what."""
    try:
        former = Shift(**json.loads((folder / SHIFT).read_text(encoding="utf-8")))
        is_ours = former.sha256 == sha256(folder / AUDIO)
        return former if is_ours and folder / former.original in original_audio(folder) else None
    except (OSError, ValueError, TypeError):
        return None


def _keep(path: Path) -> Path:
    """Copy a sound beside itself, under a name that is free.

    Raises:
        WriteError: it cannot be written.
    """
    copy, number = path.with_name("audio.original.wav"), 1
    while copy.exists():
        number += 1
        copy = path.with_name(f"audio.original-{number}.wav")
    with atomic_write(copy) as partial:
        shutil.copyfile(path, partial)
    return copy


def shifted(samples: np.ndarray, late: float) -> np.ndarray:
    """Samples, earlier by so many frames; as many as before."""
    count = min(round(abs(late) * SAMPLES_PER_FRAME), len(samples))
    silence = np.zeros(count, samples.dtype)
    if late >= 0:
        return np.concatenate([samples[count:], silence])
    return np.concatenate([silence, samples[: len(samples) - count]])
