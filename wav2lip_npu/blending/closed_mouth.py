"""A face with its mouth shut, as it was seen shut before, or by moving its lips."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from face_detection import Box
from face_detection.landmarks import mouth_shape
from wav2lip_npu.blending.aligned_face import fit
from wav2lip_npu.blending.colours import match_colours
from wav2lip_npu.blending.masks import mix, mouth_mask
from wav2lip_npu.blending.opening import scale_opening

SHUT, OPEN = 0.010, 0.018  # openings in heights of the face; between them both pictures are mixed
REMEMBERED = 8  # faces, each seen from another side
# Root mean squares by which points other than the lips' differ, in heights of the face, when one
# face is put over the other: up to the one it is seen from the same side, from the other on the
# one face looks wrong in the other.
SAME_SIDE, MAX_MISFIT = 0.01, 0.03
# A mouth whose lips were moved looks the better the less open it was. Another one replaces it if
# it was by this factor less open, or shut: not more often, as each time the picture changes.
LESS_OPEN = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """A face as it was in a frame."""

    patch: np.ndarray  # (h, w, 3) BGR uint8, with the mouth shut
    points: np.ndarray  # (468, 2) in pixels of the patch
    opening: float  # as it was in the frame
    is_warped: bool  # whether the mouth was open, and its lips were moved


class ClosedMouth:
    """Shuts the mouth of one face by frames in which it was seen shut, or nearly."""

    def __init__(self) -> None:
        """Nothing has been seen yet."""
        self._seen: list[_Seen] = []

    def see(self, image: np.ndarray, box: Box, points: np.ndarray) -> None:
        """Remember a face, if its mouth is shut or no such face is known; or it is shut better.

        Args:
            image: (h, w, 3) BGR uint8.
            box: around the face, within the frame.
            points: (468, 3) of the face in the frame, see ``FaceLandmarks``.
        """
        opening = float(mouth_shape(points)[0])
        is_open = opening > OPEN
        near = MAX_MISFIT if is_open else SAME_SIDE
        same = [one for one in self._seen if fit(one.points, points)[1] < near]
        enough = opening / LESS_OPEN if is_open else opening
        if any(one.opening <= enough for one in same):
            return
        shut = scale_opening(image, box, points, 0.0) if is_open else image
        x1, y1, x2, y2 = box
        new = _Seen(
            patch=shut[y1:y2, x1:x2].copy(),
            points=points[:, :2] - box[:2],
            opening=opening,
            is_warped=is_open,
        )
        others = [one for one in self._seen if one not in same]
        self._seen = sorted([new, *others], key=lambda one: one.opening)[:REMEMBERED]

    def shut(self, image: np.ndarray, box: Box, points: np.ndarray) -> np.ndarray:
        """The frame with the mouth shut; a copy if it changes.

        A remembered face that was seen from about the same side is put over this one by the affine
        map that fits all points but the lips'; within jaw, cheeks and nose it shows. Without one
        the lips of the frame itself are moved.

        Args:
            image: see ``see``.
            box: see ``see``.
            points: see ``see``.
        """
        opening = float(mouth_shape(points)[0])
        x1, y1, x2, y2 = box
        place, size = points[:, :2] - box[:2], (x2 - x1, y2 - y1)
        if opening <= SHUT:
            return image
        useful = [one for one in self._seen if one.is_warped or one.opening < opening]
        fits = [(*fit(one.points, place), one) for one in useful]
        fits = [found for found in fits if found[1] < MAX_MISFIT]
        if not fits:
            return scale_opening(image, box, points, 0.0)
        matrix, _, best = min(fits, key=lambda found: found[1] + found[2].opening)
        shut = cv2.warpAffine(best.patch, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        mask = mouth_mask(place, size)
        own = image[y1:y2, x1:x2]
        matched = match_colours(shut, own, mask)
        mask *= min(1.0, (opening - SHUT) / (OPEN - SHUT))
        result = image.copy()
        result[y1:y2, x1:x2] = mix(own, matched, mask)
        return result
