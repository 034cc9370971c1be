"""What was computed before and need not be again: a line of JSON for each thing that was done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import WriteError, append_lines, read_bytes


class Records:
    """Results by name, each with the state of all that it was computed from."""

    def __init__(self, path: Path) -> None:
        """Read what is there; lines that are damaged, or of other programs, are left out.

        Raises:
            UserError: the file cannot be read.
        """
        self._path = path
        self._known: dict[str, tuple[str, Any]] = {}
        try:
            text = read_bytes(path).decode(errors="replace") if path.exists() else ""
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({reason(error)})") from error
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                self._known[str(entry["name"])] = (str(entry["state"]), entry["result"])
            except (ValueError, TypeError, KeyError, RecursionError):
                continue

    def get(self, name: str, state: object) -> Any:
        """The result of a name, if it was computed from this state; else None."""
        known = self._known.get(name)
        return known[1] if known is not None and known[0] == _as_text(state) else None

    def put(self, name: str, state: object, result: Any) -> None:
        """Add a result, which can be written as JSON.

        Raises:
            WriteError: the file cannot be written.
        """
        entry = {"name": name, "state": _as_text(state), "result": result}
        line = json.dumps(entry, ensure_ascii=False) + "\n"
        try:
            append_lines(self._path, line)
        except OSError as error:
            raise WriteError(f"{self._path}: cannot be written ({reason(error)})") from error
        self._known[name] = (entry["state"], result)


def _as_text(state: object) -> str:
    return json.dumps(state, sort_keys=True)
