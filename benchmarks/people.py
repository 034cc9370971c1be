"""Two people in one video: who is found to speak, and whose mouth moves when.

The videos are made of others, which each show one who speaks: an interview of six shots, both
people side by side, and both crossing. Run from the project's root:
``python -m benchmarks.people --help``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, permutations
from pathlib import Path

import cv2
import numpy as np

from benchmarks import measure
from face_detection.landmarks import FaceLandmarks, mouth_shape
from wav2lip_npu import LipSync, load_audio
from wav2lip_npu.constants import FPS, SAMPLES_PER_FRAME
from wav2lip_npu.inference.locate import targets_of
from wav2lip_npu.inference.speaking import KeptDetections, find_speakers, listen
from wav2lip_npu.media.audio import open_sound, write_wav
from wav2lip_npu.media.video_reader import VIDEO_SUFFIXES, Frame, at_rate, read_frames
from wav2lip_npu.tracking.detection import BatchedDetector

SIDE = 288  # pixels of each person's picture
SHOT_FRAMES = 70  # 2.8 s
QUIET_FRAMES = 8  # of the calmest part of a video, which a listener plays to and fro
# The shots of the interview: who is seen, from the left, and who speaks.
INTERVIEW = (("A", "A"), ("AB", "A"), ("B", "B"), ("AB", "B"), ("A", "B"), ("BA", "A"))
HIDDEN = 0.25  # of a picture; with more of it hidden its mouth is not measured

Pictures = list[np.ndarray]  # (h, w, 3) BGR uint8


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody who speaks in a video of their own."""

    name: str
    speaking: Pictures  # (288, 288, 3), 25 a second
    listening: Pictures  # the same, with a mouth that hardly moves
    sound: np.ndarray  # (n,) mono at 16 kHz


def read_person(path: Path, lip_sync: LipSync) -> Person:
    """The beginning of a video, cut to a square around the face."""
    frames = [one.image for one in islice(at_rate(read_frames(path), FPS), SHOT_FRAMES)]
    boxes = lip_sync.detector.detect(frames[:1])[0].tolist()
    x1, y1, x2, y2, _ = max(boxes, key=lambda box: box[3] - box[1])
    scale = SIDE / (2 * (y2 - y1))
    shift = [SIDE / 2 - scale * (x1 + x2) / 2, SIDE / 2 - scale * (y1 + y2) / 2]
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    edge = cv2.BORDER_REPLICATE
    cut = [cv2.warpAffine(one, matrix, (SIDE, SIDE), borderMode=edge) for one in frames]
    changes = np.abs(np.diff(openings(cut)))
    first = int(np.argmin(np.convolve(changes, np.ones(QUIET_FRAMES - 1), "valid")))
    return Person(
        name=path.stem,
        speaking=cut,
        listening=to_and_fro(cut[first : first + QUIET_FRAMES], len(cut)),
        sound=load_audio(path, start=0.0)[: len(cut) * SAMPLES_PER_FRAME],
    )


def to_and_fro(pictures: Pictures, count: int) -> Pictures:
    """So many pictures, played forwards and backwards."""
    both = [*pictures, *pictures[-2:0:-1]]
    return [both[number % len(both)] for number in range(count)]


def openings(pictures: Pictures) -> np.ndarray:
    """Of the mouth in each picture of one face in the middle, in heights of the face."""
    network, box = FaceLandmarks(), [0.25 * SIDE, 0.25 * SIDE, 0.75 * SIDE, 0.75 * SIDE]
    return np.array([mouth_shape(network.detect_tilted(one, box))[0] for one in pictures])


def movement(opening: np.ndarray) -> float:
    """Mean change of an opening from frame to frame, averaged over three, in thousandths."""
    return 1000 * float(np.abs(np.diff(np.convolve(opening, np.ones(3) / 3, "valid"))).mean())


def interview(people: dict[str, Person]) -> tuple[Pictures, np.ndarray, list[float | None]]:
    """Its frames and its sound, and where the middle of the speaker is in each shot, in pixels."""
    frames, sounds, places = [], [], []
    for seen, speaker in INTERVIEW:
        parts = [getattr(people[x], "speaking" if x == speaker else "listening") for x in seen]
        shot = [np.hstack(pictures) for pictures in zip(*parts, strict=True)]
        margin = SIDE - SIDE * len(seen) // 2  # all frames of a video are of one size
        frames += [cv2.copyMakeBorder(x, 0, 0, margin, margin, cv2.BORDER_REPLICATE) for x in shot]
        sounds.append(people[speaker].sound)
        place = seen.find(speaker)
        places.append(None if place < 0 else margin + SIDE * (place + 0.5))
    return frames, np.concatenate(sounds), places


def count_right(people: dict[str, Person], lip_sync: LipSync, folder: Path) -> int:
    """In how many of the interview's six shots the speaker is found, or that there is none."""
    frames, sound, places = interview(people)
    write_wav(folder / "interview.wav", sound)
    with open_sound(folder / "interview.wav") as file:
        voice = listen(file)
    kept = KeptDetections()
    detector = BatchedDetector(detector=lip_sync.detector, batch_size=16, cache=kept)
    every = lip_sync.config.detect_every
    selector = find_speakers(numbered(frames), detector, every, voice, fps=FPS)
    (target,) = targets_of(["first"], "pass", FPS)
    located = [*lip_sync.locate(numbered(frames), [replace(target, selector=selector)], kept)]
    right = 0
    for place, (middle,) in zip(places, (x.faces for x in located[35::70]), strict=True):
        found = None if middle.box is None else (middle.box[0] + middle.box[2]) / 2
        if place is None or found is None:
            right += place is found
        else:
            right += abs(place - found) < SIDE / 2
    return right


