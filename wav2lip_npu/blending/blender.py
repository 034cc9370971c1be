"""The frames of one video, in order of time, with generated faces in them."""

from __future__ import annotations

import cv2
import numpy as np

from face_detection import Box
from wav2lip_npu.blending.blend import blend
from wav2lip_npu.blending.closed_mouth import ClosedMouth
from wav2lip_npu.blending.enhancer import Enhancer
from wav2lip_npu.blending.in_front import InFront
from wav2lip_npu.blending.masks import mix
from wav2lip_npu.boxes import bounds


class Blender:
    """Puts generated faces into frames, and something else where nobody speaks."""

    def __init__(
        self,
        how: str,
        silence: str,
        enhancer: Enhancer | None = None,
        *,
        keep_in_front: bool = False,
    ) -> None:
        """Blend in a given way.

        Args:
            how: one of ``config.BLENDS``.
            silence: one of ``config.SILENCES``.
            enhancer: restores the generated mouth.
            keep_in_front: whether what lies before the lower face stays as it is in the frame.
        """
        self._how = how
        self._enhancer = enhancer
        self._shuts = silence == "still"
        self._closed_mouth = ClosedMouth()
        self._keeps = keep_in_front
        self._in_front = InFront()
        self._shot = 0

    def blend(
        self,
        image: np.ndarray,
        face: np.ndarray | None,
        box: Box,
        *,
        tilt: float,
        points: np.ndarray | None,
        weight: float,
        shot: int,
    ) -> np.ndarray:
        """A frame with the generated face in it, as far as its weight goes.

        Args:
            image: (h, w, 3) BGR uint8.
            face: see ``blend``; not needed if the weight is 0.
            box: see ``blend``.
            tilt: see ``blend``.
            points: see ``blend``.
            weight: of the generated face; the rest is what the frame has in silence.
            shot: its number; in another one the face may be another one's.
        """
        around = bounds(box, tilt, (image.shape[1], image.shape[0]))
        if around is None:
            return image
        if shot != self._shot:
            self._shot = shot
            self._closed_mouth, self._in_front = ClosedMouth(), InFront()
        kept = None
        if self._keeps and points is not None:
            kept = self._in_front.find(image, around, points)
        result = self._blended(
            image, face, box, around, tilt, points, weight, hidden=kept is not None
        )
        if kept is not None and result is not image:
            x1, y1, x2, y2 = around
            place = result[y1:y2, x1:x2]
            place[:] = mix(place, image[y1:y2, x1:x2], kept)
        return result

    def _blended(
        self,
        image: np.ndarray,
        face: np.ndarray | None,
        box: Box,
        around: Box,
        tilt: float,
        points: np.ndarray | None,
        weight: float,
        *,
        hidden: bool,
    ) -> np.ndarray:
        """The frame as it would be with nothing before the face; the frame itself if it is that."""
        silent = image
        if self._shuts and points is not None:
            if not hidden:
                self._closed_mouth.see(image, around, points)
            if weight < 1:
                silent = self._closed_mouth.shut(image, around, points)
        if face is None or weight == 0:
            return silent
        spoken = blend(self._how, image, face, box, tilt=tilt, points=points)
        if self._enhancer is not None and points is not None:
            spoken = self._enhancer.enhance(spoken, around, points)
        if weight < 1:
            x1, y1, x2, y2 = around
            one, other = spoken[y1:y2, x1:x2], silent[y1:y2, x1:x2]
            one[:] = cv2.addWeighted(one, weight, other, 1 - weight, 0)
        return spoken
