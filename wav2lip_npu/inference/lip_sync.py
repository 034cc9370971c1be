"""Lip-sync as a function of frames and sound: what the command and programs call."""

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
from face_detection.landmarks import FaceLandmarks
from wav2lip_npu.blending.blender import Blender
from wav2lip_npu.blending.enhancer import Enhancer
from wav2lip_npu.boxes import cut
from wav2lip_npu.config import LipSyncConfig
from wav2lip_npu.constants import FACE_SIZE
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.backends import open_generator
from wav2lip_npu.inference.landmarks import find_points
from wav2lip_npu.inference.locate import LocatedFrame, MissingFacePolicy, locate
from wav2lip_npu.inference.silence import SpeechWeights
from wav2lip_npu.media.video_reader import Frame
from wav2lip_npu.mel import iter_mel_chunks
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.prefetch import prefetch
from wav2lip_npu.tracking.detection import max_frames_held, open_detector
from wav2lip_npu.tracking.detection_cache import DetectionCache

QUEUED_FRAMES = 4  # between two stages
MAX_GENERATOR_BATCH = 1024  # frames; no device gains from more, and small frames are many

_Heard = tuple[np.ndarray, float]  # a mel chunk, and the weight of the mouth generated for it
# Frames and the weights of their mouths; and the faces of those with a box and a weight above 0.
_Batch = tuple[list[tuple[LocatedFrame, float]], np.ndarray]

log = logging.getLogger(__name__)


