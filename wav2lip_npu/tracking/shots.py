"""Scene cuts in a stream of pictures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import cv2
import numpy as np

THUMBNAIL = (16, 9)  # pixels, so few that movement hardly matters
SAMPLED = 72  # pixels of the shorter side that are looked at, or a few more
# Mean difference of two thumbnails, of 255, that is a cut. On the clips that this was made with,
# pictures that follow each other differ by 8 at most, and those of other scenes by 42 or more.
CUT = 20.0
FLASH = 2  # frames that another picture must stay for, or it was a flashlight

Item = TypeVar("Item")


def with_cuts(
    items: Iterator[Item], picture: Callable[[Item], np.ndarray]
) -> Iterator[tuple[Item, bool]]:
    """The same items, each with whether it begins another scene.

    A picture begins one if it, and the one two frames later, differ from the last before. ``FLASH``
    items are held for that. Scenes that fade into each other are not told apart.

    Args:
        items: in order of time.
        picture: gives an item's (h, w, 3) uint8.
    """
    held: deque[tuple[Item, np.ndarray]] = deque()  # with their thumbnails
    before: np.ndarray | None = None  # the last thumbnail that was no flash's
    for item in items:
        held.append((item, _thumbnail(picture(item))))
        if len(held) > FLASH:
            before, cut = _compare(before, held[0][1], held[-1][1])
            yield held.popleft()[0], cut
    while held:
        before, cut = _compare(before, held[0][1], held[-1][1])
        yield held.popleft()[0], cut


@dataclass(frozen=True, kw_only=True)
class Seen(Generic[Item]):
    """An item, and whether a detector should look at it."""

    item: Item
    cut: bool  # it begins another scene
    look: bool


def to_look_at(
    items: Iterator[Item], picture: Callable[[Item], np.ndarray], every: int
) -> Iterator[Seen[Item]]:
    """The same items; to look at are every so manieth, those on both sides of a cut, the last."""
    before: Seen[Item] | None = None
    for number, (item, cut) in enumerate(with_cuts(items, picture)):
        if before is not None:
            yield replace(before, look=before.look or cut)
        before = Seen(item=item, cut=cut, look=cut or number % every == 0)
    if before is not None:
        yield replace(before, look=True)


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
