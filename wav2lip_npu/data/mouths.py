"""The shape of a clip's mouth in each frame: computed once, then kept beside its crops."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from face_detection.landmarks import FaceLandmarks, mouth_shape
from wav2lip_npu.data.clips import MOUTH, list_crops, read_crop
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import WriteError, atomic_write, file_state

MAX_FRAMES = 15_000  # of a clip, ten minutes; the rest is not looked at


def load_mouth(folder: Path, landmarks: FaceLandmarks) -> np.ndarray:
    """The shape of the mouth in each frame of a clip.

    Args:
        folder: of the clip.
        landmarks: the network, for crops that are new.

    Returns:
        float32 (last crop's number + 1, 3), see ``mouth_shape``; NaN where there is no crop, or
        none that is an image. Of a long clip the first ``MAX_FRAMES``.

    Raises:
        UserError: the clip has no crops, none of them is an image, or the disk does not give them.
    """
    try:
        numbers = [number for number in list_crops(folder) if number < MAX_FRAMES]
        state = np.array([file_state(folder / f"{number}.jpg") for number in numbers])
    except OSError as error:
        raise UserError(f"{folder}: {reason(error)}") from error
    if not numbers:
        raise UserError(f"{folder}: no crops")
    kept = _read(folder / MOUTH, state)
    if kept is not None:
        return kept
    mouth = np.full((numbers[-1] + 1, 3), np.nan, np.float32)
    for number in numbers:
        try:
            crop = read_crop(folder / f"{number}.jpg")
        except UserError as error:
            if isinstance(error.__cause__, OSError):  # it may be read another time
                raise
            continue
        mouth[number] = mouth_shape(landmarks.detect(crop))
    if np.isnan(mouth).all():
        raise UserError(f"{folder}: none of its {len(numbers)} crops is an image")
    with suppress(WriteError), atomic_write(folder / MOUTH) as partial:  # it may be read-only
        np.savez(partial, mouth=mouth, state=state)
    return mouth


def _read(path: Path, state: np.ndarray) -> np.ndarray | None:
    """What was kept of the same crops, or None."""
    try:
        with np.load(path, allow_pickle=False) as content:
            mouth, known = content["mouth"], content["state"]
    except Exception:  # NumPy and zipfile raise many kinds for other files
        return None
    is_whole = mouth.ndim == 2 and mouth.shape[1] == 3 and mouth.dtype == np.float32
    return np.asarray(mouth) if is_whole and np.array_equal(known, state) else None
