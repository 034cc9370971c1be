"""Sound and faces as two rows of embeddings, slid along each other.

Each moment is embedded once; a pair costs the distance of two vectors. What chance gives is told by
sounds that are not the video's: those of other videos, which begin and end alike in some data sets;
and where there are too few, its own backwards, begun at another place each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wav2lip_npu.alignment.comparison import TINY
from wav2lip_npu.alignment.lags import LAGS, MIN_FRAMES

OTHER_SOUNDS = 16


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A video as a network knows it, a row for each window of five frames; on the CPU, float32."""

    faces: torch.Tensor  # (n, k); NaN where a frame of the window has no face
    sound: torch.Tensor  # (m, k), of the 0.2 s from each frame on


@dataclass(frozen=True, kw_only=True)
class Slid:
    """What is found by sliding the sound of a video along its faces; numbers grow with likeness."""

    scores: np.ndarray  # (31,) at each lag; 0 where nothing can be compared
    others: np.ndarray  # (16, 31) the same with sounds that are not its own
    along_time: np.ndarray  # float32 (n, 31) for each window, in standard deviations of chance


def slide(embedded: Embedded, others_sounds: Sequence[torch.Tensor] = ()) -> Slid:
    """Compare at all lags.

    Args:
        embedded: the video.
        others_sounds: (m, k) of other videos; the first 16 are used.
    """
    own = likeness(embedded.faces, embedded.sound)
    backwards = embedded.sound.flip(0)
    count = OTHER_SOUNDS - len(others_sounds)
    made = [backwards.roll(len(backwards) * n // count, 0) for n in range(count)]
    sounds = [*others_sounds[:OTHER_SOUNDS], *made]
    others = [likeness(embedded.faces, sound) for sound in sounds]
    known = np.concatenate([one[np.isfinite(one)] for one in others])
    if not len(known):
        return Slid(
            scores=np.zeros(len(LAGS)),
            others=np.zeros((OTHER_SOUNDS, len(LAGS))),
            along_time=np.full(own.shape, np.nan, np.float32),
        )
    mean, deviation = known.mean(), known.std() + TINY
    return Slid(
        scores=_score((own - mean) / deviation),
        others=np.stack([_score((one - mean) / deviation) for one in others]),
        along_time=((own - mean) / deviation).astype(np.float32),
    )


def likeness(faces: torch.Tensor, sound: torch.Tensor) -> np.ndarray:
    """The negative distance of each window from the sound at each lag.

    Args:
        faces: (n, k).
        sound: (m, k).

    Returns:
        float64 (n, 31), see ``LAGS``; NaN where there is no face, or no sound at that lag.
    """
    found = np.full((len(faces), len(LAGS)), np.nan)
    for column, lag in enumerate(LAGS.tolist()):
        first, last = max(0, -lag), min(len(faces), len(sound) - lag)
        if first < last:
            difference = faces[first:last] - sound[first + lag : last + lag]
            found[first:last, column] = -difference.norm(dim=1).double().numpy()
    return found


def _score(values: np.ndarray) -> np.ndarray:
    """The mean at each lag (31,), in standard errors; 0 where too little can be compared."""
    counts = np.isfinite(values).sum(axis=0)
    means = np.nansum(values, axis=0) / np.maximum(counts, 1)
    return np.where(counts >= MIN_FRAMES, means * np.sqrt(counts), 0.0)
