"""Files that appear only when they are complete, and the digest of a file's content."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.failures import reason

if TYPE_CHECKING:
    import numpy as np

_DIGEST_BLOCK_BYTES = 2**20
_MAX_STEM_CHARACTERS = 50  # of a partial name: file systems allow names of 255 bytes
PARTIAL_PATTERN = r"\d+-\d+\.partial"  # between stem and suffix, see ``partial_path``


class WriteError(UserError):
    """A file that cannot be written, and why."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file under a partial name; it gets its own name when it is complete and on the disk.

    Missing folders are created. If anything fails, an older file of this name stays as it was.

    Yields:
        The path to write to, in the same folder and with the same suffix.

    Raises:
        WriteError: the file cannot be written.
    """
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        publish(partial, path)
    except (OSError, RuntimeError) as error:  # torch's writers raise RuntimeError
        raise WriteError(f"{path}: cannot be written ({reason(error)})") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """The hidden name of a file until it is complete; no other thread or process uses it."""
    writer = f"{os.getpid()}-{threading.get_ident()}"
    return path.with_name(f".{path.stem[:_MAX_STEM_CHARACTERS]}.{writer}.partial{path.suffix}")


def publish(partial: Path, path: Path) -> None:
    """Flush a complete file to the disk and give it its name; an older file is replaced."""
    _flush(partial)
    partial.replace(path)
    _flush(path.parent)


def publish_files(partial: Path, folder: Path, names: Sequence[str]) -> None:
    """Flush complete files to the disk and move them to a folder in this order; all, or none.

    Args:
        partial: the folder where they are, of the same file system.
        folder: where none of these names is taken.
        names: of the files.
    """
    for name in names:
        _flush(partial / name)
    moved = 0
    try:
        for name in names:
            moved += 1
            (partial / name).replace(folder / name)
        _flush(folder)
    except BaseException:
        for name in names[:moved]:
            if not (partial / name).exists():
                (folder / name).unlink(missing_ok=True)
        raise


def publish_folder(partial: Path, path: Path) -> None:
    """Flush a folder and its files to the disk and give it its name, which must be free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for file in partial.iterdir():
        _flush(file)
    _flush(partial)
    partial.rename(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    is_folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:  # Windows cannot open a folder, and some network file systems not flush one
        if not is_folder:
            raise


def file_state(path: Path) -> tuple[int, int]:
    """Size and time of a file, which change with its content.

    Raises:
        OSError: it is not there.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: it cannot be read, or is something else: a pipe would be waited for, and a device
            need not end.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder the system says so
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_bytes()


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises:
        UserError: it cannot be read, or is in another encoding; UTF-16 and GBK are named.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = "UTF-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "GBK"
        try:
            content.decode("gb18030" if found == "GBK" else found)
        except UnicodeDecodeError:
            raise UserError(f"{path}: is not text in UTF-8") from error
        raise UserError(f"{path}: is {found}, it seems; save it as UTF-8") from error
    if "\0" in text:
        raise UserError(f"{path}: is not text in UTF-8; UTF-16, perhaps")
    return text


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 with ``atomic_write``."""
    with atomic_write(path) as partial:
        partial.write_bytes(text.encode())


def append_lines(path: Path, text: str) -> None:
    """Add whole lines to a text file; half a line, of a process that was killed, is ended first.

    Raises:
        OSError: the disk does not allow it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                text = f"\n{text}"
        file.write(text.encode(errors="surrogateescape"))


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image (h, w, 3) BGR uint8 with ``atomic_write``; the suffix is its format.

    ``cv2.imwrite`` is not used: it returns errors as False and cannot open some names on Windows.
    """
    import cv2  # not at the top: ``doctor`` must run where OpenCV does not load

    encoded, content = cv2.imencode(path.suffix, image)
    if not encoded:
        raise UserError(f"{path}: cannot be encoded as {path.suffix}")
    with atomic_write(path) as partial:
        partial.write_bytes(content.tobytes())


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content in hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_DIGEST_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
