"""The commands that write, and what a run that was not disturbed makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fuzz import inputs, zygote
from fuzz.inputs import BOX, INFER, PREPROCESS, SMALL_TRAINING

from wav2lip_npu import cli
from wav2lip_npu.checkpoint import OUR_KEY

OUT = "out"  # the folder, in that of the case, in which every command writes
PARTIAL = ".partial"
# Figures of a log that depend on the machine's speed.
SPEED = ("samples_per_second", "data_wait", "mfu", "memory_gib")
SKIPPED = ("tensorboard", ".lock", "curves.png", "film_strip", ".yaml")  # .yaml: has a date


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that writes into ``out``."""

    name: str
    base: tuple[str, ...]
    words: tuple[str, ...]
    resumes: bool = True  # whether a rerun goes on with what the first has left


STEPS = ("--max_steps", "6", "--checkpoint_interval", "2", "--log_interval", "1")
DATA = ("data", "lists", "expert.pth")
COMMANDS = (
    Command(
        name="preprocess", base=("raw",),
        words=(*PREPROCESS, "--data_root", "raw", "--preprocessed_root", "out"),
    ),
    Command(
        name="filelists", base=("data",),
        words=("filelists", "--data_root", "data", "--filelists", "out"),
    ),
    Command(
        name="train-syncnet", base=DATA,
        words=("train-syncnet", "--data_root", "data", "--filelists", "lists",
               "--checkpoint_dir", "out", "--cache_dir", "out/cache", *SMALL_TRAINING, *STEPS),
    ),
    Command(
        name="train", base=DATA,
        words=("train", "--data_root", "data", "--filelists", "lists", "--checkpoint_dir", "out",
               "--cache_dir", "out/cache", "--syncnet_checkpoint_path", "expert.pth",
               *SMALL_TRAINING, *STEPS),
    ),
    Command(
        name="export", base=("wav2lip.pth",), resumes=False,
        words=("export", "--checkpoint_path", "wav2lip.pth", "--outfile", "out/g"),
    ),
    Command(
        name="infer", base=("talker.mp4", "speech.wav", "wav2lip.pth"), resumes=False,
        words=(*INFER, *BOX, "--face", "talker.mp4", "--audio", "speech.wav",
               "--checkpoint_path", "wav2lip.pth", "--outfile", "out/video.mp4"),
    ),
    Command(
        name="infer --face_cache", base=("talker.mp4", "speech.wav", "wav2lip.pth"), resumes=False,
        words=(*INFER, "--detector", "centerface", "--face", "talker.mp4", "--audio", "speech.wav",
               "--checkpoint_path", "wav2lip.pth", "--outfile", "out/video.mp4",
               "--face_cache", "out/faces"),
    ),
    Command(
        name="infer --jobs", base=("talker.mp4", "speech.wav", "wav2lip.pth", "jobs.csv"),
        words=(*INFER, *BOX, "--jobs", "jobs.csv", "--checkpoint_path", "wav2lip.pth", "--resume"),
    ),
)  # fmt: skip


def by_name(name: str) -> Command:
    """The command of this name."""
    (found,) = (command for command in COMMANDS if command.name == name)
    return found


def run(words: Sequence[str]) -> int:
    """A command, its workers forked, without the curves: it starts in milliseconds."""
    zygote.leave_out_what_is_slow()
    return cli.main(words)


def prepare(command: Command, base: Path, case: Path) -> Path:
    """Make a folder with the command's files, and an empty one to write to."""
    (case / OUT).mkdir(parents=True)
    inputs.bring(base, case, command.base)
    for name in (inputs.NOTES, inputs.PARQUET):
        (case / OUT / name).unlink()
    return case


def made(case: Path) -> dict[str, str]:
    """What a command has made: the path → a digest of what must be equal."""
    found = {}
    for path in sorted((case / OUT).rglob("*")):
        name = path.relative_to(case / OUT).as_posix()
        if path.is_file() and not any(word in name for word in SKIPPED):
            found[name] = _digest(path)
    return found


def left(case: Path) -> str:
    """What is in the folder, in a few words."""
    names = [path for path in (case / OUT).rglob("*") if path.is_file()]
    partial = [path.name for path in names if PARTIAL in path.as_posix()]
    return f"{len(names)} files" + (f", {len(partial)} partial" if partial else "")


def _digest(path: Path) -> str:
    if path.suffix == ".pth":
        content = torch.load(path, map_location="cpu", weights_only=True)
        content.get(OUR_KEY, {}).pop("published", None)  # also tells of the step of an interruption
        return _hash(content)
    if path.name == "metrics.jsonl":
        return _hash(_metrics(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _metrics(path: Path) -> list[Any]:
    """The last values of each step, without those of speed."""
    entries = {}
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        values = {name: value for name, value in entry.items() if name not in SPEED}
        entries[entry["kind"], entry["step"]] = values
    return sorted(entries.items())


def _hash(value: Any) -> str:
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()[:12]


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(repr((value.dtype, value.shape)).encode())
        digest.update(value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            digest.update(str(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            _feed(digest, item)
    else:
        digest.update(repr(value).encode())
