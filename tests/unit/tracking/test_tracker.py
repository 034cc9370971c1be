"""Who is who: two who cross, one who comes back, other shots, and who is chosen."""

import cv2
import numpy as np
import pytest

from wav2lip_npu.tracking.selection import TargetSelector
from wav2lip_npu.tracking.tracker import MAX_AGE_FRAMES, Identity, Tracker

SIZE = (320, 180)  # width, height
RED, BLUE, GREEN = (60, 70, 190), (190, 90, 60), (80, 180, 70)  # BGR


def box_at(x: float, width: float = 40) -> np.ndarray:
    return np.array([x, 60, x + width, 60 + 1.25 * width])


def picture(*people: tuple[np.ndarray, tuple[int, int, int]]) -> np.ndarray:
    """Ellipses on grey; those later in the list are in front."""
    image = np.full((SIZE[1], SIZE[0], 3), 120, np.uint8)
    for (x1, y1, x2, y2), colour in people:
        middle = (int((x1 + x2) / 2), int((y1 + y2) / 2))
        axes = (int(0.6 * (x2 - x1)), int(0.6 * (y2 - y1)))
        cv2.ellipse(image, middle, axes, 0, 0, 360, colour, -1)
    return image


def boxes(*people: tuple[np.ndarray, tuple[int, int, int]]) -> np.ndarray:
    return np.array([box for box, _ in people]).reshape(-1, 4)


def update(tracker: Tracker, frame: int, *people: tuple, cut: bool = False, hidden: int = 0):
    """Who is in a frame; the first ``hidden`` people are not detected."""
    detected = boxes(*people[hidden:])
    return tracker.update(frame, picture(*people), detected, starts_shot=cut)


def test_two_who_cross_keep_their_names() -> None:
    """The red one is behind, and not found, for twelve frames in the middle."""
    tracker = Tracker()
    for frame in range(61):
        red, blue = (box_at(20 + 4 * frame), RED), (box_at(260 - 4 * frame), BLUE)
        hidden = int(abs(red[0][0] - blue[0][0]) < 45)
        there = {p.number: b for p, b in update(tracker, frame, red, blue, hidden=hidden).items()}
        assert there[2][0] == blue[0][0]
        assert hidden or there[1][0] == red[0][0]
    assert [person.number for person in tracker.identities] == [1, 2]


def test_one_who_comes_from_behind_another_is_known_again() -> None:
    """Found while still half hidden, and so at first like nobody."""
    tracker, selector = Tracker(), TargetSelector("track:1")
    right = []
    for frame in range(200):
        red, blue = (box_at(60 + 0.8 * frame), RED), (box_at(220 - 0.8 * frame), BLUE)
        apart = abs(red[0][0] - blue[0][0])
        there = update(tracker, frame, red, blue, hidden=int(apart < (8 if frame > 100 else 40)))
        box = there.get(selector.select(there, SIZE, tracker.shot))
        right.append(box is not None and box[0] == red[0][0])
    missed = np.flatnonzero(~np.array(right))
    assert len(missed) and missed.min() > 70 and missed.max() < 130
    assert [person.number for person in tracker.identities] == [1, 2]


def test_a_newcomer_who_was_chosen_stays_chosen_when_recognised() -> None:
    tracker, selector = Tracker(), TargetSelector("largest")
    for frame in range(10):
        update(tracker, frame, (box_at(20), RED))
    # In the next shot half of the red face is hidden at first.
    for frame in range(10, 20):
        half = [(box_at(200), RED), (box_at(215), BLUE)][: 2 if frame < 15 else 1]
        people = tracker.update(frame, picture(*half), boxes(half[0]), starts_shot=frame == 10)
        assert selector.select(people, SIZE, tracker.shot) is not None
    assert [person.number for person in tracker.identities] == [1]


def test_who_is_seen_least_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wav2lip_npu.tracking.tracker.MAX_IDENTITIES", 2)
    tracker = Tracker()
    for frame in range(10):
        update(tracker, frame, (box_at(20), RED))
    update(tracker, 50, (box_at(200), BLUE), cut=True)
    update(tracker, 100, (box_at(110), GREEN), cut=True)
    assert [person.appearance.any() for person in tracker.identities] == [True, False, True]
    (red,) = update(tracker, 150, (box_at(250), RED), cut=True)
    (blue,) = update(tracker, 200, (box_at(200), BLUE), cut=True)
    assert (red.number, blue.number) == (1, 4)


def test_one_who_leaves_and_comes_back_elsewhere_is_the_same() -> None:
    tracker = Tracker()
    for frame in range(10):
        update(tracker, frame, (box_at(20), RED), (box_at(200), BLUE))
    for frame in range(10, 100):
        update(tracker, frame, (box_at(200), BLUE))
    there = update(tracker, 100, (box_at(120), RED), (box_at(200), BLUE))
    assert [person.number for person in there] == [1, 2]
    newcomer = update(tracker, 101, (box_at(120), RED), (box_at(200), BLUE), (box_at(270), GREEN))
    assert [person.number for person in newcomer] == [1, 2, 3]


