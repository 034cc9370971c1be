"""Scene cuts in a stream of pictures."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import cv2
import numpy as np

THUMBNAIL = (16, 9)  # pixels, so few that movement hardly matters
SAMPLED = 72  # pixels of the shorter side that are looked at, or a few more
# Mean difference of two thumbnails, of 255, that is a cut. On the clips that this was made with,
# pictures that follow each other differ by 8 at most, and those of other scenes by 42 or more.
CUT = 20.0
FLASH = 2  # frames that another picture must stay for, or it was a flashlight


def with_cuts(images: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    """The same pictures, (h, w, 3) uint8, each with whether it begins another scene.

    A picture begins one if it, and the one two frames later, differ from the last before. ``FLASH``
    pictures are held for that. Scenes that fade into each other are not told apart.
    """
    held: deque[tuple[np.ndarray, np.ndarray]] = deque()  # pictures and their thumbnails
    before: np.ndarray | None = None  # the last thumbnail that was no flash's
    for image in images:
        held.append((image, _thumbnail(image)))
        if len(held) > FLASH:
            before, cut = _compare(before, held[0][1], held[-1][1])
            yield held.popleft()[0], cut
    while held:
        before, cut = _compare(before, held[0][1], held[-1][1])
        yield held.popleft()[0], cut


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """The picture made small, from every so manieth pixel of a large one."""
    step = max(1, min(image.shape[:2]) // SAMPLED)
    return cv2.resize(image[::step, ::step], THUMBNAIL, interpolation=cv2.INTER_AREA)


def _compare(
    before: np.ndarray | None, now: np.ndarray, later: np.ndarray
) -> tuple[np.ndarray, bool]:
    """What to compare the next picture with, and whether there is a cut."""
    if before is None or not _differ(before, now):
        return now, False
    return (now, True) if _differ(before, later) else (before, False)


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    return float(cv2.absdiff(one, other).mean()) > CUT
