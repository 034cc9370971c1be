"""Frames a second of preprocessing: ours, a plain version of it, and the original.

Run from the project's root: ``python -m benchmarks.preprocess --help``.
"""

from __future__ import annotations

import argparse
import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch

import face_detection
from benchmarks import measure, original
from face_detection import FaceDetectionError, s3fd
from face_detection.s3fd_network import S3FDNetwork
from tests.formula import fill
from wav2lip_npu.config import PreprocessConfig
from wav2lip_npu.config.base import PRECISIONS
from wav2lip_npu.constants import FPS
from wav2lip_npu.errors import UserError
from wav2lip_npu.media import video_reader as video
from wav2lip_npu.media.audio import open_sound
from wav2lip_npu.media.video_writer import VideoWriter
from wav2lip_npu.preprocessing.clip import process_video
from wav2lip_npu.preprocessing.report import ClipReport
from wav2lip_npu.runtime import device, threads

SAMPLE = 8  # frames, of all of them, to calibrate on and to count candidates in
# Of the weights by formula: the one map that finds anything, its logits, its anchor in pixels.
HEAD, HEAD_LOGITS, HEAD_ANCHOR = "conv5_3_norm_mbox", 4, 64
CANDIDATE, FACE = math.log(0.05 / 0.95), math.log(0.9 / 0.1)  # logits, less the background's

Cut = Callable[[Path, Path], None]  # a video, and the folder for its crops


def ours(options: argparse.Namespace, weights: Path) -> Cut:
    """A clip as the command ``preprocess`` cuts it, with its sound."""
    place = device.Device.open(options.device, options.precision)
    detector = face_detection.open_detector(
        options.detector, device=place.torch_device, s3fd_weights=weights, dtype=place.dtype
    )

    def cut(source: Path, target: Path) -> None:
        config = PreprocessConfig(
            data_root=source.parent,
            preprocessed_root=target.parent,
            batch_size=options.batch_size,
            detect_every=options.detect_every,
        )
        work = target.with_name(".work")
        described = ClipReport(clip=target.name, source=source.name)
        process_video(source, work, described, detector, config)
        (work / target.name).rename(target)
        work.rmdir()

    return cut


def plain(network: torch.nn.Module, options: argparse.Namespace, place: device.Device) -> Cut:
    """One step after the other: decode, then a batch through the network, then its crops."""

    @torch.inference_mode()
    def cut(source: Path, target: Path) -> None:
        target.mkdir(parents=True)
        images = decode(source)
        numbers = count()
        for batch in batches(images, options.batch_size):
            boxes, scores = s3fd.decode(network(to_input(batch, place)))
            scores, best = scores.max(dim=1)  # what suppression would keep first
            corners = boxes[torch.arange(len(batch)), best].clamp(min=0).int().tolist()
            for image, score, (x1, y1, x2, y2) in zip(batch, scores.tolist(), corners, strict=True):
                path = target / f"{next(numbers)}.jpg"
                if score > s3fd.MIN_SCORE:
                    cv2.imwrite(str(path), image[y1:y2, x1:x2])

    return cut


def clip_cutter(cut: Cut, videos: Sequence[Path], out: Path, frames: int) -> measure.Contender:
    """All videos, one after the other, into a folder that is empty each time."""

    def cut_all() -> measure.Round:
        shutil.rmtree(out, ignore_errors=True)
        start = time.perf_counter()
        for source in videos:
            cut(source, out / source.parent.name / source.stem)
        return measure.Round(seconds=time.perf_counter() - start, count=frames)

    return cut_all


def network_alone(
    network: torch.nn.Module, images: np.ndarray, options: argparse.Namespace, place: device.Device
) -> measure.Contender:
    """The network on frames that are on the device already: no detection can be faster."""
    inputs = [to_input(batch, place) for batch in batches(images, options.batch_size)]

    @torch.inference_mode()
    def forward() -> measure.Round:
        place.synchronize()
        start = time.perf_counter()
        for batch in inputs:
            with place.autocast():
                network(batch)
        place.synchronize()
        return measure.Round(seconds=time.perf_counter() - start, count=len(images))

    return forward


def decode(source: Path) -> np.ndarray:
    """All frames of a video, (n, h, w, 3) BGR."""
    stream = cv2.VideoCapture(str(source))
    images = []
    while (read := stream.read())[0]:
        images.append(read[1])
    return np.stack(images)


