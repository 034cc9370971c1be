"""Who is who in pictures that come by once: known by place, by looks, or by both.

``tracks`` joins detections once all of them are there, and by place alone; here a person is known
again where they cross another, come back, or are seen in another shot.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from wav2lip_npu.tracking.smoothing import PATIENCE, SAME_FACE, overlaps

AROUND = 0.15  # of a face's sides, beyond its box: hair belongs to the looks
SEEN = 48  # pixels, width and height, in which looks are taken
COLOURS = (32, 32, 8)  # bins of CIELAB's a and b, and of lightness
# On eight videos of one person each, looks within a video were alike by 0.96 or more, and those of
# different videos by 0.83 or less.
ALIKE = 0.9  # looks of one person, seen elsewhere or in another shot
UNLIKE = 0.75  # looks that are another's, though at the same place
LOOKS_COUNT = 3.0  # as much as place, where both speak
LEARNED = 0.05  # share of the newest looks in a person's
REMEMBERED = 64  # people who are known when they come back
BRISK = 3  # frames, in which a person's movement is measured


@dataclass(kw_only=True, eq=False)
class Person:
    """Somebody who has been seen."""

    number: int  # from 1, in order of appearance
    since: int  # first frame
    last: int  # newest frame
    shot: int  # the one in which that was
    box: np.ndarray  # (4,) x1, y1, x2, y2 there
    look: np.ndarray  # colours
    speed: np.ndarray  # (2,) pixels a frame, right and down
    frames: int = 0  # in which the face was found
    same_as: Person | None = None  # who it turned out to be

    def place(self, frame: int) -> np.ndarray:
        """Where the face should be by now."""
        passed = min(frame - self.last, PATIENCE)
        return self.box + np.tile(self.speed, 2) * passed

    def seen(self, frame: int, shot: int, box: np.ndarray, look: np.ndarray) -> None:
        """Take in where the face is, and how it looks."""
        passed = frame - self.last
        if shot == self.shot and passed <= PATIENCE:
            moved = (box - self.box).reshape(2, 2).mean(axis=0) / passed
            self.speed += (moved - self.speed) * min(1.0, passed / BRISK)
        else:
            self.speed = np.zeros(2)
        self.look = (1 - LEARNED) * self.look + LEARNED * look
        self.box, self.last, self.shot = box, frame, shot
        self.frames += 1


class Crowd:
    """Everybody in a video so far."""

    def __init__(self) -> None:
        self.people: list[Person] = []
        self.shot = 0
        self._known: list[Person] = []  # those who may be known again

    def see(
        self, frame: int, image: np.ndarray, boxes: np.ndarray, *, cut: bool
    ) -> list[tuple[Person, np.ndarray]]:
        """Tell who is in a picture.

        Args:
            frame: its number, higher than that of any before.
            image: (h, w, 3) BGR.
            boxes: (n, 4) the faces' x1, y1, x2, y2.
            cut: whether a scene began since the picture before.

        Returns:
            Persons and their boxes, from left to right.
        """
        self.shot += cut
        looks = [_look(image, box) for box in boxes]
        found: dict[int, Person] = {}
        for person, number in self._pairs(frame, boxes, looks):
            if number not in found and person not in found.values():
                found[number] = person
        for number, person in found.items():
            found[number] = self._recognised(person, looks[number], found.values())
        for number in sorted(range(len(boxes)), key=lambda n: float(boxes[n][0])):
            if number not in found:
                found[number] = self._meet(frame, boxes[number], looks[number])
            found[number].seen(frame, self.shot, boxes[number], looks[number])
        return [(found[n], boxes[n]) for n in sorted(found, key=lambda n: float(boxes[n][0]))]

    def _pairs(
        self, frame: int, boxes: np.ndarray, looks: Sequence[np.ndarray]
    ) -> list[tuple[Person, int]]:
        """Persons with the numbers of boxes that may be theirs, the likeliest first."""
        if not len(boxes) or not self._known:
            return []
        near = overlaps(np.stack([person.place(frame) for person in self._known]), boxes)
        scored = []
        for row, person in enumerate(self._known):
            passed = frame - person.last
            there = person.shot == self.shot and passed <= PATIENCE
            for number, look in enumerate(looks):
                likeness = _likeness(person.look, look)
                shared = float(near[row, number]) if there else 0.0
                # Somebody who has been away for a moment may have been replaced.
                if shared >= SAME_FACE and (passed <= BRISK or likeness >= UNLIKE):
                    scored.append((2 + shared + LOOKS_COUNT * likeness, person, number))
                elif likeness >= ALIKE:
                    scored.append((likeness, person, number))
        scored.sort(key=lambda pair: -pair[0])
        return [(person, number) for _, person, number in scored]

    def _recognised(self, person: Person, look: np.ndarray, present: Collection[Person]) -> Person:
        """Who a newcomer is: those who come from behind another are known only once they show."""
        if person.frames > PATIENCE:
            return person
        likely = [
            (_likeness(other.look, look), other)
            for other in self._known
            if other.number < person.number and other not in present
        ]
        likeness, other = max(likely, key=lambda pair: pair[0], default=(0.0, person))
        if likeness < ALIKE:
            return person
        self.people.remove(person)
        self._known.remove(person)
        person.same_as = other
        return other

    def _meet(self, frame: int, box: np.ndarray, look: np.ndarray) -> Person:
        person = Person(
            number=len(self.people) + 1,
            since=frame,
            last=frame - 1,
            shot=self.shot,
            box=box,
            look=look,
            speed=np.zeros(2),
        )
        self.people.append(person)
        self._known.append(person)
        if len(self._known) > REMEMBERED:
            self._forget(frame)
        return person

    def _forget(self, frame: int) -> None:
        """Let go of whoever has been seen least: a long film has extras without number."""
        away = [person for person in self._known if frame - person.last > PATIENCE]
        if away:
            least = min(away, key=lambda person: person.frames)
            self._known.remove(least)
            least.look = np.zeros(0)


class Choice:
    """Whose mouth speaks."""

    def __init__(self, rule: str) -> None:
        """Choose by a rule, one of ``config.FACE_RULES`` or ``track:N``."""
        self.rule = rule
        self._shot = -1
        self._favourite: Person | None = None  # who was chosen first
        self._chosen: Person | None = None  # in this shot

    def among(
        self, present: Sequence[tuple[Person, np.ndarray]], size: tuple[int, int], shot: int
    ) -> np.ndarray | None:
        """The box of the chosen person, if that person is in the picture.

        A person stays chosen for the whole shot, and in other shots where they are known again.
        Where they are not, ``largest`` and ``center`` choose anew.

        Args:
            present: who is there.
            size: width and height of the picture.
            shot: number of the shot.
        """
        boxes: Mapping[Person, np.ndarray] = dict(present)
        if self._chosen is not None and self._chosen.same_as is not None:
            self._chosen = self._chosen.same_as
        if boxes and (shot != self._shot or self._chosen is None):
            self._shot = shot
            self._chosen = self._choose(boxes, size)
            self._favourite = self._favourite or self._chosen
        return boxes.get(self._chosen) if self._chosen is not None else None

    def _choose(self, boxes: Mapping[Person, np.ndarray], size: tuple[int, int]) -> Person | None:
        if self._favourite in boxes:
            return self._favourite
        if self.rule not in ("largest", "center"):
            wanted = 1 if self.rule == "first" else int(self.rule.removeprefix("track:"))
            return next((person for person in boxes if person.number == wanted), None)
        if self.rule == "largest":
            return max(
                boxes, key=lambda person: float(np.prod(boxes[person][2:] - boxes[person][:2]))
            )
        middle = np.array(size) / 2
        return min(
            boxes,
            key=lambda person: float(
                np.linalg.norm(boxes[person].reshape(2, 2).mean(axis=0) - middle)
            ),
        )


def _look(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """How often each colour is in and around a face, as a vector of length 1."""
    x1, y1, x2, y2 = box
    right, down = AROUND * (x2 - x1), AROUND * (y2 - y1)
    height, width = image.shape[:2]
    left, top = int(max(0, x1 - right)), int(max(0, y1 - down))
    part = image[top : int(min(height, y2 + down)) + 1, left : int(min(width, x2 + right)) + 1]
    if not part.size:
        return np.zeros(np.prod(COLOURS))
    small = cv2.resize(part, (SEEN, SEEN), interpolation=cv2.INTER_AREA)
    seen = cv2.cvtColor(small, cv2.COLOR_BGR2LAB)
    counts = cv2.calcHist([seen], [1, 2, 0], None, list(COLOURS), [0, 256] * 3)
    counts = np.sqrt(cv2.GaussianBlur(counts, (3, 3), 0).ravel().astype(np.float64))
    return counts / max(float(np.linalg.norm(counts)), 1e-9)


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Bhattacharyya's coefficient of two looks, 0 to 1."""
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-9))
