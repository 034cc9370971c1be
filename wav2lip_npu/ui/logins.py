"""Who may log in."""

from __future__ import annotations

import hmac
import logging
import os
import stat
import time
from pathlib import Path

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.files import read_text

WAIT_SECONDS = 0.5  # after a wrong password: two guesses a second, whoever makes them

log = logging.getLogger(__name__)


class Logins:
    """Names and passwords."""

    def __init__(self, passwords: dict[str, str]) -> None:
        """Keep the password of each name."""
        self._passwords = passwords

    def accepts(self, name: str, password: str) -> bool:
        """Whether this name has this password; a wrong one is answered after a while."""
        expected = self._passwords.get(name, "")
        right = hmac.compare_digest(expected.encode(), password.encode("utf-8", "replace"))
        if right and expected:
            return True
        time.sleep(WAIT_SECONDS)
        return False


def read_logins(path: Path) -> Logins:
    """Read a file with a line ``NAME:PASSWORD`` for each person; empty lines and ``#`` are skipped.

    Raises:
        UserError: it cannot be read, has no line, or a line is none of these.
    """
    passwords: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.strip().partition(":")
        if not (name and colon and password):
            raise UserError(f"--logins {path}: line {number}: must be NAME:PASSWORD")
        if name in passwords:
            raise UserError(f"--logins {path}: line {number}: {name} has a line already")
        passwords[name] = password
    if not passwords:
        raise UserError(f"--logins {path}: has no line NAME:PASSWORD")
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        log.warning("--logins %s: other users of this machine can read it: chmod 600", path)
    return Logins(passwords)
