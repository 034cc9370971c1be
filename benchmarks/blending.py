"""How well generated faces are put into frames: the seam, what else changes, and the flicker.

Run from the project's root: ``python -m benchmarks.blending --help``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from benchmarks import measure
from benchmarks.situations import SITUATIONS, Frames, Points, face_height
from face_detection.landmarks import LOWER_FACE, FaceLandmarks
from wav2lip_npu import LipSync, load_audio
from wav2lip_npu.config.inference import BLENDS
from wav2lip_npu.media.video_reader import VIDEO_SUFFIXES, read_frames

BAND = 0.06  # of the face's height: the width of a seam
CHANGED = 2  # grey levels; a difference that is larger is a change
SHOWN = 240  # pixels, width and height of a picture of the sheet


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Means over the frames of a video."""

    seam: float  # gradients that are new at the edge of what changed, by those of the source there
    outside: float  # grey levels by which the picture around the lower face changed
    flicker: float  # change from frame to frame that is new around the lower face, by the source's


def measure_blend(frames: Frames, results: Frames, points: Points) -> Figures:
    """Compare results with the frames that they were made of.

    Args:
        frames: of the source.
        results: as many.
        points: of the face in each frame.
    """
    seams, outsides, flickers = [], [], []
    before: tuple[np.ndarray, np.ndarray] | None = None
    for source, result, shape in zip(frames, results, points, strict=True):
        old = source.astype(np.float32)
        change = result.astype(np.float32) - old
        width = 2 * round(BAND * face_height(shape)) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        changed = (np.abs(change).max(axis=2) > CHANGED).astype(np.uint8)
        changed = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, kernel)
        edge = (cv2.dilate(changed, np.ones((3, 3), np.uint8)) > cv2.erode(changed, kernel)) > 0
        if edge.any():
            seams.append(_gradient(change)[edge].mean() / max(_gradient(old)[edge].mean(), 1e-3))
        outline = [np.rint(shape[LOWER_FACE, :2]).astype(np.int32)]
        lower = cv2.fillPoly(np.zeros(old.shape[:2], np.uint8), outline, 1)
        around = cv2.dilate(lower, np.ones((4 * width, 4 * width), np.uint8)) > lower
        outsides.append(np.abs(change)[around].mean())
        if before is not None:
            ring = cv2.dilate(lower, kernel) > cv2.erode(lower, kernel)
            new = np.abs(change - before[1])[ring].mean()
            flickers.append(new / max(np.abs(old - before[0])[ring].mean(), 1e-3))
        before = old, change
    return Figures(
        seam=float(np.mean(seams)) if seams else 0.0,
        outside=float(np.mean(outsides)),
        flicker=float(np.mean(flickers)),
    )


def _gradient(image: np.ndarray) -> np.ndarray:
    """The length of the gradient, in grey levels a pixel: (h, w), the largest of three colours."""
    across, down = (cv2.Sobel(image, cv2.CV_32F, *way, ksize=1) / 2 for way in ((1, 0), (0, 1)))
    length: np.ndarray = np.hypot(across, down).max(axis=2)
    return length


def read_videos(folder: Path, count: int) -> Iterator[tuple[str, Frames]]:
    """The first frames of each video of a folder."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            yield path.name, [frame.image for frame in islice(read_frames(path), count)]


def find_faces(lip_sync: LipSync, frames: Frames) -> list[np.ndarray]:
    """The points of the largest face in each frame that has one."""
    network, points = FaceLandmarks(), []
    for image, found in zip(frames, lip_sync.detector.detect(frames), strict=True):
        if len(found):
            box = max(found, key=lambda one: (one[2] - one[0]) * (one[3] - one[1]))
            points.append(network.detect_tilted(image, box))
    return points


def sheet_row(pictures: Sequence[np.ndarray], shape: np.ndarray) -> np.ndarray:
    """Pictures of one frame side by side, cut to the face."""
    middle, half = shape[:, :2].mean(axis=0), np.ptp(shape[:, :2], axis=0).max() * 0.8
    x, y = (middle - half).tolist()
    matrix = np.array([[1, 0, -x], [0, 1, -y]], np.float32) * SHOWN / (2 * half)
    return np.hstack([cv2.warpAffine(one, matrix, (SHOWN, SHOWN)) for one in pictures])


def cases(options: argparse.Namespace, lip_sync: LipSync) -> Iterator[tuple[str, Frames]]:
    """The videos, and one of them in each situation."""
    for name, frames in read_videos(options.videos, options.frames):
        yield name, frames
        if name == options.situations_of:
            points = find_faces(lip_sync, frames)
            for title, change in SITUATIONS.items():
                yield title, change(frames, points)


def run(options: argparse.Namespace) -> None:
    """Measure each way of blending on each video, and in each situation."""
    sound = load_audio(options.audio)
    lip_syncs = {
        how: LipSync(options.checkpoint_path, device=options.device, blend=how)
        for how in options.blends
    }
    first = lip_syncs[options.blends[0]]
    options.outdir.mkdir(parents=True, exist_ok=True)
    rows, sheets = [], []
    totals: dict[str, list[Figures]] = {how: [] for how in options.blends}
    for name, frames in cases(options, first):
        points = find_faces(first, frames)
        if len(points) != len(frames):
            print(f"{name}: a face in {len(points)} of {len(frames)} frames; left out")
            continue
        shown = [frames[len(frames) // 2]]
        for how, lip_sync in lip_syncs.items():
            results = list(lip_sync(frames, sound))
            count = min(len(results), len(frames))
            figures = measure_blend(frames[:count], results[:count], points[:count])
            totals[how].append(figures)
            numbers = (figures.seam, figures.outside, figures.flicker)
            rows.append([name, how, *(f"{value:.3f}" for value in numbers)])
            shown.append(results[len(frames) // 2])
        sheets.append(sheet_row(shown, points[len(frames) // 2]))
    for how, found in totals.items():
        means = np.mean([[one.seam, one.outside, one.flicker] for one in found], axis=0)
        rows.append(["mean", how, *(f"{value:.3f}" for value in means)])
    measure.print_table(("", "blend", "seam", "outside", "flicker"), rows)
    cv2.imwrite(str(options.outdir / "blending.png"), np.vstack(sheets))


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    measure.add_video_options(parser, "blending")
    add = parser.add_argument
    add("--situations_of", help="name of the video that the situations are made of")
    add("--blends", nargs="+", choices=BLENDS, default=list(BLENDS))
    add("--frames", type=int, default=50, help="of each video")
    options = parser.parse_args()
    measure.limit_threads(options.threads)
    run(options)


if __name__ == "__main__":
    main()
