"""Whether the sounds and lips of a data set belong together, by a sample of its clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wav2lip_npu.alignment.comparison import TINY
from wav2lip_npu.alignment.lags import best_offset
from wav2lip_npu.alignment.mouth import Talk, mouth_scores, other_clips
from wav2lip_npu.config import SyncConfig
from wav2lip_npu.config.measure import MOUTH_CONFIDENCE

MIN_COMPARED_CLIPS = 20  # from which something can be concluded
MIN_SIGMA = 3.0  # standard errors; 20 clips have 3.4 to 12, with other clips' sounds −3 to 2.5
MAX_FAULTY_SHARE = 0.25  # of the clips, unclear or off; good data has 5 % (of 20 clips 10 %)
MIN_COMMON_SHARE = 0.5  # of the clear clips, which are near an offset that is called common
COMMON_WIDTH = 1.0  # frames from the common offset


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How the sounds of some clips go with their lips."""

    clips: int  # that have a mouth and a voice
    sigma: float = 0.0  # by how many standard errors better than the sounds of other clips
    unclear: int = 0  # clips whose sound goes with the mouth hardly better than others do
    off: int = 0  # clips that are clear, and off by some frames, as for ``sync``
    common_offset: int | None = None  # frames by which the sound comes late in most clear clips

    @property
    def is_known(self) -> bool:
        """Whether there were enough clips to compare."""
        return self.clips >= MIN_COMPARED_CLIPS

    @property
    def is_found(self) -> bool:
        """Whether sounds and lips belong together at all."""
        return self.sigma >= MIN_SIGMA

    @property
    def has_many_faults(self) -> bool:
        """Whether more clips are unclear or off than in good data."""
        return self.unclear + self.off > MAX_FAULTY_SHARE * self.clips


def compare(talks: Sequence[Talk]) -> Agreement:
    """Compare each clip's confidence with its own sound to that with another clip's.

    Both are computed in the same way, with models that are learned from these pairs, so what chance
    gives is the same in both.

    Args:
        talks: clips of a data set, at random or evenly spread over it.

    Returns:
        ``clips`` alone is set if there are too few.
    """
    if len(talks) < MIN_COMPARED_CLIPS:
        return Agreement(clips=len(talks))
    scores, confidence = mouth_scores(talks)
    known = np.flatnonzero(np.isfinite(scores).all(axis=1))
    if len(known) < MIN_COMPARED_CLIPS:
        return Agreement(clips=len(known))
    scores, confidence = scores[known], confidence[known]
    _, by_chance = mouth_scores(_swapped([talks[number] for number in known.tolist()]))
    standard_error = np.sqrt((confidence.var() + by_chance.var()) / len(known))
    offsets = np.array([best_offset(one) for one in scores])
    is_clear = confidence >= MOUTH_CONFIDENCE
    is_off = is_clear & (np.abs(np.round(offsets)) >= SyncConfig.min_offset)
    return Agreement(
        clips=len(known),
        sigma=float((confidence.mean() - by_chance.mean()) / (standard_error + TINY)),
        unclear=int((~is_clear).sum()),
        off=int(is_off.sum()),
        common_offset=_common(offsets[is_clear]),
    )


def _swapped(talks: Sequence[Talk]) -> list[Talk]:
    """The same mouths, each with the voice of another clip."""
    others = other_clips(len(talks), 0).tolist()
    return [
        Talk(mouth=talk.mouth, voice=talks[other].voice)
        for talk, other in zip(talks, others, strict=True)
    ]


def _common(offsets: np.ndarray) -> int | None:
    """The median, rounded, if most offsets are near it."""
    if not len(offsets):
        return None
    median = np.median(offsets)
    is_near = np.abs(offsets - median) <= COMMON_WIDTH
    return round(float(median)) if is_near.mean() >= MIN_COMMON_SHARE else None
