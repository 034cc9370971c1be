"""What lies before the lower face: hands, microphones, glasses.

The face is seen as a small picture in which its parts stay where they are. For each pixel of that
the range of values is learned that the face has had there. What is far out of its range, and
reaches over the edge of the lower face, is not the face.
"""

from __future__ import annotations

import cv2
import numpy as np

from face_detection import Box
from wav2lip_npu.blending.aligned_face import SIDE, AlignedFace

# Values of a pixel are luma, two colour differences, and luma without what is smooth. They are
# counted in units of grey levels in which faces differ from themselves by less than 1.
UNITS = np.array([22, 7, 7, 10], np.float32)
LUMA = np.array([0.114, 0.587, 0.299], np.float32)  # of BGR
RED, BLUE = np.eye(3, dtype=np.float32)[[2, 0]]
VALUES = np.stack([LUMA, RED - LUMA, BLUE - LUMA, LUMA])
USUAL_LUMA = 128.0  # to which the first face is brought; others to the first one
DETAIL_SIGMA, NOISE_SIGMA = 3.0, 0.8  # pixels: what is smooth, and what is too small to count

# Light that changes: the gain is a line from left to right, fitted to the upper face.
LIGHT_PASSES = 3
LIGHT_TOLERANCE = 0.05  # of a logarithm of luma; what is further off hardly counts
BLACK = 8.0  # grey levels, below which logarithms say little

REACH = np.ones((5, 5), np.uint8)  # pixels about a place whose values count as seen there
LEARNED = 8  # frames, before which nothing is kept
# How fast a range grows towards what is out of it, in units a frame: where nothing is in front;
# where something is (it might be the face after all); and where the head turned or light changed.
GROWS, GROWS_IN_FRONT, GROWS_ANEW = 0.03, 0.003, 0.3
ABSORBED = 0.005  # of how far it is out, where that is more: what stays is absorbed in seconds
AT_ONCE = 1e3  # units a frame, while little is known, and about lips, which move
SHRINKS = 0.005  # units a frame, of a range towards what is seen

# What is further out of its range than the threshold is in front. It follows the level that is
# usual for this video's faces: a percentile of how far their pixels are out.
USUAL_PERCENTILE, USUAL_LEVELS, THRESHOLD_BY_LEVEL = 90, (0.03, 0.6), 4.0
LEVEL_RATE = 0.03  # share of the newest frame in the level
THRESHOLDS = (0.15, 0.7)  # units
# It is no less than so many times what the upper face is out by, nearly at most. If that is more
# than ``TURNED``, the head has turned: only what was in front before can be then.
UPPER_PERCENTILE, THRESHOLD_BY_UPPER, TURNED = 92, 2.0, 0.6

SPECK = np.ones((2, 2), np.uint8)  # what is smaller is noise
GAP = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))  # what is smaller belongs to it
THIN = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))  # what is thinner is an edge that moved
MIN_SHARE = 0.03  # of the lower face
FAR_OUT, MIN_FAR_OUT = 1.5, 0.2  # thresholds, by which this share of it must be out
# What is out by less than this share of the upper quartile is blurred edge.
CLEAR_SHARE = 0.35
OUTWARDS = np.ones((11, 11), np.uint8)  # by which what covers the inner part grows to the outline
MOVES = np.ones((9, 9), np.uint8)  # pixels, how far it may move in a frame
SOFT_SIGMA = 0.8  # pixels, of the edge of the mask

# A place that was not skin and now is: something went away that had been there from the start.
# What is skin is told by the upper face: its mean, its standard deviation, and a margin.
SKIN_MARGIN, NO_SKIN_MARGIN = 0.5, 1.0  # units


