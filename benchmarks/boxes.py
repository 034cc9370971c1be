"""How much of the mouth's opening the detected boxes tell, whose places a generator sees.

Run from the project's root: ``python -m benchmarks.boxes --help``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks import measure
from benchmarks.blending import read_videos
from benchmarks.situations import Frames
from face_detection.interface import Detector, open_detector
from face_detection.landmarks import FaceLandmarks, mouth_shape

ALL_FRAMES = 10_000
AVERAGED = 2  # frames to each side, as with --smooth_boxes
MIN_FRAMES = 25


def largest_boxes(detector: Detector, frames: Frames) -> np.ndarray:
    """The largest box of each frame, NaN without one: (frames, 4)."""
    boxes = np.full((len(frames), 4), np.nan)
    for number, image in enumerate(frames):
        found = detector.detect([image])[0]
        if len(found):
            boxes[number] = max(found, key=lambda one: (one[2] - one[0]) * (one[3] - one[1]))[:4]
    return boxes


def openings(frames: Frames, boxes: np.ndarray) -> np.ndarray:
    """The mouth's opening in each frame, all seen in one box, so that boxes take no part."""
    network = FaceLandmarks()
    left, top, right, bottom = np.median(boxes, axis=0)
    margin = (bottom - top) / 10
    rows = slice(max(0, int(top - margin)), int(bottom + margin))
    columns = slice(max(0, int(left - margin)), int(right + margin))
    return np.array([mouth_shape(network.detect(image[rows, columns]))[0] for image in frames])


def averaged(heights: np.ndarray) -> np.ndarray:
    """The mean of each frame and its neighbours."""
    spans = (heights[max(0, n - AVERAGED) : n + AVERAGED + 1] for n in range(len(heights)))
    return np.array([span.mean() for span in spans])


def interpolated(heights: np.ndarray, every: int) -> np.ndarray:
    """Detected in every N-th frame and in the last, and interpolated between them."""
    known = np.unique([*range(0, len(heights), every), len(heights) - 1])
    return np.interp(np.arange(len(heights)), known, heights[known])


def measure_video(detector: Detector, frames: Frames) -> dict[str, tuple[float, float]] | None:
    """For each way to smooth: r of opening and height, and the height's deviation in per cent."""
    boxes = largest_boxes(detector, frames)
    known = ~np.isnan(boxes[:, 0])
    if known.sum() < MIN_FRAMES:
        return None
    boxes, frames = boxes[known], [image for image, has in zip(frames, known, strict=True) if has]
    heights, opening = boxes[:, 3] - boxes[:, 1], openings(frames, boxes)
    ways = {
        "each frame": heights,
        "--smooth_boxes": averaged(heights),
        "--detect_every 5": interpolated(heights, 5),
        "--detect_every 25": interpolated(heights, 25),
        "--detect_every 250": interpolated(heights, 250),
    }
    return {
        way: (
            abs(float(np.corrcoef(opening, track)[0, 1])) if track.std() > 0 else 0.0,
            100 * float(track.std() / heights.mean()),
        )
        for way, track in ways.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="boxes", description=__doc__)
    parser.add_argument("--videos", type=Path, required=True, help="a folder of videos of one face")
    parser.add_argument("--step", type=int, default=1, help="of so many videos only the first")
    options = parser.parse_args()
    detector = open_detector("centerface")
    found = []
    for number, (name, frames) in enumerate(read_videos(options.videos, ALL_FRAMES)):
        if number % options.step == 0 and (figures := measure_video(detector, frames)):
            print(name, " ".join(f"{r:.2f}" for r, _ in figures.values()), flush=True)
            found.append(figures)
    rows = []
    for way in found[0]:
        r, deviation = np.mean([figures[way] for figures in found], axis=0)
        rows.append([way, f"{r:.2f}", f"{deviation:.2f} %"])
    measure.print_table(["boxes", "r of height and opening", "deviation of the height"], rows)


if __name__ == "__main__":
    main()
