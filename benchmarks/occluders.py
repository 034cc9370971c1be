"""Things that come before the face, drawn over plain videos with their true masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from benchmarks.situations import Frames, Points, face_height, hand
from face_detection.landmarks import CHIN, FOREHEAD, LOWER_FACE, OUTER_LIPS

# When it comes, is there, and goes, in shares of the video.
COMES, IS_THERE, LEAVES, IS_GONE = 0.2, 0.4, 0.7, 0.9
SWAY = 0.03  # heights of the face, by which it moves on its own while it is there
FLAT_CHANGE = 3  # grey levels, from which on the flat hand is seen
EDGE_SIGMA = 0.7  # pixels, of an edge as a camera sees it


@dataclass(frozen=True, kw_only=True)
class Occluded:
    """A video with something before the face."""

    frames: Frames
    masks: list[np.ndarray]  # (h, w) float32, 1 where it is: glass too


@dataclass(frozen=True, kw_only=True)
class _Axes:
    """Coordinates about the chin, in heights of the face; the face does not move them."""

    chin: np.ndarray  # (2,) pixels
    up: np.ndarray  # (2,) of length 1
    unit: float  # pixels

    def coordinates(self, image: np.ndarray, middle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far each pixel lies to the right of a place and above it."""
        y, x = _pixels(image)
        origin = (
            self.chin + self._across() * self.unit * middle[0] + self.up * self.unit * middle[1]
        )
        x, y = (x - origin[0]) / self.unit, (y - origin[1]) / self.unit
        across = self._across()
        return x * across[0] + y * across[1], x * self.up[0] + y * self.up[1]

    def _across(self) -> np.ndarray:
        return np.array([-self.up[1], self.up[0]])


def microphone(frames: Frames, points: Points) -> Occluded:
    """A dark grille on a stick, which comes from below up to the lower lip."""
    axes, results, masks = _axes(points), [], []
    for image, middle in zip(frames, _path(len(frames), -0.6, 0.12), strict=True):
        x, y = axes.coordinates(image, middle)
        radius = np.hypot(x, y) / 0.16
        stick = (np.abs(x) < 0.06) & (y < 0)
        shape = _soft((radius < 1) | stick)
        light = np.exp(-((x + 0.05) ** 2 + (y - 0.06) ** 2) / 0.004) * 90
        grille = 35 + 25 * np.sin(x * 160) * np.sin(y * 160)
        grey = np.where(radius < 1, grille + light, 25 + 40 * np.exp(-((x + 0.02) ** 2) / 0.0004))
        results.append(_over(image, np.repeat(grey[..., None], 3, 2), shape))
        masks.append(shape)
    return Occluded(frames=results, masks=masks)


def glass(frames: Frames, points: Points) -> Occluded:
    """A glass, half filled, from which the face drinks: what is behind it is bent and tinted."""
    axes, results, masks = _axes(points), [], []
    for image, middle in zip(frames, _path(len(frames), -0.7, 0.08), strict=True):
        x, y = axes.coordinates(image, middle)
        tilt = 0.4 * (middle[1] + 0.7) / 0.78  # radians, as it is raised
        x, y = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
        half = 0.17 + 0.05 * y
        shape = _soft((np.abs(x) < half) & (np.abs(y) < 0.25))
        rows, columns = _pixels(image)
        bent = cv2.remap(
            image,
            (columns + x * 0.35 * axes.unit).astype(np.float32),
            rows,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ).astype(np.float32)
        filled = (y < 0.02)[..., None]
        seen = np.where(filled, bent * 0.45 + np.array([20, 60, 110]), bent * 0.7 + 45)
        rim = np.exp(-(((np.abs(x) - half) / 0.012) ** 2)) + np.exp(-(((y - 0.25) / 0.012) ** 2))
        seen = seen + 90 * rim.clip(0, 1)[..., None]
        results.append(_over(image, seen, shape))
        masks.append(shape)
    return Occluded(frames=results, masks=masks)


