"""What SyncNet v2 sees of a video: the whole frame, or the face as the field's pipeline cuts it.

The formula of the crop is that of the field's scripts; the faces are detected and followed by
``tracking``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
from scipy.signal import medfilt

from wav2lip_npu.boxes import area_of
from wav2lip_npu.models.syncnet_v2 import FACE_SIDE

MIN_TRACK_FRAMES = 50  # 2 s; the field's pipeline has 4 s, longer than most clips of LRS2 and GRID
MAX_GAP_FRAMES = 25  # 1 s for which a face may be missed within a track, as in the field's pipeline
MEDIAN_FRAMES = 13  # of the filter of places and sizes
CROP_SCALE = 0.40  # how far a crop goes beyond the face
PAD_GREY = 110  # outside of the frame


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceTrack:
    """A face in consecutive frames."""

    first: int  # frame
    boxes: np.ndarray  # (n, 4) x1, y1, x2, y2

    @property
    def area(self) -> float:
        """Of all boxes together, in pixels: most for the face that is there longest and largest."""
        return area_of(self.boxes)


def face_tracks(found: Iterable[Mapping[int, np.ndarray]]) -> list[FaceTrack]:
    """Tracks without gaps: short ones are interpolated, long ones divide a track.

    Args:
        found: frame → box (4,) of each person in each shot.

    Returns:
        Those of at least ``MIN_TRACK_FRAMES`` frames, the largest first.
    """
    tracks = []
    for boxes in found:
        frames = np.array(sorted(boxes))
        for part in np.split(frames, np.flatnonzero(np.diff(frames) > MAX_GAP_FRAMES) + 1):
            whole = np.arange(part[0], part[-1] + 1)
            if len(whole) >= MIN_TRACK_FRAMES:
                known = np.stack([boxes[frame] for frame in part.tolist()])
                columns = [np.interp(whole, part, column) for column in known.T]
                tracks.append(FaceTrack(first=int(part[0]), boxes=np.stack(columns, axis=1)))
    return sorted(tracks, key=lambda track: (-track.area, track.first))


def whole_frames(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Frames (h, w, 3) resized to (224, 224, 3), as for LRS."""
    for image in images:
        yield cv2.resize(image, (FACE_SIDE, FACE_SIDE))


def track_crops(images: Iterator[np.ndarray], track: FaceTrack) -> Iterator[np.ndarray]:
    """The face of each frame of a track, (224, 224, 3).

    Args:
        images: all frames of the video, (h, w, 3) BGR uint8.
        track: the face.
    """
    x1, y1, x2, y2 = track.boxes.T
    # Zeros before and after, as there: at its ends a track takes the least of seven values.
    halves, rows, columns = (
        medfilt(values, MEDIAN_FRAMES)
        for values in (np.maximum(y2 - y1, x2 - x1) / 2, (y1 + y2) / 2, (x1 + x2) / 2)
    )
    shown = islice(images, track.first, track.first + len(track.boxes))
    for image, half, row, column in zip(shown, halves, rows, columns, strict=False):
        yield crop_face(image, float(half), float(row), float(column))


def crop_face(image: np.ndarray, half: float, row: float, column: float) -> np.ndarray:
    """A square around a face, lower than its middle: (224, 224, 3).

    Args:
        image: (h, w, 3) BGR uint8.
        half: half of the longer side of the face's box.
        row: of its centre.
        column: of its centre.
    """
    pad = int(half * (1 + 2 * CROP_SCALE))
    grey = (PAD_GREY,) * 3
    padded = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=grey)
    row, column = row + pad, column + pad
    top, bottom = int(row - half), int(row + half * (1 + 2 * CROP_SCALE))
    left, right = int(column - half * (1 + CROP_SCALE)), int(column + half * (1 + CROP_SCALE))
    return cv2.resize(padded[top:bottom, left:right], (FACE_SIDE, FACE_SIDE))