class InFront:
    """Learns how one face looks within a shot, and finds what is not of it."""

    def __init__(self) -> None:
        """Nothing has been seen yet."""
        self._face: AlignedFace | None = None
        self._seen = 0
        self._level = USUAL_LEVELS[0]
        self._before = np.zeros((SIDE, SIDE), bool)  # what was found in the last frame
        self._low: np.ndarray = np.zeros((SIDE, SIDE, len(UNITS)), np.float32)
        self._high = self._low

    def find(self, image: np.ndarray, box: Box, points: np.ndarray) -> np.ndarray | None:
        """What lies before the lower face in the next frame.

        Args:
            image: (h, w, 3) BGR uint8.
            box: around the face, within the frame.
            points: (468, 2 or 3) of the face in the frame, see ``FaceLandmarks``.

        Returns:
            float32 (height, width) of the box, 1 where something is in front, with soft edges;
            None: nothing is, or too little of the face has been seen.
        """
        face = self._face = self._face or AlignedFace(points)
        if not (face.upper.any() and face.inner.any()):  # no face has such points
            return None
        alignment = face.align(points)
        values = self._values(face, alignment.picture(image).astype(np.float32))
        if self._seen == 0:
            self._low = self._high = values
        above, below = values - cv2.dilate(self._high, REACH), cv2.erode(self._low, REACH) - values
        out = cv2.max(above, below).reshape(SIDE * SIDE, -1)
        out = cv2.reduce(out, 1, cv2.REDUCE_MAX).reshape(SIDE, SIDE)
        revealed = self._revealed(face, values)
        out[revealed] = 0
        upper = float(np.percentile(out[face.upper], UPPER_PERCENTILE))
        found = self._found(face, out, upper)
        self._learn(face, values, out, found, revealed, turned=upper > TURNED)
        self._follow_level(out[face.inner & ~face.lips & ~found])
        lasting = found & _grown(self._before, MOVES)
        self._before = found
        if not lasting.any():
            return None
        soft = cv2.GaussianBlur(lasting.astype(np.float32), (0, 0), SOFT_SIGMA)
        return alignment.to_box(soft, box)

    def _values(self, face: AlignedFace, picture: np.ndarray) -> np.ndarray:
        """The values of a picture (SIDE, SIDE, 3), in the light of the first one: (…, 4)."""
        luma = cv2.transform(picture, LUMA[None])
        if self._seen == 0:
            gain = np.float32(USUAL_LUMA / max(float(np.median(luma[face.upper])), BLACK))
            gains = np.full(SIDE, gain)
        else:
            usual = (self._low[..., 0] + self._high[..., 0]) * (UNITS[0] / 2)
            gains = _gains(luma, usual, face.upper)
        values: np.ndarray = cv2.transform(picture * gains[:, None], VALUES)
        values[..., 3] = values[..., 3] - cv2.GaussianBlur(values[..., 3], (0, 0), DETAIL_SIGMA)
        return cv2.GaussianBlur(values, (0, 0), NOISE_SIGMA) / UNITS

    def _revealed(self, face: AlignedFace, values: np.ndarray) -> np.ndarray:
        """Where the face comes out behind something that was there when the shot began."""
        usual = (self._low[..., :3] + self._high[..., :3]) / 2
        mean, deviation = cv2.meanStdDev(usual, mask=face.upper.astype(np.uint8))
        was = _within(usual, mean, deviation + NO_SKIN_MARGIN)
        now = _within(values[..., :3], mean, deviation + SKIN_MARGIN)
        revealed: np.ndarray = now & ~was & ~face.lips
        return revealed

    def _found(self, face: AlignedFace, out: np.ndarray, upper: float) -> np.ndarray:
        """What is in front by this frame alone: bool (SIDE, SIDE)."""
        found: np.ndarray = np.zeros((SIDE, SIDE), np.uint8)
        if self._seen < LEARNED:
            return found > 0
        threshold = float(np.clip(THRESHOLD_BY_LEVEL * self._level, *THRESHOLDS))
        threshold = max(threshold, THRESHOLD_BY_UPPER * upper)
        parts: np.ndarray = (out > threshold).astype(np.uint8) * face.around
        parts = cv2.morphologyEx(parts, cv2.MORPH_OPEN, SPECK)
        parts = cv2.morphologyEx(parts, cv2.MORPH_CLOSE, GAP) * face.around
        parts = cv2.morphologyEx(parts, cv2.MORPH_OPEN, THIN)
        if upper > TURNED:
            parts *= _grown(self._before, MOVES)
        count, labels = cv2.connectedComponents(parts * face.inner)
        for number in range(1, count):
            part = labels == number
            by = out[part]
            is_large = len(by) > MIN_SHARE * face.inner.sum()
            is_clear = (by > FAR_OUT * threshold).mean() > MIN_FAR_OUT
            if is_large and is_clear and (part & face.rim).any():  # else within the mouth
                part = _grown(part, OUTWARDS) & (parts > 0)
                part &= out > max(threshold, CLEAR_SHARE * np.percentile(by, 75))
                corners = cv2.findNonZero(part.astype(np.uint8))
                cv2.fillConvexPoly(found, cv2.convexHull(corners), 1)
        return found > 0

    def _learn(
        self,
        face: AlignedFace,
        values: np.ndarray,
        out: np.ndarray,
        found: np.ndarray,
        revealed: np.ndarray,
        *,
        turned: bool,
    ) -> None:
        grows: np.ndarray = np.full((SIDE, SIDE), GROWS_ANEW if turned else GROWS, np.float32)
        if not found.any():
            grows[face.lips] = AT_ONCE
        near = _grown(found, REACH)
        grows[near] = np.maximum(GROWS_IN_FRONT, ABSORBED * out[near])
        grows[revealed] = AT_ONCE
        if self._seen < LEARNED:
            grows[:] = AT_ONCE
        shrinks: np.ndarray = np.where(near, np.float32(0), np.float32(SHRINKS))
        grows, shrinks = cv2.merge([grows] * len(UNITS)), cv2.merge([shrinks] * len(UNITS))
        # Each end of a range moves towards the values: outwards fast, inwards slowly.
        low, high = self._low, self._high
        self._low = cv2.min(cv2.max(values, low - grows), low + shrinks)
        self._high = cv2.min(cv2.max(values, high - shrinks), high + grows)
        self._seen += 1

    def _follow_level(self, out: np.ndarray) -> None:
        if out.size:
            level = np.clip(np.percentile(out, USUAL_PERCENTILE), *USUAL_LEVELS)
            rate = max(1 / self._seen, LEVEL_RATE)
            self._level += rate * (float(level) - self._level)


