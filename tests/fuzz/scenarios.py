"""Commands on good files, one of which a case changes, and what their results must be."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzz import judge
from fuzz.inputs import BOX, INFER, PREPROCESS, SMALL_TRAINING


class Rule(enum.Enum):
    """What the changed file is to the command."""

    INPUT = "without it there is no result: used, or refused"
    ITEM = "one of several: left out and named, and the others are used"
    JOB = "of one job of several: the others are done, and the exit code is 2"
    DERIVED = "made from others: made again, or left out with a warning"
    STATE = "what a run left: used, made again, or refused"


Check = Callable[[Path, Path, bool], list[str]]  # (case folder, base, right) → problems


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A command on good files."""

    kind: str  # of the file that is changed
    command: str
    target: str  # the file, in the case's folder; may be a pattern
    base: tuple[str, ...]  # files that are copied there
    words: Callable[[str], Sequence[str]]  # the command line, by the path of the file
    outputs: tuple[str, ...]  # patterns of files that may appear or change
    check: Check  # of the result, if the exit code is 0
    companion: Check | None = None  # of what the good items become, whatever the exit code
    rule: Rule = Rule.INPUT
    renamed: bool = True  # whether the file may have any name
    removed: tuple[str, ...] = ()  # base files that are not copied, as patterns
    codes: tuple[int, ...] = field(default=(0, judge.REFUSED))


def _video(case: Path, base: Path, right: bool) -> list[str]:
    return judge.video_problems(case / "out" / "video.mp4", right=right)


def _still(case: Path, base: Path, right: bool) -> list[str]:
    return judge.video_problems(case / "out" / "video.mp4", right=right, numbers=[0] * 26)


def _infer(face: str, audio: str, checkpoint: str, *options: str) -> list[str]:
    return [
        *INFER, f"--face={face}", f"--audio={audio}", f"--checkpoint_path={checkpoint}",
        "--outfile", "out/video.mp4", *options,
    ]  # fmt: skip


DETECT = ("--detector", "centerface")
INFER_BASE = ("talker.mp4", "speech.wav", "wav2lip.pth")
STILL_BASE = ("face.png", "speech.wav", "wav2lip.pth")
OUT = ("out", "out/video.mp4")

INFERENCE = (
    Scenario(
        kind="video", command="infer --box", target="talker.mp4", base=INFER_BASE, outputs=OUT,
        words=lambda name: _infer(name, "speech.wav", "wav2lip.pth", *BOX), check=_video,
    ),
    Scenario(
        kind="video", command="infer", target="talker.mp4", base=INFER_BASE, outputs=OUT,
        words=lambda name: _infer(name, "speech.wav", "wav2lip.pth", *DETECT), check=_video,
    ),
    Scenario(
        kind="image", command="infer", target="face.png", base=STILL_BASE, outputs=OUT,
        words=lambda name: _infer(name, "speech.wav", "wav2lip.pth", *DETECT), check=_still,
    ),
    Scenario(
        kind="sound", command="infer", target="speech.wav", base=INFER_BASE, outputs=OUT,
        words=lambda name: _infer("talker.mp4", name, "wav2lip.pth", *BOX), check=_video,
    ),
    Scenario(
        kind="sound", command="infer (a video as sound)", target="talker.mp4", outputs=OUT,
        base=("talker.mp4", "face.png", "wav2lip.pth"),
        words=lambda name: _infer("face.png", name, "wav2lip.pth", *BOX), check=_still,
    ),
    Scenario(
        kind="checkpoint", command="infer", target="wav2lip.pth", base=INFER_BASE, outputs=OUT,
        words=lambda name: _infer("talker.mp4", "speech.wav", name, *BOX), check=_video,
    ),
    Scenario(
        kind="onnx", command="infer --backend onnx", target="exported/g.onnx", outputs=OUT,
        base=("talker.mp4", "speech.wav", "exported"), check=_video,
        words=lambda name: _infer("talker.mp4", "speech.wav", name, "--backend", "onnx", *BOX),
    ),
    Scenario(
        kind="face cache", command="infer --face_cache", target="faces/*.npz", rule=Rule.DERIVED,
        base=(*STILL_BASE, "faces"), renamed=False, outputs=(*OUT, "faces", "faces/*.npz"),
        words=lambda name: _infer(
            "face.png", "speech.wav", "wav2lip.pth", *DETECT, "--face_cache", "faces"
        ),
        check=_still,
    ),
    Scenario(
        kind="s3fd", command="infer --s3fd", target="s3fd.pth", base=(*STILL_BASE, "s3fd.pth"),
        words=lambda name: _infer(
            "face.png", "speech.wav", "wav2lip.pth", "--detector", "s3fd", f"--s3fd={name}"
        ),
        outputs=OUT, check=lambda case, base, right: [],
    ),
    Scenario(
        kind="s3fd", command="doctor --s3fd", target="s3fd.pth", base=("s3fd.pth",), outputs=(),
        words=lambda name: ["doctor", "--device", "cpu", f"--s3fd={name}"],
        check=lambda case, base, right: [], codes=(0, judge.NOT_READY, judge.REFUSED),
    ),
)  # fmt: skip


