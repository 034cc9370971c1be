"""How much of what comes before a face is kept, and how much of the face is taken for it.

Run from the project's root: ``python -m benchmarks.in_front --help``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

import face_detection
from benchmarks import measure
from benchmarks.blending import read_videos
from benchmarks.occluders import OCCLUDERS, Occluded
from benchmarks.situations import SITUATIONS, Frames
from face_detection.landmarks import LOWER_FACE, FaceLandmarks, tilt_of
from wav2lip_npu.blending.in_front import InFront
from wav2lip_npu.boxes import ends
from wav2lip_npu.tracking.upright import fits

COVERED = 0.02  # share of the lower face; frames with less before it do not count for what is kept
IN_FRONT, NOT_IN_FRONT = 0.5, 0.05  # of a true mask, whose soft edge counts as neither
SHOWN, SHOWN_FRAMES = (
    200,
    6,
)  # pixels, width and height of a picture of the sheet; pictures in a row
YELLOW, RED = (0, 255, 255), (0, 0, 255)

Face = tuple[np.ndarray, np.ndarray]  # the box (4,), and the points (468, 3)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A video, what is truly before its face, and where the face is when nothing is."""

    video: str
    name: str
    occluded: Occluded
    faces: list[Face | None]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Means over the frames of a video."""

    kept: float  # share of what is before the lower face; nan if nothing is
    wrong: float  # share of the rest of the lower face that is kept too
    milliseconds: float  # a frame
    of_landmarks: float  # by the time that finding the points takes
    row: np.ndarray  # of the contact sheet


def find_faces(frames: Frames, detector: face_detection.Detector) -> list[Face | None]:
    """The largest face of each frame."""
    network, faces = FaceLandmarks(), list[Face | None]()
    tilt: float | None = None
    for image, found in zip(frames, detector.detect(frames), strict=True):
        if not len(found):
            faces.append(None)
            continue
        box = max(found, key=lambda one: (one[2] - one[0]) * (one[3] - one[1]))[:4]
        points = network.detect_tilted(image, box.tolist(), tilt)
        tilt = tilt_of(points)
        faces.append((box, points) if fits(points, box) else None)
    return faces


def measure_case(case: Case, detector: face_detection.Detector) -> Figures:
    """Look for what is in front in each frame in which a face is found."""
    in_front, network = InFront(), FaceLandmarks()
    kept, wrong, pictures = [], [], []
    seconds = landmark_seconds = 0.0
    frames, masks = case.occluded.frames, case.occluded.masks
    shown = {*np.linspace(0, len(frames) - 1, SHOWN_FRAMES).astype(int).tolist()}
    faces = find_faces(frames, detector)
    numbers = range(len(frames))
    for number, image, truth, face, true in zip(
        numbers, frames, masks, faces, case.faces[-len(frames) :], strict=True
    ):
        if face is None or true is None:
            continue
        box, points = face
        started = time.process_time()
        network.detect(image, box.tolist())
        found = time.process_time()
        # All of the true lower face is within, so that none counts as lost that is not blended.
        low, high = ends(np.vstack([true[1][:, :2], box.reshape(2, 2)]))
        x1, y1 = low.clip(0).astype(int).tolist()
        x2, y2 = np.minimum(high + 1, image.shape[1::-1]).astype(int).tolist()
        mask = in_front.find(image, (x1, y1, x2, y2), points)
        seconds += time.process_time() - found
        landmark_seconds += found - started
        whole = np.zeros(image.shape[:2], np.float32)
        if mask is not None:
            whole[y1:y2, x1:x2] = mask
        outline = [np.rint(true[1][LOWER_FACE, :2]).astype(np.int32)]
        lower = cv2.fillPoly(np.zeros(image.shape[:2], np.uint8), outline, 1) > 0
        hidden, free = lower & (truth > IN_FRONT), lower & (truth < NOT_IN_FRONT)
        if hidden.sum() > COVERED * lower.sum():
            kept.append(whole[hidden].mean())
        if free.any():
            wrong.append(whole[free].mean())
        if number in shown:
            pictures.append(_outlined(image, true[1], truth, whole))
    return Figures(
        kept=float(np.mean(kept)) if kept else float("nan"),
        wrong=float(np.mean(wrong)) if wrong else float("nan"),
        milliseconds=1000 * seconds / max(1, len(wrong)),
        of_landmarks=seconds / max(landmark_seconds, 1e-9),
        row=np.hstack([*pictures, *[np.zeros_like(pictures[0])] * (SHOWN_FRAMES - len(pictures))]),
    )


def _outlined(
    image: np.ndarray, points: np.ndarray, truth: np.ndarray, found: np.ndarray
) -> np.ndarray:
    """A frame cut to its face, with outlines of what is in front: true yellow, found red."""
    image = image.copy()
    for mask, colour in ((truth, YELLOW), (found, RED)):
        shape = (mask > IN_FRONT).astype(np.uint8)
        lines, _ = cv2.findContours(shape, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, lines, -1, colour, 1)
    middle, half = points[:, :2].mean(axis=0), np.ptp(points[:, :2], axis=0).max() * 0.7
    x, y = (middle - half).tolist()
    matrix = np.array([[1, 0, -x], [0, 1, -y]], np.float32) * SHOWN / (2 * half)
    return np.asarray(cv2.warpAffine(image, matrix, (SHOWN, SHOWN)))


def cases(options: argparse.Namespace, detector: face_detection.Detector) -> Iterator[Case]:
    """Each video as it is, with each occluder, and some in each situation."""
    for video, frames in read_videos(options.videos, options.frames):
        faces = find_faces(frames, detector)
        if None in faces:
            print(f"{video}: {faces.count(None)} of {len(frames)} frames have no face; left out")
        here = [number for number, face in enumerate(faces) if face is not None]
        if not here:
            continue
        frames, seen = [frames[n] for n in here], [face for face in faces if face is not None]
        points = [face[1] for face in seen]
        nothing = [np.zeros(frames[0].shape[:2], np.float32)] * len(frames)
        plain = Occluded(frames=frames, masks=nothing)
        yield Case(video=video, name="plain", occluded=plain, faces=[*seen])
        for name, occluder in OCCLUDERS.items():
            occluded = occluder(frames, points)
            yield Case(video=video, name=name, occluded=occluded, faces=[*seen])
        for name, change in SITUATIONS.items():
            if name != "hand" and (options.situations_of in (None, video)):
                changed = change(frames, points)
                nothing = [np.zeros(image.shape[:2], np.float32) for image in changed]
                occluded = Occluded(frames=changed, masks=nothing)
                found = find_faces(changed, detector)
                yield Case(video=video, name=name, occluded=occluded, faces=found)


def run(options: argparse.Namespace) -> None:
    """Measure each case; print a row for each, and means by occluder and situation."""
    detector = face_detection.open_detector(options.detector)
    rows, sheets = list[list[str]](), dict[str, list[np.ndarray]]()
    by_name: dict[str, list[Figures]] = {}
    for case in cases(options, detector):
        figures = measure_case(case, detector)
        by_name.setdefault(case.name, []).append(figures)
        sheets.setdefault(case.name, []).append(figures.row)
        rows.append([case.video, case.name, *_columns([figures])])
    for name, found in by_name.items():
        worst = f"{100 * max(one.wrong for one in found):.2f} at most"
        rows.append(["mean", f"{name}, {worst}", *_columns(found)])
    titles = ("", "", "kept %", "wrongly kept %", "ms a frame", "of landmarks' time")
    measure.print_table(titles, rows)
    options.outdir.mkdir(parents=True, exist_ok=True)
    for name, pictures in sheets.items():
        cv2.imwrite(str(options.outdir / f"{name.replace(' ', '_')}.png"), np.vstack(pictures))


def _columns(figures: list[Figures]) -> list[str]:
    kept = [one.kept for one in figures if not np.isnan(one.kept)]
    return [
        f"{100 * np.mean(kept):.1f}" if kept else "",
        f"{100 * np.mean([one.wrong for one in figures]):.2f}",
        f"{np.mean([one.milliseconds for one in figures]):.2f}",
        f"{np.mean([one.of_landmarks for one in figures]):.2f}",
    ]


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--videos", type=Path, required=True, help="folder of videos with a face")
    add("--situations_of", help="name of the only video that situations are made of (default: all)")
    add("--detector", choices=face_detection.CHOICES, default="auto")
    add("--frames", type=int, default=75, help="of each video")
    add("--outdir", type=Path, default=Path("in_front"), help="folder of the contact sheets")
    add("--threads", type=int, default=1)
    options = parser.parse_args()
    measure.limit_threads(options.threads)
    run(options)


if __name__ == "__main__":
    main()
