"""Video frames in and out, one at a time, with PyAV."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType

import av
import av.container
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from face_detection import Box
from wav2lip_npu.errors import UserError
from wav2lip_npu.media import has_stream, open_media

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "avi", "flv", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv"),
    )
)
USUAL_FPS = Fraction(25)
HIGHEST_FPS = 240  # frames a second; files of varying rate may name the ticks of their clock
_AAC_RATES = frozenset((8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000))  # Hz


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


def probe(path: Path) -> VideoInfo:
    """Read the properties of the first video stream.

    Raises:
        UserError: no such file, not media, or no video stream in it.
    """
    with open_media(path) as container:
        stream = _video_stream(container, path)
        first = next(container.decode(stream), None)
        if first is None:
            raise UserError(f"{path}: no frame of its video stream can be decoded")
        length, unit = stream.duration, stream.time_base
        said = (stream.guessed_rate, stream.average_rate, USUAL_FPS)
        rate = next(rate for rate in said if rate is not None and 1 <= rate <= HIGHEST_FPS)
        return VideoInfo(
            fps=Fraction(rate),
            mean_fps=Fraction(stream.average_rate or rate),
            rotation=_rotation(first),
            start=float(first.time or 0.0),
            seconds=float(length * unit) if length is not None and unit is not None else None,
            colorspace=int(first.colorspace),
            color_range=int(first.color_range),
        )


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
        pictures = container.decode(stream)  # begins when the first is asked for
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


def _rotation(picture: av.VideoFrame) -> int:
    """0, 90, 180 or 270 degrees, counter-clockwise; older versions of PyAV do not tell."""
    return round(getattr(picture, "rotation", 0) / 90) % 4 * 90


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


class VideoWriter:
    """Encode frames to H.264 and, beside them, a sound track to AAC, in one pass.

    The file is written under another name and takes its own when the ``with`` block ends without an
    error: there is never half a file at ``path``.
    """

    def __init__(
        self,
        path: Path,
        *,
        fps: Fraction | float,
        audio: Path | None = None,
        colors_of: VideoInfo | None = None,
        crf: int = 18,
        preset: str = "medium",
    ) -> None:
        """Prepare a writer.

        Args:
            path: the file to write; its suffix chooses the container.
            fps: frames a second.
            audio: a media file whose first audio stream becomes the sound, from its first sample,
                cut to the length of the picture.
            colors_of: a video whose colour matrix and range are kept.
            crf: x264's constant rate factor, 0 (lossless) to 51; 18 is visually transparent.
            preset: x264's preset, ``ultrafast`` … ``veryslow``.

        Raises:
            UserError: the suffix names no container, or the folder cannot be written.
        """
        self.path = path
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._fps = Fraction(fps).limit_denominator(1001)
        self._audio = audio
        self._colors = colors_of
        self._options = {"crf": str(crf), "preset": preset}
        self._stream: av.VideoStream | None = None
        self._sound: _SoundTrack | None = None
        self._frames = 0
        self._files = ExitStack()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._container = self._files.enter_context(av.open(str(self._partial), "w"))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be written ({error})") from error

    def __enter__(self) -> VideoWriter:
        return self

    def write(
        self, image: np.ndarray, *, source: Frame | None = None, changed: Box | None = None
    ) -> None:
        """Append a picture.

        Args:
            image: (h, w, 3) BGR uint8, every one of the same size.
            source: the frame that the picture was made from. Outside of ``changed`` the samples
                that its decoder gave are encoded, without the loss of a way through BGR.
            changed: the part that was changed; None is nothing.
        """
        height, width = image.shape[:2]
        if height % 2 or width % 2:  # 4:2:0 needs even sides
            image = cv2.copyMakeBorder(
                image, 0, height % 2, 0, width % 2, borderType=cv2.BORDER_REPLICATE
            )
        if self._stream is None:
            self._stream = self._open_streams(*image.shape[:2])
        decoded = None if source is None else source.decoded
        if decoded is not None and (decoded.height, decoded.width) == image.shape[:2]:
            picture = self._changed_within(decoded, image, changed)
        else:
            picture = self._encodable(image)
        picture.time_base = 1 / self._fps
        picture.pts = self._frames
        self._container.mux(self._stream.encode(picture))
        self._frames += 1
        if self._sound is not None:  # side by side, or the muxer would have to hold one of them
            self._sound.write_until(self._frames / self._fps)

    def _encodable(self, image: np.ndarray) -> av.VideoFrame:
        """A picture in 4:2:0, by the very matrix that the decoder used."""
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        if self._colors is None:
            return picture.reformat(format="yuv420p")
        return picture.reformat(
            format="yuv420p",
            dst_colorspace=self._colors.colorspace,
            dst_color_range=self._colors.color_range,
        )

    def _changed_within(
        self, decoded: av.VideoFrame, image: np.ndarray, box: Box | None
    ) -> av.VideoFrame:
        """The decoded frame with ``box`` taken from the picture, in 4:2:0."""
        if decoded.format.name not in ("yuv420p", "yuvj420p"):
            decoded = decoded.reformat(format="yuv420p")
        # A copy: the decoder's own frame would tell the encoder what kind of frame to make of it.
        planes = decoded.to_ndarray().copy()
        if box is not None:
            self._fill_in(planes, image, box)
        return av.VideoFrame.from_ndarray(planes, format="yuv420p")

    def _fill_in(self, planes: np.ndarray, image: np.ndarray, box: Box) -> None:
        """Take ``box`` of the picture over into the planes of 4:2:0, both of even sides."""
        height, width = image.shape[:2]
        x1, y1, x2, y2 = box
        left, top = x1 // 2 * 2, y1 // 2 * 2  # chroma samples are for two by two pixels
        right, bottom = -(-x2 // 2) * 2, -(-y2 // 2) * 2
        new = self._encodable(image[top:bottom, left:right]).to_ndarray()
        planes[y1:y2, x1:x2] = new[y1 - top : y2 - top, x1 - left : x2 - left]
        chroma = planes[height:].reshape(2, height // 2, width // 2)
        chroma[:, top // 2 : bottom // 2, left // 2 : right // 2] = new[bottom - top :].reshape(
            2, (bottom - top) // 2, (right - left) // 2
        )

    def _open_streams(self, height: int, width: int) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=self._fps, options=self._options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.time_base = 1 / self._fps
        if self._colors is not None:
            stream.codec_context.colorspace = self._colors.colorspace
            stream.codec_context.color_range = self._colors.color_range
        if self._audio is not None:
            source = self._files.enter_context(open_media(self._audio))
            self._sound = _SoundTrack(source, self._container)
        return stream

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        complete = False
        try:
            with self._files:
                if kind is None:
                    self._flush()
            complete = kind is None
        finally:
            if complete:
                self._partial.replace(self.path)
            else:
                self._partial.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._stream is None:
            raise UserError(f"{self.path}: not written, there was no frame")
        self._container.mux(self._stream.encode(None))
        if self._sound is not None:
            self._sound.flush()


class _SoundTrack:
    """An AAC stream that is encoded step by step, from the first audio stream of a container."""

    def __init__(
        self, source: av.container.InputContainer, output: av.container.OutputContainer
    ) -> None:
        heard = source.streams.audio[0]
        self._rate = heard.rate if heard.rate in _AAC_RATES else max(_AAC_RATES)
        layout = "mono" if heard.channels == 1 else "stereo"
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=self._rate)
        self._decoded = (
            part for frame in source.decode(heard) for part in resampler.resample(frame)
        )
        self._waiting = av.AudioFifo()
        self._written = 0  # samples
        self._output = output
        self._stream = output.add_stream("aac", rate=self._rate, layout=layout)

    def write_until(self, seconds: Fraction) -> None:
        """Encode the sound before ``seconds``, and nothing after it."""
        wanted = round(seconds * self._rate) - self._written
        while self._waiting.samples < wanted and (frame := next(self._decoded, None)) is not None:
            frame.pts = None  # the first sample is at zero, whatever the file's clock says
            self._waiting.write(frame)
        frame = self._waiting.read(wanted, partial=True) if wanted > 0 else None
        if frame is not None:
            frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
            self._written += frame.samples
            self._output.mux(self._stream.encode(frame))

    def flush(self) -> None:
        """Write what the encoder still holds."""
        self._output.mux(self._stream.encode(None))
