"""The metrics: their names, and how each is computed from faces, points and sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch.nn import functional

from face_detection.landmarks import EYE_CORNERS, INNER_LIPS, OUTER_LIPS
from wav2lip_npu.alignment.lags import LAGS, MAX_LAG, MIN_FRAMES, best_offset
from wav2lip_npu.alignment.mouth import VOWEL_GROUPS, voice_features
from wav2lip_npu.mel import WINDOW_ROWS, melspectrogram
from wav2lip_npu.training.metrics import similarity

LIPS = [*OUTER_LIPS, *INNER_LIPS]
MIN_FACE_SIDE = 14  # pixels: in each half SSIM's windows of 7 must fit
CONFIDENCE = 0.95  # of intervals
# Correlation of two spectrograms from which on they are of one sound. AAC at 32 kbit/s leaves 0.99,
# a delay of 10 ms 0.96; of 780 pairs of sentences of one speaker (GRID) none reaches 0.86.
SAME_SOUND = 0.9
_CONSTANT = 1e-9  # standard deviation of what does not change but for rounding


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number of each video."""

    better: str  # "more", "less", or "0" for offsets
    digits: int  # after the point, in tables
    needs_source: bool = False  # which has the same sound


METRICS = {
    "lse_d": Metric(better="less", digits=3),
    "lse_c": Metric(better="more", digits=3),
    "lse_offset": Metric(better="0", digits=1),
    "sync_loss": Metric(better="less", digits=4),
    "sync_offset": Metric(better="0", digits=2),
    "sync_confidence": Metric(better="more", digits=4),
    "psnr": Metric(better="more", digits=2, needs_source=True),
    "ssim": Metric(better="more", digits=4, needs_source=True),
    "psnr_lower": Metric(better="more", digits=2, needs_source=True),
    "ssim_lower": Metric(better="more", digits=4, needs_source=True),
    "lmd": Metric(better="less", digits=4, needs_source=True),
    "opening_corr_source": Metric(better="more", digits=3, needs_source=True),
    "opening_corr_voice": Metric(better="more", digits=3),
}


def face_similarity(generated: np.ndarray, source: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM of a face, and of its lower half; see ``training.metrics.similarity``.

    Args:
        generated: (h, w, 3) BGR uint8, at least ``MIN_FACE_SIDE`` pixels wide and high.
        source: the same part of the source's frame.
    """
    found = {}
    for suffix, first in (("", 0), ("_lower", len(source) // 2)):
        faces = (
            torch.from_numpy(face[first:]).permute(2, 0, 1)[None, :, None].float() / 255
            for face in (generated, source)
        )
        for name, value in similarity(*faces).items():
            found[name + suffix] = float(value)
    return found


def landmark_distance(generated: np.ndarray, source: np.ndarray) -> float:
    """LMD: how far the points of the lips are from the source's, in distances of the eyes.

    In each frame the 40 points are moved so that their mean is at 0, as in Chen et al. 2019; the
    mean distance of all points and frames is divided by the mean distance of the outer corners of
    the source's eyes.

    Args:
        generated: (n, 468, 3) points of a face, see ``FaceLandmarks``.
        source: those of the source's frames.
    """
    one, other = (points[:, LIPS, :2].astype(np.float64) for points in (generated, source))
    one, other = (lips - lips.mean(axis=1, keepdims=True) for lips in (one, other))
    left, right = (source[:, corner, :2].astype(np.float64) for corner in EYE_CORNERS)
    eyes = np.linalg.norm(left - right, axis=-1).mean()
    return float(np.linalg.norm(one - other, axis=-1).mean() / eyes)


def correlation(one: np.ndarray, other: np.ndarray) -> float | str:
    """Pearson's correlation over the frames in which both are known.

    Args:
        one: (n,), NaN where it is not known.
        other: (m,); what one has more than the other is left out.

    Returns:
        The correlation, or why there is none.
    """
    count = min(len(one), len(other))
    one, other = one[:count].astype(np.float64), other[:count].astype(np.float64)
    known = np.isfinite(one) & np.isfinite(other)
    one, other = one[known], other[known]
    if len(one) < MIN_FRAMES:
        return f"{len(one)} frames to compare, {MIN_FRAMES} are needed"
    if min(one.std(), other.std()) < _CONSTANT:
        return "the mouth does not move, or there is no voice"
    return float(np.corrcoef(one, other)[0, 1])


def voice_loudness(samples: np.ndarray) -> np.ndarray:
    """The level of the bands in which open vowels are heard, for each frame: (frames,)."""
    return np.asarray(voice_features(melspectrogram(samples))[:, VOWEL_GROUPS].mean(axis=1))


def expert_loss(probabilities: np.ndarray) -> float:
    """The expert's loss, the binary cross-entropy of sound and faces at the same time.

    Args:
        probabilities: (windows, 31), see ``alignment.expert.probabilities``; some of lag 0.
    """
    own = probabilities[:, MAX_LAG]
    known = torch.from_numpy(own[np.isfinite(own)].clip(0.0, 1.0))
    return float(functional.binary_cross_entropy(known, torch.ones_like(known)))


def expert_offset(probabilities: np.ndarray) -> tuple[float, float] | None:
    """The lag that the expert finds likeliest, and by how much above the median over lags.

    Args:
        probabilities: as for ``expert_loss``.

    Returns:
        Frames by which the sound comes late, and the confidence; None if at some lag too few
        windows can be compared.
    """
    known = np.isfinite(probabilities)
    if (known.sum(axis=0) < MIN_FRAMES).any():
        return None
    means = np.where(known, probabilities, 0.0).sum(axis=0) / known.sum(axis=0)
    assert means.shape == LAGS.shape
    return best_offset(means), float(means.max() - np.median(means))


def is_same_sound(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two sounds are one recording, as after another encoding, over their common length.

    Args:
        one: (n,) samples at 16 kHz.
        other: (m,).
    """
    first, second = melspectrogram(one), melspectrogram(other)
    rows = min(first.shape[1], second.shape[1])
    if rows < WINDOW_ROWS:
        return False
    one, other = (mel[:, :rows].ravel().astype(np.float64) for mel in (first, second))
    if min(one.std(), other.std()) < _CONSTANT:  # silence
        return bool(np.allclose(one, other))
    return bool(np.corrcoef(one, other)[0, 1] >= SAME_SOUND)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A metric over all videos that have it."""

    mean: float
    low: float | None  # limits of the 95 % confidence interval of the mean; None of one video
    high: float | None
    n: int


def summarize(values: Sequence[float]) -> Summary | None:
    """The mean of some videos with Student's interval for the mean of all such videos."""
    n = len(values)
    if not n:
        return None
    mean = float(np.mean(values))
    if n == 1:
        return Summary(mean=mean, low=None, high=None, n=n)
    error = float(np.std(values, ddof=1)) / n**0.5
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return Summary(mean=mean, low=mean - half, high=mean + half, n=n)
