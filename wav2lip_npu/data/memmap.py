"""The memmap cache: all crops of a list, 96 × 96 pixels, in one file, and all mels in another.

It is three files, named by the list and a digest of the clips' fingerprints:
``train-1f2e3d4c.crops`` (uint8, crop by crop), ``.mels`` (float32, row by row, 80 a row) and
``.json``, written last, with a checksum for each clip. Other clips, or changed ones, give another
name.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import re
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch

from wav2lip_npu.console.progress import Progress
from wav2lip_npu.constants import FACE_SIZE, LOWER_HALF, WINDOW_FRAMES
from wav2lip_npu.data.clips import Clip, UnreadableSamples, load_crop, load_mel
from wav2lip_npu.errors import UserError
from wav2lip_npu.mel import MEL_BANDS, WINDOW_ROWS
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import PARTIAL_PATTERN, atomic_write, write_text
from wav2lip_npu.runtime.locks import is_in_use, mark_in_use
from wav2lip_npu.runtime.threads import usable_cores

FORMAT = 1  # of the files; a higher one is another layout
CROP_SHAPE = (FACE_SIZE, FACE_SIZE, 3)
CROP_BYTES = FACE_SIZE * FACE_SIZE * 3
ROW_BYTES = MEL_BANDS * 4  # float32
CROPS_PER_JOB = 256  # that a thread decodes: 7 MB
CHECKED_CLIPS = 8  # whose checksums are compared each time a cache is opened
MAX_LOGGED_FAULTS = 10  # crops that cannot be read
GIB = 2**30
_CACHE_NAME = re.compile(r"-[0-9a-f]{8}\.(crops|mels|json|partial)")
_PARTIAL_NAME = re.compile(rf"-[0-9a-f]{{8}}\.{PARTIAL_PATTERN}\.(crops|mels|json)")

log = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")


class MemmapClips:
    """Windows from the cache, on disk or in a device's memory; see ``batches.Store``."""

    def __init__(self, base: Path, clips: Sequence[Clip], faults: Mapping[int, str]) -> None:
        """Describe a cache that is there; its files are opened when they are first read.

        Args:
            base: path of the cache's files without their suffix.
            clips: what it holds.
            faults: number of a crop in the cache → why it could not be read.
        """
        self._base = base
        self._faults = faults
        self._faulty = np.array(sorted(faults), np.int64)
        self._in_use: IO[bytes] | None = mark_in_use(base.with_suffix(".json"))
        self._crops = [clip.crops.astype(np.int32) for clip in clips]
        self._first_rows = np.cumsum([0, *(clip.mel_rows for clip in clips)])
        self._first_crops = np.cumsum([0, *(len(clip.crops) for clip in clips)])
        self._halves: torch.Tensor | None = None  # two of each crop
        self._rows: torch.Tensor | None = None
        self.on_device = False

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process, which maps the files itself."""
        return {**self.__dict__, "_halves": None, "_rows": None, "_in_use": None}

    def move(self, device: Device) -> None:
        """Copy all crops and mels to a device, and gather windows there.

        Raises:
            UserError: it has no room for them.
        """
        size = int(self._first_crops[-1]) * CROP_BYTES + int(self._first_rows[-1]) * ROW_BYTES
        free = device.free_memory()
        if free is not None and size > free:
            raise UserError(
                f"--data_on_device: the crops take {size / GIB:.1f} GiB and {device.torch_device} "
                f"has {free / GIB:.1f} GiB free; leave it out"
            )
        self._open()
        assert self._halves is not None and self._rows is not None
        self._halves = device.copy_to_device(self._halves)
        self._rows = device.copy_to_device(self._rows)
        self.on_device = True
        log.info("%s: %.2f GiB copied to %s", self._base.name, size / GIB, device.torch_device)

    def faces(self, clips: np.ndarray, starts: np.ndarray, *, lower: bool = False) -> torch.Tensor:
        """See ``batches.Store``."""
        places = [
            np.searchsorted(self._crops[clip], start)
            for clip, start in zip(clips.tolist(), starts.tolist(), strict=True)
        ]
        crops = (self._first_crops[clips] + places)[:, None] + np.arange(WINDOW_FRAMES)
        if len(self._faulty):
            self._require_sound(crops)
        halves = 2 * crops[..., None] + (np.array([1]) if lower else np.arange(2))
        height = FACE_SIZE - LOWER_HALF if lower else FACE_SIZE
        faces = self._gather("_halves", halves)
        return torch.as_tensor(faces.reshape(len(clips), WINDOW_FRAMES, height, FACE_SIZE, 3))

    def _require_sound(self, crops: np.ndarray) -> None:
        """Raise UnreadableSamples if crops (n, 5) could not be read when the cache was built."""
        faulty = np.isin(crops, self._faulty)
        rows = np.flatnonzero(faulty.any(axis=1)).tolist()
        if rows:
            raise UnreadableSamples(
                {row: self._faults[int(crops[row][faulty[row]][0])] for row in rows}
            )

    def mels(self, clips: np.ndarray, rows: np.ndarray) -> torch.Tensor:
        """See ``batches.Store``."""
        first = self._first_rows[clips][:, None] + rows
        windows = self._gather("_rows", first[..., None] + np.arange(WINDOW_ROWS))
        upright = windows.reshape(*rows.shape, WINDOW_ROWS, MEL_BANDS).swapaxes(-1, -2)
        if isinstance(upright, np.ndarray):
            return torch.from_numpy(np.ascontiguousarray(upright))
        return upright.contiguous()

    def _gather(self, name: str, numbers: np.ndarray) -> np.ndarray | torch.Tensor:
        if self._halves is None:
            self._open()
        source, flat = getattr(self, name), numbers.reshape(-1)
        if source.is_cpu:  # NumPy has one thread, which does this faster than torch's several
            return source.numpy().take(flat, axis=0)
        return source.index_select(0, torch.from_numpy(flat).to(source.device))

    def _open(self) -> None:
        crops, mels = _map(self._base)
        self._halves = torch.from_numpy(crops.reshape(-1, LOWER_HALF, FACE_SIZE, 3))
        self._rows = torch.from_numpy(mels)


def _map(base: Path) -> tuple[np.ndarray, np.ndarray]:
    """Crops (N, 96, 96, 3) and mel rows (M, 80) of a cache, as they are on the disk."""
    # Mapped for writing, which torch asks for; "c" keeps what is written to itself.
    crops = np.memmap(base.with_suffix(".crops"), np.uint8, "c").reshape(-1, *CROP_SHAPE)
    mels = np.memmap(base.with_suffix(".mels"), np.float32, "c").reshape(-1, MEL_BANDS)
    return crops, mels


def open_memmap(
    clips: Sequence[Clip], folder: Path, name: str, *, limit_gb: float | None, build: bool = True
) -> MemmapClips | None:
    """The memmap cache of these clips; built if it is missing, or the clips have changed.

    Call it in ``locks.first_alone``, so that one process builds it.

    Args:
        clips: what it holds.
        folder: where caches are.
        name: of the list, which keeps one cache.
        limit_gb: GiB that it may take; None is half of what is free there.
        build: whether to build one that is missing.

    Returns:
        None if it may not be built, is too large, or cannot be written: read the files instead.
    """
    if limit_gb == 0:
        return None
    prints = "".join(clip.fingerprint for clip in clips)
    names = "\n".join(str(clip.folder) for clip in clips)
    digest = hashlib.blake2b(f"{FORMAT}{names}{prints}".encode(), digest_size=4).hexdigest()
    base = folder / f"{name}-{digest}"
    checked = np.linspace(0, len(clips) - 1, min(CHECKED_CLIPS, len(clips))).astype(int)
    try:
        cache = _open_sound(base, clips, checked)
    except ValueError as error:
        if not build:
            return None
        if base.with_suffix(".json").is_file():
            log.warning("%s: %s; building it again", base.with_suffix(".crops"), error)
    else:
        log.info("%s: memmap cache %s", name, base.with_suffix(".crops"))
        return cache
    try:
        if not _has_room(clips, folder, name, limit_gb):
            return None
        _remove_old(folder, name)
        _build(base, clips)
        return _open_sound(base, clips, range(len(clips)))
    except Exception as error:  # whatever it is, a cache must not end a training
        log.warning("%s: no memmap cache (%s): JPEG files are read instead", name, reason(error))
        return None


def _has_room(clips: Sequence[Clip], folder: Path, name: str, limit_gb: float | None) -> bool:
    """Whether the cache may be built, which is logged.

    Raises:
        OSError: the folder cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = sum(len(clip.crops) * CROP_BYTES + clip.mel_rows * ROW_BYTES for clip in clips)
    free = shutil.disk_usage(folder).free + sum(p.stat().st_size for p in _old(folder, name))
    limit = free / 2 if limit_gb is None else limit_gb * GIB
    if size > limit:
        log.info(
            "%s: the memmap cache would take %.2f GiB, %.2f GiB are allowed (--cache_gb): "
            "JPEG files are read instead", name, size / GIB, limit / GIB,
        )  # fmt: skip
        return False
    log.info(
        "%s: building the memmap cache of %d clips, %.2f GiB, in %s",
        name, len(clips), size / GIB, folder,
    )  # fmt: skip
    return True