def numbered(images: Pictures) -> Iterator[Frame]:
    """As frames of 25 a second."""
    return (Frame(time=n / FPS, image=image) for n, image in enumerate(images))


def side_by_side(one: Person, other: Person) -> tuple[Pictures, np.ndarray]:
    """Both for 5.6 s, and the left side of each (frames, 2)."""
    pairs = zip(*(to_and_fro(x.speaking, 2 * SHOT_FRAMES) for x in (one, other)), strict=True)
    return [np.hstack(pair) for pair in pairs], np.tile([0, SIDE], (2 * SHOT_FRAMES, 1))


def crossing(one: Person, other: Person) -> tuple[Pictures, np.ndarray]:
    """The same; each walks to where the other was, the second before the first."""
    ways = np.linspace(0, 2 * SIDE, 2 * SHOT_FRAMES).round().astype(int)
    lefts = np.stack([ways, ways[::-1]], axis=1)
    pairs = zip(*(to_and_fro(x.speaking, 2 * SHOT_FRAMES) for x in (one, other)), strict=True)
    frames = []
    for pair, sides in zip(pairs, lefts.tolist(), strict=True):
        frame = np.full((SIDE, 3 * SIDE, 3), 90, np.uint8)
        for picture, left in zip(pair, sides, strict=True):
            frame[:, left : left + SIDE] = picture
        frames.append(frame)
    return frames, lefts


def in_turn(voice: np.ndarray) -> dict[str, np.ndarray]:
    """The first person speaks for 2.8 s, then the second."""
    half = SHOT_FRAMES * SAMPLES_PER_FRAME
    first, second = np.zeros(2 * half, np.float32), np.zeros(2 * half, np.float32)
    first[:half], second[half:] = voice[:half], voice[half : 2 * half]
    return {"track:1": first, "track:2": second}


def measure_turns(frames: Pictures, lefts: np.ndarray) -> list[str]:
    """Movement of each mouth in its own turn and in the other's."""
    apart = np.abs(np.diff(lefts, axis=1))[:, 0] >= SIDE * (1 - HIDDEN)
    first = np.arange(len(frames)) < SHOT_FRAMES
    margin = np.abs(np.arange(len(frames)) - SHOT_FRAMES) > 10  # fades, and the end of speech
    texts = []
    for person in range(2):
        left = lefts[:, person].tolist()
        opening = openings([x[:, n : n + SIDE] for x, n in zip(frames, left, strict=True)])
        turns = (first, ~first) if person == 0 else (~first, first)
        texts += [f"{movement(opening[turn & apart & margin]):.1f}" for turn in turns]
    return texts


def run(options: argparse.Namespace) -> None:
    """Measure the interviews of all pairs, then both voices in one frame."""
    options.outdir.mkdir(parents=True, exist_ok=True)
    lip_sync = LipSync(
        options.checkpoint_path, device=options.device, detect_every=5, blend="mouth",
        silence="still", pads=(0, 0, 0, 0),
    )  # fmt: skip
    paths = sorted(x for x in options.videos.iterdir() if x.suffix.lower() in VIDEO_SUFFIXES)
    people = [read_person(path, lip_sync) for path in paths]
    pairs = [*permutations(people, 2)][:: options.every]
    rows, right = [], 0
    for one, other in pairs:
        count = count_right({"A": one, "B": other}, lip_sync, options.outdir)
        right += count
        rows.append([one.name, other.name, f"{count} of 6"])
    rows.append(["all", "", f"{right} of {6 * len(pairs)}"])
    measure.print_table(("A", "B", "shots in which the right one is found"), rows)
    sounds = in_turn(load_audio(options.audio))
    rows = []
    for one, other in pairs[: options.turns]:
        for scene in (side_by_side, crossing):
            frames, lefts = scene(one, other)
            spoken = [*lip_sync(frames, sounds, fps=FPS)]
            for title, shown in (("source", frames), ("result", spoken)):
                texts = measure_turns(shown, lefts)
                rows.append([f"{one.name}, {other.name}, {scene.__name__}", title, *texts])
            number = len(rows) // 2
            shown = [frames[n] for n in (20, 50)] + [spoken[n] for n in (20, 50, 90, 120)]
            cv2.imwrite(str(options.outdir / f"turns_{number}.png"), np.vstack(shown))
    heads = ("A in A's turn", "A in B's", "B in B's", "B in A's")
    measure.print_table(("people", "movement of mouths", *heads), rows)


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    measure.add_video_options(parser, "people")
    add = parser.add_argument
    add("--every", type=int, default=1, help="measure every N-th pair of people")
    add("--turns", type=int, default=2, help="pairs that speak in turn")
    options = parser.parse_args()
    measure.limit_threads(options.threads)
    run(options)


if __name__ == "__main__":
    main()
