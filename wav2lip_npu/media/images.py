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

MAX_ALPHA = 255  # opaque
MAX_DIFFERENCE = 2.0  # of 255, in the mean, of an image that was decoded twice

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
    """Read a still image as (h, w, 3) BGR, upright; what is transparent in it is told.

    Raises:
        UserError: no such file, or not an image.
    """
    image, alpha = read_with_alpha(path)
    if alpha is not None:
        log.warning("%s: %s", path, ALPHA_WARNING)
    return image


def read_with_alpha(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a still image, upright.

    Returns:
        (h, w, 3) BGR; and (h, w) uint8, 255 is opaque, or None if all is opaque.

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
    if data[12:16] == b"VP8X" and data[20] & 2:
        log.warning("%s: is an animation, of which the first picture is taken", path)
    alpha = None if whole is None else _alpha(whole)
    if whole is not None and alpha is not None and not _is_upright(whole, image):
        log.warning("%s: %s, as the picture is turned by its EXIF data", path, ALPHA_WARNING)
        return image, None
    return image, alpha


def _first_frame(path: Path, image: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """A picture as FFmpeg reads it; or as OpenCV did, where it has parts that FFmpeg leaves apart.

    Raises:
        UserError: it cannot be read.
    """
    with open_media(path) as container:
        if len(container.streams.video) > 1:  # tiles, or transparency
            if image is None:
                raise UserError(f"{path}: is a picture in tiles; convert it to PNG or JPEG")
            return image, None
        try:
            video = VideoFile(container, path, with_alpha=True)
        except UserError as error:
            raise _unreadable(path) from error
        for warning in video.info.warnings:
            if warning != ALPHA_WARNING:
                log.warning("%s: %s", path, warning)
        frame = next(video.frames())
        is_opaque = frame.alpha is None or frame.alpha.min() == MAX_ALPHA
        return frame.image, None if is_opaque else frame.alpha


def _unreadable(path: Path) -> UserError:
    return UserError(f"{path}: not an image that can be read; it is damaged, or of a rare kind")


def _alpha(whole: np.ndarray) -> np.ndarray | None:
    """The alpha plane (h, w) uint8 of an image as it is stored; None if all is opaque."""
    if whole.ndim < 3 or whole.shape[2] != 4:
        return None
    opaque = 1.0 if whole.dtype.kind == "f" else np.iinfo(whole.dtype).max
    alpha = whole[..., 3]
    if alpha.min() >= opaque:
        return None
    scaled: np.ndarray = np.rint(alpha.clip(0, opaque) * (MAX_ALPHA / opaque)).astype(np.uint8)
    return scaled


def _is_upright(whole: np.ndarray, image: np.ndarray) -> bool:
    """Whether an image as it is stored lies as the one that OpenCV turned upright."""
    if whole.shape[:2] != image.shape[:2]:
        return False
    if whole.dtype != np.uint8:
        return True
    return bool(cv2.absdiff(np.ascontiguousarray(whole[..., :3]), image).mean() < MAX_DIFFERENCE)
