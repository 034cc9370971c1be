"""Whether a command ended as documented, and whether what it wrote is right."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from fuzz.inputs import NOTES
from fuzz.media_files import FRAMES, number_of
from fuzz.zygote import Ending

REFUSED, NOT_READY = 2, 1  # exit codes; the second is the doctor's
MAX_RESIDENT_BYTES = 3 << 30  # above that of the process that forks
HASHED_BYTES = 4 << 20  # of a file's start and end
# What a program says that has gone wrong without saying so in its own words.
CRASH_WORDS = (
    "Traceback (most recent call last)",
    "Exception ignored",
    "terminate called",
    "Fatal Python",
)
COMMAND_LINE = "wav2lip-npu: "  # with which a line on a wrong command line begins
# What may appear in any folder: locks, options beside results, and what a dangling link names.
ANYWHERE = (
    *("*.lock", "nowhere", "*/nowhere"),
    *("*options_*.yaml", "*.mp4.yaml", "*.pth.yaml"),
)


def snapshot(root: Path) -> dict[str, str]:
    """What is in a folder, at any depth: the relative path → a digest."""
    found = {}
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(parent, name)
            found[path.relative_to(root).as_posix()] = _digest(path)
    return found


def _digest(path: Path) -> str:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return f"-> {path.readlink()}"
    if not stat.S_ISREG(status.st_mode):
        return "folder" if stat.S_ISDIR(status.st_mode) else "special"
    digest = hashlib.blake2b(str(status.st_size).encode())
    try:
        with path.open("rb") as file:
            digest.update(file.read(HASHED_BYTES))
            file.seek(max(0, status.st_size - HASHED_BYTES))
            digest.update(file.read(HASHED_BYTES))
    except OSError:
        return f"unreadable, {status.st_size} bytes"
    return digest.hexdigest()[:16]


def disk_problems(
    before: dict[str, str], after: dict[str, str], outputs: Sequence[str]
) -> list[str]:
    """Files of the user that are gone or changed, files that should not be there, half files."""
    problems = []
    for name in sorted({*before, *after}):
        if before.get(name) == after.get(name):
            continue
        base = name.rsplit("/", 1)[-1]
        if ".partial" in name and name not in before:
            problems.append(f"left behind: {name!r}")
        elif base.startswith("EXECUTED") and name not in before:
            problems.append(f"executed: {name!r}")
        elif not any(fnmatch.fnmatchcase(name, pattern) for pattern in (*outputs, *ANYWHERE)):
            what = "gone" if name not in after else "changed" if name in before else "unexpected"
            problems.append(f"{what}: {name!r}")
        elif base == NOTES:
            problems.append(f"the user's file changed: {name!r}")
    return problems


def ending_problems(
    ending: Ending, output: str, errors: str, peak_before: int, codes: Sequence[int]
) -> list[str]:
    """Signals, tracebacks, time, memory, and messages of more than one line."""
    if ending.timed_out:
        return [f"hangs: not done in {ending.seconds:.0f} s"]
    problems = []
    if ending.code < 0:
        problems.append(f"ended by signal {-ending.code}")
    elif ending.code not in codes:
        problems.append(f"exit code {ending.code}")
    problems += [f"says {word!r}" for word in CRASH_WORDS if word in output + errors]
    if ending.peak_bytes - peak_before > MAX_RESIDENT_BYTES:
        problems.append(f"took {(ending.peak_bytes - peak_before) / 2**30:.1f} GiB")
    if ending.code == REFUSED and not problems:
        lines = errors.rstrip("\n").split("\n")
        starts = [
            n
            for n, line in enumerate(lines)
            if ": error: " in line or line.startswith(COMMAND_LINE)
        ]
        if not starts:
            problems.append("exit code 2 without a line that says why")
        elif starts[-1] != len(lines) - 1:
            problems.append(f"an error of {len(lines) - starts[-1]} lines")
        elif "UserError(" in lines[-1] or lines[-1].endswith(("error: ", "()")):
            problems.append("an error without a reason")
    return problems


def video_problems(
    path: Path, *, right: bool, seconds: float = 1.0, fps: float = 25.0, numbers: Sequence[int] = ()
) -> list[str]:
    """A video of infer: it opens, is as long as the sound, and shows the frames in order.

    Args:
        path: the file.
        right: whether the inputs were good, so that the result is known.
        seconds: how long the sound is.
        fps: of the frames.
        numbers: of the frames; empty: those of the video, again and again.
    """
    if not path.is_file():
        return [f"exit code 0 without {path.name!r}"]
    try:
        with av.open(str(path)) as file:
            kinds = {stream.type for stream in file.streams}
            images = [f.to_ndarray(format="bgr24") for f in file.decode(video=0)]
    except Exception as error:
        return [f"the video cannot be read: {error}"]
    if not images or "audio" not in kinds:
        return [f"{len(images)} frames, streams: {sorted(kinds)}"]
    if not right:
        return []
    wanted = round(seconds * fps)
    if abs(len(images) - wanted) > 1:
        return [f"{len(images)} frames instead of {wanted}"]
    height = images[0].shape[0]
    below = [image[int(0.78 * height) :] for image in images]  # the box is above
    shown = [number_of(strip, below[0]) for strip in below]
    expected = [*numbers] or [n % FRAMES for n in range(len(images))]
    if any(abs(a - b) > 0 for a, b in zip(shown, expected, strict=False)):
        return [f"shows the frames {shown}"]
    return []


def _image(path: Path) -> np.ndarray | None:
    # OpenCV 5 crashes with names that are not UTF-8.
    content = np.frombuffer(path.read_bytes(), np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None


def clip_problems(folder: Path, *, frames: int = FRAMES, seconds: float = 1.0) -> list[str]:
    """A clip of preprocess: a crop for each frame, in order, and its sound."""
    if not folder.is_dir():
        return [f"no clip {folder.name!r}"]
    crops = {int(path.stem): _image(path) for path in folder.glob("*.jpg")}
    if sorted(crops) != [*range(frames)]:
        return [f"{folder.name}: crops {sorted(crops)}"]
    inner = {n: c[len(c) // 4 : -len(c) // 4] for n, c in crops.items()}
    shown = [number_of(inner[n], inner[0]) for n in sorted(inner)]
    if any(abs(a - n) > 1 for n, a in enumerate(shown)):
        return [f"{folder.name}: shows the frames {shown}"]
    samples = (folder / "audio.wav").stat().st_size - 44
    if abs(samples / 2 / 16_000 - seconds) > 0.1:
        return [f"{folder.name}: {samples / 32_000:.2f} s of sound"]
    return []


def checkpoint_problems(path: Path, *, step: int) -> list[str]:
    """A checkpoint of a training: it is there, loads, and has done its steps."""
    if not path.is_file():
        return [f"exit code 0 without {path.name}"]
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        return [f"{path.name} cannot be read: {error}"]
    if content["global_step"] != step:
        return [f"{path.name}: step {content['global_step']}"]
    weights = [v for v in content["state_dict"].values() if v.is_floating_point()]
    if not all(bool(torch.isfinite(value).all()) for value in weights):
        return [f"{path.name}: weights that are not finite"]
    return []


def loss_problems(path: Path, reference: Path) -> list[str]:
    """Whether a step of training had the loss that it has with undamaged files."""
    losses = []
    for file in (path, reference):
        entries = [json.loads(line) for line in file.read_text().splitlines()]
        (losses_of_file,) = [[e["loss"] for e in entries if e["kind"] == "train"][-1:]]
        losses.append(losses_of_file[0] if losses_of_file else math.nan)
    if not math.isclose(*losses, rel_tol=1e-5):
        return [f"loss {losses[0]:.6g} instead of {losses[1]:.6g}"]
    return []


def weight_problems(path: Path, reference: Path) -> list[str]:
    """Whether a file that export wrote has the weights of the checkpoint."""
    if not path.is_file():
        return [f"exit code 0 without {path.name}"]
    found = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    wanted = torch.load(reference, map_location="cpu", weights_only=True)["state_dict"]
    equal = found.keys() == wanted.keys() and all(
        np.array_equal(found[name].float(), wanted[name].float()) for name in wanted
    )
    return [] if equal else [f"{path.name}: other weights"]
