"""Opening and decoding media files with PyAV, and the errors that users see when that fails."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

import av
import av.container
from av.codec.codec import UnknownCodecError
from av.stream import Disposition

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.failures import reason

MAX_PIXELS = 2**27  # of a frame: 134 million; damaged headers tell of more
MIN_SAMPLE_RATE = 1000  # Hz; resamplers give nothing for much lower ones
_GENERATE_PTS = 1  # AVFMT_FLAG_GENPTS, which PyAV sets: guessed time stamps, often wrong ones
# Files that make FFmpeg open others: playlists, lists of parts, descriptions of network streams.
_PLAYLIST = re.compile(rb"\s*(\xef\xbb\xbf)?(#EXTM3U|ffconcat|v=0\r?\n|<\?xml[^<]*<MPD|<MPD)")
_PLAYLIST_BYTES = 512  # in which it shows
_PLAYLIST_FORMATS = frozenset(("concat", "dash", "hls", "imf", "rtsp", "sdp"))  # of FFmpeg
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}

Stream = TypeVar("Stream", av.AudioStream, av.VideoStream)

log = logging.getLogger(__name__)

# PyAV's logging stays off, which is its default: with a level set, a decoder's thread that logs
# waits for the interpreter, which may be waiting for that thread to end.


@contextmanager
def media_errors(path: Path) -> Iterator[None]:
    """Every failure of PyAV inside becomes a UserError that names the file.

    Only calls of PyAV belong inside: it raises many kinds of exceptions.
    """
    try:
        yield
    except UserError:
        raise
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be read as media ({error.strerror})") from error
    except Exception as error:
        raise UserError(f"{path}: cannot be read as media ({reason(error)})") from error


@contextmanager
def open_media(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a file for reading.

    Raises:
        UserError: it is missing, no regular file, or no media.
    """
    _require_media_file(path)
    with media_errors(path):
        # With "file:" no name is taken for an address, and with "none" none for a pattern. Options
        # of the container alone: PyAV 14 crashes with those of streams where MPEG has no header.
        options = {"protocol_whitelist": "file", "pattern_type": "none"}
        container = av.open(f"file:{path}", container_options=options, metadata_errors="replace")
    with container:
        if container.format.name.split(",")[0] in _PLAYLIST_FORMATS:
            raise _playlist(path)
        container.flags &= ~_GENERATE_PTS
        yield container


def _require_media_file(path: Path) -> None:
    """Refuse what must not be opened, or would wait forever.

    Raises:
        UserError: what it is.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder, a media file is wanted")
        if not path.exists():
            raise UserError(f"{path}: no such file")
        if not path.is_file():
            raise UserError(f"{path}: is no regular file")
        with path.open("rb") as file:
            head = file.read(_PLAYLIST_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not head:
        raise UserError(f"{path}: is empty")
    if _PLAYLIST.match(head):
        raise _playlist(path)


def _playlist(path: Path) -> UserError:
    return UserError(f"{path}: is a playlist; name the media file itself")


def audio_stream(container: av.container.InputContainer, path: Path) -> av.AudioStream:
    """The audio stream that players take.

    Raises:
        UserError: there is none, or its rate is far below that of any sound.
    """
    stream = _default(container, container.streams.audio)
    if stream is None:
        raise UserError(f"{path}: {_absence('audio', container.streams.audio)}")
    if 0 < stream.rate < MIN_SAMPLE_RATE:
        raise UserError(f"{path}: its audio stream has {stream.rate} samples per second: no speech")
    return stream


def video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The video stream that players take; no cover art of a sound file.

    Raises:
        UserError: there is none, or its frames are too large.
    """
    stream = find_video_stream(container)
    if stream is None:
        raise UserError(f"{path}: {_absence('video', container.streams.video)}")
    require_usual_size(stream, path)
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # also where the size changes
    return stream


def require_usual_size(stream: av.VideoStream, path: Path) -> None:
    """Refuse frames that would take gigabytes.

    Raises:
        UserError: frames are too large.
    """
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise UserError(f"{path}: pictures of {width} × {height} pixels are too large")