def _jobs_done(*numbers: int) -> Check:
    def check(case: Path, base: Path, right: bool) -> list[str]:
        videos = [case / "out" / f"{number}.mp4" for number in numbers]
        return [problem for path in videos for problem in judge.video_problems(path, right=right)]

    return check


def _jobs(case_list: str) -> list[str]:
    return [*INFER, "--checkpoint_path", "wav2lip.pth", f"--jobs={case_list}", *BOX]


JOBS = (
    Scenario(
        kind="voices", command="infer --voices", target="voices.csv", outputs=OUT, check=_still,
        base=(*STILL_BASE, "talker.mp4", "odd.wav", "voices.csv"),
        words=lambda name: [
            *(*INFER, "--checkpoint_path", "wav2lip.pth", "--face", "face.png", *DETECT),
            *(f"--voices={name}", "--outfile", "out/video.mp4"),
        ],
    ),
    Scenario(
        kind="jobs", command="infer --jobs", target="jobs.csv", base=(*INFER_BASE, "jobs.csv"),
        words=_jobs, outputs=("out", "out/*"), check=_jobs_done(1, 2),
    ),
    Scenario(
        kind="video", command="infer --jobs", target="raw/odd.mp4", renamed=False, rule=Rule.JOB,
        base=(*INFER_BASE, "raw/odd.mp4", "jobs_odd.csv"), outputs=("out", "out/*"),
        words=lambda name: _jobs("jobs_odd.csv"), check=_jobs_done(1),
        companion=lambda case, base, right: _jobs_done(2)(case, base, True),
    ),
    Scenario(
        kind="sound", command="infer --jobs", target="odd.wav", renamed=False, rule=Rule.JOB,
        base=(*INFER_BASE, "odd.wav", "jobs_sound.csv"), outputs=("out", "out/*"),
        words=lambda name: _jobs("jobs_sound.csv"), check=_jobs_done(1),
        companion=lambda case, base, right: _jobs_done(2)(case, base, True),
    ),
)  # fmt: skip

CUT = ("cut", "cut/preprocess_*", "cut/.wav2lip-npu.lock")


def _odd_clip(case: Path, base: Path, right: bool) -> list[str]:
    if not right:
        return []
    clips = [path for path in (case / "cut").iterdir() if path.is_dir() and path.name != "good"]
    return [p for path in clips for p in judge.clip_problems(path)] if clips else ["no clip of it"]


def _good_clip(case: Path, base: Path, right: bool) -> list[str]:
    return judge.clip_problems(case / "cut" / "good")


def _both_clips(case: Path, base: Path, right: bool) -> list[str]:
    return [p for name in ("good", "odd") for p in judge.clip_problems(case / "cut" / name)]


def _preprocess(name: str) -> list[str]:
    return [*PREPROCESS, "--data_root", "raw", "--preprocessed_root", "cut"]


PREPROCESSING = (
    Scenario(
        kind="video", command="preprocess", target="raw/odd.mp4", base=("raw",), rule=Rule.ITEM,
        words=_preprocess, outputs=(*CUT, "cut/*"), check=_odd_clip, companion=_good_clip,
    ),
    Scenario(
        kind="report", command="preprocess", target="cut/preprocess_report.jsonl",
        base=("raw", "cut"), rule=Rule.STATE, renamed=False,
        words=_preprocess, outputs=CUT, check=_both_clips, companion=_both_clips,
    ),
    Scenario(
        kind="options", command="preprocess", target="cut/preprocess_options.json",
        base=("raw", "cut"), rule=Rule.STATE, renamed=False,
        words=_preprocess, outputs=CUT, check=_both_clips, companion=_both_clips,
    ),
    Scenario(
        kind="clip", command="filelists", target="data/a/audio.wav", base=("data",),
        words=lambda name: ["filelists", "--data_root", "data", "--filelists", "new"],
        outputs=("new", "new/*.txt"), rule=Rule.STATE, renamed=False,
        check=lambda case, base, right: [],
    ),
)  # fmt: skip

RUN = ("new", "new/*")


def _syncnet(name: str) -> list[str]:
    return [
        "train-syncnet", "--data_root", "data", "--filelists", "lists",
        "--checkpoint_dir", "new", *SMALL_TRAINING,
    ]  # fmt: skip


def _first_step(case: Path, base: Path, right: bool) -> list[str]:
    problems = judge.checkpoint_problems(case / "new" / "checkpoint_step000000001.pth", step=1)
    if right and not problems:
        reference = base / "expert_run" / "metrics.jsonl"
        return judge.loss_problems(case / "new" / "metrics.jsonl", reference)
    return problems


def _second_step(case: Path, base: Path, right: bool) -> list[str]:
    return judge.checkpoint_problems(case / "run" / "checkpoint_step000000002.pth", step=2)


