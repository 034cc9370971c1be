"""Still images in, of any kind that OpenCV or FFmpeg can read."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np

from wav2lip_npu.errors import UserError
from wav2lip_npu.media.container import (
    find_video_stream,
    holds_image,
    open_media,
    require_usual_size,
)
from wav2lip_npu.media.video_reader import ALPHA_WARNING, VideoFile
from wav2lip_npu.runtime.failures import is_out_of_memory, reason

log = logging.getLogger(__name__)


def is_image(path: Path) -> bool:
    """Whether a file is a still image by its content: one frame, and no sound.

    Raises:
        UserError: no such file, or no media file at all.
    """
    with open_media(path) as container:
        return holds_image(container, path)


def put_text(
    image: np.ndarray, text: str, corner: tuple[int, int], *, scale: float, level: int
) -> None:
    """Write one line of text on an image.

    Args:
        image: uint8 (h, w, 3), changed in place.
        text: any; what in a file's name is not UTF-8 becomes "?" (OpenCV 5 crashes with it).
        corner: x and y of the text's lower left, in pixels.
        scale: of OpenCV's simplex font.
        level: grey, 0 is black.
    """
    printable = text.encode("utf-8", "replace").decode()
    font, grey = cv2.FONT_HERSHEY_SIMPLEX, (level, level, level)
    cv2.putText(image, printable, corner, font, scale, grey, 1, cv2.LINE_AA)


def read_image(path: Path) -> np.ndarray:
    """Read a still image as (h, w, 3) BGR, upright.

    Raises:
        UserError: no such file, or not an image.
    """
    with open_media(path) as container:
        stream = find_video_stream(container)
        if stream is not None:
            require_usual_size(stream, path)
    try:
        data = path.read_bytes()
        # By way of bytes: OpenCV's own reader cannot open some names on some systems.
        content = np.frombuffer(data, np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
        whole = None if image is None else cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from error
    except cv2.error as error:
        if is_out_of_memory(error):
            raise UserError(f"{path}: {reason(error)}") from error
        raise _unreadable(path) from error
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda"):
        log.warning("%s: is cut off; what is missing of the picture is grey", path)
    if image is None or data[4:8] == b"ftyp":  # AVIF and HEIC, which OpenCV does not turn upright
        return _first_frame(path, image)
    if whole is not None and _is_transparent(whole):
        log.warning("%s: %s", path, ALPHA_WARNING)
    if data[12:16] == b"VP8X" and data[20] & 2:
        log.warning("%s: is an animation, of which the first picture is taken", path)
    return image


def _first_frame(path: Path, image: np.ndarray | None) -> np.ndarray:
    """A picture as FFmpeg reads it; or as OpenCV did, where it has parts that FFmpeg leaves apart.

    Raises:
        UserError: it cannot be read.
    """
    with open_media(path) as container:
        if len(container.streams.video) > 1:  # tiles, or transparency
            if image is None:
                raise UserError(f"{path}: is a picture in tiles; convert it to PNG or JPEG")
            return image
        try:
            video = VideoFile(container, path)
        except UserError as error:
            raise _unreadable(path) from error
        for warning in video.info.warnings:
            log.warning("%s: %s", path, warning)
        return next(video.frames()).image


def _unreadable(path: Path) -> UserError:
    return UserError(f"{path}: not an image that can be read; it is damaged, or of a rare kind")


def _is_transparent(image: np.ndarray) -> bool:
    """Whether an image as it is stored has pixels that are not opaque."""
    if image.ndim < 3 or image.shape[2] != 4:
        return False
    opaque = 1.0 if image.dtype.kind == "f" else np.iinfo(image.dtype).max
    return bool(image[..., 3].min() < opaque)
