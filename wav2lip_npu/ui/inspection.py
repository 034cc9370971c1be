"""Inspects files, in a process: ``python -m wav2lip_npu.ui.inspection KIND FOLDER``.

A file that crashes a decoder ends this process and not the server, which stays small: it never
imports torch or FFmpeg. The folder has ``request.json`` and gets ``report.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wav2lip_npu.config import InferConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.ui.processes import ERROR_PREFIX, Processes

Report = dict[str, Any]

MODULE = "wav2lip_npu.ui.inspection"
REQUEST, REPORT = "request.json", "report.json"
PICTURE = "people.png"
INSPECTION_SECONDS = 60  # after which a file is given up; a header takes less than one


def inspect(processes: Processes, kind: str, folder: Path, request: dict[str, Any]) -> Report:
    """Inspect something in a process, and wait for it.

    Args:
        processes: starts it.
        kind: one of ``KINDS``.
        folder: a private one, for request and report.
        request: the arguments.

    Raises:
        UserError: what is wrong with it.
    """
    processes.run(words(kind, folder, request), INSPECTION_SECONDS)
    return read_report(folder)


def words(kind: str, folder: Path, request: dict[str, Any]) -> list[str]:
    """Write a request; the words after ``python -m`` that serve it."""
    (folder / REQUEST).write_text(json.dumps(request), encoding="utf-8")
    return [MODULE, kind, str(folder)]


def read_report(folder: Path) -> Report:
    """What an inspection has found."""
    report: Report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    return report


def _check_face(folder: Path, path: str) -> Report:
    """What a video or a still image is."""
    from wav2lip_npu.media.images import is_image, read_image
    from wav2lip_npu.media.video_reader import probe, read_frames

    file = Path(path)
    if is_image(file):
        height, width = read_image(file).shape[:2]
        return {"still": True, "text": f"picture, {width} × {height} pixels"}
    info = probe(file)
    first = next(read_frames(file), None)
    if first is None:
        raise UserError(f"{file}: not one of its frames can be decoded")
    height, width = first.image.shape[:2]
    seconds = "" if info.seconds is None else f", {info.seconds:.1f} s"
    rate = f"{float(info.fps):.5g} frames per second"
    return {"still": False, "text": f"video, {width} × {height} pixels, {rate}{seconds}"}


def _check_audio(folder: Path, path: str) -> Report:
    """What a voice is."""
    from wav2lip_npu.media.audio import open_sound

    file = Path(path)
    with open_sound(file) as sound:
        if next(sound.mono_blocks(), None) is None:
            raise UserError(f"{file}: nothing of its sound can be decoded")
        seconds = sound.announced_seconds
    return {"text": "sound" if seconds is None else f"sound, {seconds:.1f} s"}


def _find_people(folder: Path, options: dict[str, Any]) -> Report:
    """See ``faces.find_people``."""
    from wav2lip_npu.ui.faces import find_people

    return find_people(infer_config(options), folder / PICTURE)


def infer_config(options: dict[str, Any]) -> InferConfig:
    """The options that ``InferConfig.plain`` has written."""
    paths = ("checkpoint_path", "face", "audio", "outfile")
    values: dict[str, Any] = {
        key: tuple(one) if isinstance(one, list) else one for key, one in options.items()
    }
    values.update({key: Path(options[key]) for key in paths})
    return InferConfig(**values)


def _describe_data(folder: Path, path: str) -> Report:
    """What the reports of a preprocessed folder say."""
    from collections import Counter
    from dataclasses import asdict

    from wav2lip_npu.preprocessing import report as clips
    from wav2lip_npu.sync import report as sync

    root = Path(path)
    videos = clips.read_reports(root / clips.REPORT).values()
    reports = [one for of_video in videos for one in of_video]
    usable = [one for one in reports if one.rejected is None]
    syncs = [one for one in (root, *sorted(root.glob("*/"))) if (one / sync.REPORT).is_file()]
    states = Counter(entry.state for one in syncs for entry in sync.read_report(one / sync.REPORT))
    images = [root / clips.SHEET, *(one / sync.HISTOGRAM for one in syncs)]
    return {
        "clips": len(reports),
        "usable": len(usable),
        "frames": sum(one.frames for one in usable),
        "faces": sum(one.faces for one in usable),
        "audio_seconds": sum(one.audio_seconds for one in usable),
        "people": dict(sorted(Counter(one.people for one in usable).items())),
        "rejected": [asdict(one) for one in reports if one.rejected is not None],
        "warned": [asdict(one) for one in usable if one.warnings],
        "sync": {state: states[state] for state in sync.STATES if states[state]},
        "images": [str(one) for one in images if one.is_file()],
    }


KINDS: dict[str, Callable[..., Report]] = {
    "face": _check_face,
    "audio": _check_audio,
    "people": _find_people,
    "data": _describe_data,
}


def main(arguments: Sequence[str]) -> int:
    """Serve a request; the exit code is returned."""
    kind, folder = arguments[0], Path(arguments[1])
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    try:
        report = KINDS[kind](folder, **request)
        (folder / REPORT).write_text(json.dumps(report), encoding="utf-8")
    except UserError as error:
        print(f"{ERROR_PREFIX}{error}", file=sys.stderr)
        return 2
    except Exception as error:
        print(f"{ERROR_PREFIX}{reason(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