class LipSync:
    """Networks loaded once, for as many videos as one likes.

    >>> lip_sync = LipSync("checkpoints/wav2lip.pth")
    >>> for image in lip_sync(images, samples, fps=25): ...
    """

    def __init__(self, checkpoint_path: Path | str, **options: Any) -> None:
        """Load the generator.

        Args:
            checkpoint_path: the generator.
            options: fields of ``LipSyncConfig``: device, precision, face_select, blend …

        Raises:
            UserError: an option or a file cannot be used.
        """
        self._set_up(LipSyncConfig(checkpoint_path=Path(checkpoint_path), **options))

    @classmethod
    def from_config(cls, config: LipSyncConfig, *, card_offset: int = 0) -> LipSync:
        """The same from options that are there already, on a card so far from the one they name."""
        self = cls.__new__(cls)
        self._set_up(config, card_offset)
        return self

    def _set_up(self, config: LipSyncConfig, card_offset: int = 0) -> None:
        self.config = config
        self._card_offset = card_offset
        self.device = Device.open(
            config.device,
            config.precision,
            strict_fp32=config.strict_fp32,
            card_offset=card_offset,
        )
        log.info("device: %s (%s)", self.device.torch_device, self.device.reason)
        self._generator = open_generator(config.checkpoint_path, config.backend, self.device)
        self._detector: face_detection.Detector | None = None
        file = config.enhance
        self._enhancer = None if file is None else Enhancer(Path(file), self.device)
        blends_by_points = config.blend == "mouth" or config.silence == "still"
        self._needs_points = blends_by_points or file is not None

    def __call__(
        self,
        images: Iterable[np.ndarray],
        sound: np.ndarray | Iterable[np.ndarray],
        *,
        fps: float = 25.0,
    ) -> Iterator[np.ndarray]:
        """Make the face in images speak.

        One image is given back for each that is taken, until images or sound end. It needs 0.2 s of
        sound from its own time on, and the five images after it. For live use let both come as they
        are made, with ``wav2lip_batch_size=1, face_det_batch_size=1``.

        Args:
            images: (h, w, 3) BGR uint8, all of one size.
            sound: (n,) mono samples at 16 kHz in [-1, 1], whole or in blocks.
            fps: images per second.

        Yields:
            (h, w, 3) BGR uint8.

        Raises:
            UserError: too little sound; no image has a face; or by ``no_face="error"``.
        """
        frames = (Frame(time=n / fps, image=image) for n, image in enumerate(images))
        missing_faces = MissingFacePolicy(policy=self.config.no_face, fps=fps)
        blocks = [sound] if isinstance(sound, np.ndarray) else sound
        located = self.locate(frames, missing_faces)
        with closing(self.generate(located, blocks, fps, missing_faces)) as generated:
            for _, image in generated:
                yield image

    def locate(
        self,
        frames: Iterator[Frame],
        missing_faces: MissingFacePolicy,
        cache: DetectionCache | None = None,
    ) -> Generator[LocatedFrame, None, None]:
        """Frames and where their face is, see ``locate.locate``."""
        detector = self.detector if self.config.box[0] == -1 else None
        return self._locate(frames, detector, missing_faces, cache)

    def _locate(
        self,
        frames: Iterator[Frame],
        detector: face_detection.Detector | None,
        missing_faces: MissingFacePolicy,
        cache: DetectionCache | None,
    ) -> Generator[LocatedFrame, None, None]:
        with closing(prefetch(frames, QUEUED_FRAMES)) as ahead:
            yield from locate(ahead, self.config, detector, missing_faces, cache)

    @property
    def detector(self) -> face_detection.Detector:
        """The face detector, loaded when it is first needed."""
        if self._detector is None:
            precision = self.config.detector_precision
            strict = self.config.strict_fp32 and precision == "fp32"
            device = Device.open(
                self.config.device, precision, strict_fp32=strict, card_offset=self._card_offset
            )
            self._detector = open_detector(self.config, device)
            log.info("face detector: %s", self._detector.name)
        return self._detector

    def generate(
        self,
        located: Generator[LocatedFrame, None, None],
        sound: Iterable[np.ndarray],
        fps: Fraction | float,
        missing_faces: MissingFacePolicy,
        *,
        sound_name: object = "sound",
    ) -> Generator[tuple[LocatedFrame, np.ndarray], None, None]:
        """Frames as they were, and with their mouths generated, until they or the sound end.

        Detection, generation, blending and what the caller does run side by side.

        Args:
            located: frames with their face boxes; without one a frame stays as it is.
            sound: blocks of mono samples at 16 kHz.
            fps: frames per second.
            missing_faces: counts the frames, and is summarized at the end.
            sound_name: how an error names the sound.

        Raises:
            UserError: there is less than 0.2 s of sound, or no frame has a face.
        """
        if self._needs_points and self.config.box[0] == -1:
            located = find_points(located, FaceLandmarks())
        pairs = _pairs(located, self._heard(sound, float(fps), sound_name))
        # A batch is generated while the one before it is blended.
        batches = prefetch(self._generated(pairs), 1)
        with closing(prefetch(self._blended(batches), QUEUED_FRAMES)) as blended:
            for frame, image in blended:
                missing_faces.count(has_face=frame.has_face)
                yield frame, image
        missing_faces.summarize()

    def _heard(self, sound: Iterable[np.ndarray], fps: float, name: object) -> Iterator[_Heard]:
        """What each frame hears, and how far its mouth follows that."""
        weights = None if self.config.silence == "network" else SpeechWeights(fps)
        try:
            for chunk in iter_mel_chunks(weights.listen(sound) if weights else sound, fps):
                yield chunk, weights.next() if weights else 1.0
        except ValueError as error:  # too little sound
            raise UserError(f"{name}: {error}") from error

    def _generated(
        self, pairs: Generator[tuple[LocatedFrame, _Heard], None, None]
    ) -> Iterator[_Batch]:
        limit = min(self.config.wav2lip_batch_size, MAX_GENERATOR_BATCH)
        limit = min(limit, self.device.max_generator_batch or limit)
        with closing(pairs):
            for first in pairs:
                size = min(limit, max_frames_held(first[0].frame.image))
                yield self._generate([*islice(chain([first], pairs), size)])

    def _generate(self, batch: list[tuple[LocatedFrame, _Heard]]) -> _Batch:
        crops, chunks = [], []
        for located, (chunk, weight) in batch:
            if located.box is not None and weight > 0:
                crop = cut(located.frame.image, located.box, located.tilt)
                crops.append(cv2.resize(crop, (FACE_SIZE, FACE_SIZE)))
                chunks.append(chunk)
        faces = self._generator.generate(crops, chunks)
        return [(located, weight) for located, (_, weight) in batch], faces

    def _blended(
        self, batches: Generator[_Batch, None, None]
    ) -> Iterator[tuple[LocatedFrame, np.ndarray]]:
        blender = Blender(self.config.blend, self.config.silence, self._enhancer)
        with closing(batches):
            for frames, generated in batches:
                faces = iter(generated)
                for located, weight in frames:
                    image = located.frame.image
                    if located.box is not None:
                        image = blender.blend(
                            image,
                            next(faces) if weight > 0 else None,
                            located.box,
                            tilt=located.tilt,
                            points=located.points,
                            weight=weight,
                            shot=located.shot,
                        )
                    yield located, image


def _pairs(
    located: Iterator[LocatedFrame], heard: Iterator[_Heard]
) -> Generator[tuple[LocatedFrame, _Heard], None, None]:
    """Frames with what they hear, until either ends; the stage before ends with this one."""
    with closing(prefetch(located, QUEUED_FRAMES)) as ahead:
        yield from zip(ahead, heard, strict=False)
