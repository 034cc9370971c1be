"""The commands that measure and compare (sync, evaluate, plot), one of whose files is changed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuzz.inputs import BY_EXPERT, DEVICE, EVALUATE, WORKER
from fuzz.scenarios import DETECT, Check, Rule, Scenario

SYNC_REPORT, RECORDS = "sync_report.jsonl", "measured.jsonl"
CLIPS = ("good", "odd")


def _sync(folder: str, *options: str) -> list[str]:
    return ["sync", "--data_root", folder, *DEVICE, *WORKER, *options]


def _report(path: Path) -> dict[str, dict[str, Any]]:
    return {line["clip"]: line for line in map(json.loads, path.read_text().splitlines())}


def _as_before(case: Path, base: Path, folder: str, clips: Sequence[str]) -> list[str]:
    """Whether clips have the offset that they have with good files."""
    path = case / folder / SYNC_REPORT
    found, wanted = _report(path), _report(base / folder / SYNC_REPORT)
    if found.keys() != wanted.keys():
        return [f"the report has the clips {sorted(found)}"]
    return [
        f"{clip}: offset {found[clip]['offset']} instead of {wanted[clip]['offset']}"
        for clip in clips
        if not _is_near(found[clip]["offset"], wanted[clip]["offset"])
    ]


def _is_near(found: float | None, wanted: float | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return math.isclose(found, wanted, abs_tol=0.05)


def _synced(folder: str) -> Check:
    """The good clip as before, and the odd one too if its files count as good."""
    return lambda case, base, right: _as_before(case, base, folder, CLIPS if right else ("good",))


def _reported(case: Path, base: Path, right: bool) -> list[str]:
    lines = _report(case / "synced" / SYNC_REPORT)
    return [] if sorted(lines) == [*CLIPS] else [f"the report has the clips {sorted(lines)}"]


SYNCED = tuple(
    f"{folder}/{name}"
    for folder in ("synced", "synced_by_expert")
    for name in ("sync_*", "*/mel.npy", "*/mouth.npz", "*/expert.npz")
)
SYNC = (
    Scenario(
        kind="crop", command="sync", target="synced/odd/5.jpg", base=("synced",), renamed=False,
        words=lambda name: _sync("synced"), outputs=SYNCED, check=_reported, rule=Rule.STATE,
        companion=lambda case, base, right: _as_before(case, base, "synced", ["good"]),
    ),
    Scenario(
        kind="wav", command="sync", target="synced/odd/audio.wav", base=("synced",),
        words=lambda name: _sync("synced"), outputs=SYNCED, check=_reported, rule=Rule.ITEM,
        renamed=False, removed=("synced/odd/mel.npy",),
        companion=lambda case, base, right: _as_before(case, base, "synced", ["good"]),
    ),
    Scenario(
        kind="kept", command="sync", target="synced/odd/mouth.npz", base=("synced",),
        words=lambda name: _sync("synced"), outputs=SYNCED, check=_synced("synced"),
        rule=Rule.DERIVED, renamed=False,
    ),
    Scenario(
        kind="kept", command="sync --by expert", target="synced_by_expert/odd/expert.npz",
        base=("synced_by_expert", "expert.pth"), outputs=SYNCED, check=_synced("synced_by_expert"),
        words=lambda name: _sync("synced_by_expert", *BY_EXPERT), rule=Rule.DERIVED, renamed=False,
    ),
    Scenario(
        kind="checkpoint", command="sync --by expert", target="expert.pth", outputs=SYNCED,
        base=("synced", "expert.pth"), check=_reported,
        words=lambda name: _sync(
            "synced", f"--syncnet_checkpoint_path={name}", "--by", "expert"
        ),
    ),
    Scenario(
        kind="file list", command="sync --filter", target="lists/train.txt", rule=Rule.STATE,
        base=("data", "lists"), renamed=False, check=lambda case, base, right: [],
        words=lambda name: _sync("data", "--filelists", "lists", "--filter", "new"),
        outputs=("data/sync_*", "data/*/mouth.npz", "data/*/mel.npy", "new", "new/*"),
    ),
)  # fmt: skip


def _evaluated(case: Path, base: Path, right: bool) -> list[str]:
    """Each video is measured or named; a video is like itself."""
    content = json.loads((case / "evaluated" / "evaluation.json").read_text())
    measured = {video["name"]: video["values"] for video in content["videos"]}
    failed = {entry["name"]: entry["reason"] for entry in content["failed"]}
    if len(measured) + len(failed) != 2:
        return [f"measured {sorted(measured)}, failed {failed}"]
    wanted = len(measured) if right else min(1, len(measured))
    equal = sum(values["ssim"] == 1 for values in measured.values())
    problems = [f"SSIM of videos with themselves: {measured}"] if equal < wanted else []
    # Without sound nothing tells that a video is to be like its source.
    wrong = {name: why for name, why in failed.items() if right and "no audio stream" not in why}
    return problems + ([f"failed: {wrong}"] if wrong else [])


EVALUATED = ("evaluated", "evaluated/*")
EVALUATION = (
    Scenario(
        kind="video", command="evaluate", target="raw/odd.mp4", base=("raw",), rule=Rule.ITEM,
        words=lambda name: EVALUATE, outputs=EVALUATED, check=_evaluated,
    ),
    Scenario(
        kind="records", command="evaluate", target=f"evaluated/{RECORDS}", renamed=False,
        base=("raw", "evaluated"), words=lambda name: EVALUATE, outputs=EVALUATED,
        check=_evaluated, rule=Rule.STATE,
    ),
    Scenario(
        kind="checkpoint", command="evaluate --syncnet_checkpoint_path", target="expert.pth",
        base=("raw", "expert.pth"), outputs=EVALUATED, check=_evaluated,
        words=lambda name: (*EVALUATE, f"--syncnet_checkpoint_path={name}"),
    ),
    Scenario(
        kind="checkpoint", command="evaluate --checkpoint_path", target="wav2lip.pth",
        base=("raw", "wav2lip.pth", "pairs.txt"), outputs=(*EVALUATED, "evaluated/*/*"),
        check=lambda case, base, right: [], rule=Rule.STATE,  # its faces are none that is found
        words=lambda name: [
            "evaluate", f"--checkpoint_path={name}", "--filelist", "pairs.txt", "--data_root",
            "raw", "--outdir", "evaluated", *DEVICE, *WORKER, *DETECT,
        ],
    ),
)  # fmt: skip


def _plotted(*names: str) -> Check:
    def check(case: Path, base: Path, right: bool) -> list[str]:
        missing = [name for name in names if not (case / "new" / name).is_file()]
        return [f"not plotted: {missing}"] if right and missing else []

    return check


def _plot(folder: str) -> list[str]:
    return ["plot", "--runs", folder, "--outdir", "new"]


PLOTTED = ("new", "new/*")
PLOT = (
    Scenario(
        kind="metrics", command="plot", target="run/metrics.jsonl", base=("run",), renamed=False,
        words=lambda name: _plot("run"), outputs=PLOTTED, rule=Rule.STATE,
        check=_plotted("curves.png"),
    ),
    Scenario(
        kind="sample sheet", command="plot", target="run/samples_step000000001.png",
        base=("run",), renamed=False, words=lambda name: _plot("run"), outputs=PLOTTED,
        rule=Rule.STATE, check=_plotted("curves.png"),
    ),
    Scenario(
        kind="sync report", command="plot", target=f"synced/{SYNC_REPORT}", base=("synced",),
        words=lambda name: _plot("synced"), outputs=PLOTTED, rule=Rule.STATE, renamed=False,
        check=_plotted("offsets.png"),
    ),
)  # fmt: skip

ALL = (*SYNC, *EVALUATION, *PLOT)
