"""Results that are kept beside a clip's crops, for as long as what they were computed of stays."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from wav2lip_npu.data.clips import AUDIO, list_crops
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import WriteError, atomic_write, file_state


def content_key(folder: Path, more: str = "") -> str:
    """A text that changes when a crop or the sound of a clip does, or ``more``.

    Raises:
        UserError: the disk does not give them.
    """
    try:
        names = [AUDIO, *(f"{number}.jpg" for number in list_crops(folder))]
        states = [(name, file_state(folder / name)) for name in names]
    except OSError as error:
        raise UserError(f"{folder}: {reason(error)}") from error
    return hashlib.sha256(repr((states, more)).encode()).hexdigest()


def read_kept(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """The arrays that were kept under this key, or None."""
    arrays = read_arrays(path)
    is_same = "key" in arrays and str(arrays.pop("key")) == key
    return arrays if is_same else None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file of ``keep``; none if there is no file, or another one."""
    if not path.is_file():  # a pipe would be waited for
        return {}
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except Exception:  # NumPy and zipfile raise many kinds for other files
        return {}


def keep(path: Path, arrays: dict[str, np.ndarray], key: str | None = None) -> None:
    """Write arrays beside a clip, if that is possible: a data set may be read-only."""
    named = arrays if key is None else {**arrays, "key": np.array(key)}
    with suppress(WriteError), atomic_write(path) as partial:
        np.savez(partial, **named)  # type: ignore[arg-type]
