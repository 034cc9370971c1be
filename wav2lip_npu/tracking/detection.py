"""Face detection in a stream of frames: which are shown to the detector, and in which batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

import face_detection
from wav2lip_npu.boxes import iou
from wav2lip_npu.config.base import DetectorOptions
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.batching import ShrinkingBatches
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.tracking.shots import MarkedFrame

MAX_HELD_BYTES = 2**27  # of frames that wait together: 128 MiB, of 720p 32 frames, of 4K 3
UNMOVED_IOU = 0.7  # overlap of a face with itself some frames before, if it hardly moved


@contextmanager
def _detector_errors() -> Iterator[None]:
    try:
        yield
    except face_detection.FaceDetectionError as error:
        raise UserError(str(error)) from error


def choose_detector(config: DetectorOptions) -> str:
    """The name of the face detector that the options name; its weights are fetched, not loaded.

    Raises:
        UserError: its weights are missing.
    """
    with _detector_errors():
        return face_detection.choose_detector(config.detector, config.s3fd)[0]


def open_detector(config: DetectorOptions, device: Device) -> face_detection.Detector:
    """Load the face detector that the options name; S3FD in the device's precision.

    It takes fewer images at a time when the memory is not enough for all that it is given.

    Raises:
        UserError: its weights are missing or broken.
    """
    with _detector_errors():
        detector = face_detection.open_detector(
            config.detector,
            device=device.torch_device,
            s3fd_weights=config.s3fd,
            dtype=device.dtype,
        )
    return _ShrinkingDetector(detector, device, config.detector_batch_option)


class _ShrinkingDetector:
    """A detector that halves its batches when the memory is not enough for them."""

    def __init__(self, detector: face_detection.Detector, device: Device, option: str) -> None:
        self.name = detector.name
        self._detector = detector
        self._device = device
        self._batches = ShrinkingBatches("frames", option)

    def detect(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See ``face_detection.Detector``."""
        self._device.make_current()
        return [
            boxes for part in self._batches.run(self._detector.detect, images) for boxes in part
        ]


class Detections(Protocol):
    """What is known of the faces of a video's frames, see ``DetectionCache``."""

    def get(self, frame: int) -> np.ndarray | None:
        """The detections (n, 5) of a frame, or None where the detector was not shown it."""
        ...

    def put(self, frame: int, detections: np.ndarray) -> None:
        """Remember the detections of a frame."""
        ...


@dataclass(frozen=True, kw_only=True)
class BatchedDetector:
    """A detector for numbered frames: a limit of frames at once, and earlier answers."""

    detector: face_detection.Detector
    batch_size: int
    cache: Detections | None = None

    def detect(self, images: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Detections (n, 5) of each frame.

        Args:
            images: number of a frame → (h, w, 3) BGR uint8, all of one size.
        """
        found: dict[int, np.ndarray] = {}
        if self.cache is not None:
            for number, image in images.items():
                boxes = self.cache.get(number)
                if boxes is not None and _lie_within(boxes, image):
                    found[number] = boxes
        unknown = [number for number in images if number not in found]
        for first in range(0, len(unknown), self.batch_size):
            batch = unknown[first : first + self.batch_size]
            answers = self.detector.detect([images[number] for number in batch])
            for number, boxes in zip(batch, answers, strict=True):
                found[number] = boxes
                if self.cache is not None:
                    self.cache.put(number, boxes)
        return found


def _lie_within(boxes: np.ndarray, image: np.ndarray) -> bool:
    """Whether each box (n, 5) has a part in the image; others are of a damaged cache."""
    height, width = image.shape[:2]
    left, top, right, bottom = boxes[:, :4].clip(0, (width, height, width, height)).T
    return bool(((right > left) & (bottom > top)).all())


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectedFrame:
    """A frame and the faces detected in it."""

    marked: MarkedFrame
    detections: np.ndarray | None  # (n, 5) x1, y1, x2, y2, score; None: not shown to the detector


def detect_faces(
    frames: Iterator[MarkedFrame], detector: BatchedDetector
) -> Iterator[DetectedFrame]:
    """Detect faces in the marked frames, and in between wherever a face moved.

    The frames between two marked ones are shown to the detector too, unless the same faces are in
    the same places in both: so whoever comes, goes or moves is found to the frame.

    Frames wait until there are enough for a batch, but never more than fit into ``MAX_HELD_BYTES``.
    """
    waiting: list[MarkedFrame] = []
    before: np.ndarray | None = None  # detections of the frame before those that wait
    for marked in frames:
        waiting.append(marked)
        no_room = len(waiting) >= max_frames_held(marked.frame.image)
        if no_room or (marked.should_detect and len(waiting) >= detector.batch_size):
            detected = _detect_waiting(waiting, before, detector)
            yield from detected
            before, waiting = detected[-1].detections, []
    if waiting:
        yield from _detect_waiting(waiting, before, detector)


def _detect_waiting(
    frames: list[MarkedFrame], before: np.ndarray | None, detector: BatchedDetector
) -> list[DetectedFrame]:
    """Detect faces in the marked frames and the last, then in those between where faces moved."""
    images = {marked.number: marked.frame.image for marked in frames}
    last = frames[-1].number
    found = detector.detect(
        {
            marked.number: images[marked.number]
            for marked in frames
            if marked.should_detect or marked.number == last
        }
    )
    skipped: list[int] = []
    moved: list[int] = []  # frames between two in which faces are not in the same places
    for number in images:
        if number not in found:
            skipped.append(number)
            continue
        if before is None or not _unmoved(before, found[number]):
            moved += skipped
        before, skipped = found[number], []
    found |= detector.detect({number: images[number] for number in moved})
    return [DetectedFrame(marked=marked, detections=found.get(marked.number)) for marked in frames]


def _unmoved(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the same faces are in about the same places."""
    if len(one) != len(other):
        return False
    shared = iou(one[:, :4].astype(np.float64), other[:, :4].astype(np.float64))
    return bool((shared.max(axis=1, initial=0) >= UNMOVED_IOU).all())


def max_frames_held(image: np.ndarray) -> int:
    """How many frames of an image's size may wait together; each is there as decoded, too."""
    return max(1, MAX_HELD_BYTES // (image.nbytes * 3 // 2))
