"""The frames of one video, in order of time, with generated faces in them."""

from __future__ import annotations

import cv2
import numpy as np

from face_detection import Box
from face_detection.landmarks import FaceLandmarks, tilt_of
from wav2lip_npu.blending.blend import blend
from wav2lip_npu.blending.closed_mouth import ClosedMouth
from wav2lip_npu.blending.enhancer import Enhancer
from wav2lip_npu.blending.in_front import InFront
from wav2lip_npu.blending.masks import mix
from wav2lip_npu.blending.opening import scale_opening
from wav2lip_npu.boxes import bounds, ends


class Blender:
    """Puts generated faces into frames, and something else where nobody speaks."""

    def __init__(
        self,
        how: str,
        silence: str,
        *,
        strength: float = 1.0,
        enhancer: Enhancer | None = None,
        keep_in_front: bool = False,
    ) -> None:
        """Blend in a given way.

        Args:
            how: one of ``config.BLENDS``.
            silence: one of ``config.SILENCES``.
            strength: the generated mouth is so many times as open as it was generated.
            enhancer: restores the generated mouth.
            keep_in_front: whether what lies before the lower face stays as it is in the frame.
        """
        self._how = how
        self._strength = strength
        self._landmarks = None if strength == 1 else FaceLandmarks()
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
        result = image
        if self._shuts and points is not None:
            if kept is None:  # else what lies before the mouth would be remembered with it
                self._closed_mouth.see(image, around, points)
            if weight < 1:
                result = self._closed_mouth.shut(image, around, points)
        x1, y1, x2, y2 = around
        if face is not None and weight > 0:
            spoken = blend(self._how, image, face, box, tilt=tilt, points=points)
            if points is not None:
                spoken = self._improved(spoken, around, points)
            one, other = spoken[y1:y2, x1:x2], result[y1:y2, x1:x2]
            if weight < 1:
                one[:] = cv2.addWeighted(one, weight, other, 1 - weight, 0)
            result = spoken
        if kept is not None and result is not image:
            place = result[y1:y2, x1:x2]
            place[:] = mix(place, image[y1:y2, x1:x2], kept)
        return result

    def _improved(self, spoken: np.ndarray, around: Box, points: np.ndarray) -> np.ndarray:
        """A frame with a generated mouth, with its opening scaled and its face restored."""
        if self._landmarks is not None:
            box = ends(points[:, :2]).ravel().tolist()
            generated = self._landmarks.detect_tilted(spoken, box, tilt_of(points))
            spoken = scale_opening(spoken, around, generated, self._strength)
        if self._enhancer is not None:
            spoken = self._enhancer.enhance(spoken, around, points)
        return spoken
