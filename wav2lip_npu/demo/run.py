"""The demo: a talking-head set made from nothing, and the four commands run on it."""

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
from wav2lip_npu.constants import FPS, SAMPLE_RATE
from wav2lip_npu.demo.speech import Speech, mouth_track, speak
from wav2lip_npu.demo.talking_head import portraits, render
from wav2lip_npu.errors import UserError
from wav2lip_npu.media import video_reader as video
from wav2lip_npu.media.audio import SoundFile, write_wav
from wav2lip_npu.media.video_writer import VideoWriter
from wav2lip_npu.preprocessing.report import REPORT
from wav2lip_npu.training.metrics import CURVES, MetricsFile

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
TO_LOOK_AT = ("contact_sheet.png", "curves_expert.png", "curves_generator.png")
MARKER = ".wav2lip-npu-demo"  # tells a demo's folder from any other
RESULT = "lip_synced.mp4"
EVALUATIONS = 3  # of each training
VALIDATION_CLIPS = 2  # of those of the set, the last


def run_demo(config: DemoConfig) -> None:
    """Make the data set, run preprocess, both trainings and infer on it, and sum up.

    Raises:
        UserError: a package is missing, or one of the commands failed.
    """
    started = time.monotonic()
    out = config.outdir
    _empty(out)
    data, cut, lists = out / "videos", out / "preprocessed", out / "filelists"
    expert, generator = out / "expert", out / "generator"
    _say(f"A talking-head set of {config.clips} clips in {data}")
    make_videos(data / "main", config.clips)
    make_filelists(lists, config.clips)
    speech = out / "new_speech.wav"
    _write_speech(speech, speak(NEW_SENTENCE, voice=VOICES[0]))

    where = {"device": config.device}
    clips = {"data_root": cut / "main", "filelists": lists, "log_interval": 10, **where}
    _run("preprocess", data_root=data, preprocessed_root=cut, **where)
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
        face=data / "main" / f"{config.clips:05d}.mp4",  # one that was not trained on
        audio=speech,
        outfile=out / RESULT,
        **where,
    )
    for folder in (expert, generator):
        shutil.copy(folder / CURVES, out / f"curves_{folder.name}.png")
    shutil.copy(max(generator.glob("samples_step*.png")), out / "contact_sheet.png")
    summarize(out, seconds=time.monotonic() - started)


def _empty(out: Path) -> None:
    """Clear away an earlier demo, and nothing else.

    Raises:
        UserError: the folder holds something else.
    """
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise UserError(f"--outdir {out}: is not empty, and not an earlier demo; choose another")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARKER).touch()


def make_videos(folder: Path, clips: int) -> None:
    """Write talking heads, ``00001.mp4`` …: each portrait says each sentence in its turn."""
    sitters = portraits()
    for number in range(1, clips + 1):
        sitter = sitters[number % len(sitters)]
        voice = VOICES[number % len(VOICES)]
        speech = speak(SENTENCES[number % len(SENTENCES)], voice=voice, words_per_minute=140)
        wav = folder / f"{number:05d}.wav"
        folder.mkdir(parents=True, exist_ok=True)
        _write_speech(wav, speech)
        video = wav.with_suffix(".mp4")
        with SoundFile(wav) as sound, VideoWriter(video, fps=FPS, sound=sound) as writer:
            for image in render(sitter, mouth_track(speech, FPS), seed=number, fps=FPS):
                writer.write(image)
        wav.unlink()


def make_filelists(folder: Path, clips: int) -> None:
    """Write ``train.txt`` and ``val.txt``, in the guide's form."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:05d}\n" for number in range(1, clips + 1)]
    (folder / "train.txt").write_text("".join(names[:-VALIDATION_CLIPS]), encoding="utf-8")
    (folder / "val.txt").write_text("".join(names[-VALIDATION_CLIPS:]), encoding="utf-8")


def _write_speech(path: Path, speech: Speech) -> None:
    samples = soxr.resample(speech.samples, speech.sample_rate, SAMPLE_RATE)
    write_wav(path, samples)


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _run(command: str, **options: object) -> None:
    """Run a command as a user would, its line and its output on the screen."""
    words = [command]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    print(f"\n$ wav2lip-npu {shlex.join(words)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "wav2lip_npu", *words], check=False).returncode
    if code:
        raise UserError(f"demo: wav2lip-npu {command} ended with exit code {code}, see above")


def summarize(out: Path, *, seconds: float) -> None:
    """Print five lines of what a demo left in its folder."""
    lines = (out / "preprocessed" / REPORT).read_text(encoding="utf-8").splitlines()
    reports = [json.loads(line) for line in lines]
    frames, faces = (sum(report[key] for report in reports) for key in ("frames", "faces"))
    judged = MetricsFile(out / "expert").read()["loss", "eval"]
    generator = MetricsFile(out / "generator").read()
    l1, sync = generator["l1", "eval"], generator["sync", "eval"]
    first, last = min(l1), max(l1)
    result = out / RESULT
    pictures = sum(1 for _ in video.read_frames(result))
    _say(f"Done in {seconds:.0f} s")
    print(f"data       {len(reports)} clips, {frames} frames, {faces} with a face")
    print(
        f"expert     evaluation loss {judged[min(judged)]:.3f} → {judged[max(judged)]:.3f} after "
        f"{max(judged)} steps (0.693 is chance)"
    )
    print(
        f"generator  evaluation L1 {l1[first]:.3f} → {l1[last]:.3f} after {last} steps, sync loss "
        f"{sync[last]:.2f}"
    )
    print(f"video      {result}: {pictures} frames, {pictures / FPS:.2f} s, H.264 and AAC")
    print(f"to look at {', '.join(str(out / name) for name in TO_LOOK_AT)}")
