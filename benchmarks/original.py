"""The original Wav2Lip, measured in a process of its own.

Modules of the original have names that are also ours, its scripts read their options as they are
imported, and its paths begin at the current folder. So it runs from a mirror of the user's checkout
(a temporary folder of links) that also has the file lists and the weights where it looks for them.

``start`` is the side of the benchmark; run as a script, this file is the other one: each line on
its standard input asks for a round and is answered by one of JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.measure import Contender

LISTS = "filelists"
S3FD = "face_detection/detection/sfd/s3fd.pth"
SCRIPTS = {"expert": "color_syncnet_train", "generator": "wav2lip_train"}

Answer = dict[str, Any]  # the fields of a Round


@contextmanager
def start(
    checkout: Path,
    job: str,
    *,
    threads: int,
    filelists: Path | None = None,
    s3fd: Path | None = None,
    **options: object,
) -> Iterator[Contender]:
    """Start the original; what comes is asked for a round with each call.

    Args:
        checkout: the user's; only read.
        job: "expert" or "generator" (see ``load``), "preprocess", or "train", see there.
        threads: what NumPy, OpenCV and torch may use.
        filelists: folder of train.txt, for the first two.
        s3fd: weight file, for the last.
        options: arguments of the job.

    Raises:
        SystemExit: it failed; its own message is on standard error.
    """
    from benchmarks.measure import Round

    if not (checkout / "wav2lip_train.py").is_file():
        raise SystemExit(f"--original {checkout}: no checkout of Wav2Lip, has no wav2lip_train.py")
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    text = json.dumps({"threads": threads, **options}, default=str)
    with TemporaryDirectory() as folder:
        mirror = Path(folder) / "checkout"
        _mirror(checkout.resolve(), mirror, filelists, s3fd)
        with subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), job, text],
            cwd=mirror,
            env={**os.environ, **limits},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            asked, answers = process.stdin, process.stdout

            def measure() -> Round:
                print(file=asked, flush=True)
                answer = answers.readline()
                if not answer:
                    raise SystemExit("the original has failed")
                return Round(**json.loads(answer))

            try:
                yield measure
            finally:
                process.kill()


def script(checkout: Path, mirror: Path, *, s3fd: Path | None) -> list[str]:
    """The words that run its inference.py, to be followed by its options.

    Args:
        checkout: the user's; only read.
        mirror: a folder to make, from which it runs.
        s3fd: S3FD's weights, if it is to look for faces.
    """
    _mirror(checkout.resolve(), mirror, None, s3fd)
    (mirror / "temp").mkdir(exist_ok=True)
    return [sys.executable, str(Path(__file__).resolve()), "infer", str(mirror)]


def _mirror(checkout: Path, mirror: Path, filelists: Path | None, s3fd: Path | None) -> None:
    """Real folders, or Python would write its caches into the checkout, and links to the files."""
    left_out = shutil.ignore_patterns(".git", "__pycache__", LISTS, Path(S3FD).name)
    shutil.copytree(checkout, mirror, copy_function=os.symlink, ignore=left_out)
    if filelists is not None:
        (mirror / LISTS).symlink_to(filelists.resolve())
    if s3fd is not None:
        (mirror / S3FD).symlink_to(s3fd.resolve())


def main() -> None:
    """Serve rounds until the standard input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # the original prints as it is imported
    if sys.argv[1] == "infer":
        _infer(*sys.argv[2:])
        return
    job, options = sys.argv[1], json.loads(sys.argv[2])
    sys.path[0] = str(Path.cwd())
    _bridge_librosa()
    _limit_threads(options.pop("threads"))
    jobs: dict[str, Callable[..., Callable[[], Answer]]] = {
        "preprocess": preprocess,
        "train": train,
    }
    measure = jobs[job](**options) if job in jobs else load(job, **options)
    for _ in sys.stdin:
        print(json.dumps(measure()), file=answers, flush=True)


def _infer(mirror: str, *words: str) -> None:
    """Its inference.py as a user runs it."""
    os.chdir(mirror)
    sys.path[0] = mirror
    sys.argv = ["inference.py", *words]
    _bridge_librosa()
    runpy.run_path("inference.py", run_name="__main__")


def _bridge_librosa() -> None:
    """The original is written for librosa 0.7.

    The first two parameters of the mel filters were not yet keyword-only, and the STFT mirrored
    the edges by default.
    """
    import librosa

    filters = librosa.filters.mel
    librosa.filters.mel = lambda sr, n_fft, **others: filters(sr=sr, n_fft=n_fft, **others)
    librosa.stft = partial(librosa.stft, pad_mode="reflect")


