"""Files that are there whole or not at all, and what identifies a file's content."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

from wav2lip_npu.errors import UserError

_BLOCK_BYTES = 2**20  # of a file that is read to its end


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Have a file written: its name appears when the file is complete and on the disk.

    Folders above it are made.

    Yields:
        The path to write to, in the same folder and with the same suffix.

    Raises:
        UserError: it cannot be written; an older file of this name stays as it was.
    """
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        publish(partial, path)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch.save on a full disk
        raise UserError(f"{path}: cannot be written ({error})") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """The hidden name of a file until it is complete: of this thread alone, with its suffix."""
    writer = f"{os.getpid()}-{threading.get_ident()}"
    return path.with_name(f".{path.stem}.{writer}.partial{path.suffix}")


def publish(partial: Path, path: Path) -> None:
    """Flush a complete file to the disk and give it its name, over an older file of that name."""
    _flush(partial)
    partial.replace(path)
    _flush(path.parent)


def publish_folder(partial: Path, path: Path) -> None:
    """Flush the files of a folder to the disk and give it its name, which must be free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for file in partial.iterdir():
        _flush(file)
    _flush(partial)
    partial.rename(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, where the system can tell."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems do not flush folders
        if path.is_file():
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, as ``atomic_write`` does."""
    with atomic_write(path) as partial:
        partial.write_bytes(text.encode())


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a picture (h, w, 3) BGR uint8, as ``atomic_write`` does; the suffix tells its kind.

    OpenCV only encodes it: its own writer cannot open some names on some systems.
    """
    encoded, content = cv2.imencode(path.suffix, image)
    if not encoded:
        raise UserError(f"{path}: cannot be encoded as {path.suffix}")
    with atomic_write(path) as partial:
        partial.write_bytes(content.tobytes())


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
