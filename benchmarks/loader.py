"""Training samples per second: ours, a plain reader of the same folders, and the original.

Run from the project's root: ``python -m benchmarks.loader --help``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks import measure, original
from wav2lip_npu.constants import FACE_SIZE, LOWER_HALF, WINDOW_FRAMES
from wav2lip_npu.data.batches import Batch, BatchMaker, GeneratorBatches, Store, SyncNetBatches
from wav2lip_npu.data.clips import MIN_CLIP_FRAMES, Clip, ClipFiles, list_crops, read_clips
from wav2lip_npu.data.dataset import WindowDataset
from wav2lip_npu.data.memmap import MemmapClips, open_memmap
from wav2lip_npu.data.sampler import StridedSampler
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import load_audio
from wav2lip_npu.mel import WINDOW_ROWS, generator_mel_starts, melspectrogram, syncnet_mel_start
from wav2lip_npu.models.inputs import generator_faces, to_float
from wav2lip_npu.runtime.device import Device

BATCH_SIZES = {"expert": 64, "generator": 16}  # the original's
BATCHES: dict[str, BatchMaker] = {"expert": SyncNetBatches(), "generator": GeneratorBatches()}


def ours(task: str, clips: list[Clip], store: Store) -> Iterator[Batch]:
    """Batches without end, as training gets them with ``--num_workers 0``."""
    sampler = BATCHES[task].sampler_class(clips, seed=0)
    dataset = WindowDataset(store, BATCHES[task], sampler)
    indices = StridedSampler(0)
    return iter(DataLoader(dataset, BATCH_SIZES[task], sampler=indices, collate_fn=lambda x: x))


def as_floats(task: str, batches: Iterator[Batch]) -> Iterator[Batch]:
    """Batches made on this CPU into the networks' inputs, which is what the original delivers."""
    for batch in batches:
        if task == "expert":
            yield {**batch, "faces": to_float(batch["faces"]).flatten(1, 2)}
        else:
            target = to_float(batch["target"]).transpose(1, 2)
            reference = to_float(batch["reference"]).transpose(1, 2)
            faces = generator_faces(target, reference)
            yield {"mel": batch["mel"], "faces": faces, "target": target}


def our_loaders(task: str, options: argparse.Namespace, caches: Path) -> dict[str, Iterator[Batch]]:
    """Each way in which training can be fed."""
    filelist = options.filelists / "train.txt"
    per_frame = BATCHES[task].per_frame_mels
    clips = read_clips(options.data_root, filelist, per_frame_mels=per_frame)

    def memmap() -> MemmapClips:
        cache = open_memmap(clips, caches, task, limit_gb=None)
        assert cache is not None, "the memmap cache needs half of the free disk space"
        return cache

    on_device = memmap()
    on_device.move(options.opened_device)
    return {
        "ours, JPEGs": ours(task, clips, ClipFiles(clips)),
        "ours, memmap": ours(task, clips, memmap()),
        "ours, as floats": as_floats(task, ours(task, clips, memmap())),
        "ours, on device": ours(task, clips, on_device),
    }


@dataclass(frozen=True, kw_only=True)
class ListedClip:
    """A clip as the plain reader knows it."""

    folder: Path
    crops: set[int]
    mel: Path  # a NumPy file
    rows: int  # of the mel spectrogram


def list_clips(data_root: Path, filelist: Path, mels: Path) -> list[ListedClip]:
    """List the clips of a file list that have crops enough, and write their mel spectrograms."""
    clips = []
    for number, folder in enumerate(list_folders(data_root, filelist)):
        crops = set(list_crops(folder))
        if len(crops) >= MIN_CLIP_FRAMES:
            mel = melspectrogram(load_audio(folder / "audio.wav"))
            path = mels / f"{number}.npy"
            np.save(path, mel)
            clips.append(ListedClip(folder=folder, crops=crops, mel=path, rows=mel.shape[1]))
    return clips


class Folder(Dataset[Batch]):
    """The simplest reader: crops and mel files are read again for every sample.

    Folders are listed and mels computed once. Samples are as ours: the same tensors, in bytes.
    """

    def __init__(self, task: str, clips: list[ListedClip]) -> None:
        self.task = task
        self.random = np.random.default_rng(0)
        self.clips: list[tuple[ListedClip, list[int], list[int]]] = []
        for clip in clips:
            starts = [s for s in clip.crops if clip.crops.issuperset(range(s, s + WINDOW_FRAMES))]
            last = clip.rows - WINDOW_ROWS
            targets = [s for s in starts if s >= 1 and max(mel_rows(task, s)) <= last]
            if targets:
                self.clips.append((clip, targets, starts))

    def __len__(self) -> int:
        """An epoch is as long as the original's."""
        return len(self.clips)

    def __getitem__(self, _: int) -> Batch:
        """A random window of a random clip, as in the original."""
        clip, targets, starts = self.clips[self.random.integers(len(self.clips))]
        target, other = int(self.random.choice(targets)), int(self.random.choice(starts))
        mel = np.load(clip.mel)
        rows = mel_rows(self.task, target)
        sample = {"mel": torch.from_numpy(np.stack([mel[:, r : r + WINDOW_ROWS] for r in rows]))}
        if self.task == "expert":
            matched = bool(self.random.integers(2))
            faces = read_window(clip.folder, target if matched else other)
            lower_halves = torch.from_numpy(faces[:, LOWER_HALF:].copy())
            return {**sample, "faces": lower_halves, "label": torch.tensor(float(matched))}
        windows = {"target": target, "reference": other}
        crops = {k: torch.from_numpy(read_window(clip.folder, s)) for k, s in windows.items()}
        return sample | crops


