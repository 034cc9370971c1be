"""All metrics of one video, in a worker process; what cannot be computed has its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from face_detection.landmarks import FaceLandmarks, mouth_shape
from wav2lip_npu.alignment import expert as lip_sync_expert
from wav2lip_npu.alignment.lags import MAX_LAG
from wav2lip_npu.alignment.lse import lip_sync_error, open_syncnet_v2
from wav2lip_npu.boxes import cut
from wav2lip_npu.config import EvaluateConfig
from wav2lip_npu.constants import FACE_SIZE, SAMPLES_PER_FRAME
from wav2lip_npu.errors import UserError
from wav2lip_npu.evaluation.faces import FaceVideo, read_images, read_sound
from wav2lip_npu.evaluation.fid import (
    FACES_AT_A_TIME,
    FEATURES,
    Extractor,
    features_path,
    open_inception,
    save_features,
)
from wav2lip_npu.evaluation.inputs import Item
from wav2lip_npu.evaluation.lse_protocols import (
    MIN_TRACK_FRAMES,
    FaceTrack,
    face_tracks,
    track_crops,
    whole_frames,
)
from wav2lip_npu.evaluation.metrics import (
    METRICS,
    MIN_FACE_SIDE,
    correlation,
    expert_loss,
    expert_offset,
    face_similarity,
    is_same_sound,
    landmark_distance,
    voice_loudness,
)
from wav2lip_npu.mel import melspectrogram
from wav2lip_npu.models import SyncNet
from wav2lip_npu.models.syncnet_v2 import SyncNetV2
from wav2lip_npu.runtime import threads
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.tracking.detection import BatchedDetector, open_detector

DIGITS = 6  # of results, after the point
LSE = ("lse_d", "lse_c", "lse_offset")
EXPERT = ("sync_loss", "sync_offset", "sync_confidence")
VOICE = "opening_corr_voice"
PICTURE = ("psnr", "ssim", "psnr_lower", "ssim_lower")
MOUTH = ("lmd", "opening_corr_source")
NO_FACE = "no face is found"


@dataclass(kw_only=True)
class Measured:
    """What was found of a video; a stable format."""

    name: str
    source: str | None = None
    reconstruction: bool | None = None  # whether it has its source's sound; None: no source
    frames: int = 0  # at 25 a second
    faces: int = 0  # frames that have the face
    tracks: int = 0  # faces that are followed for ``MIN_TRACK_FRAMES`` or more
    values: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(METRICS))
    reasons: dict[str, str] = field(default_factory=dict)  # of each metric without a value

    def put(self, values: Mapping[str, float]) -> None:
        """Note metrics; what is not finite is left out."""
        for name, value in values.items():
            if np.isfinite(value):
                self.values[name] = round(value, DIGITS) + 0.0  # not -0
            else:
                self.reasons[name] = "not a finite number"

    def put_or_leave(self, name: str, value: float | str) -> None:
        """Note a metric, or why there is none."""
        if isinstance(value, str):
            self.leave(value, name)
        else:
            self.put({name: value})

    def leave(self, reason: str, *names: str) -> None:
        """Note why there are no such metrics."""
        self.reasons.update(dict.fromkeys(names, reason))


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks that measure, those whose weights are given."""

    syncnet_v2: SyncNetV2 | None
    expert: SyncNet | None
    inception: Extractor | None

    @classmethod
    def load(cls, config: EvaluateConfig, device: Device) -> Networks:
        """Load them.

        Raises:
            UserError: a file is not there, or holds other weights.
        """
        v2, expert, inception = (
            config.syncnet_v2, config.syncnet_checkpoint_path, config.inception,
        )  # fmt: skip
        return cls(
            syncnet_v2=None if v2 is None else open_syncnet_v2(v2, device.torch_device),
            expert=None if expert is None else lip_sync_expert.open_expert(expert, device),
            inception=None if inception is None else open_inception(inception, device),
        )


