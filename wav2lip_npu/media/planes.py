"""Planes of decoded frames as arrays, and the one of them that says how opaque a pixel is."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import VideoReformatter

ALPHA_PLANE = 3  # of all planar formats that have one
_ALPHA_BYTES = {"rgba": 3, "bgra": 3, "argb": 0, "abgr": 0}  # which of the four bytes of a pixel
_MAX_BITS = 16  # of whole numbers; more are floats
# Formats in which some decoders give whatever a file holds: they do not say that it is transparent.
_CATCH_ALL_CODECS = frozenset(("gif", "rawvideo"))


def plane_views(frame: av.VideoFrame) -> list[np.ndarray]:
    """The planes of a planar frame, (rows, columns) each, uint8 or uint16: its own memory."""
    bits = frame.format.components[0].bits
    kind = np.dtype(np.uint8) if bits <= 8 else np.dtype("<u2")
    views = []
    for plane in frame.planes:
        memory = np.frombuffer(plane, kind)  # type: ignore[call-overload]
        rows = memory.reshape(plane.height, plane.line_size // kind.itemsize)
        views.append(rows[:, : plane.width])
    return views


def copy_planes(frame: av.VideoFrame, format: str) -> av.VideoFrame:
    """A frame with the planes of another, and nothing else of it; the format has the same ones."""
    copy = av.VideoFrame(frame.width, frame.height, format)
    for target, plane in zip(plane_views(copy), plane_views(frame), strict=True):
        target[:] = plane
    return copy


def has_alpha(first: av.VideoFrame, codec: str) -> bool:
    """Whether a video has an alpha plane, by its first frame and FFmpeg's name of its codec.

    What is opaque in the first frame may become transparent later; but some decoders always give
    an alpha plane, or a palette, and there the first frame decides.
    """
    declares = any(component.is_alpha for component in first.format.components)
    if declares and codec not in _CATCH_ALL_CODECS:
        return True
    return (declares or first.format.has_palette) and is_transparent(first)


def is_transparent(frame: av.VideoFrame) -> bool:
    """Whether a frame has a pixel that is not opaque."""
    return bool(read_alpha(frame, VideoReformatter()).min() < 255)


def read_alpha(frame: av.VideoFrame, converter: VideoReformatter, *, bits: int = 8) -> np.ndarray:
    """How opaque each pixel of a frame is: (h, w), uint8 for 8 bits, else uint16.

    FFmpeg's conversions between depths are up to two levels of 255 off, so they are not used.

    Args:
        frame: of any format; without an alpha plane it is opaque.
        converter: for formats that NumPy cannot read.
        bits: of the result; 2**bits − 1 is opaque.
    """
    if (byte := _ALPHA_BYTES.get(frame.format.name)) is not None:
        return scale_depth(frame.to_ndarray()[..., byte], 8, bits)
    component = frame.format.components[-1]
    is_plane = component.is_alpha and component.plane == ALPHA_PLANE
    if not is_plane or component.bits > _MAX_BITS or frame.format.is_big_endian:
        frame = converter.reformat(frame, format="gbrap")
    plane = plane_views(frame)[ALPHA_PLANE]
    return scale_depth(plane, frame.format.components[ALPHA_PLANE].bits, bits)


def scale_depth(plane: np.ndarray, bits: int, new_bits: int) -> np.ndarray:
    """Numbers of so many bits as those of another number of bits, rounded; the largest stays it."""
    kind = np.uint8 if new_bits <= 8 else np.uint16
    if bits == new_bits:
        return plane.astype(kind)
    largest, new_largest = 2**bits - 1, 2**new_bits - 1
    table = (np.arange(largest + 1) * new_largest + largest // 2) // largest
    scaled: np.ndarray = table.astype(kind)[plane]
    return scaled
