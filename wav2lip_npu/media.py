"""Opening media files with PyAV, and the errors a user sees when that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.container

from wav2lip_npu.errors import UserError

# Decoders log broken packets by the hundred; what matters comes as an exception.
av.logging.set_level(av.logging.FATAL)


@contextmanager
def open_media(path: Path) -> Iterator[av.container.InputContainer]:
    """Open ``path`` for reading; every failure of FFmpeg inside becomes a UserError."""
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a folder, a media file is wanted")
    try:
        with av.open(str(path)) as container:
            yield container
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be read as media ({error.strerror})") from error


def has_stream(path: Path, kind: str) -> bool:
    """Whether the file holds a stream of ``kind``, "video" or "audio"."""
    with open_media(path) as container:
        return any(stream.type == kind for stream in container.streams)
