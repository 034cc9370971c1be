"""Opening media files with PyAV, and the errors a user sees when that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.container

from wav2lip_npu.errors import UserError

# PyAV's logging stays off, as it is by default: with a level set, a decoder's thread that has
# something to say waits for the interpreter, which may be waiting for that thread to end.


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
