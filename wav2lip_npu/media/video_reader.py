"""Video frames in, one at a time, with PyAV; ``video_writer`` has the way out."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import av.container
import cv2
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from face_detection import Box
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.container import has_stream, open_media

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "avi", "flv", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv"),
    )
)
USUAL_FPS = Fraction(25)
HIGHEST_FPS = 240  # frames a second; files of varying rate may name the ticks of their clock


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One decoded picture."""

    time: float  # seconds of the file's clock
    image: np.ndarray  # (h, w, 3) BGR uint8, upright
    decoded: av.VideoFrame | None = None  # the same as the codec had it, unless turned


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a file says of its first video stream."""

    fps: Fraction  # the nominal rate; of a stream of varying rate, the rate of its finest steps
    mean_fps: Fraction  # by the number of frames; another than ``fps`` where the rate varies
    rotation: int  # degrees that pictures are turned, counter-clockwise, to be upright
    start: float  # seconds of the file's clock at its first frame
    seconds: float | None  # how long it is by its header; None where that does not say
    colorspace: int  # FFmpeg's number of the YUV matrix; 2 where the file does not say
    color_range: int  # FFmpeg's number: 0 not said, 1 limited (16-235), 2 full
    color_primaries: int  # FFmpeg's number; 2 not said
    color_transfer: int  # FFmpeg's number; 2 not said, 16 and 18 are HDR's
    pixel_aspect: Fraction  # width of a pixel by its height, upright


def probe(path: Path) -> VideoInfo:
    """Read the properties of the first video stream.

    Raises:
        UserError: no such file, not media, or no video stream in it.
    """
    with open_media(path) as container:
        stream = _video_stream(container, path)
        first = next(_pictures(container, stream), None)
        if first is None:
            raise UserError(f"{path}: no frame of its video stream can be decoded")
        turned, codec = _rotation(first), stream.codec_context
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        length, unit = stream.duration, stream.time_base
        said = (stream.guessed_rate, stream.average_rate, USUAL_FPS)
        rate = next(rate for rate in said if rate is not None and 1 <= rate <= HIGHEST_FPS)
        return VideoInfo(
            fps=Fraction(rate),
            mean_fps=Fraction(stream.average_rate or rate),
            rotation=turned,
            start=float(first.time or 0.0),
            seconds=float(length * unit) if length is not None and unit is not None else None,
            colorspace=int(first.colorspace),
            color_range=int(first.color_range),
            color_primaries=int(codec.color_primaries),
            color_transfer=int(codec.color_trc),
            pixel_aspect=1 / aspect if turned in (90, 270) else aspect,
        )


def first_picture(path: Path) -> float | None:
    """Seconds of the file's clock at its first frame; None without a video, or for a cover only."""
    with open_media(path) as container:
        stream = next(iter(container.streams.video), None)
        if stream is None or stream.disposition & Disposition.attached_pic:
            return None
        first = next(_pictures(container, stream), None)
        return None if first is None else float(first.time or 0.0)


def read_frames(path: Path, *, since: float | None = None) -> Iterator[Frame]:
    """Decode the first video stream, upright (rotation metadata applied), in order of time.

    Args:
        path: the file.
        since: seconds of the file's clock; pictures come from some moment before on.

    Raises:
        UserError: as ``probe``.
    """
    with open_media(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        pictures = _pictures(container, stream)  # begins when the first is asked for
        if since is not None and stream.time_base is not None:
            container.seek(int(since / stream.time_base), stream=stream)
            first = next(pictures, None)
            if first is None or (first.time or 0.0) > since:  # an index may be wrong, or missing
                yield from read_frames(path)
                return
            pictures = chain([first], pictures)
        converter = VideoReformatter()  # one for all: a frame's own is set up anew each time
        for picture in pictures:
            image: np.ndarray = converter.reformat(picture, format="bgr24").to_ndarray()
            turned = _rotation(picture)
            if turned:
                image = np.ascontiguousarray(np.rot90(image, turned // 90))
            decoded = None if turned else picture
            yield Frame(time=float(picture.time or 0.0), image=image, decoded=decoded)


def _pictures(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.VideoFrame]:
    """All that can be decoded: a file may be damaged, or break off within a packet."""
    for packet in container.demux(stream):
        try:
            pictures = packet.decode()
        except av.error.InvalidDataError:
            continue
        yield from pictures


def _rotation(picture: av.VideoFrame) -> int:
    """0, 90, 180 or 270 degrees, counter-clockwise."""
    return round(picture.rotation / 90) % 4 * 90


def is_image(path: Path) -> bool:
    """Whether a file's content, not its name, is a still image.

    Raises:
        UserError: no such file, or no media file at all.
    """
    with open_media(path) as container:
        return container.format.name == "image2" or container.format.name.endswith("_pipe")


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its suffix or, where that tells nothing, by its content."""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    kinds = mimetypes.MimeTypes().types_map[True]  # Python's own: the same on every machine
    kind = kinds.get(path.suffix.lower(), "video/unknown")
    if path.name.startswith(".") or not kind.startswith("video/"):
        return False
    try:
        return has_stream(path, "video") and not is_image(path)
    except UserError:
        return False


def read_image(path: Path) -> np.ndarray:
    """Read a still image as (h, w, 3) BGR.

    Raises:
        UserError: no such file, or not an image.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    # By way of bytes: OpenCV's own reader cannot open some names on some systems.
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{path}: not an image that can be read")
    return image


def rectangle(option: str, edges: tuple[int, int, int, int], image: np.ndarray) -> Box:
    """What an option gives as top, bottom, left and right, as x1, y1, x2, y2.

    Raises:
        UserError: it is not within the picture.
    """
    top, bottom, left, right = edges
    height, width = image.shape[:2]
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        given = f"{option} {top} {bottom} {left} {right}"
        raise UserError(f"{given}: top bottom left right within {width} × {height} pixels")
    return left, top, right, bottom


def at_rate(
    frames: Iterable[Frame],
    fps: Fraction | float,
    *,
    origin: float | None = None,
    first: int = 0,
) -> Iterator[Frame]:
    """Frames at a constant rate: for each moment n/fps the frame nearest to it in time.

    A stream that already has this rate passes unchanged; any other has frames repeated or left out,
    so that picture and sound stay together.

    Args:
        frames: in order of time.
        fps: frames a second.
        origin: the time at which the clock starts; None: that of the first frame.
        first: the number n of the first frame to give out, which must be in ``frames``.
    """
    step = 1.0 / float(fps)
    count = first  # frames given out, or left out before; the next one is due at count·step
    start = previous_time = 0.0
    interval = step
    previous: Frame | None = None
    for frame in frames:
        if previous is None:
            start = frame.time if origin is None else origin
        else:
            interval = frame.time - start - previous_time
            while count * step - previous_time <= interval / 2:
                yield previous
                count += 1
        previous, previous_time = frame, frame.time - start
    # The last frame stays for as long as the one before it did.
    while previous is not None and (count + 0.5) * step <= previous_time + interval + 1e-6:
        yield previous
        count += 1


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    if not container.streams.video:
        raise UserError(f"{path}: has no video stream")
    return container.streams.video[0]