def mel_rows(task: str, start: int) -> list[int]:
    """First rows of the mel windows of a sample."""
    return [syncnet_mel_start(start), *(generator_mel_starts(start) if task == "generator" else [])]


def read_window(folder: Path, start: int) -> np.ndarray:
    """Five crops, uint8 (5, 96, 96, 3)."""
    faces = []
    for number in range(start, start + WINDOW_FRAMES):
        crop = cv2.imread(str(folder / f"{number}.jpg"))
        assert crop is not None, f"{folder}: crop {number} cannot be read"
        faces.append(cv2.resize(crop, (FACE_SIZE, FACE_SIZE)))
    return np.stack(faces)


def list_folders(data_root: Path, filelist: Path) -> list[Path]:
    """The folders that a file list names, each in the first word of a line."""
    lines = filelist.read_text(encoding="utf-8").splitlines()
    return [data_root / line.split()[0] for line in lines if line.strip()]


def folder_reader(task: str, clips: list[ListedClip]) -> Iterator[Batch]:
    """Batches of ``Folder`` without end."""
    dataset = Folder(task, clips)
    while True:
        yield from DataLoader(dataset, BATCH_SIZES[task])


def contender(batches: Iterator[Batch], samples: int) -> measure.Contender:
    """Load at least so many samples per round."""
    start = time.perf_counter()
    next(batches)
    ready = time.perf_counter() - start

    def load() -> measure.Round:
        start, count, size = time.perf_counter(), 0, 0
        while count < samples:
            batch = next(batches)
            count += len(batch["mel"])
            size += sum(part.nbytes for part in batch.values())
        seconds = time.perf_counter() - start
        return measure.Round(seconds=seconds, count=count, extra={"bytes": size, "ready": ready})

    return load


def compare(task: str, clips: list[ListedClip], options: argparse.Namespace) -> None:
    """Measure one task and print its table."""
    contenders: dict[str, measure.Contender] = {}
    with ExitStack() as stack:
        caches = Path(stack.enter_context(TemporaryDirectory()))
        loaders = our_loaders(task, options, caches)
        own = {name: contender(batches, options.items) for name, batches in loaders.items()}
        if options.original:
            contenders["original"] = stack.enter_context(
                original.start(
                    options.original,
                    task,
                    threads=options.threads,
                    filelists=options.filelists,
                    data_root=options.data_root,
                    batch_size=BATCH_SIZES[task],
                    items=options.items,
                )
            )
        contenders["folder"] = contender(folder_reader(task, clips), options.items)
        results = measure.take_turns(contenders | own, options.rounds)
        print(f"\n{task}, batches of {BATCH_SIZES[task]}")
        more: dict[str, Callable[[str, measure.Round], str]] = {
            "MB/s": lambda _, result: f"{result.extra['bytes'] / result.seconds / 1e6:.1f}",
            "ready in s": lambda _, result: f"{result.extra['ready']:.1f}",
        }
        measure.print_results(results, "samples/s", 1, more)


def print_read_rates(files: list[Path]) -> None:
    """One line on how fast the clips' files can be read; it leaves them in the system's cache."""
    size = sum(path.stat().st_size for path in files) / 1e6
    disk, cache = (measure.read_rate(files, from_disk=first) / 1e6 for first in (True, False))
    print(f"{len(files)} files, {size:.0f} MB: from disk {disk:.0f} MB/s, cached {cache:.0f} MB/s")


def main() -> None:
    """Measure what the command line asks for."""
    parser = measure.data_parser(__doc__, tasks=BATCH_SIZES, threads=1)
    parser.add_argument("--items", type=int, default=640, help="samples per round")
    options = parser.parse_args()
    measure.limit_threads(options.threads)
    try:
        options.opened_device = Device.open(options.device, "auto")
        print(measure.describe_machine(options.threads))
        folders = list_folders(options.data_root, options.filelists / "train.txt")
        print(f"memory copies {measure.copy_rate() / 1e9:.1f} GB/s")
        print_read_rates([path for folder in folders for path in sorted(folder.iterdir())])
        with TemporaryDirectory() as mels:
            clips = list_clips(options.data_root, options.filelists / "train.txt", Path(mels))
            for task in BATCH_SIZES if options.task == "both" else (options.task,):
                compare(task, clips, options)
    except (UserError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
