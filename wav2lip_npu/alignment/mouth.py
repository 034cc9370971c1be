"""Sound and lips compared without a trained network: the mouth's shape, as the voice predicts it.

A mouth opens where the voice is loud. That is enough to find the offset of most clips of a data
set. From those a linear model learns what of the voice goes with which shape, in this data set;
with it the offsets are found again, better. No other data, and no offset, need be known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wav2lip_npu.alignment.comparison import MIN_CLIPS, TINY, Comparison, fuse_scores, margin
from wav2lip_npu.alignment.lags import LAGS, at_lag, correlations
from wav2lip_npu.constants import FPS
from wav2lip_npu.mel import MEL_BANDS, ROWS_PER_SECOND

BAND_GROUPS = 8  # of ten mel bands each
VOWEL_GROUPS = slice(1, 4)  # where an open mouth is heard: about 450 to 1650 Hz
# What a mouth's loudness goes with, of the mouth's three numbers and their changes.
FIRST_WEIGHTS = np.array([0.6, 0.0, 0.4, 0.0, 0.0, 0.0])
CONTEXT_FRAMES = 5  # of the voice, before and after a frame
RIDGE = 300.0  # of the regression, in samples of unit variance
ROUNDS = 3
FOLDS = 4  # each is scored by a model of the others
FRAMES_THAT_OVERLAP = 4.0  # a mouth hardly changes in as many
OTHER_SOUNDS = 16  # with which a clip is compared, to know what chance gives
MIN_LEARNED_FRAMES = 400  # of all of them: 16 s, more than the model has numbers
MAX_LEARNED_CLIPS = 1000  # of a larger data set every n-th is learned from
MAX_FIT = 0.99  # correlation of a prediction; 1 would have an infinite weight


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


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """The mouths of a data set, and what models that were learned from it predict of each voice.

    Each clip belongs to a fold, whose model was learned from the clips of the others: chance would
    look like agreement otherwise.
    """

    mouths: list[np.ndarray]  # (frames, 6) each: shape and changes, with variance 1
    models: list[MouthModel]  # one for each fold
    predictions: list[list[np.ndarray]]  # of each model, of each voice: (n, 6)


def predict_mouths(talks: Sequence[Talk]) -> Predicted:
    """Learn from the clips of a data set how its mouths go with its voices.

    Args:
        talks: of fewer than ``MIN_CLIPS`` nothing is learned: a mouth is as open as it is loud.
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
    return Predicted(mouths=mouths, models=models, predictions=_predict(models, voices))


def compare_mouths(predicted: Predicted) -> Comparison:
    """Scores in standard errors of chance; of one clip alone there are no others."""
    mouths, models, predictions = predicted.mouths, predicted.models, predicted.predictions
    own = np.arange(len(mouths))
    others = [
        _scores(predictions, mouths, models, other_clips(len(own), place))
        for place in range(min(OTHER_SOUNDS, len(own) - 1))
    ]
    return Comparison(
        scores=_scores(predictions, mouths, models, own),
        others=np.stack(others) if others else np.zeros((0, len(own), len(LAGS))),
    )


def other_clips(clips: int, place: int) -> np.ndarray:
    """Another clip for each of some: int (clips,).

    The order is random, but always the same one: in many data sets every n-th clip has the same
    sentence.

    Args:
        clips: their number, more than ``place`` + 1.
        place: from 0 on; each gives other clips.
    """
    order = np.random.default_rng(0).permutation(clips)
    others = np.empty_like(order)
    others[order] = np.roll(order, -1 - place)
    return others


def along_time(predicted: Predicted, clip: int) -> np.ndarray:
    """How well each frame's mouth goes with the voice at each lag.

    Returns:
        (frames, 31) in standard deviations of chance, which is the voice backwards; NaN where
        there is no face or no voice.
    """
    fold = clip % FOLDS
    mouth, voice = predicted.mouths[clip], predicted.predictions[fold][clip]
    weights = predicted.models[fold].weights
    own, chance = (
        np.stack([(at_lag(one, len(mouth), int(lag)) * mouth) @ weights for lag in LAGS], axis=1)
        for one in (voice, voice[::-1])
    )
    known = chance[np.isfinite(chance)]
    if not len(known):
        return np.full(own.shape, np.nan)
    return np.asarray((own - known.mean()) / (known.std() + TINY))


def mouth_scores(talks: Sequence[Talk]) -> tuple[np.ndarray, np.ndarray]:
    """How well each clip's mouth goes with its voice, and how sure that is; see ``fuse_scores``.

    With fewer than ``MIN_CLIPS`` clips the confidence is 0.
    """
    scores, confidence = fuse_scores([compare_mouths(predict_mouths(talks))])
    return scores, confidence if len(talks) >= MIN_CLIPS else np.zeros(len(talks))


def _standard(values: np.ndarray) -> np.ndarray:
    """With mean 0 and variance 1, of what is known; float64."""
    values = values.astype(np.float64)
    known = values[np.isfinite(values).all(axis=1)]
    if not len(known):
        return values
    return np.asarray((values - known.mean(axis=0)) / (known.std(axis=0) + TINY))


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
    margins = np.array([margin(one) for one in scores[clips]])
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
    r = (solution * xy).sum(axis=0) / np.sqrt(np.maximum(power, TINY))
    r = np.clip(r, 0, MAX_FIT)
    return MouthModel(solution=solution, weights=r / (1 - r * r))