def _limit_threads(threads: int) -> None:
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def load(task: str, data_root: str, batch_size: int, items: int) -> Callable[[], Answer]:
    """Its training data: its Dataset in a torch DataLoader without worker processes."""
    from torch.utils.data import DataLoader

    words = ["--data_root", data_root, "--checkpoint_dir", "unused"]
    if task == "generator":
        words += ["--syncnet_checkpoint_path", "unused"]
    script = _import(SCRIPTS[task], words)
    random.seed(0)
    start = time.perf_counter()
    dataset = script.Dataset("train")
    ready = time.perf_counter() - start

    def epochs() -> Iterator[list[Any]]:
        while True:
            yield from DataLoader(dataset, batch_size=batch_size, shuffle=True)

    batches = epochs()

    def measure() -> Answer:
        start, count, size = time.perf_counter(), 0, 0
        while count < items:
            batch = next(batches)
            count += len(batch[0])
            size += sum(part.nbytes for part in batch)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "count": count, "extra": {"bytes": size, "ready": ready}}

    return measure


def train(
    task: str, weights: str, batch: str, steps: int, device: str, gate: bool
) -> Callable[[], Answer]:
    """Its training loop, on one batch again and again.

    Args:
        task: "expert" or "generator".
        weights: checkpoint to begin with.
        batch: file with a batch of ours.
        steps: of a round.
        device: where it runs.
        gate: whether the generator's sync loss counts.
    """
    import torch

    words = ["--data_root", "unused", "--checkpoint_dir", "unused"]
    if task == "generator":
        words += ["--syncnet_checkpoint_path", "unused"]
    script = _import(SCRIPTS[task], words)
    model = (script.SyncNet if task == "expert" else script.Wav2Lip)().to(device)
    model.load_state_dict(torch.load(weights, weights_only=True)["state_dict"])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    script.global_step, script.global_epoch = 1, 0  # it saves in the first step
    script.hparams.set_hparam("syncnet_wt", 0.01 if gate else 0.0)
    parts = _as_the_original(task, torch.load(batch, weights_only=True))

    def measure() -> Answer:
        start = time.perf_counter()
        script.train(
            device, model, [parts] * steps, None, optimizer,
            checkpoint_dir="unused", checkpoint_interval=10**9, nepochs=script.global_epoch + 1,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        script.global_step = 1
        return {"seconds": seconds, "count": steps * len(parts[0])}

    return measure


def _as_the_original(task: str, batch: dict[str, Any]) -> tuple[Any, ...]:
    """A batch of ours in the shapes of the original's."""
    import torch

    pictures = {
        name: part.permute(0, 4, 1, 2, 3).float() / 255  # (B, 3, 5, h, 96)
        for name, part in batch.items()
        if name in ("faces", "target", "reference")
    }
    if task == "expert":
        faces = pictures["faces"].transpose(1, 2).flatten(1, 2)
        return faces, batch["mel"], batch["label"][:, None]
    masked = pictures["target"].clone()
    masked[:, :, :, 48:] = 0
    faces = torch.cat([masked, pictures["reference"]], dim=1)
    mel = batch["mel"]
    return faces, mel[:, 1:, None], mel[:, :1], pictures["target"]


def preprocess(
    videos: list[str], target: str, device: str, batch_size: int, frames: int
) -> Callable[[], Answer]:
    """Its preprocessing of the picture, with the seconds spent in detection and in the network.

    Its sound track is a second pass, by the program ffmpeg, and is not counted.
    """
    import torch

    words = ["--data_root", "unused", "--preprocessed_root", target]
    # No GPU: it would open its detector, for CUDA only, as it is imported.
    script = _import("preprocess", [*words, "--batch_size", str(batch_size), "--ngpu", "0"])
    detection = script.face_detection
    faces = detection.FaceAlignment(detection.LandmarksType._2D, flip_input=False, device=device)
    script.fa = [faces]
    spent: dict[str, float] = {}

    def clock() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = clock()
            result = function(*arguments)
            spent[name] += clock() - start
            return result

        return call

    network = faces.face_detector.face_detector
    network.forward = timed("network", network.forward)
    faces.get_detections_for_batch = timed("detection", faces.get_detections_for_batch)

    def measure() -> Answer:
        shutil.rmtree(target, ignore_errors=True)
        spent.update(network=0.0, detection=0.0)
        start = time.perf_counter()
        for path in videos:
            script.process_video_file(path, script.args, 0)
        return {"seconds": time.perf_counter() - start, "count": frames, "extra": dict(spent)}

    return measure


def _import(name: str, words: list[str]) -> Any:
    """Import a script of the original, which then reads its options."""
    sys.argv = [f"{name}.py", *words]
    return importlib.import_module(name)


if __name__ == "__main__":
    main()
