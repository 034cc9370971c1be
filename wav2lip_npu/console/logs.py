"""Where messages go: to stderr, to the file of ``--log_file``, or, with ``--quiet``, fewer."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.errors import UserError

FORMAT = "%(message)s"
FILE_FORMAT = "%(asctime)s %(levelname)s %(message)s"
FILE_DATE_FORMAT = "%Y-%m-%d %H:%M:%S"
OFF = logging.CRITICAL + 1  # a level that no message has

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """What the options of a run say about messages; its worker processes get them too."""

    quiet: bool = False  # stderr shows warnings and errors only, and no progress
    file: Path | None = None  # to which every message is added

    @property
    def words(self) -> list[str]:
        """The options that give a command of its own, started by this one, the same settings."""
        file = [] if self.file is None else ["--log_file", str(self.file)]
        return [*(["--quiet"] if self.quiet else []), *file]


_current = LogSettings()


def current_settings() -> LogSettings:
    """The settings of this process."""
    return _current


class _LogFile(logging.Handler):
    """Adds each message to a file by one system call, so that processes can share the file."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            OSError: it cannot be written.
        """
        super().__init__()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self.setFormatter(logging.Formatter(FILE_FORMAT, FILE_DATE_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode(errors="backslashreplace")
            os.write(self._descriptor, line + b"\n")
        except OSError as error:
            self.setLevel(OFF)
            log.warning(
                "--log_file %s: cannot be written any more (%s)", self._path, error.strerror
            )

    def close(self) -> None:
        super().close()
        with suppress(OSError):
            os.close(self._descriptor)


@contextmanager
def logging_to(settings: LogSettings) -> Iterator[None]:
    """Send messages where the settings say, in this block.

    Raises:
        UserError: the log file cannot be written.
    """
    global _current
    logging.basicConfig(level=logging.INFO, format=FORMAT, stream=sys.stderr)
    root, former = logging.getLogger(), _current
    levels = {handler: handler.level for handler in root.handlers}
    level = root.level
    try:
        _apply(settings)
        yield
    finally:
        _current = former
        root.setLevel(level)
        for handler in [*root.handlers]:
            if handler in levels:
                handler.setLevel(levels[handler])
            elif isinstance(handler, _LogFile):
                root.removeHandler(handler)
                handler.close()


def _apply(settings: LogSettings) -> None:
    """Raise a UserError if the log file cannot be written."""
    global _current
    root = logging.getLogger()
    if settings.quiet:
        for handler in root.handlers:
            handler.setLevel(logging.WARNING)
    if settings.file is not None:
        try:
            root.addHandler(_LogFile(settings.file))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(f"--log_file {settings.file}: cannot be written ({why})") from error
        root.setLevel(min(root.level, logging.INFO))
    _current = settings


def set_up_worker(settings: LogSettings, level: int) -> None:
    """Do in a worker process what ``logging_to`` does; a log file that fails there is left out.

    Args:
        settings: of the process that started it.
        level: of that process's messages.
    """
    logging.basicConfig(level=level, format=FORMAT)
    with suppress(UserError):
        _apply(settings)


def note(text: str, level: int = logging.INFO) -> None:
    """Add a line to the log file alone, if there is one."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _LogFile):
            record = {"name": log.name, "levelno": level, "levelname": logging.getLevelName(level)}
            handler.handle(logging.makeLogRecord({**record, "msg": "%s", "args": (text,)}))
