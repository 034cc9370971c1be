"""The shape of a clip's mouth in each frame: computed once, then kept beside its crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from face_detection.landmarks import FaceLandmarks, mouth_shape
from wav2lip_npu.data.clips import MOUTH, list_crops, readable_crops
from wav2lip_npu.data.kept import keep, read_arrays
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import file_state

MAX_FRAMES = 15_000  # of a clip, ten minutes; the rest is not looked at


def load_mouth(folder: Path, landmarks: FaceLandmarks, max_frames: int = MAX_FRAMES) -> np.ndarray:
    """The shape of the mouth in each frame of a clip.

    What is kept may be of more frames; of fewer, it is computed again.

    Args:
        folder: of the clip.
        landmarks: the network, for crops that are new.
        max_frames: the frames from this on are not looked at.

    Returns:
        float32 (last crop's number + 1, 3), see ``mouth_shape``; NaN where there is no crop, or
        none that is an image.

    Raises:
        UserError: the clip has no crops, none of them is an image, or the disk does not give them.
    """
    try:
        numbers = [number for number in list_crops(folder) if number < max_frames]
        state = np.array([file_state(folder / f"{number}.jpg") for number in numbers])
    except OSError as error:
        raise UserError(f"{folder}: {reason(error)}") from error
    if not numbers:
        raise UserError(f"{folder}: no crops in its first {max_frames} frames")
    length = numbers[-1] + 1
    kept = _read(folder / MOUTH, state, length)
    if kept is not None:
        return kept
    mouth = np.full((length, 3), np.nan, np.float32)
    for number, crop in readable_crops(folder, numbers):
        mouth[number] = mouth_shape(landmarks.detect(crop))
    keep(folder / MOUTH, {"mouth": mouth, "state": state})
    return mouth


def _read(path: Path, state: np.ndarray, length: int) -> np.ndarray | None:
    """What was kept of the same crops, maybe with more after them; None if it is anything else."""
    arrays = read_arrays(path)
    try:
        mouth, known = arrays["mouth"][:length], arrays["state"][: len(state)]
    except (KeyError, IndexError):  # another file, or arrays of no dimension
        return None
    is_whole = mouth.shape == (length, 3) and mouth.dtype == np.float32
    return mouth if is_whole and np.array_equal(known, state) else None
