"""Who visits the page, and the files of each: removed when they leave."""

from __future__ import annotations

import secrets
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from wav2lip_npu.errors import UserError

TOKEN_BYTES = 16  # of the name of a folder that nobody can guess


@dataclass(kw_only=True, eq=False)
class Visitor:
    """One open page."""

    folder: Path  # for results; its name cannot be guessed
    uploads: dict[str, Path] = field(default_factory=dict)  # by what they are: face, audio
    is_still: bool = False  # whether the face is a picture
    people_of: object = None  # the options by which people were numbered last


class Visitors:
    """All open pages. Safe to use from several threads."""

    def __init__(self, files: Path) -> None:
        """Keep the files of visitors.

        Args:
            files: the folder that uploads come to, and that is served to browsers.
        """
        self._files = files.resolve()
        self._visitors: dict[str, Visitor] = {}
        self._lock = threading.Lock()

    def of(self, key: str) -> Visitor:
        """The visitor with this key; a new one gets a folder."""
        with self._lock:
            if key not in self._visitors:
                self._visitors[key] = Visitor(folder=self.new_folder())
            return self._visitors[key]

    def new_folder(self) -> Path:
        """A new folder that is served to whoever knows its name."""
        folder = self._files / secrets.token_hex(TOKEN_BYTES)
        folder.mkdir(parents=True)
        return folder

    def take(self, visitor: Visitor, kind: str, uploaded: str) -> Path:
        """Note an upload; an earlier one of this kind is removed.

        Raises:
            UserError: it is no upload.
        """
        try:
            path = Path(uploaded).resolve()
            is_upload = path.is_relative_to(self._files) and path.is_file()
        except (OSError, ValueError, RuntimeError):  # a null byte, a loop of links
            is_upload = False
        if not is_upload:
            raise UserError(f"{uploaded}: was not uploaded")
        with self._lock:
            former = visitor.uploads.get(kind)
            visitor.uploads[kind] = path
            self._remove_unused(former)
        return path

    def drop(self, visitor: Visitor, kind: str) -> None:
        """Remove an upload, if there is one."""
        with self._lock:
            self._remove_unused(visitor.uploads.pop(kind, None))

    def leave(self, key: str) -> None:
        """Remove all files of a visitor."""
        with self._lock:
            visitor = self._visitors.pop(key, None)
            if visitor is None:
                return
            for path in visitor.uploads.values():
                self._remove_unused(path)
        shutil.rmtree(visitor.folder, ignore_errors=True)

    def _remove_unused(self, path: Path | None) -> None:
        """Remove an upload unless a visitor has it: files of equal content and name are one."""
        used = (one for visitor in self._visitors.values() for one in visitor.uploads.values())
        if path is None or path in used:
            return
        with suppress(OSError):
            path.unlink()
            path.parent.rmdir()
