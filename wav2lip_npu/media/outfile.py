"""The file that a video is written to: can it be, and what did killed runs leave there."""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import partial_path
from wav2lip_npu.runtime.locks import is_in_use

# FFmpeg's names of the containers that hold H.264 and AAC, by suffix.
CONTAINERS = {
    **{".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".flv": "flv"},
    **{".ts": "mpegts", ".mts": "mpegts", ".m2ts": "mpegts", ".3gp": "3gp", ".avi": "avi"},
}
ABANDONED_SECONDS = 3600  # without a change, after which a partial file is nobody's

FileIdentity = tuple[object, ...]


def check_outfile(path: Path) -> None:
    """See whether a video can be written here; its folder is made.

    Raises:
        UserError: by its suffix, its place, or what is there already.
    """
    if path.suffix.lower() not in CONTAINERS:
        fault = f"the suffix {path.suffix} cannot be written" if path.suffix else "has no suffix"
        raise UserError(f"{path}: {fault}; choose one of {' '.join(CONTAINERS)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise UserError(f"{path}: is a folder; choose another name")
        with suppress(FileNotFoundError):  # other errors: a name that is too long …
            path.lstat()
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except (OSError, ValueError) as error:
        raise cannot_be_written(path, error) from error


def file_identity(path: Path) -> FileIdentity:
    """What tells a file from others, by whatever name: links, and other cases, are the same.

    Raises:
        OSError: neither the file nor its folder is there.
        ValueError: such a name cannot be.
    """
    try:
        status = path.stat()
        return status.st_dev, status.st_ino
    except FileNotFoundError:
        folder = path.parent.resolve()
        status = folder.stat()
        swapped = folder.with_name(folder.name.swapcase())
        ignores_case = swapped != folder and swapped.exists() and swapped.samefile(folder)
        name = path.name.casefold() if ignores_case else path.name
        return status.st_dev, status.st_ino, name


def check_files(outfile: Path, inputs: list[Path]) -> None:
    """See whether a video can be written, and is none of the files that are read.

    Raises:
        UserError: one of these.
    """
    check_outfile(outfile)
    for path in inputs:
        try:
            same = file_identity(path) == file_identity(outfile)
        except (OSError, ValueError):
            continue  # what is wrong with an input is told where it is read
        if same:
            raise UserError(f"--outfile {outfile}: is also an input ({path}); choose another name")


def cannot_be_written(path: Path, error: Exception) -> UserError:
    """What to say of a failure to write; a path that the error has is named if it is another."""
    if isinstance(error, OSError) and error.strerror:
        name = error.filename
        beside = name is None or Path(os.fsdecode(name)).parent == path.parent
        if beside:  # the file itself, by its partial name too
            return UserError(f"{path}: cannot be written ({error.strerror})")
    return UserError(f"{path}: cannot be written ({reason(error)})")


def remove_leftovers(path: Path) -> None:
    """Remove the partial files of runs that were killed while they wrote this video."""
    own = partial_path(path).name
    head = own[: -len(f"{os.getpid()}-{threading.get_ident()}.partial{path.suffix}")]
    pattern = re.compile(rf"{re.escape(head)}(\d+)-\d+\.partial{re.escape(path.suffix)}")
    with suppress(OSError):
        for file in path.parent.iterdir():
            match = pattern.fullmatch(file.name)
            if match and _is_abandoned(file, int(match[1])):
                file.unlink(missing_ok=True)


def _is_abandoned(partial: Path, process: int) -> bool:
    """Whether nobody writes it; the process may be on another machine that shares the folder."""
    if is_in_use(partial):
        return False
    if time.time() - partial.stat().st_mtime > ABANDONED_SECONDS:
        return True
    if os.name != "posix":  # elsewhere signal 0 would end the process
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return process == os.getpid()  # in a container each run may have the same number
