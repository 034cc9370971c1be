"""Lip-sync as a function of pictures and sound: what the command and programs call."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import face_detection
from wav2lip_npu.config import LipSyncConfig
from wav2lip_npu.constants import FACE_SIZE
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.backends import open_artist
from wav2lip_npu.inference.blending import blend
from wav2lip_npu.inference.locate import Located, Misses, at_once, locate
from wav2lip_npu.media.video_reader import Frame
from wav2lip_npu.mel import iter_mel_chunks
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.prefetch import prefetch
from wav2lip_npu.tracking.detection_cache import FaceCache

WAITING = 4  # pictures between two stages

_Batch = tuple[list[Located], np.ndarray]  # pictures, and the faces drawn for those with a box

log = logging.getLogger(__name__)


class LipSync:
    """Networks loaded once, for as many videos as one likes.

    >>> lip_sync = LipSync("checkpoints/wav2lip.pth")
    >>> for picture in lip_sync(pictures, samples, fps=25): ...
    """

    def __init__(self, checkpoint_path: Path | str, **options: Any) -> None:
        """Load the networks.

        Args:
            checkpoint_path: the generator.
            options: fields of ``LipSyncConfig``: device, precision, face_select, blend …

        Raises:
            UserError: an option or a file cannot be used.
        """
        self._set_up(LipSyncConfig(checkpoint_path=Path(checkpoint_path), **options))

    @classmethod
    def of(cls, config: LipSyncConfig) -> LipSync:
        """The same from options that are there already."""
        self = cls.__new__(cls)
        self._set_up(config)
        return self

    def _set_up(self, config: LipSyncConfig) -> None:
        self.config = config
        self.device = Device.open(config.device, config.precision)
        log.info("device: %s (%s)", self.device.torch_device, self.device.reason)
        self._artist = open_artist(config.checkpoint_path, config.backend, self.device)
        self._detector: face_detection.Detector | None = None

    def __call__(
        self,
        pictures: Iterable[np.ndarray],
        sound: np.ndarray | Iterable[np.ndarray],
        *,
        fps: float = 25.0,
    ) -> Iterator[np.ndarray]:
        """Have the face in pictures speak.

        A picture is given back for each that is taken in, until pictures or sound end. It needs 0.2
        s of sound from its own time on, and the five pictures after it. For live use let both come
        as they are made, with ``wav2lip_batch_size=1, face_det_batch_size=1``.

        Args:
            pictures: (h, w, 3) BGR uint8, all of one size.
            sound: (n,) mono samples at 16 kHz in [-1, 1], whole or in blocks.
            fps: pictures a second.

        Yields:
            (h, w, 3) BGR uint8.

        Raises:
            UserError: too little sound, or by the policy for pictures without a face.
        """
        frames = (Frame(time=n / fps, image=image) for n, image in enumerate(pictures))
        misses = Misses(policy=self.config.no_face, fps=fps)
        blocks = [sound] if isinstance(sound, np.ndarray) else sound
        with closing(self.speak(self.locate(frames, misses), blocks, fps)) as spoken:
            for _, image in spoken:
                yield image

    def locate(
        self, frames: Iterator[Frame], misses: Misses, cache: FaceCache | None = None
    ) -> Iterator[Located]:
        """Pictures and where their face is, see ``faces.locate``."""
        detector = self.detector if self.config.box[0] == -1 else None
        return locate(prefetch(frames, WAITING), self.config, detector, misses, cache)

    @property
    def detector(self) -> face_detection.Detector:
        """The face detector, loaded when it is first needed."""
        if self._detector is None:
            self._detector = face_detection.open_detector(
                self.config.detector,
                device=self.device.torch_device,
                s3fd_weights=self.config.s3fd,
                fixed_batches=self.device.wants_fixed_shapes,
                dtype=self.device.dtype,
            )
            log.info("face detector: %s", self._detector.name)
        return self._detector

    def speak(
        self,
        located: Iterator[Located],
        sound: Iterable[np.ndarray],
        fps: Fraction | float,
        name: object = "sound",
    ) -> Generator[tuple[Located, np.ndarray], None, None]:
        """Pictures as they were, and speaking, until they or the sound end.

        Finding, drawing and what the caller does go on side by side.

        Args:
            located: pictures with their face boxes; without one a picture stays as it is.
            sound: blocks of mono samples at 16 kHz.
            fps: pictures a second.
            name: what the sound is called if there is too little of it.

        Raises:
            UserError: there is less than 0.2 s of sound.
        """
        pairs = zip(prefetch(located, WAITING), iter_mel_chunks(sound, float(fps)), strict=False)
        # A batch is drawn while the one before it is blended in.
        batches = prefetch(self._drawn(pairs, name), 1)
        return prefetch(self._blended(batches), WAITING)

    def _drawn(self, pairs: Iterator[tuple[Located, np.ndarray]], name: object) -> Iterator[_Batch]:
        most = self.config.wav2lip_batch_size
        most = min(most, self.device.frames_at_once or most)
        try:
            for first in pairs:
                size = at_once(most, first[0].frame.image)
                yield self._draw([*islice(chain([first], pairs), size)], pad_to=size)
        except ValueError as error:  # of ``iter_mel_chunks``
            raise UserError(f"{name}: {error}") from error

    def _draw(self, batch: list[tuple[Located, np.ndarray]], *, pad_to: int) -> _Batch:
        faces, heard = [], []
        for located, window in batch:
            if located.box is not None:
                x1, y1, x2, y2 = located.box
                crop = located.frame.image[y1:y2, x1:x2]
                faces.append(cv2.resize(crop, (FACE_SIZE, FACE_SIZE)))
                heard.append(window)
        return [located for located, _ in batch], self._artist.draw(faces, heard, pad_to=pad_to)

    def _blended(self, batches: Iterator[_Batch]) -> Iterator[tuple[Located, np.ndarray]]:
        for pictures, drawn in batches:
            faces = iter(drawn)
            for located in pictures:
                image = located.frame.image
                if located.box is not None:
                    image = blend(self.config.blend, image, next(faces), located.box)
                yield located, image