def _remove_old(folder: Path, name: str) -> None:
    """Remove earlier caches of a list and what killed runs left, but no file of the user's."""
    for path in _old(folder, name):
        path.unlink(missing_ok=True)


def _old(folder: Path, name: str) -> list[Path]:
    """The files of earlier caches of a list that no run uses, and partial ones."""
    caches = [
        path
        for path in folder.glob(f"{glob.escape(name)}-*")
        if _CACHE_NAME.fullmatch(path.name.removeprefix(name))
        and path.is_file()
        and not is_in_use(path.with_suffix(".json"))
    ]
    # Only the process that builds is here, see ``open_memmap``: nobody writes these now.
    partial = [
        path
        for path in folder.glob(f".{glob.escape(name)}-*")
        if _PARTIAL_NAME.fullmatch(path.name.removeprefix(f".{name}")) and path.is_file()
    ]
    return caches + partial


def _open_sound(base: Path, clips: Sequence[Clip], checked: Iterable[int]) -> MemmapClips:
    """Open a cache, and compare the checksums of the clips ``checked``.

    Raises:
        ValueError: what is wrong with it.
    """
    for suffix in (".json", ".crops", ".mels"):  # a pipe would be waited for
        if not base.with_suffix(suffix).is_file():
            raise ValueError(f"without its {suffix} file")
    try:
        record = json.loads(base.with_suffix(".json").read_text(encoding="utf-8"))
        sums = record["checksums"]
        faults = {int(crop): str(fault) for crop, fault in record.get("faults", {}).items()}
        crops, mels = _map(base)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"incomplete ({reason(error)})") from error
    first_crop = [0, *accumulate(len(clip.crops) for clip in clips)]
    first_row = [0, *accumulate(clip.mel_rows for clip in clips)]
    if not isinstance(sums, list) or len(sums) != len(clips):
        raise ValueError("of other clips")
    if (len(crops), len(mels)) != (first_crop[-1], first_row[-1]):
        raise ValueError("of the wrong size")
    for place in checked:
        faces = crops[first_crop[place] : first_crop[place + 1]]
        rows = mels[first_row[place] : first_row[place + 1]]
        if [zlib.crc32(faces.data), zlib.crc32(rows.data)] != sums[place]:
            raise ValueError(f"damaged at {clips[place].folder.name}")
    for fault in list(faults.values())[:MAX_LOGGED_FAULTS]:
        log.warning("left out: %s", fault)
    if len(faults) > MAX_LOGGED_FAULTS:
        log.warning("left out: %d crops in all", len(faults))
    return MemmapClips(base, clips, faults)


