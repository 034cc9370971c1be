"""Who of the people in a video is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from wav2lip_npu.tracking.tracker import Identity


class Selector(Protocol):
    """Chooses a person in each frame."""

    def select(
        self, people: Mapping[Identity, np.ndarray], size: tuple[int, int], shot: int
    ) -> Identity | None:
        """See ``TargetSelector``."""
        ...

    def expects(self, shot: int) -> bool:
        """Whether a frame of this shot without the person is one that lacks a face."""
        ...


class TargetSelector:
    """A person by a rule: ``--face_select``."""

    def __init__(self, rule: str) -> None:
        """Select by a rule, one of ``config.FACE_RULES`` or ``track:N``."""
        self.rule = rule
        self._shot = -1
        self._first_choice: Identity | None = None
        self._choice: Identity | None = None  # in this shot

    def select(
        self, people: Mapping[Identity, np.ndarray], size: tuple[int, int], shot: int
    ) -> Identity | None:
        """The chosen person, if that person is in the frame.

        A person stays chosen for the whole shot, and in other shots where they are known again.
        Where they are not, ``largest`` and ``center`` choose anew.

        Args:
            people: who is in the frame and may be chosen, and where.
            size: width and height of the frame.
            shot: number of the shot.
        """
        self._choice = self._choice and self._choice.resolved()
        self._first_choice = self._first_choice and self._first_choice.resolved()
        if people and (shot != self._shot or self._choice is None):
            self._shot = shot
            self._choice = self._choose(people, size)
            self._first_choice = self._first_choice or self._choice
        return self._choice if self._choice in people else None

    def expects(self, shot: int) -> bool:
        """See ``Selector``: always."""
        return True

    def _choose(
        self, people: Mapping[Identity, np.ndarray], size: tuple[int, int]
    ) -> Identity | None:
        if self._first_choice in people:
            return self._first_choice
        if self.rule not in ("largest", "center"):
            wanted = 1 if self.rule == "first" else int(self.rule.removeprefix("track:"))
            return next((person for person in people if person.number == wanted), None)
        corners = {person: box.reshape(2, 2) for person, box in people.items()}
        if self.rule == "largest":
            return max(corners, key=lambda person: float(np.diff(corners[person], axis=0).prod()))
        middle = np.array(size) / 2
        return min(
            corners,
            key=lambda person: float(np.linalg.norm(corners[person].mean(axis=0) - middle)),
        )


def select_each(
    selectors: Sequence[Selector],
    people: Mapping[Identity, np.ndarray],
    size: tuple[int, int],
    shot: int,
) -> list[Identity | None]:
    """The person that each rule chooses; nobody is chosen twice, and earlier rules come first."""
    free, chosen = dict(people), []
    for selector in selectors:
        person = selector.select(free, size, shot)
        chosen.append(person)
        if person is not None:
            del free[person]
    return chosen