class EvaluationWorker:
    """Measures videos, in a process of its own; the networks stay loaded."""

    def __init__(self, config: EvaluateConfig, workers: int, features: Path) -> None:
        """Load the networks.

        Args:
            config: the options.
            workers: processes that share the cores.
            features: folder for what FID is computed of.

        Raises:
            UserError: one cannot be loaded.
        """
        threads.limit_threads(workers)
        self._config = config
        self._device = Device.open(config.device, "fp32", strict_fp32=config.strict_fp32)
        self._networks = Networks.load(config, self._device)
        self._detector = BatchedDetector(
            detector=open_detector(config, self._device), batch_size=config.batch_size
        )
        self._landmarks = FaceLandmarks()
        self._features = features

    def process(self, item: Item) -> Measured:
        """Measure a video.

        Raises:
            UserError: it cannot be decoded, or not one metric can be computed.
        """
        video, sound = self._read(item.video), read_sound(item.video)
        tracks = face_tracks(video.found.tracks.values())
        found = Measured(
            name=item.name,
            source=None if item.source is None else str(item.source),
            frames=video.found.frames,
            faces=len(video.boxes),
            tracks=len(tracks),
        )
        self._measure_lse(video, tracks, sound, found)
        self._measure_face(video, sound, found)
        self._compare(item, video, sound, found)
        if all(value is None for value in found.values.values()):
            why = dict.fromkeys(found.reasons.values())
            raise UserError(f"no metric can be computed: {'; '.join(why)}")
        return found

    def _read(self, path: Path) -> FaceVideo:
        return FaceVideo.read(
            path,
            self._detector,
            detect_every=self._config.detect_every,
            smooth=self._config.smooth_boxes,
        )

    def _measure_lse(
        self,
        video: FaceVideo,
        tracks: Sequence[FaceTrack],
        sound: np.ndarray | str,
        found: Measured,
    ) -> None:
        network = self._networks.syncnet_v2
        if network is None:
            return found.leave("no --syncnet_v2", *LSE)
        if isinstance(sound, str):
            return found.leave(sound, *LSE)
        images = read_images(video.path)
        if self._config.protocol == "frame":
            faces = whole_frames(images)
        else:
            if not video.boxes:
                return found.leave(NO_FACE, *LSE)
            if not tracks:
                return found.leave(f"no face is there for {MIN_TRACK_FRAMES} frames", *LSE)
            first, count = tracks[0].first, len(tracks[0].boxes)
            sound = sound[first * SAMPLES_PER_FRAME : (first + count) * SAMPLES_PER_FRAME]
            faces = track_crops(images, tracks[0])
        error = lip_sync_error(network, faces, sound, self._device.torch_device)
        if error is None:
            return found.leave("fewer than six frames with sound", *LSE)
        found.put(
            {"lse_d": error.distance, "lse_c": error.confidence, "lse_offset": float(error.late)}
        )

    def _measure_face(self, video: FaceVideo, sound: np.ndarray | str, found: Measured) -> None:
        """What the expert says, and the mouth against the voice: of crops that are cut once."""
        expert = self._networks.expert
        if expert is None:
            found.leave("no --syncnet_checkpoint_path", *EXPERT)
        if isinstance(sound, str) or not video.boxes:
            why = sound if isinstance(sound, str) else NO_FACE
            return found.leave(why, *(EXPERT if expert else ()), VOICE)
        faces = np.zeros((video.found.frames, FACE_SIZE, FACE_SIZE, 3), np.uint8)
        known = np.zeros(len(faces), bool)
        opening = np.full(len(faces), np.nan)
        for number, crop in video.crops():
            if expert is not None:
                faces[number], known[number] = cv2.resize(crop, (FACE_SIZE, FACE_SIZE)), True
            opening[number] = mouth_shape(self._landmarks.detect(crop))[0]
        if expert is not None:
            self._measure_expert(expert, faces, known, sound, found)
        found.put_or_leave(VOICE, correlation(opening, voice_loudness(sound)))
        return None

    def _measure_expert(
        self,
        expert: SyncNet,
        faces: np.ndarray,
        known: np.ndarray,
        sound: np.ndarray,
        found: Measured,
    ) -> None:
        embedded = lip_sync_expert.embed(expert, faces, known, melspectrogram(sound), self._device)
        likely = lip_sync_expert.probabilities(embedded)
        if not np.isfinite(likely[:, MAX_LAG]).any():
            return found.leave("no five frames in a row with face and sound", *EXPERT)
        found.put({"sync_loss": expert_loss(likely)})
        lag = expert_offset(likely)
        if lag is None:
            return found.leave("too short to compare lags", *EXPERT[1:])
        found.put(dict(zip(EXPERT[1:], lag, strict=True)))

    def _compare(
        self, item: Item, video: FaceVideo, sound: np.ndarray | str, found: Measured
    ) -> None:
        """What needs the source."""
        if item.source is None:
            return found.leave(_no_source(self._config), *PICTURE, *MOUTH)
        found.reconstruction = item.reconstruction
        if item.reconstruction is None:
            other = read_sound(item.source)
            if isinstance(sound, str) or isinstance(other, str):
                found.reconstruction = False
            else:
                found.reconstruction = is_same_sound(sound, other)
        if not found.reconstruction:
            found.leave("another sound than the source's", *PICTURE, *MOUTH)
            if self._networks.inception is None:
                return None
        source = self._read(item.source)
        self._save_features(item, video, source)
        if found.reconstruction:
            self._compare_frames(video, source, found)
        return None

    def _save_features(self, item: Item, video: FaceVideo, source: FaceVideo) -> None:
        if self._networks.inception is not None:
            path = features_path(self._features, item.name)
            save_features(path, self._features_of(video), self._features_of(source))

    def _features_of(self, video: FaceVideo) -> np.ndarray:
        """Inception's features of each face, some faces at a time."""
        assert self._networks.inception is not None
        parts, crops = [np.zeros((0, FEATURES), np.float32)], video.crops()
        while block := [crop for _, crop in islice(crops, FACES_AT_A_TIME)]:
            parts.append(self._networks.inception(block))
        return np.concatenate(parts)

    def _compare_frames(self, video: FaceVideo, source: FaceVideo, found: Measured) -> None:
        """Frame by frame, in the box of the source's face."""
        sizes = [(one.found.width, one.found.height) for one in (video, source)]
        if sizes[0] != sizes[1]:
            (w, h), (source_w, source_h) = sizes
            reason = f"{w} × {h} pixels, the source has {source_w} × {source_h}"
            return found.leave(reason, *PICTURE, *MOUTH)
        if not source.boxes:
            return found.leave("no face in the source", *PICTURE, *MOUTH)
        alike: list[dict[str, float]] = []
        points: list[tuple[np.ndarray, np.ndarray]] = []
        pairs = zip(read_images(video.path), read_images(source.path), strict=False)
        for number, pair in enumerate(pairs):
            if (box := source.boxes.get(number)) is None:
                continue
            generated, original = (cut(image, box) for image in pair)
            points.append((self._landmarks.detect(generated), self._landmarks.detect(original)))
            if min(original.shape[:2]) >= MIN_FACE_SIDE:
                alike.append(face_similarity(generated, original))
        if not points:
            return found.leave("no frame to compare", *PICTURE, *MOUTH)
        if alike:
            found.put({name: float(np.mean([one[name] for one in alike])) for name in PICTURE})
        else:
            found.leave(f"faces of less than {MIN_FACE_SIDE} pixels", *PICTURE)
        ours, theirs = (np.stack(part) for part in zip(*points, strict=True))
        found.put({"lmd": landmark_distance(ours, theirs)})
        one, other = (mouth_shape(part)[:, 0] for part in (ours, theirs))
        found.put_or_leave("opening_corr_source", correlation(one, other))
        return None


def _no_source(config: EvaluateConfig) -> str:
    return "no --sources" if config.sources is None else "no source of this name in --sources"
