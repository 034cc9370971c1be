"""Checks before a training: of the data, and whether networks can overfit one batch."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from wav2lip_npu.config import TrainConfig
from wav2lip_npu.constants import FACE_SIZE, FPS, WINDOW_FRAMES
from wav2lip_npu.data.clips import Clip
from wav2lip_npu.data.dataset import ClipData, WindowDataset
from wav2lip_npu.data.sampler import WindowSampler
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.images import put_text
from wav2lip_npu.mel import last_valid_start, syncnet_mel_start
from wav2lip_npu.runtime.device import Device, seed
from wav2lip_npu.runtime.files import write_image
from wav2lip_npu.training.figures import make_sheet

if TYPE_CHECKING:
    from wav2lip_npu.training.tasks import Task

SHEET = "data_check.png"
MAX_SHEET_CLIPS = 20
MAX_LENGTH_DIFFERENCE = 0.5  # seconds between a clip's sound and its frames
MAX_COMPARED_CLIPS = 100  # whose sound is compared with their lips
MAX_COMPARED_FRAMES = 250  # of each: 10 s
MIN_COMPARED_CLIPS = 20  # from which something can be concluded
AV_OFFSETS = np.arange(-8, 9)  # frames by which the sound is shifted against the lips
MIN_SIGMA = 5.0  # standard errors; other clips' sound gives less than 4 by chance
MOUTH = slice(8, 42), slice(24, 72)  # rows of the lower half, and columns
ROWS_PER_FRAME = 4  # mel rows of a frame's 40 ms, rounded up

OVERFIT_WINDOWS = 8
OVERFIT_STEPS = 100
OVERFIT_LEARNING_RATE = 1e-3  # ten times the usual, as there is one batch
OVERFIT_RATIO = 0.5  # of the first loss, which the loss must fall below

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How much the lips and the sound of the same clips have in common."""

    clips: int
    av_offset: int  # frames by which the sound comes late, where they agree best
    sigma: float  # by how many standard errors more than with the sound of other clips

    @property
    def found(self) -> bool:
        """Whether they have anything in common."""
        return self.sigma >= MIN_SIGMA


def check_data(data: ClipData, seed: int, folder: Path) -> None:
    """Look for faults in the training data; they are warnings, not errors.

    Args:
        data: what will be trained on.
        seed: of the training's samples.
        folder: where the sheet is written.
    """
    windows = WindowSampler(data.clips, seed).sample(range(4096))
    log.info("data check: in %.1f %% of the samples faces match", 100 * windows.matched.mean())
    _check_lengths(data.clips)
    _log_agreement(agreement(data))
    path = folder / SHEET
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


def _log_agreement(found: Agreement) -> None:
    if found.clips < MIN_COMPARED_CLIPS:
        log.info(
            "data check: %d clips with sound and lips that move, too few to compare them",
            found.clips,
        )
    elif not found.found:
        log.warning(
            "data check: in %d clips the lips move no more with their own sound than with that of "
            "other clips (%.1f standard errors, %g are needed): SyncNet cannot learn from these. "
            "Is each audio.wav from the video of its crops?",
            found.clips, found.sigma, MIN_SIGMA,
        )  # fmt: skip
    elif abs(found.av_offset) > 1:
        late = found.av_offset > 0
        log.warning(
            "data check: in %d clips sound and lips agree best when the sound is taken %d frames "
            "%s, so it comes too %s. Correct that in the videos, and preprocess them again",
            found.clips, abs(found.av_offset),
            "later" if late else "earlier", "late" if late else "early",
        )  # fmt: skip
    else:
        log.info(
            "data check: lips move with their sound in %d clips (%.0f standard errors), at an "
            "offset of %+d frames",
            found.clips, found.sigma, found.av_offset,
        )  # fmt: skip


