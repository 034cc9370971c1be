"""Where the face is in each picture of a video: source, detection, policy, smoothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice, repeat

import cv2
import numpy as np

import face_detection
from face_detection import Box
from wav2lip_npu import video
from wav2lip_npu.config import InferConfig
from wav2lip_npu.device import Device
from wav2lip_npu.errors import UserError
from wav2lip_npu.tracks import smoothed
from wav2lip_npu.video import Frame

log = logging.getLogger(__name__)

Located = tuple[Frame, Box | None]  # a picture, and where its face is


class FaceSource:
    """The pictures of ``--face``, reduced, turned and cropped as the options say."""

    def __init__(self, config: InferConfig) -> None:
        """Look into the file.

        Raises:
            UserError: no such file, or neither a video nor an image.
        """
        self.path = config.face
        self.still = config.static
        self.info: video.VideoInfo | None = None
        if video.is_image(config.face):
            self.still = True
            self.fps = Fraction(config.fps).limit_denominator(1001)
        else:
            self.info = video.probe(config.face)
            self.fps = self.info.fps
        self._resize_factor = config.resize_factor
        self._rotate = config.rotate
        self._crop = config.crop

    def frames(self) -> Iterator[Frame]:
        """All pictures in order; of a still, the one there is."""
        if self.info is None:
            yield self._edit(Frame(time=0.0, image=video.read_image(self.path)))
            return
        frames = video.at_rate(video.read_frames(self.path), self.fps)
        for frame in islice(frames, 1) if self.still else frames:
            yield self._edit(frame)

    def _edit(self, frame: Frame) -> Frame:
        image = frame.image
        height, width = image.shape[:2]
        if self._resize_factor > 1:
            image = cv2.resize(image, (width // self._resize_factor, height // self._resize_factor))
        if self._rotate:
            image = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
        if self._crop != (0, -1, 0, -1):
            image = self._cropped(image)
        return frame if image is frame.image else Frame(time=frame.time, image=image)

    def _cropped(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        top, bottom, left, right = self._crop
        bottom = height if bottom == -1 else bottom
        right = width if right == -1 else right
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            given = f"--crop {top} {bottom} {left} {right}"
            raise UserError(f"{given}: top bottom left right within {width} × {height} pixels")
        return image[top:bottom, left:right]


@dataclass(kw_only=True)
class Misses:
    """Frames without a face: what is done about them, and which they were."""

    policy: str  # one of config.NO_FACE_POLICIES
    fps: Fraction
    frames: list[int] = field(default_factory=list)
    seen: int = 0
    held: Box | None = None

    def settle(self, box: Box | None) -> Box | None:
        """The box to use for the next frame.

        Raises:
            UserError: there is no face, and the policy is "error".
        """
        number, self.seen = self.seen, self.seen + 1
        if box is not None:
            self.held = box
            return box
        self.frames.append(number)
        if self.policy == "error":
            raise UserError(
                f"frame {number} ({number / float(self.fps):.2f} s): no face; --no_face pass or "
                "hold goes on, --box gives the place"
            )
        return self.held if self.policy == "hold" else None

    def conclude(self) -> None:
        """Say which frames had no face.

        Raises:
            UserError: none had one.
        """
        if len(self.frames) == self.seen:
            raise UserError(f"no face in any of {self.seen} frames; --box gives the place of one")
        if self.frames:
            times = ", ".join(f"{number / float(self.fps):.2f}" for number in self.frames[:10])
            more = ", …" if len(self.frames) > 10 else ""
            done = "left as they are" if self.policy == "pass" else "drawn at the last face's place"
            log.warning(
                "%d of %d frames without a face, %s, at seconds %s%s",
                len(self.frames), self.seen, done, times, more,
            )  # fmt: skip


def locate(
    source: FaceSource, frames: int, config: InferConfig, device: Device, misses: Misses
) -> Iterator[Located]:
    """``frames`` pictures with their face boxes; a video that is shorter starts over."""
    boxes: list[Box | None] = []
    for frame, box in _first_pass(source, frames, config, device, misses):
        boxes.append(box)
        yield frame, box
        if source.still:
            yield from repeat((frame, box), frames - 1)
            return
    while True:
        yield from zip(source.frames(), boxes, strict=False)


def _first_pass(
    source: FaceSource, frames: int, config: InferConfig, device: Device, misses: Misses
) -> Iterator[Located]:
    """Pictures and boxes until the video or the audio ends."""
    first = islice(source.frames(), frames)
    if config.box[0] != -1:
        for frame in first:
            yield frame, misses.settle(_fixed_box(config.box, frame.image))
        return
    detector = face_detection.open_detector(
        config.detector,
        device=device.torch_device,
        s3fd_weights=config.s3fd,
        fixed_batches=device.wants_fixed_shapes,
    )
    log.info("face detector: %s", detector.name)
    found = _detected(first, detector, config, misses)
    yield from found if config.nosmooth else smoothed(found)


def _detected(
    frames: Iterator[Frame],
    detector: face_detection.Detector,
    config: InferConfig,
    misses: Misses,
) -> Iterator[Located]:
    while batch := list(islice(frames, config.face_det_batch_size)):
        detections = detector.detect([frame.image for frame in batch])
        for frame, found in zip(batch, detections, strict=True):
            box = misses.settle(face_detection.best_box(found))
            yield frame, padded(box, config.pads, frame.image) if box is not None else None


def padded(box: Box, pads: tuple[int, int, int, int], image: np.ndarray) -> Box | None:
    """A box with margins (top, bottom, left, right), within the picture; None if outside of it."""
    x1, y1, x2, y2 = box
    top, bottom, left, right = pads
    height, width = image.shape[:2]
    x1, y1 = max(0, x1 - left), max(0, y1 - top)
    x2, y2 = min(width, x2 + right), min(height, y2 + bottom)
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def _fixed_box(box: tuple[int, int, int, int], image: np.ndarray) -> Box:
    top, bottom, left, right = box
    height, width = image.shape[:2]
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        size = f"{width} × {height} pixels"
        raise UserError(f"--box {top} {bottom} {left} {right}: top bottom left right within {size}")
    return left, top, right, bottom
