"""The command ``demo``: make a talking-head data set, and run every step on it."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import soxr

from wav2lip_npu import checkpoint
from wav2lip_npu.config import DemoConfig
from wav2lip_npu.console.logs import current_settings
from wav2lip_npu.constants import FPS, SAMPLE_RATE
from wav2lip_npu.demo.speech import Speech, mouth_track, speak
from wav2lip_npu.demo.talking_head import load_portraits, render
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import open_sound, write_wav
from wav2lip_npu.media.video_reader import read_frames
from wav2lip_npu.media.video_writer import VideoWriter
from wav2lip_npu.preprocessing.report import REPORT
from wav2lip_npu.runtime.files import atomic_write, write_text
from wav2lip_npu.training.figures import CURVES
from wav2lip_npu.training.metrics import MetricsFile

SENTENCES = (
    "Bob may bring a map of the bay before we move.",
    "Please pass the purple paper to my mother.",
    "The boat was far away from the open water.",
    "Nobody saw the bright lamp on top of the mast.",
    "We have five warm apples and a bowl of plums.",
    "Who knew that blue moons move so slowly?",
    "My father plays the piano in an empty room.",
    "A big brown bear may be asleep in that barn.",
    "Every morning we walk along the old harbour.",
    "Would you give Emma the box above the shelf?",
    "People from the village buy bread at seven.",
    "Tomorrow we may visit the opera with Pamela.",
)
VOICES = ("en-us", "en-us+f3", "en-gb-scotland", "en-us+m3")
NEW_SENTENCE = "Hello. My lips move with a voice that was never recorded with this face."
IMAGES = ("contact_sheet.png", "curves_expert.png", "curves_generator.png")
MARKER = ".wav2lip-npu-demo"  # only a folder with this file is replaced
RESULT = "lip_synced.mp4"
EVALUATIONS = 3  # per training
VALIDATION_CLIPS = 2  # the last ones of the data set


def run_demo(config: DemoConfig) -> None:
    """Make the data set, run preprocess, both trainings and infer on it, and print a summary.

    Raises:
        UserError: a package is missing, or a command failed.
    """
    started = time.monotonic()
    out = config.outdir
    _empty(out)
    data, preprocessed, lists = out / "videos", out / "preprocessed", out / "filelists"
    expert, generator = out / "expert", out / "generator"
    _print_title(f"A talking-head set of {config.clips} clips in {data}")
    make_videos(data / "main", config.clips)
    make_filelists(lists, config.clips)
    speech = out / "new_speech.wav"
    _write_speech(speech, speak(NEW_SENTENCE, voice=VOICES[0]))

    device = {"device": config.device}
    clips = {"data_root": preprocessed / "main", "filelists": lists, "log_interval": 10, **device}
    _run("preprocess", data_root=data, preprocessed_root=preprocessed, **device)
    _run(
        "train-syncnet",
        checkpoint_dir=expert,
        batch_size=16,
        max_steps=config.expert_steps,
        eval_interval=-(-config.expert_steps // EVALUATIONS),
        **clips,
    )
    _run(
        "train",
        checkpoint_dir=generator,
        syncnet_checkpoint_path=checkpoint.newest(expert),
        batch_size=2,
        learning_rate=5e-4,
        max_steps=config.generator_steps,
        eval_interval=-(-config.generator_steps // EVALUATIONS),
        eval_windows=4,
        **clips,
    )
    _run(
        "infer",
        checkpoint_path=checkpoint.newest(generator),
        face=data / "main" / f"{config.clips:05d}.mp4",  # not in the training set
        audio=speech,
        outfile=out / RESULT,
        **device,
    )
    for folder in (expert, generator):
        _copy(folder / CURVES, out / f"curves_{folder.name}.png")
    _copy(max(generator.glob("samples_step*.png")), out / "contact_sheet.png")
    summarize(out, seconds=time.monotonic() - started)


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


def make_videos(folder: Path, clips: int) -> None:
    """Write talking heads ``00001.mp4`` … with alternating portraits, voices and sentences."""
    portraits = load_portraits()
    for number in range(1, clips + 1):
        portrait = portraits[number % len(portraits)]
        voice = VOICES[number % len(VOICES)]
        speech = speak(SENTENCES[number % len(SENTENCES)], voice=voice, words_per_minute=140)
        wav = folder / f"{number:05d}.wav"
        folder.mkdir(parents=True, exist_ok=True)
        _write_speech(wav, speech)
        video = wav.with_suffix(".mp4")
        with open_sound(wav) as sound, VideoWriter(video, fps=FPS, sound=sound) as writer:
            for image in render(portrait, mouth_track(speech, FPS), seed=number, fps=FPS):
                writer.write(image)
        wav.unlink()


def make_filelists(folder: Path, clips: int) -> None:
    """Write ``train.txt`` and ``val.txt``, in the format of the guide."""
    names = [f"{number:05d}\n" for number in range(1, clips + 1)]
    write_text(folder / "train.txt", "".join(names[:-VALIDATION_CLIPS]))
    write_text(folder / "val.txt", "".join(names[-VALIDATION_CLIPS:]))


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as partial:
        shutil.copyfile(source, partial)


def _write_speech(path: Path, speech: Speech) -> None:
    samples = soxr.resample(speech.samples, speech.sample_rate, SAMPLE_RATE)
    write_wav(path, samples)


def _print_title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _run(command: str, **options: object) -> None:
    """Run a command as a user would; its command line and its output are shown."""
    words = [command]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    print(f"\n$ wav2lip-npu {shlex.join(words)}", flush=True)
    words += current_settings().words
    code = subprocess.run([sys.executable, "-m", "wav2lip_npu", *words], check=False).returncode
    if code:
        raise UserError(
            f"demo: wav2lip-npu {command} ended with exit code {code}; see its error message above"
        )


def summarize(out: Path, *, seconds: float) -> None:
    """Print five lines about the results of a demo."""
    lines = (out / "preprocessed" / REPORT).read_text(encoding="utf-8").splitlines()
    reports = [json.loads(line) for line in lines]
    frames, faces = (sum(report[key] for report in reports) for key in ("frames", "faces"))
    losses = MetricsFile(out / "expert").read()["loss", "eval"]
    generator = MetricsFile(out / "generator").read()
    l1, sync = generator["l1", "eval"], generator["sync", "eval"]
    first, last = min(l1), max(l1)
    result = out / RESULT
    video_frames = sum(1 for _ in read_frames(result))
    _print_title(f"Done in {seconds:.0f} s")
    print(f"data       {len(reports)} clips, {frames} frames, {faces} with a face")
    print(
        f"expert     validation loss {losses[min(losses)]:.3f} → {losses[max(losses)]:.3f} after "
        f"{max(losses)} steps (0.693 is chance)"
    )
    print(
        f"generator  validation L1 {l1[first]:.3f} → {l1[last]:.3f} after {last} steps, sync loss "
        f"{sync[last]:.2f}"
    )
    print(f"video      {result}: {video_frames} frames, {video_frames / FPS:.2f} s, H.264 and AAC")
    print(f"images     {', '.join(str(out / name) for name in IMAGES)}")
