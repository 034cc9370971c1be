"""Checks before a training: of the data, and whether networks can overfit one batch."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from face_detection.landmarks import FaceLandmarks
from wav2lip_npu.alignment.agreement import MIN_COMPARED_CLIPS, MIN_SIGMA, Agreement, compare
from wav2lip_npu.alignment.lags import MAX_LAG
from wav2lip_npu.alignment.mouth import Talk, voice_features
from wav2lip_npu.config import SyncConfig, TrainConfig
from wav2lip_npu.console.progress import track
from wav2lip_npu.constants import FACE_SIZE, FPS, WINDOW_FRAMES
from wav2lip_npu.data.clips import Clip, load_mel
from wav2lip_npu.data.dataset import ClipData, WindowDataset
from wav2lip_npu.data.mouths import load_mouth
from wav2lip_npu.data.sampler import WindowSampler
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.images import put_text
from wav2lip_npu.mel import last_valid_start, syncnet_mel_start
from wav2lip_npu.runtime.device import Device, seed
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import write_image
from wav2lip_npu.runtime.threads import share_of_cores
from wav2lip_npu.training.figures import make_sheet
from wav2lip_npu.training.metrics import optional

if TYPE_CHECKING:
    from wav2lip_npu.training.tasks import Task

SHEET = "data_check.png"
MAX_SHEET_CLIPS = 20
MAX_LENGTH_DIFFERENCE = 0.5  # seconds between a clip's sound and its frames
MAX_COMPARED_CLIPS = 100  # whose sound is compared with their lips
MAX_COMPARED_FRAMES = 250  # of each: 10 s

OVERFIT_WINDOWS = 8
OVERFIT_STEPS = 100
OVERFIT_LEARNING_RATE = 1e-3  # ten times the usual, as there is one batch
OVERFIT_RATIO = 0.5  # of the first loss, which the loss must fall below

log = logging.getLogger(__name__)


def check_data(data: ClipData, config: TrainConfig) -> None:
    """Look for faults in the training data; they are warnings, not errors.

    Args:
        data: what will be trained on.
        config: options of the training; the sheet is written to its ``checkpoint_dir``.
    """
    windows = WindowSampler(data.clips, config.seed).sample(range(4096))
    log.info("data check: in %.1f %% of the samples faces match", 100 * windows.matched.mean())
    _check_lengths(data.clips)
    with optional("data check: lips and sound"):
        _log_agreement(agreement(data.clips), config.data_root)
    path = config.checkpoint_dir / SHEET
    write_image(path, _sheet(data))
    log.info("data check: %s shows windows and their sound", path)


def _check_lengths(clips: list[Clip]) -> None:
    tolerance = MAX_LENGTH_DIFFERENCE * FPS  # frames
    differ = [
        clip.folder.name
        for clip in clips
        if abs(clip.crops[-1] - last_valid_start(clip.mel_rows) - WINDOW_FRAMES) > tolerance
    ]
    if differ:
        log.warning(
            "data check: in %d of %d clips sound and frames differ in length by more than %g s: "
            "%s; is it their own sound?",
            len(differ), len(clips), MAX_LENGTH_DIFFERENCE, ", ".join(differ[:5]),
        )  # fmt: skip


def _log_agreement(found: Agreement, data_root: Path) -> None:
    if not found.is_known:
        log.info(
            "data check: %d clips whose lips and sound can be compared, %d are needed: too few",
            found.clips, MIN_COMPARED_CLIPS,
        )  # fmt: skip
        return
    in_sync, late = found.clips - found.off - found.unclear, found.common_offset
    sync = f"wav2lip-npu sync --data_root {shlex.quote(str(data_root))}"
    level = logging.WARNING
    if not found.is_found:
        advice = (
            "Lips move hardly more with their own sound than with that of other clips "
            f"({found.sigma:.1f} standard errors, {MIN_SIGMA:g} are needed): SyncNet cannot learn "
            "from these. Is each audio.wav from the video of its crops? If so, they may be late "
            f"by different times, which {sync} shows"
        )
    elif late is not None and abs(late) >= SyncConfig.min_offset:
        side = "late" if late > 0 else "early"
        advice = f"In most of them the sound comes {abs(late)} frames too {side}: {sync} --fix"
    elif found.has_many_faults:
        advice = f"{sync} names them; --fix shifts those that are off, --filter leaves out the rest"
    else:
        level = logging.INFO
        advice = f"Lips move with their own sound ({found.sigma:.0f} standard errors)"
    log.log(
        level,
        "data check: of %d clips %d are in sync, %d off by %d frames or more, %d unclear. %s",
        found.clips, in_sync, found.off, SyncConfig.min_offset, found.unclear, advice,
    )  # fmt: skip


def agreement(clips: Sequence[Clip]) -> Agreement:
    """Compare the lips and the sound of a hundred clips, evenly spread over the list.

    Raises:
        OSError, cv2.error: the network that finds the mouth cannot be loaded.
    """
    if len(clips) < MIN_COMPARED_CLIPS:
        return Agreement(clips=len(clips))
    places = _even_places(len(clips), MAX_COMPARED_CLIPS)
    return compare(_read_talks([clips[place] for place in places]))


def _even_places(length: int, most: int) -> list[int]:
    """Places in a list, evenly spread over it."""
    return [int(place) for place in np.unique(np.linspace(0, length - 1, most).astype(int))]


def _read_talks(clips: Sequence[Clip]) -> list[Talk]:
    """Mouths and voices, in threads; clips that cannot be read are logged, and left out."""
    threads = min(share_of_cores(), len(clips))
    networks: SimpleQueue[FaceLandmarks] = SimpleQueue()  # those that no thread uses
    for _ in range(threads):
        networks.put(FaceLandmarks())

    def read(clip: Clip) -> Talk | str:
        network = networks.get()
        try:
            mouth = load_mouth(clip.folder, network, MAX_COMPARED_FRAMES)
            voice = voice_features(load_mel(clip.folder))[: MAX_COMPARED_FRAMES + MAX_LAG]
            return Talk(mouth=mouth, voice=voice)
        except Exception as error:  # whatever it is, it costs this clip alone
            return reason(error)
        finally:
            networks.put(network)

    with ThreadPoolExecutor(threads) as pool:
        results = list(track(pool.map(read, clips), "data check", "clip", len(clips)))
    faults = [result for result in results if isinstance(result, str)]
    if faults:
        log.warning(
            "data check: %d clips cannot be compared; the first: %s", len(faults), faults[0]
        )
    return [result for result in results if isinstance(result, Talk)]


def _sheet(data: ClipData) -> np.ndarray:
    """Windows of twenty clips, a row each: five faces, and the mel of their 0.2 s."""
    rows = []
    for place in _even_places(len(data.clips), MAX_SHEET_CLIPS):
        targets = data.clips[place].targets
        with suppress(UserError):  # training leaves out what cannot be read, and says so
            rows.append(_sheet_row(data, place, int(targets[len(targets) // 2])))
    titles = (*(f"frame {n}" for n in range(WINDOW_FRAMES)), "mel, 0.2 s")
    return make_sheet(torch.stack(rows), titles)


def _sheet_row(data: ClipData, place: int, start: int) -> torch.Tensor:
    """A window of a clip, and its mel: uint8 (6, 96, 96, 3) BGR."""
    places, starts = np.array([place]), np.array([start])
    window = data.store.faces(places, starts).cpu()[0]
    mel = data.store.mels(places, syncnet_mel_start(starts)[:, None]).cpu()[0, 0]
    levels = ((mel.numpy()[::-1] + 4) / 8 * 255).clip(0, 255).astype(np.uint8)
    image = cv2.resize(levels, (FACE_SIZE, FACE_SIZE), interpolation=cv2.INTER_NEAREST)
    coloured = torch.from_numpy(cv2.applyColorMap(image, cv2.COLORMAP_VIRIDIS))
    row = torch.cat([window, coloured[None]])
    name = f"{data.clips[place].folder.name} {start}"
    first = np.ascontiguousarray(row[0].numpy())
    put_text(first, name, (2, 10), scale=0.32, level=255)
    row[0] = torch.from_numpy(first)
    return row


def check_overfit(
    task_class: type[Task], config: TrainConfig, device: Device, data: ClipData
) -> None:
    """Train fresh networks on eight windows, and drop them.

    Raises:
        UserError: their loss does not fall by half.
    """
    seed(config.seed)
    plain = replace(
        config,
        learning_rate=OVERFIT_LEARNING_RATE,
        warmup_steps=0,
        schedule="constant",
        accumulate=1,
        ema=None,
        augment_flip=False,
        augment_colour=0.0,
        compile=False,
    )
    task = task_class(plain, device)
    sampler = task.batches.sampler_class(data.clips, config.seed)
    dataset = WindowDataset(data.store, task.batches, sampler)
    batch = device.to_device(dataset.__getitems__(range(OVERFIT_WINDOWS)))
    task.set_training(True)
    losses = [float(task.step(batch)[task.train_loss]) for _ in range(OVERFIT_STEPS)]
    first, last = losses[0], min(losses[-10:])
    if not last < OVERFIT_RATIO * first:
        raise UserError(
            f"--overfit_check: {OVERFIT_STEPS} steps on {OVERFIT_WINDOWS} windows took the loss "
            f"from {first:.3f} to {last:.3f} only; it should fall by half. The arithmetic is at "
            "fault (try --precision fp32 and --device cpu), or the images are all alike: see "
            "data_check.png"
        )
    log.info(
        "overfit check: %d steps on %d windows: %.3f → %.3f",
        OVERFIT_STEPS, OVERFIT_WINDOWS, first, last,
    )  # fmt: skip
