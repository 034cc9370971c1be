"""Detections kept on the disk, by the content of the video that they were made in.

They can be made again, so nothing that is wrong with them ends a run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import zipfile
from pathlib import Path

import numpy as np

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import atomic_write, sha256

NAME_DIGITS = 16  # hexadecimal digits of a key that make a file's name
MAX_FILE_BYTES = 2**28  # unpacked: ten hours of several faces; more is a damaged or foreign file
SAVE_SECONDS = 30.0  # between two savings, so that a killed run loses little

log = logging.getLogger(__name__)


class DetectionCache:
    """The detections of one video, as far as they were made: frame → float32 (n, 5)."""

    def __init__(self, folder: Path, video: Path, **conditions: object) -> None:
        """Read what is known; a warning says why nothing is, where that is a fault.

        Args:
            folder: where it is kept; made if it is not there.
            video: the file; its content counts, not its name.
            conditions: all that detections depend on besides, of plain types.
        """
        self._found: dict[int, np.ndarray] = {}
        self._folder = folder
        self.path: Path | None = None  # None: nothing is kept
        try:
            key = json.dumps({"video": sha256(video), **conditions}, sort_keys=True, default=str)
            name = hashlib.sha256(key.encode()).hexdigest()[:NAME_DIGITS]
            folder.mkdir(parents=True, exist_ok=True)
            self.path = folder / f"{name}.npz"
        except OSError as error:
            self._give_up(error)
        if self.path is not None and self.path.exists():
            try:
                self._found = _read(self.path)
            except Exception as error:  # NumPy, zipfile and zlib have a dozen kinds
                log.warning(
                    "%s: cannot be read (%s), faces are detected again", self.path, reason(error)
                )
        self._saved = len(self._found)
        self._saved_at = time.monotonic()

    def _give_up(self, error: Exception) -> None:
        log.warning("--face_cache %s: detections are not kept (%s)", self._folder, reason(error))
        self.path = None

    def get(self, frame: int) -> np.ndarray | None:
        """The detections of a frame, or None where the detector was not shown it."""
        return self._found.get(frame)

    def put(self, frame: int, detections: np.ndarray) -> None:
        """Remember the detections of a frame."""
        self._found[frame] = detections
        if time.monotonic() - self._saved_at > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write what is new; if the disk does not allow it, nothing is kept from then on."""
        self._saved_at = time.monotonic()
        found = self._found.copy()  # another thread may be adding to it
        if self.path is None or len(found) == self._saved:
            return
        frames = sorted(found)
        boxes = [found[frame] for frame in frames]
        try:
            with atomic_write(self.path) as partial:
                np.savez_compressed(
                    partial,
                    frames=np.array(frames),
                    counts=np.array([len(one) for one in boxes]),
                    boxes=np.concatenate([np.zeros((0, 5), np.float32), *boxes]),
                )
        except UserError as error:
            self._give_up(error)
        self._saved = len(found)


def _read(path: Path) -> dict[int, np.ndarray]:
    """The detections of a file.

    Raises:
        Exception: of any kind, if it cannot be read or holds anything else.
    """
    if not path.is_file():
        raise ValueError("not a regular file")
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > MAX_FILE_BYTES:
            raise ValueError("too large")
    with np.load(path, allow_pickle=False) as kept:
        frames, counts, boxes = kept["frames"], kept["counts"], kept["boxes"]
    whole = all(x.ndim == 1 and np.issubdtype(x.dtype, np.integer) for x in (frames, counts))
    if (
        not whole
        or len(frames) != len(counts)
        or min(frames.min(initial=0), counts.min(initial=0)) < 0
    ):
        raise ValueError("not the numbers of frames")
    if boxes.shape != (counts.sum(), 5) or boxes.dtype != np.float32:
        raise ValueError("not boxes")
    if not np.isfinite(boxes).all():
        raise ValueError("boxes that are no numbers")
    parts = np.split(boxes, np.cumsum(counts)[:-1]) if len(counts) else []
    return dict(zip(frames.tolist(), parts, strict=True))