def _generator(expert: str, folder: str, *options: str) -> list[str]:
    return [
        "train", "--data_root", "data", "--filelists", "lists", "--checkpoint_dir", folder,
        f"--syncnet_checkpoint_path={expert}", *SMALL_TRAINING, *options,
    ]  # fmt: skip


def _second(name: str) -> list[str]:
    return _generator("expert.pth", "run", "--max_steps", "2")


def _one_step(case: Path, base: Path, right: bool) -> list[str]:
    return judge.checkpoint_problems(case / "new" / "checkpoint_step000000001.pth", step=1)


DATA = ("data", "lists")
CACHE = ("data/.packed", "data/.packed/train-*", "data/.packed/val-*", "data/*/mel.npy")
RESUMED = ("run/*",)
TRAINING = (
    Scenario(
        kind="crop", command="train-syncnet", target="data/a/5.jpg", base=DATA, rule=Rule.ITEM,
        words=_syncnet, outputs=(*RUN, *CACHE), check=_first_step, renamed=False,
        removed=("data/.packed/train-*.*",),  # a crop that it holds is not read again
    ),
    Scenario(
        kind="crop", command="train-syncnet --cache_gb 0", target="data/a/5.jpg", base=DATA,
        # So many samples that the crop is among them.
        words=lambda name: [*_syncnet(name), "--cache_gb", "0", "--batch_size", "64"],
        rule=Rule.ITEM, outputs=(*RUN, *CACHE), check=_one_step, renamed=False,
    ),
    Scenario(
        kind="wav", command="train-syncnet", target="data/a/audio.wav", base=DATA, rule=Rule.ITEM,
        words=_syncnet, outputs=(*RUN, *CACHE), check=_first_step, renamed=False,
        removed=("data/a/mel.npy",),
    ),
    Scenario(
        kind="mel", command="train-syncnet", target="data/a/mel.npy", base=DATA,
        words=_syncnet, outputs=(*RUN, *CACHE), check=_first_step, rule=Rule.DERIVED,
        renamed=False,
    ),
    *(
        Scenario(
            kind="memmap", command="train-syncnet", target=f"data/.packed/train-*.{suffix}",
            base=DATA, words=_syncnet, outputs=(*RUN, *CACHE), check=_first_step,
            rule=Rule.DERIVED, renamed=False,
        )
        for suffix in ("crops", "mels", "json")
    ),
    Scenario(
        kind="file list", command="train-syncnet", target="lists/train.txt", base=DATA,
        words=_syncnet, outputs=(*RUN, *CACHE), check=_first_step, renamed=False,
    ),
    Scenario(
        kind="checkpoint", command="train", target="expert.pth", base=(*DATA, "expert.pth"),
        words=lambda name: _generator(name, "new"), outputs=(*RUN, *CACHE), check=_one_step,
    ),
    Scenario(
        kind="checkpoint", command="train (start from)", target="wav2lip.pth",
        base=(*DATA, "expert.pth", "wav2lip.pth"),
        words=lambda name: _generator("expert.pth", "new", f"--checkpoint_path={name}"),
        outputs=(*RUN, *CACHE), check=_one_step,
    ),
    Scenario(
        kind="checkpoint", command="train (resume)", target="run/checkpoint_step000000001.pth",
        base=(*DATA, "expert.pth", "run"), renamed=False, rule=Rule.STATE,
        words=_second, outputs=(*RESUMED, *CACHE), check=_second_step,
    ),
    Scenario(
        kind="metrics", command="train (resume)", target="run/metrics.jsonl", renamed=False,
        base=(*DATA, "expert.pth", "run"), rule=Rule.DERIVED,
        words=_second, outputs=(*RESUMED, *CACHE), check=_second_step,
    ),
    Scenario(
        kind="sample sheet", command="train (resume)", rule=Rule.DERIVED, renamed=False,
        target="run/samples_step000000001.png", base=(*DATA, "expert.pth", "run"),
        words=_second, outputs=(*RESUMED, *CACHE), check=_second_step,
    ),
)  # fmt: skip


def _exported(case: Path, base: Path, right: bool) -> list[str]:
    path = case / "out" / "g.pth"
    if right:
        return judge.weight_problems(path, base / "wav2lip.pth")
    return [] if path.is_file() else ["exit code 0 without g.pth"]


EXPORT = (
    Scenario(
        kind="checkpoint", command="export", target="wav2lip.pth", base=("wav2lip.pth",),
        words=lambda name: ["export", f"--checkpoint_path={name}", "--outfile", "out/g.pth"],
        outputs=("out", "out/g.*"), check=_exported,
    ),
    Scenario(
        kind="checkpoint", command="doctor", target="expert.pth", base=("expert.pth",), outputs=(),
        words=lambda name: ["doctor", "--device", "cpu", f"--syncnet_checkpoint_path={name}"],
        check=lambda case, base, right: [], codes=(0, judge.NOT_READY, judge.REFUSED),
    ),
)  # fmt: skip

ALL = (*INFERENCE, *JOBS, *PREPROCESSING, *TRAINING, *EXPORT)