def find_video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The video stream that players take, if there is one."""
    return _default(container, container.streams.video)


def _absence(kind: str, streams: Sequence[Stream]) -> str:
    """Why none of the streams of a kind can be used."""
    if any(stream.codec_context is None for stream in streams):
        return f"no decoder for its {kind} stream; convert it to a usual kind"
    return f"has no {kind} stream"


def _default(container: av.container.InputContainer, streams: Sequence[Stream]) -> Stream | None:
    """The stream that FFmpeg takes, of those that can be decoded and are no cover art."""
    usable = [
        stream
        for stream in streams
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]
    if not usable:
        return None
    best = container.streams.best(usable[0].type)
    return next((stream for stream in usable if best is not None and stream is best), usable[0])


def header_seconds(container: av.container.InputContainer) -> float | None:
    """How long a file is by its header, or None; it may be wrong."""
    return container.duration / av.time_base if container.duration else None


def demux(
    container: av.container.InputContainer,
    streams: Sequence[av.AudioStream | av.VideoStream],
    path: Path,
) -> Iterator[av.Packet]:
    """The packets of some streams, in the order in which they are stored.

    What is broken off is left out.

    Raises:
        UserError: the file cannot be read, as a disk failed.
    """
    packets = container.demux(streams)
    while True:
        with media_errors(path):
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.InvalidDataError:
                log.warning("%s: damaged, read up to there", path)
                return
        yield packet


def alpha_decoder(stream: av.VideoStream, path: Path) -> av.VideoCodecContext | None:
    """A decoder for transparency that the stream's own leaves out; None: there is no such thing.

    VP8 and VP9 keep it beside the frames. Of FFmpeg's decoders, libvpx's alone read it.

    Raises:
        UserError: this build of FFmpeg has no libvpx.
    """
    name = _ALPHA_DECODERS.get(stream.codec_context.codec.canonical_name)
    if name is None or not marks_alpha(stream):
        return None
    try:
        decoder = av.CodecContext.create(name, "r")
    except UnknownCodecError as error:
        raise UserError(
            f"{path}: this PyAV has no {name}, which reads its transparency; choose an --outfile "
            "without transparency, such as .mp4"
        ) from error
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.extradata = stream.codec_context.extradata
    decoder.options = {"max_pixels": str(MAX_PIXELS)}
    return decoder


def marks_alpha(stream: av.VideoStream) -> bool:
    """Whether a stream of VP8 or VP9 says that it has transparency."""
    return stream.metadata.get("alpha_mode") == "1"


def decode(
    packets: Iterator[av.Packet], video_decoder: av.VideoCodecContext | None = None
) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """The frames of packets, without those that cannot be decoded.

    Args:
        packets: of video and sound.
        video_decoder: is used for the video instead of the stream's own.
    """
    for packet in packets:
        is_video = isinstance(packet.stream, av.VideoStream)
        yield from decode_packet(packet, video_decoder if is_video else None)


def decode_packet(
    packet: av.Packet, decoder: av.VideoCodecContext | None = None
) -> list[av.VideoFrame | av.AudioFrame]:
    """The frames of a packet; none of one that cannot be decoded.

    Args:
        packet: of video or sound.
        decoder: is used instead of its stream's own.

    Raises:
        MemoryError: there was not enough.
    """
    try:
        if decoder is not None:
            return decoder.decode(packet)  # type: ignore[return-value]
        return packet.decode()  # type: ignore[return-value]
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError):
        return []


def holds_image(container: av.container.InputContainer, path: Path) -> bool:
    """Whether a file is a still image: of an image's format, or one frame and no sound."""
    if container.format.name == "image2" or container.format.name.endswith("_pipe"):
        return True
    stream = find_video_stream(container)
    if stream is None or container.streams.audio:
        return False
    return len([*islice(decode(demux(container, [stream], path)), 2)]) == 1
