"""Offsets of sound: each pair through the expert, each moment once, and the shape of the mouth.

Run from the project's root: ``python -m benchmarks.sync --help``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks import measure
from face_detection.landmarks import FaceLandmarks, mouth_shape
from wav2lip_npu.alignment.expert import embed, open_expert, probabilities
from wav2lip_npu.alignment.lags import LAGS
from wav2lip_npu.constants import FACE_SIZE, LOWER_HALF, WINDOW_FRAMES
from wav2lip_npu.data.clip_tree import find_clips
from wav2lip_npu.data.clips import list_crops, load_mel, readable_crops
from wav2lip_npu.errors import UserError
from wav2lip_npu.mel import WINDOW_ROWS, last_valid_start, syncnet_mel_start
from wav2lip_npu.models import SyncNet
from wav2lip_npu.models.inputs import to_float
from wav2lip_npu.runtime import threads
from wav2lip_npu.runtime.device import Device

BATCH = 64  # pairs at a time
LARGEST_DIFFERENCE = 1e-4  # of a cosine, between the two ways in fp32


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip in memory, without missing frames."""

    faces: np.ndarray  # uint8 (frames, 96, 96, 3)
    mel: np.ndarray  # float32 (80, rows)


def read(folder: Path) -> Clip:
    """Read a clip; frames that are missing are left out."""
    crops = readable_crops(folder, list_crops(folder))
    faces = np.stack([cv2.resize(crop, (FACE_SIZE, FACE_SIZE)) for _, crop in crops])
    return Clip(faces=faces, mel=load_mel(folder))


@torch.inference_mode()
def pair_by_pair(expert: SyncNet, clip: Clip, device: Device) -> np.ndarray:
    """What ``probabilities`` gives, with both networks for each window at each lag, in batches."""
    lower = torch.from_numpy(np.ascontiguousarray(clip.faces[:, LOWER_HALF:]))
    windows = lower.unfold(0, WINDOW_FRAMES, 1).movedim(-1, 1)
    numbers = np.arange(len(windows))
    positions = last_valid_start(clip.mel.shape[1]) + 1
    found = np.full((len(numbers), len(LAGS)), np.nan)
    for column, lag in enumerate(LAGS.tolist()):
        for part in np.array_split(numbers, len(numbers) // BATCH + 1):
            part = part[(part + lag >= 0) & (part + lag < positions)]
            if not len(part):
                continue
            rows = syncnet_mel_start(part + lag).tolist()
            sound = np.stack([clip.mel[None, :, row : row + WINDOW_ROWS] for row in rows])
            faces = to_float(windows[part]).flatten(1, 2)
            with device.autocast():
                heard, seen = expert(
                    torch.from_numpy(sound).to(device.torch_device), faces.to(device.torch_device)
                )
            found[part, column] = torch.cosine_similarity(heard.float(), seen.float()).cpu()
    return found


def timed(clips: Sequence[Clip], process: Callable[[Clip], object]) -> measure.Contender:
    """A contender that processes clips one after the other and counts their frames."""

    def run() -> measure.Round:
        start = time.perf_counter()
        for clip in clips:
            process(clip)
        return measure.Round(
            seconds=time.perf_counter() - start, count=sum(len(clip.faces) for clip in clips)
        )

    return run


def compare(options: argparse.Namespace) -> None:
    """Measure and print the table."""
    device = Device.open(options.device, options.precision)
    expert = open_expert(options.syncnet_checkpoint_path, device)
    names, _ = find_clips(options.data_root)
    clips = [read(options.data_root / name) for name in names[: options.clips]]
    landmarks = FaceLandmarks()

    def once(clip: Clip) -> np.ndarray:
        known = np.ones(len(clip.faces), bool)
        return probabilities(embed(expert, clip.faces, known, clip.mel, device))

    def mouths(clip: Clip) -> list[np.ndarray]:
        return [mouth_shape(landmarks.detect(face)) for face in clip.faces]

    difference = np.nanmax(np.abs(once(clips[0]) - pair_by_pair(expert, clips[0], device)))
    if options.precision == "fp32" and not difference < LARGEST_DIFFERENCE:
        raise UserError(f"the two ways differ by {difference:.1e}")
    contenders = {
        "pair by pair": timed(clips[:1], lambda clip: pair_by_pair(expert, clip, device)),
        "each moment once": timed(clips, once),
        "landmarks of the mouth": timed(clips, mouths),
    }
    results = measure.take_turns(contenders, options.rounds)
    print(f"\n{len(clips)} clips, 31 lags; the two ways differ by {difference:.1e}")
    measure.print_results(results, "frames/s", 1, {})


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--data_root", type=Path, required=True, help="folder of the preprocessed clips")
    add("--syncnet_checkpoint_path", type=Path, required=True, help="an expert")
    add("--clips", type=int, default=10, help="clips that count; pair by pair the first one alone")
    add("--rounds", type=int, default=3, help="rounds that count, after one that does not")
    add("--device", default="auto", help="where the expert is")
    add("--precision", default="fp32", help="of the expert")
    add("--threads", type=int, default=threads.usable_cores(), help="of each contender")
    options = parser.parse_args()
    measure.limit_threads(options.threads)
    try:
        print(measure.describe_machine(options.threads))
        compare(options)
    except (UserError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
