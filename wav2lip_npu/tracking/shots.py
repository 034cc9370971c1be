"""Shot cuts in a stream of frames, and the frames in which faces are detected."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from wav2lip_npu.media.video_reader import Frame

THUMBNAIL_SIZE = (16, 9)  # pixels, so few that movement hardly matters
THUMBNAIL_SAMPLES = 72  # pixels of the shorter side that a thumbnail is made from, or a few more
# Mean difference of two thumbnails, of 255, at a cut. On the clips that this was made with, frames
# that follow each other differ by 8 at most, and those of different shots by 42 or more.
SHOT_CUT_THRESHOLD = 20.0
FLASH_FRAMES = 2  # what goes away sooner is a flashlight, not a shot


def with_shot_cuts(frames: Iterator[Frame]) -> Iterator[tuple[Frame, bool]]:
    """The same frames, each with whether it begins a shot.

    A frame begins one if it, and the one two frames later, differ from the last before. So
    ``FLASH_FRAMES`` frames are held. Shots that fade into each other are not told apart.

    Args:
        frames: in order of time.
    """
    held: deque[tuple[Frame, np.ndarray]] = deque()  # with their thumbnails
    before: np.ndarray | None = None  # the last thumbnail that was not a flash's
    for frame in frames:
        held.append((frame, _thumbnail(frame.image)))
        if len(held) > FLASH_FRAMES:
            before, cut = _compare(before, held[0][1], held[-1][1])
            yield held.popleft()[0], cut
    while held:
        before, cut = _compare(before, held[0][1], held[-1][1])
        yield held.popleft()[0], cut


@dataclass(frozen=True, kw_only=True, eq=False)
class MarkedFrame:
    """A frame, and what is known of it before detection."""

    number: int  # from 0
    frame: Frame
    starts_shot: bool  # it is the first after a cut
    should_detect: bool


def mark_detection_frames(frames: Iterator[Frame], every: int) -> Iterator[MarkedFrame]:
    """The same frames; faces are to be detected in every N-th, around each cut, and in the last."""
    before: MarkedFrame | None = None
    for number, (frame, cut) in enumerate(with_shot_cuts(frames)):
        if before is not None:
            yield replace(before, should_detect=before.should_detect or cut)
        detect = cut or number % every == 0
        before = MarkedFrame(number=number, frame=frame, starts_shot=cut, should_detect=detect)
    if before is not None:
        yield replace(before, should_detect=True)


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """The image made small, from every n-th pixel of a large one."""
    step = max(1, min(image.shape[:2]) // THUMBNAIL_SAMPLES)
    return cv2.resize(image[::step, ::step], THUMBNAIL_SIZE, interpolation=cv2.INTER_AREA)


def _compare(
    before: np.ndarray | None, now: np.ndarray, later: np.ndarray
) -> tuple[np.ndarray, bool]:
    """What to compare the next frame with, and whether there is a cut."""
    if before is None or not _differ(before, now):
        return now, False
    return (now, True) if _differ(before, later) else (before, False)


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    return float(cv2.absdiff(one, other).mean()) > SHOT_CUT_THRESHOLD
