"""The shape of a clip's mouth in each frame: computed once, then kept beside its crops."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from face_detection.landmarks import FaceLandmarks, mouth_shape
from wav2lip_npu.data.clips import MOUTH, list_crops
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import WriteError, atomic_write, read_bytes

MAX_LONGEST_GAP = 10**6  # frames: a crop of a larger number is a slip


def load_mouth(folder: Path, landmarks: FaceLandmarks) -> np.ndarray:
    """The shape of the mouth in each frame of a clip.

    Args:
        folder: of the clip.
        landmarks: the network, for crops that are new.

    Returns:
        float32 (last crop's number + 1, 3), see ``mouth_shape``; NaN where there is no crop, or
        none that can be read.

    Raises:
        UserError: the clip has no crops, or its folder cannot be read.
    """
    try:
        numbers = list_crops(folder)
    except OSError as error:
        raise UserError(f"{folder}: {reason(error)}") from error
    if not numbers or numbers[-1] > MAX_LONGEST_GAP:
        raise UserError(f"{folder}: no crops, or one of number {numbers[-1:]}")
    state = np.array([_state(folder / f"{number}.jpg") for number in numbers])
    kept = _read(folder / MOUTH, state)
    if kept is not None:
        return kept
    mouth = np.full((numbers[-1] + 1, 3), np.nan, np.float32)
    for number in numbers:
        crop = _read_crop(folder / f"{number}.jpg")
        if crop is not None:
            mouth[number] = mouth_shape(landmarks.detect(crop))
    with suppress(WriteError), atomic_write(folder / MOUTH) as partial:  # it may be read-only
        np.savez(partial, mouth=mouth, state=state)
    return mouth


def _state(path: Path) -> tuple[int, int]:
    """Size and time of a file, which change with its content."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _read(path: Path, state: np.ndarray) -> np.ndarray | None:
    """What was kept of the same crops, or None."""
    try:
        with np.load(path, allow_pickle=False) as content:
            mouth, known = content["mouth"], content["state"]
    except Exception:  # NumPy and zipfile raise many kinds for other files
        return None
    is_whole = mouth.ndim == 2 and mouth.shape[1] == 3 and mouth.dtype == np.float32
    return np.asarray(mouth) if is_whole and np.array_equal(known, state) else None


def _read_crop(path: Path) -> np.ndarray | None:
    """A crop in its own size, or None if it cannot be read."""
    try:
        crop = cv2.imdecode(np.frombuffer(read_bytes(path), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None
    return crop if crop is not None and min(crop.shape[:2]) > 1 else None