def test_another_at_the_place_of_one_who_has_left_is_another() -> None:
    tracker = Tracker()
    for frame in range(5):
        update(tracker, frame, (box_at(100), RED))
    update(tracker, 5)
    later = update(tracker, 15, (box_at(100), GREEN))
    assert [person.number for person in later] == [2]


def test_people_are_known_in_other_shots_by_their_appearance() -> None:
    tracker = Tracker()
    for frame in range(5):
        update(tracker, frame, (box_at(20), RED), (box_at(200), BLUE))
    # After the cut each is where the other was.
    there = update(tracker, 5, (box_at(20), BLUE), (box_at(200), RED), cut=True)
    assert {person.number: box[0] for person, box in there.items()} == {1: 200, 2: 20}


def chosen(rule: str, frames: list[list[tuple]], cuts: tuple[int, ...] = ()) -> list[float | None]:
    """Where the chosen one's box begins in each frame."""
    tracker, selector, found = Tracker(), TargetSelector(rule), []
    for number, people in enumerate(frames):
        present = tracker.update(
            number, picture(*people), boxes(*people), starts_shot=number in cuts
        )
        box = present.get(selector.select(present, SIZE, tracker.shot))
        found.append(None if box is None else float(box[0]))
    return found


@pytest.mark.parametrize(
    ("rule", "where"),
    [("largest", 220), ("center", 130), ("first", 10), ("track:1", 10), ("track:3", 220)],
)
def test_rules(rule: str, where: float) -> None:
    three = [(box_at(10), RED), (box_at(130), BLUE), (box_at(220, 60), GREEN)]
    assert chosen(rule, [three] * 3) == [where] * 3


def test_the_chosen_one_stays_chosen() -> None:
    """Though another becomes the largest, and while the chosen one is away."""
    frames = [[(box_at(20, 50), RED), (box_at(200, 40), BLUE)]] * 4
    frames += [[(box_at(20, 50), RED), (box_at(200, 70), BLUE)]] * 4
    frames += [[(box_at(200, 70), BLUE)]] * 40
    frames += [[(box_at(20, 50), RED), (box_at(200, 70), BLUE)]] * 2
    assert chosen("largest", frames) == [20] * 8 + [None] * 40 + [20] * 2


def test_a_shot_without_the_chosen_one() -> None:
    red, blue, green = [(box_at(20), RED)], [(box_at(60), BLUE)], [(box_at(90), GREEN)]
    frames = red * 3, blue * 3, green * 3, red * 3
    flat = [[person] for part in frames for person in part]
    cuts = (3, 6, 9)
    assert chosen("largest", flat, cuts) == [20] * 3 + [60] * 3 + [90] * 3 + [20] * 3
    assert chosen("first", flat, cuts) == [20] * 3 + [None] * 6 + [20] * 3
    assert chosen("track:2", flat, cuts) == [None] * 3 + [60] * 3 + [None] * 6


def test_a_place_is_predicted_for_a_second_at_most() -> None:
    person = Identity(
        number=1, first_frame=0, last_frame=9, shot=0, box=box_at(10),
        appearance=np.ones(1), velocity=np.array([2.0, 1.0]),
    )  # fmt: skip
    expected = box_at(10) + np.array([10, 5, 10, 5])
    np.testing.assert_allclose(person.predicted_box(14), expected)
    np.testing.assert_allclose(person.predicted_box(500), person.predicted_box(9 + MAX_AGE_FRAMES))


def test_people_alike_are_told_apart_by_place_in_whatever_order_they_are_detected() -> None:
    tracker = Tracker()
    for frame in range(30):
        pair = [(box_at(20 + frame), RED), (box_at(200), RED)]
        there = update(tracker, frame, *(pair if frame % 2 else reversed(pair)))
        assert {one.number: box[0] for one, box in there.items()} == {1: 20 + frame, 2: 200}


def test_the_best_overlap_goes_first() -> None:
    tracker = Tracker()
    update(tracker, 0, (box_at(20), RED), (box_at(50), RED))
    there = update(tracker, 1, (box_at(35), RED), (box_at(51), RED))
    assert {one.number: box[0] for one, box in there.items()} == {1: 35, 2: 51}


def test_a_number_is_never_given_twice() -> None:
    """Somebody who turns out to be known gives up a number; nobody else gets it or a later one."""
    tracker = Tracker()
    for frame in range(10):
        update(tracker, frame, (box_at(20), RED))
    people = (box_at(200), RED), (box_at(215), BLUE)  # the red one is half hidden: a stranger
    (stranger,) = update(tracker, 10, *people[::-1], cut=True, hidden=1)
    update(tracker, 11, (box_at(20), GREEN), (box_at(200), RED))
    update(tracker, 12, (box_at(20), GREEN), (box_at(200), RED), (box_at(120), BLUE))
    numbers = [one.number for one in tracker.identities]
    assert len(set(numbers)) == len(numbers)
    assert stranger.resolved().number in numbers
