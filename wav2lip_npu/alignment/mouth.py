"""Sound and lips compared without a trained network: the mouth's shape, as the voice predicts it.

A mouth opens where the voice is loud. That is enough to find the offset of most clips of a data
set. From those a linear model learns what of the voice goes with which shape, in this data set;
with it the offsets are found again, better. No other data, and no offset, need be known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wav2lip_npu.alignment.lags import LAGS, at_lag, correlations
from wav2lip_npu.constants import FPS
from wav2lip_npu.mel import MEL_BANDS, ROWS_PER_SECOND

BAND_GROUPS = 8  # of ten mel bands each
VOWEL_GROUPS = slice(1, 4)  # where an open mouth is heard: about 200 to 900 Hz
# What a mouth's loudness goes with, of the mouth's three numbers and their changes.
FIRST_WEIGHTS = np.array([0.6, 0.0, 0.4, 0.0, 0.0, 0.0])
CONTEXT_FRAMES = 5  # of the voice, before and after a frame
RIDGE = 300.0  # of the regression, in samples of unit variance
ROUNDS = 3
FOLDS = 4  # each is scored by a model of the others
OTHER_SOUNDS = 16  # with which a clip is compared, to know what chance gives
ANY_LAG = 0.1  # share of clips that may have any lag, whatever the others have
PRIOR_KERNEL = (0.25, 0.5, 0.25)  # neighbours of a lag are as likely
MIN_CLIPS = 16  # from which a model can be learned
MIN_LEARNED_FRAMES = 400  # of all of them: 16 s, more than the model has numbers
MAX_LEARNED_CLIPS = 1000  # of a larger data set every n-th is learned from
MAX_FIT = 0.99  # correlation of a prediction; 1 would have an infinite weight
_TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class Talk:
    """What is seen of a clip's mouth, and what is heard."""

    mouth: np.ndarray  # float32 (frames, 3), see ``mouth_shape``; NaN where there is no face
    voice: np.ndarray  # float32 (n, 16), see ``voice_features``


