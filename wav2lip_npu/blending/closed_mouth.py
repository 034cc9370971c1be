"""A face with its mouth shut, as it was seen shut before."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from face_detection import Box
from face_detection.landmarks import mouth_shape
from wav2lip_npu.blending.aligned_face import fit
from wav2lip_npu.blending.colours import match_colours
from wav2lip_npu.blending.masks import mix, mouth_mask

SHUT, OPEN = 0.010, 0.018  # openings in heights of the face; between them both pictures are mixed
REMEMBERED = 8  # faces, each seen from another side
# Root mean squares by which points other than the lips' differ, in heights of the face, when one
# face is put over the other: up to the one it is seen from the same side, from the other on the
# one face looks wrong in the other.
SAME_SIDE, MAX_MISFIT = 0.01, 0.03


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """A face as it was in a frame."""

    patch: np.ndarray  # (h, w, 3) BGR uint8
    points: np.ndarray  # (468, 2) in pixels of the patch
    opening: float


class ClosedMouth:
    """Shuts the mouth of one face by frames in which it was seen shut."""

    def __init__(self) -> None:
        """Nothing has been seen yet."""
        self._seen: list[_Seen] = []

    def see(self, image: np.ndarray, box: Box, points: np.ndarray) -> None:
        """Remember a face whose mouth is shut, if it is not known better.

        Args:
            image: (h, w, 3) BGR uint8.
            box: around the face, within the frame.
            points: (468, 3) of the face in the frame, see ``FaceLandmarks``.
        """
        opening = float(mouth_shape(points)[0])
        if opening > OPEN:
            return
        same = [one for one in self._seen if fit(one.points, points)[1] < SAME_SIDE]
        if any(one.opening <= opening for one in same):
            return
        x1, y1, x2, y2 = box
        new = _Seen(
            patch=image[y1:y2, x1:x2].copy(), points=points[:, :2] - box[:2], opening=opening
        )
        others = [one for one in self._seen if one not in same]
        self._seen = sorted([new, *others], key=lambda one: one.opening)[:REMEMBERED]

    def shut(self, image: np.ndarray, box: Box, points: np.ndarray) -> np.ndarray:
        """The frame with the mouth shut, as far as it was ever seen shut; a copy if it changes.

        A remembered face that was seen from about the same side is put over this one by the affine
        map that fits all points but the lips'; within jaw, cheeks and nose it shows. Without one
        the frame stays as it is.

        Args:
            image: see ``see``.
            box: see ``see``.
            points: see ``see``.
        """
        opening = float(mouth_shape(points)[0])
        x1, y1, x2, y2 = box
        place, size = points[:, :2] - box[:2], (x2 - x1, y2 - y1)
        fits = [(*fit(one.points, place), one) for one in self._seen if one.opening < opening]
        fits = [found for found in fits if found[1] < MAX_MISFIT]
        if opening <= SHUT or not fits:
            return image
        matrix, _, best = min(fits, key=lambda found: found[1] + found[2].opening)
        shut = cv2.warpAffine(best.patch, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        mask = mouth_mask(place, size)
        own = image[y1:y2, x1:x2]
        matched = match_colours(shut, own, mask)
        mask *= min(1.0, (opening - SHUT) / (OPEN - SHUT))
        result = image.copy()
        result[y1:y2, x1:x2] = mix(own, matched, mask)
        return result