def agreement(data: ClipData) -> Agreement:
    """Compare the lips and the sound of a hundred clips, and of each with the next one's sound.

    When the mouth opens, its region gets darker and the audio louder: the changes from frame to
    frame are correlated, at each offset. All clips begin with silence, so the sound of other clips
    correlates too; that is subtracted.
    """
    places = np.unique(np.linspace(0, len(data.clips) - 1, MAX_COMPARED_CLIPS).astype(int))
    curves = [_curves(data, place) for place in places.tolist()]
    sounds = [sound for _, sound in curves]
    own, others = (
        np.array([_correlations(lips, s) for (lips, _), s in zip(curves, paired, strict=True)])
        for paired in (sounds, [*sounds[1:], sounds[0]])
    )
    excess = others - own  # brightness falls where the mouth opens
    excess = excess[np.isfinite(excess).all(axis=1)]
    if len(excess) < MIN_COMPARED_CLIPS:
        return Agreement(clips=len(excess), av_offset=0, sigma=0.0)
    sigmas = excess.mean(axis=0) / (excess.std(axis=0) / np.sqrt(len(excess)))
    best = int(np.argmax(sigmas))
    return Agreement(clips=len(excess), av_offset=int(AV_OFFSETS[best]), sigma=float(sigmas[best]))


def _curves(data: ClipData, place: int) -> tuple[np.ndarray, np.ndarray]:
    """The mouth's brightness and the loudness at each frame of a clip, NaN where unknown."""
    try:
        return _read_curves(data, place)
    except UserError:  # training leaves out what cannot be read, and says so
        unknown = np.full(MAX_COMPARED_FRAMES + WINDOW_FRAMES, np.nan)
        return unknown, unknown


def _read_curves(data: ClipData, place: int) -> tuple[np.ndarray, np.ndarray]:
    clip = data.clips[place]
    in_turn = clip.windows % WINDOW_FRAMES == 0
    starts = clip.windows[in_turn & (clip.windows < MAX_COMPARED_FRAMES)]
    lips = np.full(MAX_COMPARED_FRAMES + WINDOW_FRAMES, np.nan)
    if len(starts):
        faces = data.store.faces(np.full(len(starts), place), starts, lower=True)
        brightness = faces[:, :, MOUTH[0], MOUTH[1]].float().mean(dim=(2, 3, 4)).cpu().numpy()
        lips[(starts[:, None] + np.arange(WINDOW_FRAMES)).ravel()] = brightness.ravel()
    frames = np.arange(min(MAX_COMPARED_FRAMES, last_valid_start(clip.mel_rows) + 1))
    rows = syncnet_mel_start(frames)[:, None]
    mels = data.store.mels(np.full(len(frames), place), rows)
    sound = np.full(MAX_COMPARED_FRAMES + WINDOW_FRAMES, np.nan)
    sound[frames] = mels[:, 0, :, :ROWS_PER_FRAME].mean(dim=(1, 2)).cpu().numpy()
    return lips, sound


def _correlations(lips: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """Of the changes from frame to frame, for each offset; NaN where there are too few."""
    lips, sound = np.diff(lips), np.diff(sound)
    pad = int(AV_OFFSETS[-1])
    padded = np.pad(sound, pad, constant_values=np.nan)
    result = np.full(len(AV_OFFSETS), np.nan)
    for number, offset in enumerate(AV_OFFSETS.tolist()):
        later = padded[pad + offset : pad + offset + len(lips)]
        known = np.isfinite(lips) & np.isfinite(later)
        if known.sum() > 2 * WINDOW_FRAMES and lips[known].std() > 0 and later[known].std() > 0:
            result[number] = np.corrcoef(lips[known], later[known])[0, 1]
    return result


def _sheet(data: ClipData) -> np.ndarray:
    """Windows of twenty clips, a row each: five faces, and the mel of their 0.2 s."""
    places = np.unique(np.linspace(0, len(data.clips) - 1, MAX_SHEET_CLIPS).astype(int))
    rows = []
    for place in places.tolist():
        targets = data.clips[place].targets
        with suppress(UserError):  # see ``_curves``
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