def voice_features(mel: np.ndarray) -> np.ndarray:
    """Level and rise of eight groups of bands, for the 40 ms of each frame.

    Args:
        mel: float (80, rows), see ``mel.melspectrogram``.

    Returns:
        float (frames, 16): the mean level of each group, then the sum of what it rises.
    """
    groups = mel.reshape(BAND_GROUPS, MEL_BANDS // BAND_GROUPS, -1).mean(axis=1)
    rises = np.maximum(np.diff(groups, axis=1, prepend=groups[:, :1]), 0)
    frames = groups.shape[1] * FPS // ROWS_PER_SECOND
    starts = np.arange(frames) * ROWS_PER_SECOND // FPS
    if not frames:
        return np.zeros((0, 2 * BAND_GROUPS), np.float32)
    counts = np.diff(starts, append=groups.shape[1])
    level = np.add.reduceat(groups, starts, axis=1) / counts
    rise = np.add.reduceat(rises, starts, axis=1)
    return np.concatenate([level, rise]).T.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class MouthModel:
    """Predicts a mouth's shape and its changes from the voice."""

    solution: np.ndarray  # (176, 6): of the voice with its context
    weights: np.ndarray  # (6,): of each number, the better it is predicted the more

    def predict(self, voice: np.ndarray) -> np.ndarray:
        """(n, 16) → (n, 6)."""
        return np.asarray(_with_context(voice) @ self.solution)


def mouth_scores(talks: Sequence[Talk]) -> tuple[np.ndarray, np.ndarray]:
    """How well each clip's mouth goes with its voice.

    No clip is scored by a model that was learned from it: chance would look like agreement.

    Args:
        talks: the clips of a data set; from ``MIN_CLIPS`` on models are learned from them.

    Returns:
        scores: (clips, 31) at each lag, in standard errors of chance; less at lags that are rare in
            the data set. NaN for a clip that cannot be compared: no face, or no voice.
        confidence: (clips,) by how many standard deviations the best lag's score is above that with
            other clips' sound. 0 where there are too few others.
    """
    mouths = [_with_changes(_standard(talk.mouth)) for talk in talks]
    voices = [_standard(talk.voice) for talk in talks]
    own = np.arange(len(talks))
    models = [_loudness_model()] * FOLDS
    for _ in range(ROUNDS if len(talks) >= MIN_CLIPS else 0):
        scores = _scores(_predict(models, voices), mouths, models, own)
        learned = [
            _learn(voices, mouths, scores, own[own % FOLDS != fold]) for fold in range(FOLDS)
        ]
        if any(model is None for model in learned):
            break
        models = [model for model in learned if model is not None]
    predictions = _predict(models, voices)
    scores = _scores(predictions, mouths, models, own)
    if len(talks) < MIN_CLIPS:
        return _known(scores), np.zeros(len(talks))
    count = min(OTHER_SOUNDS, len(talks) - 1)
    step = len(talks) // (count + 1)
    others = np.stack(
        [_scores(predictions, mouths, models, np.roll(own, -step * n)) for n in range(1, count + 1)]
    )
    prior = _spread(others.max(axis=2)) * _log_prior(scores)
    chance = (others + prior).max(axis=2)  # (others, clips)
    above = (scores + prior).max(axis=1) - chance.mean(axis=0)
    return _known(scores) + prior, above / (_spread(chance) + _TINY)


def _known(scores: np.ndarray) -> np.ndarray:
    """With NaN for clips whose scores are all 0."""
    return np.where((scores == 0).all(axis=1, keepdims=True), np.nan, scores)


def _standard(values: np.ndarray) -> np.ndarray:
    """With mean 0 and variance 1, of what is known; float64."""
    values = values.astype(np.float64)
    known = values[np.isfinite(values).all(axis=1)]
    if not len(known):
        return values
    return np.asarray((values - known.mean(axis=0)) / (known.std(axis=0) + _TINY))


def _with_changes(mouth: np.ndarray) -> np.ndarray:
    """The shape, and how it changes from frame to frame."""
    if len(mouth) < 2:
        return np.concatenate([mouth, np.full_like(mouth, np.nan)], axis=1)
    return np.concatenate([mouth, _standard(np.gradient(mouth, axis=0))], axis=1)


def _loudness_model() -> MouthModel:
    """The mouth is as open as the voice is loud, at the same moment."""
    solution = np.zeros((2 * CONTEXT_FRAMES + 1, 2 * BAND_GROUPS, len(FIRST_WEIGHTS)))
    solution[CONTEXT_FRAMES, VOWEL_GROUPS] = 1
    return MouthModel(solution=solution.reshape(-1, len(FIRST_WEIGHTS)), weights=FIRST_WEIGHTS)


def _with_context(voice: np.ndarray) -> np.ndarray:
    """The voice of eleven frames for each."""
    if not len(voice):
        return np.zeros((0, voice.shape[1] * (2 * CONTEXT_FRAMES + 1)))
    padded = np.pad(voice, ((CONTEXT_FRAMES, CONTEXT_FRAMES), (0, 0)), "edge")
    width = 2 * CONTEXT_FRAMES + 1
    return np.concatenate([padded[n : n + len(voice)] for n in range(width)], axis=1)


def _predict(models: Sequence[MouthModel], voices: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """What each model predicts of each voice."""
    return [[model.predict(voice) for voice in voices] for model in models]


def _scores(
    predictions: Sequence[Sequence[np.ndarray]],
    mouths: Sequence[np.ndarray],
    models: Sequence[MouthModel],
    sounds: np.ndarray,
) -> np.ndarray:
    """Each clip with the sound of a clip, by the model of its fold: (clips, 31)."""
    rows = []
    for clip, sound in enumerate(sounds.tolist()):
        fold = clip % FOLDS
        found = correlations(predictions[fold][sound], mouths[clip])
        rows.append(found @ models[fold].weights)
    return np.stack(rows)


def _learn(
    voices: Sequence[np.ndarray],
    mouths: Sequence[np.ndarray],
    scores: np.ndarray,
    clips: np.ndarray,
) -> MouthModel | None:
    """Ridge regression over the half of the given clips that is clearest, at their best lags.

    Returns:
        None if there is too little to learn from.
    """
    margins = np.array([_margin(one) for one in scores[clips]])
    clearest = clips[margins >= np.median(margins)]
    clearest = clearest[:: -(-len(clearest) // MAX_LEARNED_CLIPS)]
    width = (2 * CONTEXT_FRAMES + 1) * 2 * BAND_GROUPS
    xx, xy, yy, count = np.zeros((width, width)), 0.0, 0.0, 0  # sums; all have a mean of about 0
    for clip in clearest.tolist():
        lag = int(LAGS[np.argmax(scores[clip])])
        x = at_lag(_with_context(voices[clip]), len(mouths[clip]), lag)
        y = mouths[clip]
        known = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
        x, y = x[known], y[known]
        xx, xy, yy, count = xx + x.T @ x, xy + x.T @ y, yy + (y * y).sum(axis=0), count + len(x)
    if count < MIN_LEARNED_FRAMES:
        return None
    solution = np.linalg.solve(xx + RIDGE * np.eye(width), xy)
    power = ((xx @ solution) * solution).sum(axis=0) * yy  # of predictions, and of mouths
    r = (solution * xy).sum(axis=0) / np.sqrt(np.maximum(power, _TINY))
    r = np.clip(r, 0, MAX_FIT)
    return MouthModel(solution=solution, weights=r / (1 - r * r))


def _margin(scores: np.ndarray) -> float:
    """By how much the best lag is better than those that are no neighbours of it."""
    best = int(np.argmax(scores))
    far = np.abs(np.arange(len(LAGS)) - best) > 2
    return float((scores[best] - scores[far].max()) / (scores.std() + _TINY))


def _log_prior(scores: np.ndarray) -> np.ndarray:
    """The logarithm of how many clips have a lag, by the half of them that is clearest."""
    scores = scores[(scores != 0).any(axis=1)]
    if not len(scores):
        return np.zeros(len(LAGS))
    margins = np.array([_margin(one) for one in scores])
    clearest = np.argmax(scores[margins >= np.median(margins)], axis=1)
    counts = np.bincount(clearest, minlength=len(LAGS)).astype(np.float64)
    smooth = np.convolve(np.pad(counts, 1, "edge"), PRIOR_KERNEL, "valid")
    shares = smooth / smooth.sum()
    return np.asarray(np.log((1 - ANY_LAG) * shares + ANY_LAG / len(LAGS)))


def _spread(chance: np.ndarray) -> float:
    """The standard deviation by which other sounds differ, of (others, clips)."""
    return float(np.sqrt(((chance - chance.mean(axis=0)) ** 2).mean()))
