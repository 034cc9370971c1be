"""Detections kept on the disk, by the content of the video that they were made in."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from pathlib import Path

import numpy as np

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.files import atomic_write, sha256

NAME_DIGITS = 16  # hexadecimal digits of a key that make a file's name

log = logging.getLogger(__name__)


class DetectionCache:
    """The detections of one video, as far as they were made: frame → float32 (n, 5)."""

    def __init__(self, folder: Path, video: Path, **conditions: object) -> None:
        """Read what is known.

        Args:
            folder: where it is kept; made if it is not there.
            video: the file; its content counts, not its name.
            conditions: all that detections depend on besides, of plain types.

        Raises:
            UserError: the folder cannot be used.
        """
        self._found: dict[int, np.ndarray] = {}
        try:
            key = json.dumps({"video": sha256(video), **conditions}, sort_keys=True, default=str)
            name = hashlib.sha256(key.encode()).hexdigest()[:NAME_DIGITS]
            self.path = folder / f"{name}.npz"
            folder.mkdir(parents=True, exist_ok=True)
            if self.path.is_file():
                self._read()
        except OSError as error:
            raise UserError(f"--face_cache {folder}: {error}") from error
        self._saved = len(self._found)

    def get(self, frame: int) -> np.ndarray | None:
        """The detections of a frame, or None where the detector was not shown it."""
        return self._found.get(frame)

    def put(self, frame: int, detections: np.ndarray) -> None:
        """Remember the detections of a frame."""
        self._found[frame] = detections

    def save(self) -> None:
        """Write what is new.

        Raises:
            UserError: the disk does not allow it.
        """
        if len(self._found) == self._saved:
            return
        frames = sorted(self._found)
        boxes = [self._found[frame] for frame in frames]
        with atomic_write(self.path) as partial:
            np.savez_compressed(
                partial,
                frames=np.array(frames),
                counts=np.array([len(found) for found in boxes]),
                boxes=np.concatenate([np.zeros((0, 5), np.float32), *boxes]),
            )
        self._saved = len(self._found)

    def _read(self) -> None:
        try:
            with np.load(self.path) as kept:
                ends = np.cumsum(kept["counts"])[:-1]
                parts = np.split(kept["boxes"], ends) if len(kept["counts"]) else []
                self._found = dict(zip(kept["frames"].tolist(), parts, strict=True))
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s: cannot be read (%s), faces are detected again", self.path, error)
