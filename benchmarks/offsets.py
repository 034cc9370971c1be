"""Clips whose sound is late, another's, or jumps, as was asked for; and what ``sync`` finds.

Run from the project's root: ``python -m benchmarks.offsets make --help``, then
``wav2lip-npu sync``, then ``python -m benchmarks.offsets check --help``.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks import measure
from wav2lip_npu.constants import SAMPLES_PER_FRAME
from wav2lip_npu.data.clip_tree import usable_clips
from wav2lip_npu.data.clips import AUDIO, MOUTH, list_crops
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import load_audio, write_wav

TRUTH = "offsets.jsonl"
CONFIDENCES = (0.0, 0.5, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class Made:
    """What was done to the sound of a clip."""

    clip: str
    late: int = 0  # frames by which it comes late, or early if below 0
    other: str | None = None  # the clip whose sound it is
    jump: int | None = None  # from this frame on the sound is late, before it is not


def make(options: argparse.Namespace) -> None:
    """Make a tree of clips; crops are links to those of the first tree."""
    random = np.random.default_rng(options.seed)
    clips = _chosen(options)
    order = random.permutation(len(clips)).tolist()
    wrong = {clips[n]: clips[m] for n, m in zip(order, order[1:] + order[:1], strict=True)}
    wrong = dict(list(wrong.items())[: options.wrong])
    low, high = options.late
    lines = []
    for first in range(0, len(clips) - options.join + 1, options.join):
        clip, target = clips[first], options.out / clips[first]
        target.mkdir(parents=True)
        frames = 0
        samples = []
        for name in clips[first : first + options.join]:
            frames_before, frames = frames, frames + _link_crops(options, name, target, frames)
            sound = load_audio(options.data_root / wrong.get(name, name) / AUDIO)
            length = (frames - frames_before) * SAMPLES_PER_FRAME
            samples.append(np.pad(sound, (0, max(0, length - len(sound))))[:length])
        made = Made(
            clip=clip,
            late=int(random.integers(low, high + 1)),
            other=wrong.get(clip),
            jump=frames // 2 if options.jump else None,
        )
        write_wav(target / AUDIO, late_samples(np.concatenate(samples), made))
        lines.append(json.dumps(asdict(made)))
    (options.out / TRUTH).write_text("\n".join(lines) + "\n")


def _link_crops(options: argparse.Namespace, clip: str, target: Path, first: int) -> int:
    """Link a clip's crops, from frame ``first`` on; returns the number of its frames."""
    source = options.data_root / clip
    crops = list_crops(source)
    for number in crops:
        os.link(source / f"{number}.jpg", target / f"{first + number}.jpg")
    if options.join == 1 and (source / MOUTH).exists():
        os.link(source / MOUTH, target / MOUTH)
    return crops[-1] + 1


def _chosen(options: argparse.Namespace) -> list[str]:
    if options.filelist is None:
        return usable_clips(options.data_root)[: options.clips]
    lines = options.filelist.read_text().split("\n")
    return [line.split()[0] for line in lines if line.strip()][: options.clips]


def late_samples(samples: np.ndarray, made: Made) -> np.ndarray:
    """Samples as late as was asked for; as many as before, with silence where there are none."""
    count = made.late * SAMPLES_PER_FRAME
    late = np.pad(samples[max(0, -count) :], (max(0, count), max(0, -count)))[: len(samples)]
    if made.jump is None:
        return late
    first = made.jump * SAMPLES_PER_FRAME
    return np.concatenate([samples[:first], late[first:]])


def check(options: argparse.Namespace) -> None:
    """Compare a report with what was made."""
    made = [Made(**line) for line in _lines(options.tree / TRUTH)]
    report = {line["clip"]: line for line in _lines(options.tree / "sync_report.jsonl")}
    before = {line["clip"]: line for line in _lines(options.before)} if options.before else {}
    found = [report[one.clip] for one in made]
    own = [(one, line) for one, line in zip(made, found, strict=True) if one.other is None]
    others = [line for one, line in zip(made, found, strict=True) if one.other is not None]
    rows = []
    for confidence in CONFIDENCES:
        known = [(one, line) for one, line in own if (line["confidence"] or 0) >= confidence]
        errors = [abs(round(line["offset"]) - _expected(one, before)) for one, line in known]
        kept = sum(line["state"] != "jumps" for _, line in known)
        removed = sum((line["confidence"] or 0) < confidence for line in others)
        rows.append([
            f"{confidence}",
            f"{len(known) / max(1, len(own)):.1%}",
            f"{np.mean(np.array(errors) <= 1):.1%}" if errors else "",
            f"{kept} of {len(own)}",
            f"{removed} of {len(others)}",
        ])  # fmt: skip
    titles = ("confidence from", "share", "within a frame", "kept", "of another clip, removed")
    measure.print_table(titles, rows)
    found_jumps = sum(line["state"] == "jumps" for line in found)
    made_jumps = sum(one.jump is not None for one in made)
    print(f"{found_jumps} of {len(made)} clips jump by the report, {made_jumps} do")


def _expected(made: Made, before: dict[str, dict]) -> int:
    """0 if the sound was shifted back by what an earlier report has."""
    line = before.get(made.clip)
    return made.late - (round(line["offset"]) if line and line["state"] == "shifted" else 0)


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a tree, or check a report."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(required=True)
    maker = commands.add_parser("make", help="make a tree of clips")
    maker.set_defaults(run=make)
    add = maker.add_argument
    add("--data_root", type=Path, required=True, help="folder of the preprocessed clips")
    add("--out", type=Path, required=True, help="folder to make; on the same disk")
    add("--filelist", type=Path, help="clips to take (default: all)")
    add("--clips", type=int, help="number of clips to take (default: all)")
    add("--late", type=int, nargs=2, default=(0, 0), help="frames, from and to")
    add("--wrong", type=int, default=0, help="clips that get the sound of another one")
    add("--join", type=int, default=1, help="clips that make one, one after the other")
    add("--jump", action="store_true", help="the sound is late from the middle of a clip on")
    add("--seed", type=int, default=0, help="of what is drawn")
    checker = commands.add_parser("check", help="compare the report of sync with what was made")
    checker.set_defaults(run=check)
    checker.add_argument("tree", type=Path, help="the tree that was made")
    checker.add_argument("--before", type=Path, help="the report of the run with --fix before")
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (UserError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
