"""Every face of a video, followed through its shots; and the boxes of the one that is cut out.

Preprocessing and evaluation both cut faces by these functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from wav2lip_npu.boxes import area_of, to_pixels
from wav2lip_npu.media.video_reader import Frame
from wav2lip_npu.tracking.detection import BatchedDetector, detect_faces
from wav2lip_npu.tracking.shots import mark_detection_frames
from wav2lip_npu.tracking.smoothing import (
    FaceBox,
    Item,
    PixelBox,
    interpolate_boxes,
    smooth_boxes,
)
from wav2lip_npu.tracking.tracker import Identity, Tracker, track_faces

Track = tuple[Identity, int]  # who, in which shot


@dataclass(kw_only=True)
class FacesFound:
    """Who is where in a video."""

    # Frame → box (4,) of each track. A face is not followed over a cut.
    tracks: dict[Track, dict[int, np.ndarray]] = field(default_factory=dict)
    detected: set[int] = field(default_factory=set)  # frames that the detector was shown
    cuts: list[int] = field(default_factory=list)  # first frames of the shots but the first
    frames: int = 0
    width: int = 0
    height: int = 0


def scan(frames: Iterator[Frame], detector: BatchedDetector, detect_every: int) -> FacesFound:
    """Find shot cuts, and follow every face through its shot.

    Args:
        frames: in order of time.
        detector: finds faces.
        detect_every: faces are detected in every N-th frame, see ``mark_detection_frames``.
    """
    found = FacesFound()
    marked = mark_detection_frames(frames, detect_every)
    for tracked in track_faces(detect_faces(marked, detector), Tracker()):
        number = tracked.marked.number
        found.frames = number + 1
        found.height, found.width = tracked.marked.frame.image.shape[:2]
        if tracked.marked.starts_shot:
            found.cuts.append(number)
        if tracked.people is not None:
            found.detected.add(number)
            for identity, box in tracked.people.items():
                found.tracks.setdefault((identity, tracked.shot), {})[number] = box
    _join_same_people(found)
    return found


def _join_same_people(found: FacesFound) -> None:
    """Give the boxes of newcomers to whom they turned out to be."""
    for (identity, shot), boxes in list(found.tracks.items()):
        person = identity.resolved()
        if person is not identity:
            del found.tracks[identity, shot]
            own = found.tracks.get((person, shot), {})
            found.tracks[person, shot] = dict(sorted((boxes | own).items()))


def complete_track(boxes: dict[int, np.ndarray], detected: set[int]) -> list[FaceBox[int]]:
    """A face's boxes from its first frame to its last, interpolated between detections."""
    frames = range(min(boxes), max(boxes) + 1)
    faces = (
        FaceBox(item=n, starts_shot=False, detected=n in detected, box=boxes.get(n)) for n in frames
    )
    return list(interpolate_boxes(faces))


def total_area(faces: list[FaceBox[int]]) -> float:
    """The boxes' areas together, in pixels: most for the face that is there largest and longest."""
    return area_of(np.stack([face.box for face in faces if face.box is not None]))


def crop_boxes(
    faces: Iterable[FaceBox[Item]], size: tuple[int, int], *, smooth: bool
) -> Iterator[PixelBox[Item]]:
    """Where a face is cut out, in whole pixels of each frame in which it is.

    Args:
        faces: in order of time, their boxes as ``complete_track`` gives them.
        size: width and height of the frames.
        smooth: average the boxes over five frames.
    """
    boxes = (
        (face, None if face.box is None else to_pixels(face.box, size, tilt=face.tilt))
        for face in faces
    )
    return smooth_boxes(boxes, "centred" if smooth else "none")
