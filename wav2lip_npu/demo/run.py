"""The command ``demo``: make a talking-head data set, and run every step on it."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from wav2lip_npu import checkpoint
from wav2lip_npu.config import DemoConfig
from wav2lip_npu.config.machine import DEMO_MINUTES
from wav2lip_npu.console.logs import current_settings
from wav2lip_npu.demo import dataset
from wav2lip_npu.demo.gif import write_gif
from wav2lip_npu.demo.schedule import (
    EXPERT_BATCH,
    GENERATOR_BATCH,
    Schedule,
    measure_step_seconds,
)
from wav2lip_npu.demo.summary import Results, read_results
from wav2lip_npu.errors import UserError
from wav2lip_npu.preprocessing.report import REPORT
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.files import atomic_write
from wav2lip_npu.training.figures import CURVES, sheet_paths

NEW_SENTENCES = (
    "Hello! My mouth moves with a voice that was never recorded with this face.",
    "Map, bap, mob. Have a happy afternoon, far away from home.",
)
MARKER = ".wav2lip-npu-demo"  # only a folder with this file is replaced
RESULT, GIF = "lip_synced.mp4", "demo.gif"
WARMUP_STEPS = 10
MOUTH_WEIGHT = 5  # by L1 alone hundreds of steps more go by before the voice moves the mouth
GENERATOR_VALIDATIONS = 2
EXPERT_WINDOWS, GENERATOR_WINDOWS = 25, 5  # of each clip that is held out, in a validation
# Faces are cut for evaluate and infer as preprocess cut them for the training.
PADS = ("0", "0", "0", "0")
# A detected box is larger when the mouth is open. Were faces detected in each frame, the generator
# would learn the mouth from the crop's place instead of from the voice. So only the first and the
# last frame of a clip are shown to the detector, in which nothing is said.
DETECT_EVERY = 250


def run_demo(config: DemoConfig) -> None:
    """Make the data set, run preprocess, both trainings, evaluate and infer on it, and sum up.

    Raises:
        UserError: a package is missing, or a command failed.
    """
    Demo(config).run()


class Demo:
    """One run: its folders, its schedule, and the commands one after the other."""

    def __init__(self, config: DemoConfig) -> None:
        self.config = config
        self.started = time.monotonic()
        self.device = Device.open(config.device, "auto")
        self.out = config.outdir
        self.videos, self.preprocessed = self.out / "videos" / "main", self.out / "preprocessed"
        self.lists, self.evaluation = self.out / "filelists", self.out / "evaluation"
        self.expert, self.generator = self.out / "expert", self.out / "generator"
        self.speech, self.silent = self.out / "new_speech.wav", self.out / "silent.mp4"
        self.training_options: dict[str, object] = {
            "data_root": self.preprocessed / "main",
            "filelists": self.lists,
            "schedule": "cosine",
            "adam_beta2": 0.95,  # gradients become smaller within these few steps
            "log_interval": 20,
            "seed": config.seed,
            "device": config.device,
        }

    def run(self) -> None:
        """See ``run_demo``."""
        _empty(self.out)
        schedule = self._make_data()
        self._train_expert(schedule)
        self._train_generator(schedule)
        results = self._evaluate()
        self._lip_sync()
        images = self._collect_images()
        self._summarize(results, schedule, images)

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _make_data(self) -> Schedule:
        """Make and preprocess the videos, and measure this machine."""
        config = self.config
        step = measure_step_seconds(self.device)
        began = self._elapsed()
        _print_title(f"A talking-head set of {config.clips} clips in {self.videos.parent}")
        dataset.make_videos(self.videos, config.clips, seed=config.seed)
        dataset.make_filelists(self.lists, config.clips)
        speech = dataset.say(" ".join(NEW_SENTENCES))
        dataset.write_speech(self.speech, speech)
        dataset.make_silent_video(self.silent, seconds=speech.duration, seed=config.seed)
        _run(
            "preprocess",
            data_root=self.videos.parent,
            preprocessed_root=self.preprocessed,
            detect_every=DETECT_EVERY,
            device=config.device,
        )
        minutes = DEMO_MINUTES if config.minutes is None else config.minutes
        schedule = Schedule(
            total_seconds=60 * minutes, data_seconds=self._elapsed() - began, step=step
        )
        needed = math.ceil(schedule.needed_seconds(self._elapsed()) / 60)
        _print_title(
            f"On this machine a step of the expert takes {step.expert:.2f} s, one of the generator "
            f"{step.generator:.2f} s"
        )
        if needed > minutes and None in (config.expert_steps, config.generator_steps):
            print(
                f"a mouth that convinces needs about {needed} minutes here (--minutes {needed}); "
                f"the demo goes on with {minutes:g}"
            )
        return schedule

    def _train_expert(self, schedule: Schedule) -> None:
        steps = self.config.expert_steps or schedule.expert_steps(self._elapsed())
        _run(
            "train-syncnet",
            checkpoint_dir=self.expert,
            objective="contrastive",
            batch_size=EXPERT_BATCH,
            learning_rate=5e-4,
            max_steps=steps,
            eval_interval=steps,
            eval_windows=EXPERT_WINDOWS,
            **self.training_options,
        )

    def _train_generator(self, schedule: Schedule) -> None:
        steps = self.config.generator_steps
        if steps is None:
            steps = schedule.measured_again(self.device).generator_steps(self._elapsed())
        _run(
            "train",
            checkpoint_dir=self.generator,
            syncnet_checkpoint_path=checkpoint.newest(self.expert),
            batch_size=GENERATOR_BATCH,
            closed_gate_frames=1,
            mouth_weight=MOUTH_WEIGHT,
            sync_weight=0,
            learning_rate=1e-3,
            warmup_steps=WARMUP_STEPS,
            max_steps=steps,
            eval_interval=-(-steps // GENERATOR_VALIDATIONS),
            eval_windows=GENERATOR_WINDOWS,
            checkpoint_interval=steps,
            **self.training_options,
        )

    def _evaluate(self) -> Results:
        _run(
            "evaluate",
            checkpoint_path=checkpoint.newest(self.generator),
            filelist=self.lists / "val.txt",
            data_root=self.videos,
            outdir=self.evaluation,
            pads=PADS,
            detect_every=DETECT_EVERY,
            device=self.config.device,
        )
        return read_results(self.expert, self.generator, self.evaluation)

    def _lip_sync(self) -> None:
        _run(
            "infer",
            checkpoint_path=checkpoint.newest(self.generator),
            face=self.silent,
            audio=self.speech,
            pads=PADS,
            detect_every=DETECT_EVERY,
            outfile=self.out / RESULT,
            device=self.config.device,
        )

    def _collect_images(self) -> list[Path]:
        """Write the GIF, and copy the images of the trainings to where they are found at once."""
        write_gif(self.silent, self.out / RESULT, self.out / GIF)
        sheets = sheet_paths(self.generator)
        sources = {
            "contact_sheet.png": sheets[max(sheets)],
            "curves_expert.png": self.expert / CURVES,
            "curves_generator.png": self.generator / CURVES,
        }
        for name, source in sources.items():
            _copy(source, self.out / name)
        return [self.out / name for name in sources]

    def _summarize(self, results: Results, schedule: Schedule, images: list[Path]) -> None:
        """Print what was reached, and what to type next."""
        lines = (self.preprocessed / REPORT).read_text(encoding="utf-8").splitlines()
        reports = [json.loads(line) for line in lines]
        frames, faces = (sum(report[key] for report in reports) for key in ("frames", "faces"))
        print(f"\n== Done in {self._elapsed():.0f} s", flush=True)
        print(f"data       {len(reports)} clips, {frames} frames, {faces} with a face")
        print("\n".join(results.lines()))
        print(f"video      {self.out / RESULT}; beside what it was made of: {self.out / GIF}")
        print(f"images     {', '.join(map(str, images))}")
        if not results.is_convincing:
            minutes = math.ceil(2 * schedule.total_seconds / 60)
            print(
                f"below a mark: with more time, as in --minutes {minutes}, the numbers get better"
            )
        print("\nNext, with videos of your own in my_videos/:")
        print("$ wav2lip-npu preprocess --data_root my_videos --preprocessed_root my_clips")
        print("$ wav2lip-npu filelists --data_root my_clips")
        print("$ wav2lip-npu train-syncnet --data_root my_clips --checkpoint_dir my_expert")


def _empty(out: Path) -> None:
    """Create the folder; an earlier demo in it is deleted.

    Raises:
        UserError: the folder contains something else.
    """
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise UserError(
            f"--outdir {out}: is not empty, and not an earlier demo; choose another folder"
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARKER).touch()


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as partial:
        shutil.copyfile(source, partial)


def _print_title(text: str) -> None:
    """Say what is done now; with ``--quiet`` only the summary is printed."""
    if not current_settings().quiet:
        print(f"\n== {text}", flush=True)


def _run(command: str, **options: object) -> None:
    """Run a command as a user would; its command line and its output are shown."""
    words = [command]
    for name, value in options.items():
        words += [f"--{name}", *(value if isinstance(value, tuple) else (str(value),))]
    if not current_settings().quiet:
        print(f"\n$ wav2lip-npu {shlex.join(words)}", flush=True)
    words += current_settings().words
    code = subprocess.run([sys.executable, "-m", "wav2lip_npu", *words], check=False).returncode
    if code:
        raise UserError(
            f"demo: wav2lip-npu {command} ended with exit code {code}; see its error message above"
        )
