"""The frames of ``--face``: a video or a still image, edited, and again for as long as needed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import count, islice

import cv2
import numpy as np

from wav2lip_npu.config import InferConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.media import images, video_reader
from wav2lip_npu.media.outfile import KEEP_ALPHA, keeps_alpha
from wav2lip_npu.media.video_reader import Frame
from wav2lip_npu.tracking.detection import max_frames_held

log = logging.getLogger(__name__)


class FaceSource:
    """A video or a still image, made smaller, rotated and cropped as the options say."""

    def __init__(self, config: InferConfig) -> None:
        """Look into the file; what cannot be kept of it is told.

        Raises:
            UserError: no such file, or neither a video nor an image.
        """
        assert config.face is not None
        self.path = config.face
        self.still = config.static
        self.info: video_reader.VideoInfo | None = None
        self._keeps_alpha = keeps_alpha(config.outfile)
        if images.is_image(config.face):
            self.still = True
            self.fps = Fraction(config.fps).limit_denominator(1001)
            if config.start > 0 or config.end is not None:
                name = "start" if config.start > 0 else "end"
                value = getattr(config, name)
                raise UserError(f"--{name} {value}: has no effect, {config.face} is an image")
            image, alpha = images.read_with_alpha(config.face)
            if alpha is not None and not self._keeps_alpha:
                self._warn(video_reader.ALPHA_WARNING)
                alpha = None
            self._image = Frame(time=0.0, image=image, alpha=alpha)
            self.has_alpha = alpha is not None
        else:
            self.info = video_reader.probe(config.face)
            for warning in self.info.warnings:
                self._warn(warning)
            self.has_alpha = self._keeps_alpha and self.info.has_alpha
            if config.rotate and self.info.pixel_aspect:  # 0 is one of a damaged header
                self.info = replace(self.info, pixel_aspect=1 / self.info.pixel_aspect)
            self.fps = self.info.fps
        self._start = config.start
        self._first = round(config.start * self.fps)  # numbers of frames
        self._stop = None if config.end is None else round(config.end * self.fps)
        if self._stop is not None and self._stop <= self._first:
            raise UserError(
                f"--end {config.end}: less than a frame after --start {config.start}, at "
                f"{float(self.fps):.5g} frames a second"
            )
        self._resize_factor = config.resize_factor
        self._rotate = config.rotate
        self._crop = config.crop

    def _warn(self, warning: str) -> None:
        if warning == video_reader.ALPHA_WARNING:
            if self._keeps_alpha:
                return
            warning += f"; {KEEP_ALPHA}"
        log.warning("%s: %s", self.path, warning)

    def frames(self) -> Iterator[Frame]:
        """All frames in order, from ``--start`` to ``--end``; of a still image, the one there is.

        Raises:
            UserError: the video ends before ``--start``.
        """
        if self.info is None:
            yield self._edit(self._image)
            return
        empty = True
        for frame in self._part(0, 1 if self.still else None):
            empty = False
            yield frame
        if empty and self._first:
            raise UserError(f"--start {self._start}: {self.path} ends before")

    def loop(self, how: str, length: int, last: Frame) -> Iterator[tuple[int, Frame]]:
        """What follows the last frame.

        Args:
            how: one of ``config.LOOPS``.
            length: how many frames there are.
            last: the last of them.

        Yields:
            A frame's number, from 0, and the frame; without end, unless ``how`` is "cut".
        """
        if how == "cut":
            return
        if how == "hold" or length == 1:
            while True:
                yield length - 1, last
        for turn in count():
            if how == "repeat":
                yield from enumerate(islice(self.frames(), length))
            elif turn % 2:
                yield from islice(enumerate(self.frames()), 1, length)
            else:
                yield from self._backwards(length - 1, last)

    def _backwards(self, stop: int, last: Frame) -> Iterator[tuple[int, Frame]]:
        """The frames before number ``stop``, from the last to the first, block by block."""
        block = max_frames_held(last.image)
        while stop > 0:
            start = max(0, stop - block)
            numbered = enumerate(self._part(start, stop), start=start)
            yield from reversed([*numbered])
            stop = start

    def _part(self, start: int, stop: int | None) -> Iterator[Frame]:
        """The frames from number ``start`` to before ``stop``, counted from ``--start`` on."""
        assert self.info is not None
        ends = [self._first + stop if stop is not None else None, self._stop]
        end = min((one for one in ends if one is not None), default=None)
        start += self._first
        # From a second before, as time stamps of decoders and containers may differ a little.
        since = self.info.start + start / float(self.fps) - 1.0
        can_seek = since > self.info.start and self.info.is_seekable
        frames = video_reader.at_rate(
            video_reader.read_frames(
                self.path, since=since if can_seek else None, with_alpha=self._keeps_alpha
            ),
            self.fps,
            origin=self.info.start if start else None,
            first=start,
        )
        for frame in islice(frames, None if end is None else max(0, end - start)):
            yield self._edit(frame)

    def _edit(self, frame: Frame) -> Frame:
        image = self._edited(frame.image)
        if image is frame.image:
            return frame
        alpha = None if frame.alpha is None else self._edited(frame.alpha)
        return Frame(time=frame.time, image=image, alpha=alpha)

    def _edited(self, image: np.ndarray) -> np.ndarray:
        """An image, or its alpha plane, resized, rotated and cropped."""
        height, width = image.shape[:2]
        if self._resize_factor > 1:
            size = width // self._resize_factor, height // self._resize_factor
            if not all(size):
                given = f"--resize_factor {self._resize_factor}"
                raise UserError(f"{given}: nothing is left of {width} × {height} pixels")
            image = cv2.resize(image, size)
        if self._rotate:
            image = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
        if self._crop != (0, -1, 0, -1):
            image = self._cropped(image)
        return image

    def _cropped(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        top, bottom, left, right = self._crop
        bottom, right = (height if bottom == -1 else bottom), (width if right == -1 else right)
        x1, y1, x2, y2 = video_reader.rectangle("--crop", (top, bottom, left, right), image)
        return image[y1:y2, x1:x2]
