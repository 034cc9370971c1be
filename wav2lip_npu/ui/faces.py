"""Who is in a video: a picture with boxes and numbers, to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wav2lip_npu.config import InferConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.source import FaceSource
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.files import write_image
from wav2lip_npu.tracking.detection import BatchedDetector, open_detector
from wav2lip_npu.tracking.scan import FacesFound, scan

SCANNED_SECONDS = 10  # of a video in which people are looked for
MIN_FRAMES = 5  # in which somebody is found, as in infer's log; fewer of shorter videos
THUMBNAIL_HEIGHT = 120  # pixels, of people who come later
BOX_COLOURS = ((0, 160, 255), (80, 200, 80), (255, 140, 60), (200, 90, 200), (80, 220, 220))  # BGR
SCALE_PIXELS = 700  # width or height of a picture whose lines and digits have their usual size

Boxes = Mapping[int, np.ndarray]  # frame → (4,) x1, y1, x2, y2


def find_people(config: InferConfig, picture: Path) -> dict[str, Any]:
    """Find who is in the first seconds, numbered as ``--face_select track:N`` numbers them.

    Args:
        config: the options, of which those count that frames and detections depend on.
        picture: is written: the first frame with boxes, and below it who comes later.

    Returns:
        ``people``: number, and second of the first frame, of each.

    Raises:
        UserError: the video cannot be used.
    """
    source = FaceSource(config)
    device = Device.open(config.device, config.detector_precision)
    detector = BatchedDetector(
        detector=open_detector(config, device), batch_size=config.face_det_batch_size
    )
    count = round(SCANNED_SECONDS * source.fps)
    people = _boxes(scan(islice(source.frames(), count), detector, config.detect_every))
    write_image(picture, _draw_people(source, people))
    return {
        "people": [
            {"number": number, "seconds": round(min(boxes) / float(source.fps), 2)}
            for number, boxes in people.items()
        ]
    }


def _boxes(found: FacesFound) -> dict[int, Boxes]:
    """The boxes of everybody who is not seen by mistake, in order of their numbers."""
    boxes: dict[int, dict[int, np.ndarray]] = {}
    for (person, _), track in found.tracks.items():
        boxes.setdefault(person.number, {}).update(track)
    enough = min(MIN_FRAMES, found.frames)
    return {number: track for number, track in sorted(boxes.items()) if len(track) >= enough}


def _draw_people(source: FaceSource, people: Mapping[int, Boxes]) -> np.ndarray:
    first: np.ndarray | None = None
    later = []
    last = max((min(boxes) for boxes in people.values()), default=0)
    for number, frame in enumerate(islice(source.frames(), last + 1)):
        coming = {person: boxes[number] for person, boxes in people.items() if min(boxes) == number}
        if first is None:
            first = frame.image.copy()
            for person, box in coming.items():
                _draw_box(first, box, person)
        else:
            later += [_thumbnail(frame.image, box, person) for person, box in coming.items()]
    if first is None:
        raise UserError(f"{source.path}: not one of its frames can be decoded")
    if not later:
        return first
    strip = np.concatenate(later, axis=1)
    width = max(strip.shape[1], first.shape[1])
    return np.concatenate([_widened(first, width), _widened(strip, width)])


def _draw_box(image: np.ndarray, box: np.ndarray, person: int) -> None:
    """Draw a box on an image, and the person's number in a corner of it."""
    x1, y1, x2, y2 = (round(edge) for edge in box.tolist())
    colour, font = BOX_COLOURS[(person - 1) % len(BOX_COLOURS)], cv2.FONT_HERSHEY_SIMPLEX
    scale = max(image.shape[:2]) / SCALE_PIXELS
    thick = max(1, round(2 * scale))
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, thick)
    (width, height), _ = cv2.getTextSize(str(person), font, scale, thick)
    left, top, margin = max(0, x1), max(0, y1), 3 * thick
    corner = left + width + 2 * margin, top + height + 2 * margin
    cv2.rectangle(image, (left, top), corner, colour, cv2.FILLED)
    place = left + margin, top + margin + height
    cv2.putText(image, str(person), place, font, scale, (0, 0, 0), thick, cv2.LINE_AA)


def _thumbnail(image: np.ndarray, box: np.ndarray, person: int) -> np.ndarray:
    height, width = image.shape[:2]
    drawn = image.copy()
    _draw_box(drawn, box, person)
    return cv2.resize(drawn, (max(1, round(width * THUMBNAIL_HEIGHT / height)), THUMBNAIL_HEIGHT))


def _widened(image: np.ndarray, width: int) -> np.ndarray:
    return np.pad(image, ((0, 0), (0, width - image.shape[1]), (0, 0)), constant_values=255)