def _gains(luma: np.ndarray, usual: np.ndarray, where: np.ndarray) -> np.ndarray:
    """By what the columns of a picture are to be multiplied, so that its light is the usual one."""
    place = np.arange(SIDE) / SIDE - 0.5
    ratio = np.log((usual[where] + BLACK) / (luma[where] + BLACK))
    line = np.stack([np.ones(len(ratio)), place[np.nonzero(where)[1]]], axis=1)
    weights = np.ones(len(ratio))
    for _ in range(LIGHT_PASSES):
        weighted = line * weights[:, None]
        found = np.linalg.solve(weighted.T @ line, weighted.T @ ratio)
        weights = 1 / (1 + ((ratio - line @ found) / LIGHT_TOLERANCE) ** 2)
    gains: np.ndarray = np.exp(found[0] + found[1] * place).astype(np.float32)
    return gains


def _within(values: np.ndarray, mean: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """Where all values of a pixel (SIDE, SIDE, 3) are at most so far from their means (3, 1)."""
    low, high = (tuple(limit.ravel().tolist()) for limit in (mean - margin, mean + margin))
    within: np.ndarray = cv2.inRange(values, low, high) > 0
    return within


def _grown(mask: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    grown: np.ndarray = cv2.dilate(mask.astype(np.uint8), kernel) > 0
    return grown