def batches(images: np.ndarray, size: int) -> list[np.ndarray]:
    """The images in pieces of this size, and a rest."""
    return [images[start : start + size] for start in range(0, len(images), size)]


def to_input(images: np.ndarray, place: device.Device) -> torch.Tensor:
    """Images as S3FD sees them, on the device."""
    pixels = torch.from_numpy(images).to(place.torch_device).float()
    return (pixels - torch.tensor(s3fd.MEAN_BGR, device=place.torch_device)).permute(0, 3, 1, 2)


def write_videos(options: argparse.Namespace, folder: Path) -> list[Path]:
    """The first frames of the first videos, at 25 a second and in the size asked for."""
    sources: list[Path] = []
    for path in options.videos:
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        sources += [file for file in found if file.suffix.lower() in video.VIDEO_SUFFIXES]
    if not sources:
        raise UserError(f"--videos {options.videos[0]}: no video there")
    written = []
    for number, source in enumerate(sources[: options.clips]):
        written.append(folder / f"{number:05d}.mp4")
        with open_sound(source) as sound, VideoWriter(written[-1], fps=FPS, sound=sound) as writer:
            frames = video.at_rate(video.read_frames(source), FPS)
            for frame in islice(frames, options.frames):
                writer.write(_resize(frame.image, options.size))
    return written


def _resize(image: np.ndarray, height: int | None) -> np.ndarray:
    if height is None:
        return image
    return cv2.resize(image, (round(image.shape[1] * height / image.shape[0]), height))


@torch.inference_mode()
def make_weights(images: np.ndarray, candidates: int) -> dict[str, torch.Tensor]:
    """Weights by formula, changed to find a face in each image, and so many candidates.

    By the formula alone almost every cell is a candidate, each of which the original works on in
    Python. So one map alone finds anything here, and its scores are stretched, until so many cells
    are candidates and each image's best is a face of half the image's height. Red, green and blue
    weigh the same: the original shows the network RGB and ours BGR, and both shall find the same.

    Args:
        images: (n, h, w, 3), to calibrate on.
        candidates: cells of an image above 0.05, on average.

    Raises:
        UserError: more candidates are asked for than the map has.
    """
    network = fill(S3FDNetwork()).eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    state["conv1_1.weight"][:] = state["conv1_1.weight"].mean(dim=1, keepdim=True)
    network.load_state_dict(state)
    logits = network(to_input(images, device.Device.open("cpu")))[HEAD_LOGITS]
    margins = (logits[:, 1] - logits[:, 0]).flatten(1)
    wanted = candidates * len(images)
    lowest = margins.flatten().sort(descending=True).values[: wanted + 1]
    best = margins.max(dim=1).values.min()  # of the image with the least likely face
    if not (0 < wanted < margins.numel() and best > lowest[-1]):
        raise UserError(f"--candidates {candidates}: the map has {margins[0].numel()} cells")
    scale = (FACE - CANDIDATE) / (best - lowest[-1])
    for name, value in state.items():
        if name.endswith("mbox_conf.bias") and not name.startswith(HEAD):
            value[0] += 100  # background for certain
    for name in (f"{HEAD}_conf.weight", f"{HEAD}_conf.bias"):
        state[name] *= scale
    state[f"{HEAD}_conf.bias"][1] += FACE - scale * best
    larger = math.log(images.shape[1] / 2 / HEAD_ANCHOR)
    state[f"{HEAD}_loc.bias"][2:] += larger / s3fd.VARIANCES[1]
    return state


@torch.inference_mode()
def count_candidates(network: torch.nn.Module, images: np.ndarray, place: device.Device) -> float:
    """Cells above 0.05 in an image, on average."""
    _, scores = s3fd.decode(network(to_input(images, place)))
    return float((scores > 0.05).sum(dim=1).float().mean())


