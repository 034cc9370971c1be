"""Locks: one run in a folder at a time, and files that are in use are not removed.

They are the kernel's (``flock``) and end with their process, whatever ends it. On systems without
``flock`` (Windows) nothing is locked.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.failures import reason

if sys.platform != "win32":
    import fcntl

LOCK = ".wav2lip-npu.lock"  # in a locked folder; it stays there, empty
FIRST_LOCK = ".wav2lip-npu.first.lock"  # of ``first_alone``: the folder may be locked by this run

log = logging.getLogger(__name__)


@contextmanager
def folder_lock(folder: Path, command: str) -> Iterator[None]:
    """Keep other runs out of a folder, which is made if it is missing.

    Args:
        folder: where this run writes.
        command: its name, for the message that another run shows.

    Raises:
        UserError: another run works there, or the folder cannot be written.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({reason(error)})") from error
    with file:
        if not _lock(file, exclusive=True):
            raise UserError(
                f"{folder}: another run works there ({_owner(file)}); wait for it, stop it, or "
                "give another folder"
            )
        if former := _owner(file):
            log.info("%s: an earlier run there was ended (%s); this one goes on", folder, former)
        _write_owner(file, command)
        try:
            yield
        finally:
            with suppress(OSError):  # a full disk does not keep a file from being emptied
                file.truncate(0)


def _owner(file: IO[str]) -> str:
    """Who wrote the lock file, in words; empty if nobody did."""
    file.seek(0)
    try:
        owner = json.loads(file.read() or "{}")
        return f"{owner['command']}, process {owner['pid']} on {owner['host']}, {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return ""


def _write_owner(file: IO[str], command: str) -> None:
    owner = {
        "command": command,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("since %Y-%m-%d %H:%M:%S"),
    }
    with suppress(OSError):  # a full disk: the lock holds, only its owner is not told
        file.truncate(0)
        file.write(json.dumps(owner))
        file.flush()


@contextmanager
def first_alone(folder: Path) -> Iterator[bool]:
    """Let one process run the block first, and all others at the same time when it is through.

    Args:
        folder: that the processes share; made if it is missing. Where it cannot be written nobody
            waits.

    Yields:
        Whether this process is the one that runs alone.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / FIRST_LOCK).open("a+b")
    except OSError:
        yield True
        return
    with file:
        is_first = _lock(file, exclusive=True)
        if not is_first:
            log.info("%s: waiting for the process that works there", folder)
            _lock(file, exclusive=False, wait=True)
        yield is_first


def mark_in_use(path: Path) -> IO[bytes]:
    """Open a file that is not to be removed until it is closed, see ``is_in_use``.

    Raises:
        OSError: the file cannot be read.
    """
    file = path.open("rb")
    _lock(file, exclusive=False)
    return file


def is_in_use(path: Path) -> bool:
    """Whether a process has marked this file."""
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with path.open("rb") as file:
            return not _lock(file, exclusive=True)
    except OSError:
        return False


def _lock(file: IO[Any], *, exclusive: bool, wait: bool = False) -> bool:
    """Lock an open file; whether that worked. Where files cannot be locked it counts as done."""
    if sys.platform == "win32":
        return True
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        log.warning(
            "%s: cannot be locked (%s): take care that no other run works there",
            file.name, error.strerror,
        )  # fmt: skip
    return True
