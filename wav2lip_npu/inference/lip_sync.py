"""Lip-sync as a function of frames and sound: what the command and programs call."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
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
from wav2lip_npu.config.inference import require_face_rule
from wav2lip_npu.constants import FACE_SIZE
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.backends import open_generator
from wav2lip_npu.inference.hearing import Heard, hear
from wav2lip_npu.inference.landmarks import find_points
from wav2lip_npu.inference.locate import (
    LocatedFrame,
    Target,
    locate,
    summarize,
    targets_of,
)
from wav2lip_npu.media.video_reader import Frame
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.prefetch import prefetch
from wav2lip_npu.tracking.detection import Detections, max_frames_held, open_detector

Sound = np.ndarray | Iterable[np.ndarray]  # (n,) mono samples at 16 kHz, whole or in blocks

QUEUED_FRAMES = 4  # between two stages
MAX_GENERATOR_BATCH = 1024  # frames; no device gains from more, and small frames are many

# Frames and what their people hear; and the faces of those with a box and a weight above 0.
_Pair = tuple[LocatedFrame, tuple[Heard, ...]]
_Batch = tuple[list[_Pair], np.ndarray]

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

    def __call__(
        self,
        images: Iterable[np.ndarray],
        sound: Sound | Mapping[str, Sound],
        *,
        fps: float = 25.0,
    ) -> Iterator[np.ndarray]:
        """Make the face in images speak, or several faces.

        One image is given back for each that is taken, until images or sound end. It needs 0.2 s of
        sound from its own time on, and the five images after it. For live use let both come as they
        are made, with ``wav2lip_batch_size=1, face_det_batch_size=1``.

        Args:
            images: (h, w, 3) BGR uint8, all of one size.
            sound: (n,) mono samples at 16 kHz in [-1, 1], whole or in blocks. Of several people:
                a rule of ``face_select`` for each, and their sound; it ends with the longest.
            fps: images per second.

        Yields:
            (h, w, 3) BGR uint8.

        Raises:
            UserError: too little sound; nobody's, or several people's with a box; no image has a
                face; or by ``no_face="error"``.
        """
        frames = (Frame(time=n / fps, image=image) for n, image in enumerate(images))
        given = sound if isinstance(sound, Mapping) else {self.config.face_select: sound}
        if not given or (len(given) > 1 and self.config.box[0] != -1):
            fault = "a box is for one" if given else "give a rule and a sound for each person"
            raise UserError(f"sound: has {len(given)} voices; {fault}")
        for rule in given:
            require_face_rule("sound" if isinstance(sound, Mapping) else "face_select", rule)
        targets = targets_of([*given], self.config.no_face, fps)
        located = self.locate(frames, targets)
        sounds = [
            (rule if len(given) > 1 else "sound", [one] if isinstance(one, np.ndarray) else one)
            for rule, one in given.items()
        ]
        with closing(self.generate(located, sounds, fps, targets)) as generated:
            for _, image in generated:
                yield image

    def locate(
        self,
        frames: Iterator[Frame],
        targets: Sequence[Target],
        cache: Detections | None = None,
    ) -> Generator[LocatedFrame, None, None]:
        """Frames and where their faces are, see ``locate.locate``."""
        detector = self.detector if self.config.box[0] == -1 else None
        return self._locate(frames, detector, targets, cache)

    def _locate(
        self,
        frames: Iterator[Frame],
        detector: face_detection.Detector | None,
        targets: Sequence[Target],
        cache: Detections | None,
    ) -> Generator[LocatedFrame, None, None]:
        with closing(prefetch(frames, QUEUED_FRAMES)) as ahead:
            yield from locate(ahead, self.config, detector, targets, cache)

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
        sounds: Sequence[tuple[object, Iterable[np.ndarray]]],
        fps: Fraction | float,
        targets: Sequence[Target],
    ) -> Generator[tuple[LocatedFrame, np.ndarray], None, None]:
        """Frames as they were, and with their mouths generated, until they or the sounds end.

        Detection, generation, blending and what the caller does run side by side.

        Args:
            located: frames with their face boxes; a face without one stays as it is.
            sounds: for each face its name, for errors, and blocks of mono samples at 16 kHz.
            fps: frames per second.
            targets: count the frames without their face, and are summarized at the end.

        Raises:
            UserError: there is less than 0.2 s of sound, or no frame has a face.
        """
        config, voices = self.config, len(targets)
        if config.needs_points(voices) and config.box[0] == -1:
            located = find_points(located, FaceLandmarks())
        silence = config.silence_of(voices)
        pairs = _pairs(
            located, hear(sounds, float(fps), silence, as_trained=config.audio_window == "training")
        )
        # A batch is generated while the one before it is blended.
        batches = prefetch(self._generated(pairs, voices), 1)
        blenders = [
            Blender(
                config.blend,
                silence,
                strength=config.strength,
                enhancer=self._enhancer,
                keep_in_front=config.keep_in_front,
            )
            for _ in targets
        ]
        with closing(prefetch(_blended(batches, blenders), QUEUED_FRAMES)) as blended:
            for frame, image in blended:
                for face, target in zip(frame.faces, targets, strict=True):
                    is_missing = not face.found and target.selector.expects(frame.shot)
                    target.missing_faces.count(has_face=not is_missing)
                yield frame, image
        summarize(targets)

    def _generated(
        self, pairs: Generator[_Pair, None, None], faces_per_frame: int
    ) -> Iterator[_Batch]:
        limit = min(self.config.wav2lip_batch_size, MAX_GENERATOR_BATCH)
        limit = min(limit, self.device.max_generator_batch or limit)
        limit = max(1, limit // faces_per_frame)
        with closing(pairs):
            for first in pairs:
                size = min(limit, max_frames_held(first[0].frame.image))
                yield self._generate([*islice(chain([first], pairs), size)])

    def _generate(self, batch: list[_Pair]) -> _Batch:
        crops, chunks = [], []
        for located, heard in batch:
            for face, (chunk, weight) in zip(located.faces, heard, strict=True):
                if face.box is not None and weight > 0:
                    crop = cut(located.frame.image, face.box, face.tilt)
                    crops.append(cv2.resize(crop, (FACE_SIZE, FACE_SIZE)))
                    chunks.append(chunk)
        return batch, self._generator.generate(crops, chunks)


def _blended(
    batches: Generator[_Batch, None, None], blenders: Sequence[Blender]
) -> Iterator[tuple[LocatedFrame, np.ndarray]]:
    with closing(batches):
        for pairs, generated in batches:
            faces = iter(generated)
            for located, heard in pairs:
                image = located.frame.image
                for face, (_, weight), blender in zip(located.faces, heard, blenders, strict=True):
                    if face.box is not None:
                        image = blender.blend(
                            image,
                            next(faces) if weight > 0 else None,
                            face.box,
                            tilt=face.tilt,
                            points=face.points,
                            weight=weight,
                            shot=located.shot,
                        )
                yield located, image


def _pairs(
    located: Iterator[LocatedFrame], heard: Iterator[tuple[Heard, ...]]
) -> Generator[_Pair, None, None]:
    """Frames with what they hear, until either ends; the stage before ends with this one."""
    with closing(prefetch(located, QUEUED_FRAMES)) as ahead:
        yield from zip(ahead, heard, strict=False)