def _build(base: Path, clips: Sequence[Clip]) -> None:
    """Write the files of a cache; the one with the checksums last."""
    sums = [[0, 0] for _ in clips]
    first_crop = [0, *accumulate(len(clip.crops) for clip in clips)]
    parts = [
        (
            place,
            first_crop[place] + start,
            clip.folder,
            clip.crops[start : start + CROPS_PER_JOB].tolist(),
        )
        for place, clip in enumerate(clips)
        for start in range(0, len(clip.crops), CROPS_PER_JOB)
    ]

    faults: dict[int, str] = {}  # number of a crop in the cache → why it cannot be read

    def decode(part: tuple[int, int, Path, list[int]]) -> tuple[int, np.ndarray]:
        place, first, folder, numbers = part
        faces = np.zeros((len(numbers), *CROP_SHAPE), np.uint8)
        for offset, number in enumerate(numbers):
            try:
                faces[offset] = load_crop(folder / f"{number}.jpg")
            except UserError as error:
                faults[first + offset] = str(error)
        return place, faces

    progress = Progress("packing", "crop", sum(len(clip.crops) for clip in clips))
    threads = usable_cores()
    with ThreadPoolExecutor(threads) as pool, progress:
        with atomic_write(base.with_suffix(".crops")) as partial, partial.open("wb") as file:
            for place, faces in _map_in_order(pool, decode, parts, ahead=2 * threads):
                file.write(faces.data)
                sums[place][0] = zlib.crc32(faces.data, sums[place][0])
                progress.update(len(faces))
        with atomic_write(base.with_suffix(".mels")) as partial, partial.open("wb") as file:
            mels = _map_in_order(pool, load_mel, [clip.folder for clip in clips], ahead=2 * threads)
            for place, mel in enumerate(mels):
                rows = np.ascontiguousarray(mel.T)
                file.write(rows.data)
                sums[place][1] = zlib.crc32(rows.data)
    record = {"format": FORMAT, "checksums": sums, "faults": faults}
    write_text(base.with_suffix(".json"), json.dumps(record))


def _map_in_order(
    pool: ThreadPoolExecutor, work: Callable[[Job], Result], jobs: Iterable[Job], *, ahead: int
) -> Iterator[Result]:
    """The results in the order of the jobs, of which no more than ``ahead`` are running."""
    waiting: deque[Future[Result]] = deque()
    for job in jobs:
        waiting.append(pool.submit(work, job))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
