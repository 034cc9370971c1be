"""Scores over lags: the sound is moved against the faces, and compared at each place.

A lag is a number of frames by which the sound comes late.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_LAG = 15  # frames, the field's ±15
LAGS = np.arange(-MAX_LAG, MAX_LAG + 1)
MIN_FRAMES = 16  # which must be compared at a lag
_MAX_CORRELATION = 0.99  # its Fisher transform grows without limit


@dataclass(frozen=True, kw_only=True)
class Offset:
    """Where sound and faces agree best."""

    frames: float  # by which the sound comes late; a fraction from a parabola through three lags
    score: float  # at that lag

    @property
    def lag(self) -> int:
        """The nearest whole number of frames."""
        return round(self.frames)


def at_lags(sound: np.ndarray, frames: int) -> np.ndarray:
    """The sound that belongs to each frame at each lag.

    Args:
        sound: (n, k) numbers for each frame's time.
        frames: how many frames there are.

    Returns:
        (31, frames, k), NaN where the sound has ended or not begun.
    """
    padded = np.full((frames + 2 * MAX_LAG, sound.shape[1]), np.nan)
    known = sound[: frames + MAX_LAG]
    padded[MAX_LAG : MAX_LAG + len(known)] = known
    return np.stack([padded[MAX_LAG + lag : MAX_LAG + lag + frames] for lag in LAGS])


def correlations(sound: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Fisher's z of the correlation in each column, in standard errors, at each lag.

    Args:
        sound: (n, k), at the rate of the frames.
        faces: (m, k), NaN where there is no face.

    Returns:
        (31, k); 0 where too little can be compared, or nothing changes.
    """
    moved = at_lags(sound, len(faces))
    known = np.isfinite(moved) & np.isfinite(faces)
    count = known.sum(axis=1)
    enough = np.maximum(count, 1)[:, None]
    x = np.where(known, moved, 0.0)
    y = np.where(known, faces, 0.0)
    x = np.where(known, x - x.sum(axis=1, keepdims=True) / enough, 0.0)
    y = np.where(known, y - y.sum(axis=1, keepdims=True) / enough, 0.0)
    power = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    r = (x * y).sum(axis=1) / np.where(power > 0, power, np.inf)
    z = np.arctanh(np.clip(r, -_MAX_CORRELATION, _MAX_CORRELATION))
    return np.where(count >= MIN_FRAMES, z * np.sqrt(np.maximum(count - 3, 0)), 0.0)


def best_offset(scores: np.ndarray) -> Offset:
    """The lag with the highest of 31 scores, and a fraction of a frame."""
    best = int(np.argmax(scores))
    shift = 0.0
    if 0 < best < len(scores) - 1:
        before, here, after = scores[best - 1 : best + 2]
        bend = before - 2 * here + after
        shift = float(np.clip((before - after) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0
    return Offset(frames=float(LAGS[best]) + shift, score=float(scores[best]))
