"""Videos in, frame by frame, with PyAV."""

from __future__ import annotations

import logging
import mimetypes
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from face_detection import Box
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import MonoConverter, WavWriter
from wav2lip_npu.media.container import (
    alpha_decoder,
    audio_stream,
    decode,
    demux,
    find_video_stream,
    header_seconds,
    holds_image,
    marks_alpha,
    media_errors,
    open_media,
    video_stream,
)
from wav2lip_npu.media.planes import has_alpha, is_transparent, read_alpha
from wav2lip_npu.media.timestamps import (
    MAX_FPS,
    Clocks,
    FrameClock,
    Timing,
    first_frames,
    nominal_rate,
)

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "avi", "flv", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv"),
    )
)
TEXT_SUFFIXES = frozenset((".yaml", ".yml"))  # that Python's table of types lacks

# What ITU-T H.273 defines; other numbers are damage, or reserved.
_MATRICES = frozenset((0, 1, *range(4, 15)))
_RANGES = frozenset((1, 2))
_PRIMARIES = frozenset((1, *range(4, 13), 22))
_TRANSFERS = frozenset((1, *range(4, 19)))
ALPHA_WARNING = "its transparency is left out"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One decoded frame."""

    time: float  # seconds of the file's clock
    image: np.ndarray  # (h, w, 3) BGR uint8, upright
    decoded: av.VideoFrame | None = None  # the codec's own frame, unless it was turned
    alpha: np.ndarray | None = None  # (h, w) uint8, 255 is opaque; None: all is, or none is wanted


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
    has_alpha: bool = False  # there is an alpha plane, which may be opaque
    is_seekable: bool = True  # the time stamps after a seek can be used
    warnings: tuple[str, ...] = ()  # what a user should know of the file


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
        with_alpha: bool = False,
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
            with media_errors(path):
                container.seek(int(since / stream.time_base), stream=stream)
        self._path = path
        decoder = alpha_decoder(stream, path) if with_alpha else None
        self._decoded = decode(demux(container, streams, path), decoder)
        first, self._early = first_frames(self._decoded)
        if not first:
            raise UserError(f"{path}: no frame of its video stream can be decoded")
        self._size = (first[0].width, first[0].height)  # to which others are scaled
        self._timing = Timing.of(stream, first)
        self._clocks = Clocks(path, header_seconds(container))
        self.info = _describe(stream, first[0], self._timing)
        self._with_alpha = with_alpha and self.info.has_alpha

    def frames(self, wav: WavWriter | None = None) -> Iterator[Frame]:
        """All frames, once.

        Args:
            wav: takes the sound, from the first frame on.
        """
        sound = MonoConverter(self.info.start, self._path, self._clocks)
        clock = FrameClock(self._timing, self._clocks)
        # One for all, and one for each kind: a frame's own is set up anew each time.
        converter, alpha_converter = VideoReformatter(), VideoReformatter()
        scaled = False
        for decoded in self._all_decoded():
            if isinstance(decoded, av.VideoFrame):
                if (decoded.width, decoded.height) != self._size and not scaled:
                    scaled = True
                    log.warning("%s: frames of other sizes are scaled to the first", self._path)
                frame = _upright(decoded, clock.time(decoded), self._size, converter)
                if self._with_alpha:
                    alpha = _upright_alpha(decoded, self._size, alpha_converter)
                    frame = replace(frame, alpha=alpha)
                yield frame
            elif wav is not None:
                for block in sound.convert(decoded):
                    wav.write(block)
        if wav is not None:
            wav.write(sound.flush())

    def _all_decoded(self) -> Iterator[av.VideoFrame | av.AudioFrame]:
        while self._early:  # one by one, as they take memory
            yield self._early.pop(0)
        yield from self._decoded


@contextmanager
def open_video(
    path: Path,
    *,
    with_sound: bool = False,
    with_alpha: bool = False,
    since: float | None = None,
) -> Iterator[VideoFile]:
    """Open a video and decode its first frame.

    Args:
        path: the file.
        with_sound: whether ``frames`` also decodes the first audio stream.
        with_alpha: whether ``frames`` come with their transparency, if they have one.
        since: seconds of the file's clock; the first frame is one from before it, if the file's
            index is right.

    Raises:
        UserError: no such file, not media, no video stream, no frame in it that can be decoded, no
            audio stream where its sound is wanted, or no decoder for its transparency.
    """
    with open_media(path) as container:
        yield VideoFile(container, path, with_sound=with_sound, with_alpha=with_alpha, since=since)


def probe(path: Path) -> VideoInfo:
    """The properties of the first video stream.

    Raises:
        UserError: as ``open_video``.
    """
    with open_video(path) as video:
        return video.info


def read_frames(
    path: Path, *, since: float | None = None, with_alpha: bool = False
) -> Iterator[Frame]:
    """Decode the video stream that players take.

    Args:
        path: the file.
        since: seconds of the file's clock; frames come from some moment before it on, or from the
            first one.
        with_alpha: whether they come with their transparency, if they have one.

    Raises:
        UserError: as ``open_video``.
    """
    with ExitStack() as files:
        video = None
        if since is not None:
            with suppress(UserError):
                opened = open_video(path, with_alpha=with_alpha, since=since)
                video = files.enter_context(opened)
        if video is None or (since is not None and not _reaches(video.info, since)):
            # The index is wrong, or missing.
            video = files.enter_context(open_video(path, with_alpha=with_alpha))
        yield from video.frames()


def _reaches(info: VideoInfo, since: float) -> bool:
    """Whether a walk that was opened at a moment begins before it."""
    return info.is_seekable and info.start <= since


def _describe(stream: av.VideoStream, first: av.VideoFrame, timing: Timing) -> VideoInfo:
    rotation, codec = _rotation(first), stream.codec_context
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    length, unit = stream.duration, stream.time_base
    rate, mean = nominal_rate(stream), stream.average_rate
    if timing.is_counted or mean is None or not 0 < mean <= MAX_FPS:
        mean = rate
    warnings = []
    if marks_alpha(stream) or (has_alpha(first, codec.name) and is_transparent(first)):
        warnings.append(ALPHA_WARNING)
    if timing.is_counted:
        warnings.append(
            f"its frames have no usable times: they count as {float(rate):.5g} a second"
        )
    return VideoInfo(
        fps=rate,
        mean_fps=Fraction(mean),
        rotation=rotation,
        start=timing.start,
        seconds=float(length * unit) if length is not None and unit is not None else None,
        colorspace=_matrix(first),
        color_range=_if_in(_RANGES, first.color_range, 0),
        color_primaries=_if_in(_PRIMARIES, codec.color_primaries, 2),
        color_transfer=_if_in(_TRANSFERS, codec.color_trc, 2),
        pixel_aspect=1 / aspect if rotation in (90, 270) else aspect,
        has_alpha=marks_alpha(stream) or has_alpha(first, codec.name),
        is_seekable=timing.is_seekable,
        warnings=tuple(warnings),
    )


def _matrix(frame: av.VideoFrame) -> int:
    """The number of a frame's matrix; 0, RGB, only where it holds RGB."""
    matrix = _if_in(_MATRICES, frame.colorspace, 2)
    return matrix if matrix or frame.format.is_rgb else 2


