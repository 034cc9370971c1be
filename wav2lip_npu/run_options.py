"""The options of a run, as a file beside its results: ``--config`` of that file repeats the run."""

from __future__ import annotations

import logging
import shlex
import time
from pathlib import Path
from typing import Any

from wav2lip_npu.config.base import Options
from wav2lip_npu.constants import VERSION
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import read_bytes, write_text
from wav2lip_npu.runtime.threads import process_share

MARK = "# Options of a run of wav2lip-npu"  # with which our files begin; others are not replaced
SUFFIX = ".yaml"

log = logging.getLogger(__name__)


def options_path(folder: Path, config: Options) -> Path:
    """The name of the file for a run that writes a folder."""
    return folder / f"options_{config.command}{SUFFIX}"


def options_path_beside(file: Path) -> Path:
    """The name of the file for a run that writes a file."""
    return file.with_name(f"{file.name}{SUFFIX}")


def write_options(path: Path, config: Options) -> None:
    """Write the options of this run; of several processes the first one does.

    A run does not fail by it: what goes wrong is logged. A file of this name that is not ours stays
    as it is.

    Args:
        path: see ``options_path`` and ``options_path_beside``.
        config: the options.
    """
    if process_share()[0] != 0:
        return
    try:
        if path.exists() and not read_bytes(path).startswith(MARK.encode()):
            log.warning("%s: is there already, so the options of this run are not written", path)
            return
        write_text(path, format_options(path, config))
    except Exception as error:  # whatever it is, the results are there
        log.warning("the options of this run are not written (%s)", reason(error))


def format_options(path: Path, config: Options) -> str:
    """The text of a file of options: all of them, and how to use it.

    Args:
        path: its name.
        config: the options.
    """
    command = shlex.join(["wav2lip-npu", config.command, "--config", str(path)])
    header = (
        f"{MARK} {VERSION}, {time.strftime('%Y-%m-%d %H:%M:%S')}.",
        f"# To repeat it, in the folder {Path.cwd()}:",
        f"#   {command}",
    )
    options = {"command": config.command, **config.plain()}
    lines = (_yaml(name, value) for name, value in options.items())
    return "".join([*(f"{_printable(line)}\n" for line in header), *lines])


def _yaml(name: str, value: Any) -> str:
    """An option as a line, which is read back as the same words."""
    import yaml  # seldom needed

    texts = value if isinstance(value, list) else [value]
    is_odd = any(isinstance(text, str) and not text.isprintable() for text in texts)
    return yaml.safe_dump(
        {name: value},
        allow_unicode=True,
        default_flow_style=None if isinstance(value, list) else False,
        default_style='"' if is_odd else None,  # in which nothing is folded or lost
        width=2**16,
    )


def _printable(text: str) -> str:
    """A text without what would end a comment."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
