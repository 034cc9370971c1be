"""Videos in, frame by frame, with PyAV; still images too."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from face_detection import Box
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import MonoConverter, WavWriter
from wav2lip_npu.media.container import audio_stream, decode_video, open_media, video_stream

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "avi", "flv", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv"),
    )
)
USUAL_FPS = Fraction(25)
MAX_FPS = 240  # files of varying rate may name the ticks of their clock


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One decoded frame."""

    time: float  # seconds of the file's clock
    image: np.ndarray  # (h, w, 3) BGR uint8, upright
    decoded: av.VideoFrame | None = None  # the codec's own frame, unless it was turned


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a file says of its first video stream."""

    fps: Fraction  # the nominal rate; of a stream of varying rate, the rate of its finest steps
    mean_fps: Fraction  # by the number of frames; another than ``fps`` where the rate varies
    rotation: int  # degrees that frames are turned, counter-clockwise, to be upright
    start: float  # seconds of the file's clock at its first frame
    seconds: float | None  # how long it is by its header; None if that does not say
    colorspace: int  # FFmpeg's number of the YUV matrix; 2 where the file does not say
    color_range: int  # FFmpeg's number: 0 not said, 1 limited (16-235), 2 full
    color_primaries: int  # FFmpeg's number; 2 not said
    color_transfer: int  # FFmpeg's number; 2 not said, 16 and 18 are HDR's
    pixel_aspect: Fraction  # width of a pixel by its height, upright


class VideoFile:
    """An open video: what it says of itself, and one walk through its frames and its sound.

    Frames are upright (rotation metadata applied) and in order of time. What is damaged or broken
    off is left out.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        path: Path,
        *,
        with_sound: bool = False,
        since: float | None = None,
    ) -> None:
        """See ``open_video``."""
        stream = video_stream(container, path)
        stream.thread_type = "AUTO"
        streams: list[av.AudioStream | av.VideoStream] = [stream]
        self.audio_rate = self.audio_channels = 0
        if with_sound:
            sound = audio_stream(container, path)
            self.audio_rate, self.audio_channels = sound.rate, sound.channels
            streams.append(sound)
        if since is not None and stream.time_base is not None:
            container.seek(int(since / stream.time_base), stream=stream)
        self._decoded = _decode(container.demux(streams))
        self._early_sound: list[av.AudioFrame] = []  # decoded before the first frame
        for decoded in self._decoded:
            if isinstance(decoded, av.VideoFrame):
                break
            self._early_sound.append(decoded)
        else:
            raise UserError(f"{path}: no frame of its video stream can be decoded")
        self._first = decoded
        self.info = _describe(stream, decoded)

    def frames(self, wav: WavWriter | None = None) -> Iterator[Frame]:
        """All frames, once.

        Args:
            wav: takes the sound, from the first frame on.
        """
        sound = MonoConverter(self.info.start)
        converter = VideoReformatter()  # one for all: a frame's own is set up anew each time
        for decoded in chain(self._early_sound, [self._first], self._decoded):
            if isinstance(decoded, av.VideoFrame):
                yield _upright(decoded, converter)
            elif wav is not None:
                wav.write(sound.convert(decoded))
        if wav is not None:
            wav.write(sound.flush())


@contextmanager
def open_video(
    path: Path, *, with_sound: bool = False, since: float | None = None
) -> Iterator[VideoFile]:
    """Open a video and decode its first frame.

    Args:
        path: the file.
        with_sound: whether ``frames`` also decodes the first audio stream.
        since: seconds of the file's clock; the first frame is one from before it, if the file's
            index is right.

    Raises:
        UserError: no such file, not media, no video stream, no frame in it that can be decoded, or
            no audio stream where its sound is wanted.
    """
    with open_media(path) as container:
        yield VideoFile(container, path, with_sound=with_sound, since=since)


def probe(path: Path) -> VideoInfo:
    """The properties of the first video stream.

    Raises:
        UserError: as ``open_video``.
    """
    with open_video(path) as video:
        return video.info


def read_frames(path: Path, *, since: float | None = None) -> Iterator[Frame]:
    """Decode the first video stream.

    Args:
        path: the file.
        since: seconds of the file's clock; frames come from some moment before it on.

    Raises:
        UserError: as ``open_video``.
    """
    with open_video(path, since=since) as video:
        if since is None or video.info.start <= since:
            yield from video.frames()
            return
    yield from read_frames(path)  # its index is wrong, or missing


def _decode(packets: Iterator[av.Packet]) -> Iterator[av.VideoFrame | av.AudioFrame]:
    for packet in packets:
        if packet.stream.type == "video":
            yield from decode_video(packet)
        else:
            yield from packet.decode()


def _describe(stream: av.VideoStream, first: av.VideoFrame) -> VideoInfo:
    rotation, codec = _rotation(first), stream.codec_context
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    length, unit = stream.duration, stream.time_base
    announced = (stream.guessed_rate, stream.average_rate, USUAL_FPS)
    rate = next(rate for rate in announced if rate is not None and 1 <= rate <= MAX_FPS)
    return VideoInfo(
        fps=Fraction(rate),
        mean_fps=Fraction(stream.average_rate or rate),
        rotation=rotation,
        start=float(first.time or 0.0),
        seconds=float(length * unit) if length is not None and unit is not None else None,
        colorspace=int(first.colorspace),
        color_range=int(first.color_range),
        color_primaries=int(codec.color_primaries),
        color_transfer=int(codec.color_trc),
        pixel_aspect=1 / aspect if rotation in (90, 270) else aspect,
    )


def _upright(decoded: av.VideoFrame, converter: VideoReformatter) -> Frame:
    image: np.ndarray = converter.reformat(decoded, format="bgr24").to_ndarray()
    rotation = _rotation(decoded)
    if rotation:
        image = np.ascontiguousarray(np.rot90(image, rotation // 90))
    time = float(decoded.time or 0.0)
    return Frame(time=time, image=image, decoded=None if rotation else decoded)


def _rotation(decoded: av.VideoFrame) -> int:
    """0, 90, 180 or 270 degrees, counter-clockwise."""
    return round(decoded.rotation / 90) % 4 * 90


def is_image(path: Path) -> bool:
    """Whether a file's content, not its name, is a still image.

    Raises:
        UserError: no such file, or no media file at all.
    """
    with open_media(path) as container:
        return _holds_image(container)


def _holds_image(container: av.container.InputContainer) -> bool:
    return container.format.name == "image2" or container.format.name.endswith("_pipe")


def is_video_by_name(path: Path) -> bool | None:
    """Whether a file is a video by its suffix; None: only its content can tell."""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    kinds = mimetypes.MimeTypes().types_map[True]  # Python's own: the same on every machine
    kind = kinds.get(path.suffix.lower(), "video/unknown")
    return False if path.name.startswith(".") or not kind.startswith("video/") else None


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its suffix or, if that is not known, by its content."""
    if (by_name := is_video_by_name(path)) is not None:
        return by_name
    try:
        with open_media(path) as container:
            return bool(container.streams.video) and not _holds_image(container)
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
        UserError: it is not within the image.
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
    so that frames and sound stay together.

    Args:
        frames: in order of time.
        fps: frames per second.
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
