"""The folders that the page shows: nothing outside of them is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from wav2lip_npu.errors import UserError

MAX_DEPTH = 3  # folders below a root
MAX_FOLDERS = 2000  # that are looked into: a data set has many more


class Roots:
    """The folders that an option names, and what is below them."""

    def __init__(self, option: str, folders: Sequence[Path]) -> None:
        """Resolve the folders.

        Args:
            option: the name of the option, for messages.
            folders: that it names; those that are not there are left out.
        """
        self._option = option
        self._roots = [folder.resolve() for folder in folders if folder.is_dir()]

    def inside(self, text: str) -> Path:
        """A path that a visitor chose or typed, resolved.

        Raises:
            UserError: it is not there, or leads out of the folders, be it by a symbolic link.
        """
        try:
            path = Path(text).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # a null byte, a loop of links
            path = None
        if not text or path is None or not any(path.is_relative_to(root) for root in self._roots):
            raise UserError(f"{text or 'nothing'}: is not below a folder of --{self._option}")
        return path

    def folders(self) -> Iterator[Path]:
        """The folders and those below, level by level; hidden ones and links are left out."""
        waiting = deque((root, 0) for root in self._roots)
        for _ in range(MAX_FOLDERS):
            if not waiting:
                return
            folder, depth = waiting.popleft()
            yield folder
            if depth < MAX_DEPTH:
                waiting.extend((one, depth + 1) for one in _subfolders(folder))

    def with_file(self, *names: str) -> list[tuple[str, str]]:
        """The folders that have one of these files, or files of these patterns.

        Returns:
            Label and path of each.
        """
        found = (one for one in self.folders() if any(_has(one, name) for name in names))
        return [(self._label(folder), str(folder)) for folder in found]

    def files(self, *suffixes: str) -> list[tuple[str, str]]:
        """The files with these suffixes: label and path of each."""
        return [
            (self._label(path), str(path))
            for folder in self.folders()
            for path in _sorted(folder)
            if path.suffix in suffixes and path.is_file() and not path.is_symlink()
        ]

    def _label(self, path: Path) -> str:
        root = next(root for root in self._roots if path.is_relative_to(root))
        return str(Path(root.name) / path.relative_to(root))


def _subfolders(folder: Path) -> list[Path]:
    return [
        path
        for path in _sorted(folder)
        if not path.name.startswith(".") and not path.is_symlink() and path.is_dir()
    ]


def _sorted(folder: Path) -> list[Path]:
    """What is in a folder; nothing if that is not allowed to be known."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _has(folder: Path, pattern: str) -> bool:
    return any(True for _ in folder.glob(pattern))
