"""Offsets along time: one for the whole of a video, or others from some frame on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wav2lip_npu.alignment.lags import LAGS

MIN_SEGMENT = 25  # frames, 1 s
MIN_JUMP = 2  # frames; less is no jump
MIN_GAIN = 15.0  # of the log-likelihood; more than the choice of a frame and a lag gives by chance


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Frames with the same offset."""

    first: int  # frame
    late: int  # by how many frames the sound comes late


def segments(along_time: np.ndarray, overlap: float) -> list[Segment]:
    """Divide a video where the offset changes.

    Args:
        along_time: (n, 31) how well each frame goes with its sound at each lag, in standard
            deviations of chance; NaN where that is unknown.
        overlap: how many frames in a row tell about the same.

    Returns:
        At least one, from frame 0 on.
    """
    sums = np.concatenate([np.zeros((1, len(LAGS))), np.nancumsum(along_time, axis=0)])
    parts: list[tuple[int, int]] = []
    for first, column in _divide(sums, 0, len(along_time), overlap):
        if not parts or abs(column - parts[-1][1]) >= MIN_JUMP:  # else divided once too often
            parts.append((first, column))
    ends = [first for first, _ in parts[1:]] + [len(along_time)]
    for number in range(1, len(parts)):
        (start, former), (_, column) = parts[number - 1 : number + 1]
        places = np.arange(start + 1, ends[number])
        best = (sums[places, former] - sums[places, column]).argmax()
        parts[number] = int(places[best]), column
    return [Segment(first=first, late=int(LAGS[column])) for first, column in parts]


def _divide(sums: np.ndarray, first: int, last: int, overlap: float) -> list[tuple[int, int]]:
    """First frames and columns of the segments from ``first`` to before ``last``."""
    whole = sums[last] - sums[first]
    column = int(whole.argmax())
    places = np.arange(first + MIN_SEGMENT, last - MIN_SEGMENT + 1)
    if not len(places):
        return [(first, column)]
    before, after = sums[places] - sums[first], sums[last] - sums[places]
    gains = before.max(axis=1) + after.max(axis=1)
    best = int(gains.argmax())
    jump = abs(int(before[best].argmax()) - int(after[best].argmax()))
    # Of normal numbers with the mean that belongs to a match, 0 else, and a variance of 1.
    match = gains[best] / (last - first)
    if jump < MIN_JUMP or match * (gains[best] - whole[column]) / overlap < MIN_GAIN:
        return [(first, column)]
    place = int(places[best])
    return _divide(sums, first, place, overlap) + _divide(sums, place, last, overlap)
