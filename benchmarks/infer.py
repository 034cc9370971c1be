"""Lip-syncing a video: whole commands, ours and the original's, and the generator alone.

Run from the project's root: ``python -m benchmarks.infer --help``.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks import measure, original
from wav2lip_npu import checkpoint
from wav2lip_npu.config import ExportConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.export import export
from wav2lip_npu.inference.backends import OnnxBackend, TorchBackend
from wav2lip_npu.inference.fusion import fold, fuse
from wav2lip_npu.media import video_reader as video
from wav2lip_npu.models import Generator
from wav2lip_npu.runtime import device, threads
from wav2lip_npu.training.tasks.base import GENERATOR_FLOPS


def whole(words: Sequence[object], frames: int, folder: Path, threads: int) -> measure.Contender:
    """A command as a user runs it, from its start to its end, with the most memory it had."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))

    def run() -> measure.Round:
        start = time.perf_counter()
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [str(word) for word in words], stderr=log, stdout=log, env={**os.environ, **limits}
            )
            memory = 0
            while process.poll() is None:
                memory = peak_memory(process.pid) or memory
                time.sleep(0.05)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise SystemExit((folder / "log.txt").read_text(errors="replace")[-2000:])
        return measure.Round(seconds=seconds, count=frames, extra={"memory": float(memory)})

    return run


def peak_memory(process: int) -> int:
    """The most bytes that a process has had in memory so far; 0 where Linux does not tell.

    What ``wait4`` gives counts the memory of this process too, from before the other one began.
    """
    status = Path(f"/proc/{process}/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else 0


def commands(options: argparse.Namespace, folder: Path) -> dict[str, measure.Contender]:
    """Both commands on one clip: with the box given, and with S3FD where its weights are given."""
    info = video.probe(options.face)
    frames = sum(1 for _ in video.at_rate(video.read_frames(options.face), info.fps))
    inputs = ["--checkpoint_path", options.checkpoint_path, "--face", options.face]
    inputs += ["--audio", options.audio, "--outfile"]
    box = ["--box", *options.box]
    ours = [sys.executable, "-m", "wav2lip_npu", "infer", "--device", options.device]
    made: dict[str, measure.Contender] = {}

    def add(name: str, words: Sequence[object]) -> None:
        made[name] = whole(words, frames, folder, options.threads)

    theirs = options.original and original.script(
        options.original, folder / "mirror", s3fd=options.s3fd
    )
    if theirs:
        add("original, box given", [*theirs, *inputs, folder / "o.mp4", *box])
    for precision in ("fp32", "auto"):
        own = [*ours, *inputs, folder / "a.mp4", "--precision", precision]
        add(f"ours, box given, {precision}", [*own, *box])
    if options.s3fd:
        if theirs:
            add("original, S3FD", [*theirs, *inputs, folder / "o.mp4"])
        found = [*ours, *inputs, folder / "a.mp4", "--s3fd", options.s3fd, "--detector", "s3fd"]
        for precision in ("fp32", "auto"):
            found_in = [*found, "--precision", precision, "--detector_precision", precision]
            add(f"ours, S3FD, {precision}", found_in)
        add("ours, S3FD, auto, each 5th", [*found_in, "--detect_every", 5])
    return made


class TypedBackend:
    """A prepared network, whose inputs take on its precision."""

    def __init__(self, network: torch.nn.Module, place: device.Device) -> None:
        self.network, self.dtype = network, place.dtype or torch.float32

    def __call__(self, mel: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
        generated: torch.Tensor = self.network(mel.to(self.dtype), faces.to(self.dtype))
        return generated


def networks(options: argparse.Namespace, folder: Path) -> dict[str, measure.Contender]:
    """The generator alone, on batches that wait in memory."""
    loaded = checkpoint.read(options.checkpoint_path)
    places = {name: device.Device.open(options.device, name) for name in ("fp32", "auto")}
    export(
        ExportConfig(
            checkpoint_path=options.checkpoint_path, outfile=folder / "generator.pth", onnx=True
        )
    )

    def network() -> Generator:
        made = Generator()
        checkpoint.load_network(made, loaded)
        return made

    fp32, auto = places["fp32"], places["auto"]
    plain = network().eval().requires_grad_(False).to(fp32.torch_device)
    backends = {
        "as trained, fp32": (plain, fp32),
        "ONNX Runtime, fp32": (OnnxBackend(folder / "generator.onnx", fp32), fp32),
        "ours, fp32": (TorchBackend(network(), fp32), fp32),
        "ours, auto": (TorchBackend(network(), auto), auto),
    }
    for name, place in places.items():  # to see where ``Device.gains_from_fusion`` is right
        folded = fold(network().eval().requires_grad_(False)).to(place.dtype or torch.float32)
        blocks = TypedBackend(place.prepare(folded), place)
        backends[f"plain blocks, {name}"] = (blocks, place)
        if place.torch_device.type == "cpu":
            blocks = TypedBackend(fuse(place.prepare(copy.deepcopy(folded))), place)
            backends[f"fused blocks, {name}"] = (blocks, place)
    size = options.batch_size
    mel = torch.rand(size, 1, 80, 16) * 8 - 4
    faces = torch.rand(size, 6, 96, 96)

    def contender(run: object, place: device.Device) -> measure.Contender:
        given = place.to_device({"mel": mel, "faces": faces})

        @torch.inference_mode()
        def generate() -> measure.Round:
            place.synchronize()
            start, count = time.perf_counter(), 0
            while count < options.frames:
                run(given["mel"], given["faces"])  # type: ignore[operator]
                count += size
            place.synchronize()
            seconds = time.perf_counter() - start
            share = count / seconds * GENERATOR_FLOPS / place.measured_matmul_flops()
            return measure.Round(seconds=seconds, count=count, extra={"share": share})

        return generate

    return {name: contender(*pair) for name, pair in backends.items()}


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--checkpoint_path", type=Path, required=True, help="a generator")
    add("--face", type=Path, help="a video; none: only the generator alone is measured")
    add("--audio", type=Path, help="as long as the video, or a little shorter")
    add("--box", type=int, nargs=4, metavar="N", help="the face: top bottom left right")
    add("--s3fd", type=Path, help="S3FD's weights, to measure detection too")
    add("--original", type=Path, help="a checkout of the original Wav2Lip; needs ffmpeg")
    add("--rounds", type=int, default=3, help="rounds that count, after one that does not")
    add("--batch_size", type=int, default=16, help="frames that the generator makes at once")
    add("--frames", type=int, default=128, help="frames of the generator alone, a round")
    add("--device", default="auto")
    add("--threads", type=int, default=threads.usable_cores())
    options = parser.parse_args()
    for name in ("checkpoint_path", "face", "audio", "s3fd"):  # the original has its own folder
        if (path := getattr(options, name)) is not None:
            setattr(options, name, path.resolve())
    measure.limit_threads(options.threads)
    print(measure.describe_machine(options.threads))
    try:
        device.Device.open(options.device).tune_malloc()
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            results = measure.take_turns(networks(options, folder), options.rounds)
            print(f"\nthe generator alone, batches of {options.batch_size}")
            share = {"of matmul": lambda _, result: f"{result.extra['share']:.0%}"}
            measure.print_results(results, "frames/s", 2, share)
            if options.face:
                results = measure.take_turns(commands(options, folder), options.rounds)
                print("\nwhole commands")
                memory = {"peak MiB": lambda _, result: f"{result.extra['memory'] / 2**20:.0f}"}
                measure.print_results(results, "frames/s", 2, memory)
    except (UserError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
