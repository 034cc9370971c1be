"""Options as the words of a command line that does the same."""

from __future__ import annotations

import shlex
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from wav2lip_npu.config.base import Options


def option_words(config: Options) -> list[str]:
    """The options that differ from their defaults, as words: ``--crf 20``."""
    words: list[str] = []
    for item in fields(config):
        value = getattr(config, item.name)
        if value is None or (item.default is not MISSING and value == item.default):
            continue
        words.append(f"--{item.name}")
        if value is not True:
            words += map(_word, value if isinstance(value, tuple) else (value,))
    return words


def _word(value: Any) -> str:
    """A value as one word; a path that could be taken for an option or a home folder is marked."""
    text = str(value)
    return f"./{text}" if isinstance(value, Path) and text[:1] in ("-", "~") else text


def from_here(path: Path) -> Path:
    """A path as seen from the folder in which this process runs, if it is below that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def shell_line(command: str, config: Options) -> str:
    """The command line to type in a POSIX shell.

    Args:
        command: such as ``infer``.
        config: its options.
    """
    return shlex.join(["wav2lip-npu", command, *option_words(config)])
