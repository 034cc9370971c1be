"""What follows from how well faces go with their sound, and with sound that is not theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wav2lip_npu.alignment.lags import LAGS

ANY_LAG = 0.1  # share of clips that may have any lag, whatever the others have
PRIOR_KERNEL = (0.25, 0.5, 0.25)  # neighbours of a lag are as likely
MIN_CLIPS = 16  # from which on they tell which lags are likely
MIN_WEIGHT = 0.1  # of a way to compare that tells nothing, beside those of 1 and more
TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Scores of clips at each of ``LAGS``, in any unit that is the same for all; more is better."""

    scores: np.ndarray  # (clips, 31); 0 at all lags of a clip that cannot be compared
    others: np.ndarray  # (k, clips, 31) the same with k sounds that are not theirs


def fuse_scores(comparisons: Sequence[Comparison]) -> tuple[np.ndarray, np.ndarray]:
    """Fuse the scores of one or several ways to compare the same clips, and say how sure they are.

    Each counts the more, the clearer it tells clips' own sounds from others. For independent normal
    scores this is the sum of their log-likelihood ratios.

    Args:
        comparisons: at least one; with the same clips.

    Returns:
        scores: (clips, 31); less at lags that are rare among the clips. NaN for a clip that cannot
            be compared.
        confidence: (clips,) by how many standard deviations the best lag's score is above that with
            sounds that are not the clip's. 0 if there are none.
    """
    together = _sum(comparisons)
    scores, others = together.scores, together.others
    known = np.where((scores == 0).all(axis=1, keepdims=True), np.nan, scores)
    if not len(others):
        return known, np.zeros(len(scores))
    prior = np.zeros(len(LAGS))
    if len(scores) >= MIN_CLIPS:
        prior = _spread(others.max(axis=2)) * _log_prior(scores)
    chance = (others + prior).max(axis=2)  # (k, clips)
    above = (scores + prior).max(axis=1) - chance.mean(axis=0)
    return known + prior, above / (_spread(chance) + TINY)


def _sum(comparisons: Sequence[Comparison]) -> Comparison:
    if len(comparisons) == 1:
        return comparisons[0]
    count = min(len(one.others) for one in comparisons)
    scores = np.zeros(comparisons[0].scores.shape)
    others = np.zeros((count, *scores.shape))
    for one in comparisons:
        chance = one.others.max(axis=2)
        unit = _spread(chance) + TINY
        clearness = np.mean(one.scores.max(axis=1) - chance.mean(axis=0)) / unit
        weight = max(float(clearness), MIN_WEIGHT) / unit
        scores, others = scores + weight * one.scores, others + weight * one.others[:count]
    return Comparison(scores=scores, others=others)


def margin(scores: np.ndarray) -> float:
    """By how much the best lag is better than those that are no neighbours of it."""
    best = int(np.argmax(scores))
    far = np.abs(np.arange(len(LAGS)) - best) > 2
    return float((scores[best] - scores[far].max()) / (scores.std() + TINY))


def _log_prior(scores: np.ndarray) -> np.ndarray:
    """The logarithm of how many clips have a lag, by the half of them that is clearest."""
    scores = scores[(scores != 0).any(axis=1)]
    if not len(scores):
        return np.zeros(len(LAGS))
    margins = np.array([margin(one) for one in scores])
    clearest = np.argmax(scores[margins >= np.median(margins)], axis=1)
    counts = np.bincount(clearest, minlength=len(LAGS)).astype(np.float64)
    smooth = np.convolve(np.pad(counts, 1, "edge"), PRIOR_KERNEL, "valid")
    shares = smooth / smooth.sum()
    return np.asarray(np.log((1 - ANY_LAG) * shares + ANY_LAG / len(LAGS)))


def _spread(chance: np.ndarray) -> float:
    """The standard deviation by which other sounds differ, of (k, clips)."""
    return float(np.sqrt(((chance - chance.mean(axis=0)) ** 2).mean()))
