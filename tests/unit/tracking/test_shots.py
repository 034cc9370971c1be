"""Shot cuts, what only looks like one, and the frames in which faces are detected."""

from collections.abc import Iterator

import numpy as np
import pytest
from skimage import data as pictures

from wav2lip_npu.media.video_reader import Frame
from wav2lip_npu.tracking.shots import mark_detection_frames, with_shot_cuts

ASTRONAUT = np.ascontiguousarray(pictures.astronaut()[:300, :400])
CAT = np.ascontiguousarray(pictures.chelsea()[:300, :400])


def frames_of(images: list[np.ndarray]) -> Iterator[Frame]:
    return (Frame(time=n / 25, image=image) for n, image in enumerate(images))


def cuts_of(images: list[np.ndarray]) -> list[int]:
    given = list(with_shot_cuts(frames_of(images)))
    assert len(given) == len(images)
    assert all(out.image is image for (out, _), image in zip(given, images, strict=True))
    return [number for number, (_, cut) in enumerate(given) if cut]


@pytest.mark.parametrize("length", [1, 2, 3, 10])
def test_cuts_are_found_to_the_frame(length: int) -> None:
    images = [ASTRONAUT] * 7 + [CAT] * length + [ASTRONAUT] * 5
    # Two frames of another shot are taken for a flash, unless they are the last.
    assert cuts_of(images) == ([7, 7 + length] if length > 2 else [])
    assert cuts_of(images[: 7 + length]) == [7]


def test_a_flash_is_no_cut() -> None:
    bright = np.clip(ASTRONAUT.astype(int) + 120, 0, 255).astype(np.uint8)
    assert cuts_of([ASTRONAUT] * 5 + [bright, bright] + [ASTRONAUT] * 5 + [CAT] * 4) == [12]


def test_movement_light_and_noise_are_no_cuts() -> None:
    random = np.random.default_rng(0)
    wide = pictures.astronaut()
    pan = [wide[100:400, 8 * n : 8 * n + 300] for n in range(25)]  # the width in 1.5 s
    assert cuts_of(pan) == []
    dimmed = [(ASTRONAUT * (1 - n / 25)).astype(np.uint8) for n in range(25)]
    assert cuts_of(dimmed) == []
    noisy = [
        np.clip(ASTRONAUT + random.normal(0, 40, ASTRONAUT.shape), 0, 255).astype(np.uint8)
        for _ in range(5)
    ]
    assert cuts_of(noisy) == []


def test_short_streams() -> None:
    assert cuts_of([]) == []
    assert cuts_of([CAT]) == []


def test_faces_are_detected_in_every_fourth_frame_around_cuts_and_in_the_last() -> None:
    images = [ASTRONAUT] * 6 + [CAT] * 8
    marked = list(mark_detection_frames(frames_of(images), every=4))
    assert [one.number for one in marked] == [*range(14)]
    assert [one.number for one in marked if one.starts_shot] == [6]
    assert [one.number for one in marked if one.should_detect] == [0, 4, 5, 6, 8, 12, 13]
