"""Scores over lags: the sound is moved against the faces, and compared at each place.

A lag is a number of frames by which the sound comes late.
"""

from __future__ import annotations

import numpy as np

MAX_LAG = 15  # frames, the field's ±15
LAGS = np.arange(-MAX_LAG, MAX_LAG + 1)
MIN_FRAMES = 16  # which must be compared at a lag
_MAX_CORRELATION = 0.99  # its Fisher transform grows without limit
_NO_CHANGE = 1e-9  # of what has a variance of 1, or of nothing but rounding


def at_lag(sound: np.ndarray, frames: int, lag: int) -> np.ndarray:
    """The sound that belongs to each frame if it comes late by ``lag`` frames.

    Args:
        sound: (n, k) numbers for each frame's time.
        frames: how many frames there are.
        lag: in frames.

    Returns:
        (frames, k), NaN where the sound has ended or not begun.
    """
    moved = np.full((frames, sound.shape[1]), np.nan)
    first, last = max(0, -lag), min(frames, len(sound) - lag)
    if first < last:
        moved[first:last] = sound[first + lag : last + lag]
    return moved


def correlations(sound: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Fisher's z of the correlation in each column, in standard errors, at each lag.

    Args:
        sound: (n, k), at the rate of the frames.
        faces: (m, k), NaN where there is no face.

    Returns:
        (31, k); 0 where too little can be compared, or nothing changes.
    """
    pairs = zip(sound.T, faces.T, strict=True)
    return np.stack([_correlations(*pair) for pair in pairs], axis=1)


def _correlations(sound: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Of one column, by sums over the frames at which both are known."""
    x, known_x = _centred(sound)
    y, known_y = _centred(faces)
    count = np.round(_sums(known_x, known_y))
    n = np.maximum(count, 1)
    sum_x, sum_y = _sums(x, known_y), _sums(known_x, y)
    covariance = _sums(x, y) - sum_x * sum_y / n
    power_x = _sums(x * x, known_y) - sum_x**2 / n
    power_y = _sums(known_x, y * y) - sum_y**2 / n
    power = np.sqrt(np.maximum(power_x, 0) * np.maximum(power_y, 0))
    r = covariance / np.where(power > _NO_CHANGE, power, np.inf)
    z = np.arctanh(np.clip(r, -_MAX_CORRELATION, _MAX_CORRELATION))
    return np.where(count >= MIN_FRAMES, z * np.sqrt(np.maximum(count - 3, 0)), 0.0)


def _centred(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Less their mean, 0 where they are unknown; and 1 where they are known, else 0."""
    known = np.isfinite(values)
    mean = values[known].mean() if known.any() else 0.0
    return np.where(known, values - mean, 0.0), known.astype(np.float64)


def _sums(sound: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The sum of products over the frames, at each lag."""
    padded = np.zeros(len(faces) + 2 * MAX_LAG)
    part = sound[: len(faces) + MAX_LAG]
    padded[MAX_LAG : MAX_LAG + len(part)] = part
    return np.correlate(padded, faces, "valid") if len(faces) else np.zeros(len(LAGS))


def best_offset(scores: np.ndarray) -> float:
    """The lag with the highest of 31 scores, by a parabola through it and its neighbours."""
    best = int(np.argmax(scores))
    shift = 0.0
    if 0 < best < len(scores) - 1:
        before, here, after = scores[best - 1 : best + 2]
        bend = before - 2 * here + after
        shift = float(np.clip((before - after) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0
    return float(LAGS[best]) + shift
