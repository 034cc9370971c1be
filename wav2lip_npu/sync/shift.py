"""Move the sound of a preprocessed clip against its crops."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from wav2lip_npu.constants import FPS, SAMPLE_RATE
from wav2lip_npu.data.clips import AUDIO, ORIGINAL_AUDIO
from wav2lip_npu.media.audio import load_audio, write_wav
from wav2lip_npu.runtime.files import atomic_write

SAMPLES_PER_FRAME = SAMPLE_RATE // FPS


def shift_sound(folder: Path, late: int) -> None:
    """Let the sound of a clip come earlier by ``late`` frames, or later if that is below 0.

    Its length stays; what is missing at one end is silence. The sound as it was first is kept.

    Raises:
        UserError: it cannot be read or written.
    """
    path = folder / AUDIO
    samples = load_audio(path)
    if not (folder / ORIGINAL_AUDIO).exists():
        with atomic_write(folder / ORIGINAL_AUDIO) as partial:
            shutil.copyfile(path, partial)
    with atomic_write(path) as partial:
        write_wav(partial, shifted(samples, late))


def shifted(samples: np.ndarray, late: int) -> np.ndarray:
    """Samples, earlier by so many frames; as many as before."""
    count = min(abs(late) * SAMPLES_PER_FRAME, len(samples))
    silence = np.zeros(count, samples.dtype)
    if late >= 0:
        return np.concatenate([samples[count:], silence])
    return np.concatenate([silence, samples[: len(samples) - count]])