def own_hand(frames: Frames, points: Points) -> Occluded:
    """A hand in the colours of the face itself, before mouth and chin."""
    axes, results, masks = _axes(points), [], []
    skin = _skin(frames[0], points[0])
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 40, (256, 256)), (0, 0), 4)
    for image, middle in zip(frames, _path(len(frames), -0.75, 0.0), strict=True):
        x, y = axes.coordinates(image, middle)
        inside, shade = np.zeros(x.shape, bool), np.zeros(x.shape)
        for number, tip in enumerate((0.22, 0.3, 0.32, 0.26)):
            side = 0.105 * (number - 1.5)
            past = y - (tip - 0.055)  # fingers are rods with round ends, side by side
            distance = np.hypot(x - side, past.clip(0)) / 0.055
            finger = (distance < 1) & (y > -0.1)
            inside |= finger
            shade = np.where(finger, np.sqrt((1 - distance**2).clip(0)), shade)
        palm = (np.abs(x) < 0.215) & (y <= -0.1) & (y > -1)
        shade = np.where(palm, 0.95, shade)
        shape = _soft(inside | palm)
        light = 0.72 + 0.3 * shade
        texture = cv2.remap(
            noise.astype(np.float32),
            ((x * 150) % 256).astype(np.float32),
            ((y * 150) % 256).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_WRAP,
        )
        results.append(_over(image, skin * light[..., None] + texture[..., None], shape))
        masks.append(shape)
    return Occluded(frames=results, masks=masks)


def flat_hand(frames: Frames, points: Points) -> Occluded:
    """The hand of the situations: in one shade each, four fingers."""
    results = hand(frames, points)
    changes = [np.abs(a.astype(int) - b) for a, b in zip(results, frames, strict=True)]
    masks = [(change.max(axis=2) > FLAT_CHANGE).astype(np.float32) for change in changes]
    return Occluded(frames=results, masks=masks)


def from_the_start(occluder: Callable[[Frames, Points], Occluded]) -> Callable[..., Occluded]:
    """The same, but the video begins when it is there already."""

    def begin_later(frames: Frames, points: Points) -> Occluded:
        whole, first = occluder(frames, points), round(len(frames) * IS_THERE)
        return Occluded(frames=whole.frames[first:], masks=whole.masks[first:])

    return begin_later


OCCLUDERS: dict[str, Callable[[Frames, Points], Occluded]] = {
    "microphone": microphone,
    "glass": glass,
    "hand": flat_hand,
    "own hand": own_hand,
    "microphone from the start": from_the_start(microphone),
}


def _axes(points: Points) -> _Axes:
    shape = np.mean([one[:, :2] for one in points], axis=0)
    unit = face_height(shape)
    return _Axes(chin=shape[CHIN], up=(shape[FOREHEAD] - shape[CHIN]) / unit, unit=unit)


def _path(count: int, low: float, high: float) -> list[np.ndarray]:
    """Where it is in each frame: from ``low`` up to ``high``, where it sways, and back."""
    time = np.arange(count) / max(1, count - 1)
    raised = np.interp(time, (COMES, IS_THERE, LEAVES, IS_GONE), (0, 1, 1, 0))
    raised = raised * raised * (3 - 2 * raised)
    turns = 2 * np.pi * np.arange(count) / 25
    across, up = SWAY * np.sin(turns), low + (high - low) * raised + SWAY * np.sin(turns * 0.7)
    return list(np.stack([across, up], axis=1))


def _pixels(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The row and the column of each pixel: float32 (h, w)."""
    grid = np.indices(image.shape[:2], dtype=np.float32)
    return grid[0], grid[1]


def _soft(shape: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(shape.astype(np.float32), (0, 0), EDGE_SIGMA)


def _over(image: np.ndarray, other: np.ndarray, mask: np.ndarray) -> np.ndarray:
    mixed = image + mask[..., None] * (other.clip(0, 255) - image)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def _skin(image: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The median colour of the lower face without its lips: (3,)."""
    mask = np.zeros(image.shape[:2], np.uint8)
    for outline, value in ((LOWER_FACE, 1), (OUTER_LIPS, 0)):
        cv2.fillPoly(mask, [np.rint(shape[list(outline), :2]).astype(np.int32)], value)
    return np.median(image[mask > 0], axis=0)
