"""A video as it is measured: 25 frames a second, whose face is where, and 16 kHz sound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from face_detection import Box
from wav2lip_npu.boxes import cut
from wav2lip_npu.constants import FPS
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import load_audio
from wav2lip_npu.media.video_reader import at_rate, open_video, probe, read_frames
from wav2lip_npu.runtime.prefetch import prefetch
from wav2lip_npu.tracking.detection import BatchedDetector
from wav2lip_npu.tracking.scan import FacesFound, complete_track, crop_boxes, scan, total_area

QUEUED_FRAMES = 8  # that are decoded ahead
_INT16 = 32768  # preprocess writes 16-bit samples, and the networks hear those


@dataclass(frozen=True, kw_only=True)
class FaceVideo:
    """A video, and where its faces are."""

    path: Path
    found: FacesFound
    boxes: dict[int, Box]  # of the face that is largest over the video, in frames that have it

    @classmethod
    def read(
        cls, path: Path, detector: BatchedDetector, *, detect_every: int, smooth: bool
    ) -> FaceVideo:
        """Detect and follow all faces, and choose one, as ``preprocess`` does.

        Raises:
            UserError: the video cannot be decoded.
        """
        with (
            open_video(path) as video,
            closing(prefetch(at_rate(video.frames(), FPS), QUEUED_FRAMES)) as frames,
        ):
            found = scan(frames, detector, detect_every)
        tracks = [complete_track(boxes, found.detected) for boxes in found.tracks.values()]
        boxes = {}
        if tracks:
            track, size = max(tracks, key=total_area), (found.width, found.height)
            placed = crop_boxes(track, size, smooth=smooth)
            boxes = {face.item: box for face, box in placed if box is not None}
        return cls(path=path, found=found, boxes=boxes)

    def crops(self) -> Iterator[tuple[int, np.ndarray]]:
        """The number of each frame that has the face, and the crop, (h, w, 3) BGR."""
        for number, image in enumerate(read_images(self.path)):
            if (box := self.boxes.get(number)) is not None:
                yield number, cut(image, box)


def read_images(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video at 25 a second, (h, w, 3) BGR uint8.

    Raises:
        UserError: it cannot be decoded.
    """
    with closing(prefetch(at_rate(read_frames(path), FPS), QUEUED_FRAMES)) as frames:
        for frame in frames:
            yield frame.image


def read_sound(path: Path) -> np.ndarray | str:
    """The sound of a video from its first frame on, 16 kHz mono as 16-bit numbers in [-1, 1].

    Returns:
        The samples, or why there are none.
    """
    try:
        samples = load_audio(path, start=probe(path).start)
    except UserError as error:
        return str(error)
    return (np.clip(np.rint(samples * _INT16), -_INT16, _INT16 - 1) / _INT16).astype(np.float32)