def _if_in(known: frozenset[int], number: int, otherwise: int) -> int:
    return int(number) if int(number) in known else otherwise


def _upright(
    decoded: av.VideoFrame, time: float, size: tuple[int, int], converter: VideoReformatter
) -> Frame:
    """A frame as BGR, of a size (width, height) before it is turned."""
    width, height = size
    is_scaled = (decoded.width, decoded.height) != size
    image: np.ndarray = converter.reformat(decoded, width, height, "bgr24").to_ndarray()
    rotation = _rotation(decoded)
    if rotation:
        image = np.ascontiguousarray(np.rot90(image, rotation // 90))
    return Frame(time=time, image=image, decoded=None if rotation or is_scaled else decoded)


def _upright_alpha(
    decoded: av.VideoFrame, size: tuple[int, int], converter: VideoReformatter
) -> np.ndarray:
    """A frame's alpha plane, as ``_upright`` gives its colours."""
    alpha = read_alpha(decoded, converter)
    if (decoded.width, decoded.height) != size:
        alpha = cv2.resize(alpha, size)
    return np.ascontiguousarray(np.rot90(alpha, _rotation(decoded) // 90))


def _rotation(decoded: av.VideoFrame) -> int:
    """0, 90, 180 or 270 degrees, counter-clockwise."""
    return round(decoded.rotation / 90) % 4 * 90


def is_video_by_name(path: Path) -> bool | None:
    """Whether a file is a video by its suffix; None: only its content can tell."""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    if path.suffix.lower() in TEXT_SUFFIXES:
        return False
    kinds = mimetypes.MimeTypes().types_map[True]  # Python's own: the same on every machine
    kind = kinds.get(path.suffix.lower(), "video/unknown")
    return False if path.name.startswith(".") or not kind.startswith("video/") else None


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its suffix or, if that is not known, by its content."""
    if (by_name := is_video_by_name(path)) is not None:
        return by_name
    try:
        with open_media(path) as container:
            has_video = find_video_stream(container) is not None
            return has_video and not holds_image(container, path)
    except UserError:
        return False


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
