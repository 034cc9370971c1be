"""Opening media files with PyAV, and the errors that users see when that fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import av
import av.container

from wav2lip_npu.errors import UserError

Stream = TypeVar("Stream")

# PyAV's logging stays off, which is its default: with a level set, a decoder's thread that logs
# waits for the interpreter, which may be waiting for that thread to end.


@contextmanager
def media_errors(path: Path) -> Iterator[None]:
    """Every failure of FFmpeg inside becomes a UserError that names the file."""
    try:
        yield
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be read as media ({error.strerror})") from error


@contextmanager
def open_media(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a file for reading; every failure of FFmpeg inside becomes a UserError."""
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a folder, a media file is wanted")
    with media_errors(path), av.open(str(path)) as container:
        yield container


def audio_stream(container: av.container.InputContainer, path: Path) -> av.AudioStream:
    """The first audio stream.

    Raises:
        UserError: there is none.
    """
    return _first(container.streams.audio, f"{path}: has no audio stream")


def video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The first video stream.

    Raises:
        UserError: there is none.
    """
    return _first(container.streams.video, f"{path}: has no video stream")


def _first(streams: Sequence[Stream], fault: str) -> Stream:
    if not streams:
        raise UserError(fault)
    return streams[0]


def decode_video(packet: av.Packet) -> list[av.VideoFrame]:
    """The frames of a video packet; none of one that is damaged or broken off."""
    try:
        return packet.decode()
    except av.error.InvalidDataError:
        return []