def crop_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The crops below a folder and their sizes."""
    shapes = {}
    for path in folder.rglob("*.jpg"):
        image = cv2.imread(str(path))
        assert image is not None
        shapes[path.relative_to(folder).as_posix()] = image.shape
    return shapes


def compare(options: argparse.Namespace, work: Path) -> None:
    """Measure and print the table."""
    videos = write_videos(options, work / "videos")
    clips = [decode(path) for path in videos]
    if len({clip.shape[1:] for clip in clips}) > 1:
        raise UserError("--videos: they differ in size; take one, or those of one size")
    images = np.concatenate(clips)
    sample = images[:: max(1, len(images) // SAMPLE)]
    place = device.Device.open(options.device, options.precision)
    weights = options.s3fd
    if weights is None:
        weights = work / "s3fd.pth"
        torch.save(make_weights(sample, options.candidates), weights)
    network = s3fd.S3FD(weights, place.torch_device).network
    found = count_candidates(network, sample, place)
    height, width = images.shape[1:3]
    print(
        f"{len(images)} frames of {width}×{height}, batches of {options.batch_size}, "
        f"{place.torch_device}: {place.reason}; S3FD {'given' if options.s3fd else 'by formula'}, "
        f"{found:.1f} candidates a frame"
    )
    outputs = {name: work / name for name in ("original", "plain", "ours")}
    cuts = {"plain": plain(network, options, place), "ours": ours(options, weights)}
    contenders: dict[str, measure.Contender] = {}
    with ExitStack() as stack:
        if options.original:
            if place.torch_device.type == "npu":
                raise UserError("--original: runs on cpu and cuda only")
            contenders["original"] = stack.enter_context(
                original.start(
                    options.original,
                    "preprocess",
                    threads=options.threads,
                    s3fd=weights,
                    videos=[str(path) for path in videos],
                    target=outputs["original"],
                    device=str(place.torch_device),
                    batch_size=options.batch_size,
                    frames=len(images),
                )
            )
        for name, cut in cuts.items():
            contenders[name] = clip_cutter(cut, videos, outputs[name], len(images))
        contenders["network alone"] = network_alone(network, images, options, place)
        results = measure.take_turns(contenders, options.rounds)
    crops = {name: crop_shapes(outputs[name]) for name in contenders if name in outputs}
    print_results(results, crops)


def print_results(
    results: dict[str, list[measure.Round]], crops: dict[str, dict[str, tuple[int, ...]]]
) -> None:
    """A row for each contender, with ratios to the first; then where the original's time goes."""
    first, *_ = results
    base = measure.middle(results[first])

    def same(name: str) -> str:
        return str(len(crops[name].items() & crops[first].items())) if name in crops else ""

    more: dict[str, Callable[[str, measure.Round], str]] = {
        "ms/frame": lambda _, result: f"{1000 / result.rate:.1f}",
        "crops": lambda name, _: str(len(crops[name])) if name in crops else "",
        f"as {first}'s": lambda name, _: same(name),
    }
    measure.print_results(results, "frames/s", 2, more)
    if base.extra:
        whole, detection, network = (
            1000 * seconds / base.count
            for seconds in (base.seconds, base.extra["detection"], base.extra["network"])
        )
        print(
            f"original, ms a frame: network {network:.1f}, the rest of detection "
            f"{detection - network:.1f}, decoding and JPEG {whole - detection:.1f}"
        )


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--videos", type=Path, nargs="+", required=True, help="videos, or folders of them")
    add("--clips", type=int, default=1, help="videos to take, the first ones")
    add("--frames", type=int, default=32, help="frames of each, the first ones")
    add("--size", type=_size, default=None, metavar="N|native", help="height to resize to, pixels")
    add("--detector", choices=("s3fd", "centerface"), default="s3fd", help="of ours")
    add("--precision", choices=PRECISIONS, default="fp32", help="of ours")
    add("--detect_every", type=int, default=1, help="of ours: detect in one of N frames")
    add("--device", default="auto", help="of all; the original has no NPU")
    add("--batch_size", type=int, default=32, help="frames that the network sees at once")
    add("--s3fd", type=Path, help="S3FD's weight file (default: weights by formula)")
    add("--candidates", type=int, default=20, help="a frame, with the weights by formula")
    add("--original", type=Path, help="a checkout of the original Wav2Lip, measured too")
    add("--rounds", type=int, default=3, help="rounds that count, after one that does not")
    add("--threads", type=int, default=threads.usable_cores(), help="of each contender")
    options = parser.parse_args()
    measure.limit_threads(options.threads)
    try:
        print(measure.describe_machine(options.threads))
        with TemporaryDirectory() as work:
            compare(options, Path(work))
    except (UserError, FaceDetectionError, OSError) as error:
        parser.error(str(error))


def _size(word: str) -> int | None:
    return None if word == "native" else int(word)


if __name__ == "__main__":
    main()
