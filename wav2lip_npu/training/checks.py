"""Looks at the data before a training begins: lengths, sound against lips, a sheet of windows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from wav2lip_npu.constants import FACE_SIZE, FPS, WINDOW_FRAMES
from wav2lip_npu.data.clips import Clip
from wav2lip_npu.data.sampler import WindowData, WindowSampler
from wav2lip_npu.mel import last_valid_start, syncnet_mel_start
from wav2lip_npu.training.metrics import sheet_of

SHEET = "data_check.png"
SHOWN = 20  # clips on the sheet
LENGTHS_DIFFER = 0.5  # seconds by which a clip's sound may be longer or shorter than its picture
HEARD = 100  # clips whose sound is compared with their lips,
FRAMES = 250  # and the most frames of each: 10 s
FEWEST = 20  # clips from which something can be told
LAGS = np.arange(-8, 9)  # frames by which the sound is moved against the lips
SURE = 5.0  # standard errors; what other clips' sound gives by chance is below 4
MOUTH = slice(8, 42), slice(24, 72)  # rows of the lower half, and columns, where it is
ROWS_OF_FRAME = 4  # mel rows of a frame's 40 ms, rounded up

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How much lips and sound of the same clips have in common."""

    clips: int
    lag: int  # frames by which the sound comes late, where they agree best
    sigma: float  # by how many standard errors more than with the sound of other clips

    @property
    def found(self) -> bool:
        """Whether they have anything in common."""
        return self.sigma >= SURE


def check_data(data: WindowData, seed: int, folder: Path) -> None:
    """Look at the training data, and say what is wrong with it; it is a warning, not an error.

    Args:
        data: what will be trained on.
        seed: of the training's draws.
        folder: where the sheet is written.
    """
    draws = WindowSampler(data.clips, seed).draw(range(4096))
    log.info(
        "data check: %.1f %% of the windows drawn belong to their speech",
        100 * draws.matched.mean(),
    )
    _check_lengths(data.clips)
    _tell(agreement(data))
    path = folder / SHEET
    cv2.imwrite(str(path), _sheet(data))
    log.info("data check: %s shows windows and their speech", path)


def _check_lengths(clips: list[Clip]) -> None:
    differ = [
        clip.folder.name
        for clip in clips
        if abs(clip.crops[-1] - last_valid_start(clip.mel_rows) - WINDOW_FRAMES)
        > LENGTHS_DIFFER * FPS
    ]
    if differ:
        log.warning(
            "data check: of %d of %d clips, sound and picture differ in length by more than %g s: "
            "%s; is it their own sound?",
            len(differ), len(clips), LENGTHS_DIFFER, ", ".join(differ[:5]),
        )  # fmt: skip


def _tell(found: Agreement) -> None:
    if found.clips < FEWEST:
        log.info(
            "data check: %d clips with sound and lips that move, too few to compare them",
            found.clips,
        )
    elif not found.found:
        log.warning(
            "data check: in %d clips the lips move no more with their own sound than with that of "
            "other clips (%.1f standard errors, %g are needed): an expert cannot learn from these. "
            "Is each audio.wav from the video of its crops?",
            found.clips, found.sigma, SURE,
        )  # fmt: skip
    elif abs(found.lag) > 1:
        log.warning(
            "data check: in %d clips sound and lips agree best when the sound is taken %d frames "
            "%s, so it comes too %s. Correct that in the videos, and preprocess them anew",
            found.clips, abs(found.lag),
            "later" if found.lag > 0 else "earlier", "late" if found.lag > 0 else "early",
        )  # fmt: skip
    else:
        log.info(
            "data check: lips move with their sound in %d clips (%.0f standard errors), at %+d "
            "frames",
            found.clips, found.sigma, found.lag,
        )  # fmt: skip


def agreement(data: WindowData) -> Agreement:
    """Compare lips and sound of a hundred clips, and of each with the next one's sound.

    An open mouth is dark, and loud: from frame to frame, the change of the brightness around the
    mouth is correlated with that of the loudness, for each lag. What the sound of other clips
    gives too, as all of them begin with silence, is subtracted.
    """
    places = np.unique(np.linspace(0, len(data.clips) - 1, HEARD).astype(int))
    curves = [_curves(data, place) for place in places.tolist()]
    own = np.array([_correlations(lips, sound) for lips, sound in curves])
    sounds = [sound for _, sound in curves]
    others = np.array(
        [
            _correlations(lips, sound)
            for (lips, _), sound in zip(curves, [*sounds[1:], sounds[0]], strict=True)
        ]
    )
    # Rises together are negative: bright is shut.
    more = others - own
    more = more[np.isfinite(more).all(axis=1)]
    if len(more) < FEWEST:
        return Agreement(clips=len(more), lag=0, sigma=0.0)
    sigmas = more.mean(axis=0) / (more.std(axis=0) / np.sqrt(len(more)))
    best = int(np.argmax(sigmas))
    return Agreement(clips=len(more), lag=int(LAGS[best]), sigma=float(sigmas[best]))


def _curves(data: WindowData, place: int) -> tuple[np.ndarray, np.ndarray]:
    """The mouth's brightness and the loudness at each frame of a clip, NaN where unknown."""
    clip = data.clips[place]
    starts = clip.windows[(clip.windows % WINDOW_FRAMES == 0) & (clip.windows < FRAMES)]
    lips = np.full(FRAMES + WINDOW_FRAMES, np.nan)
    if len(starts):
        faces = data.store.faces(np.full(len(starts), place), starts, lower=True)
        bright = faces[:, :, MOUTH[0], MOUTH[1]].float().mean(dim=(2, 3, 4)).cpu().numpy()
        lips[(starts[:, None] + np.arange(WINDOW_FRAMES)).ravel()] = bright.ravel()
    frames = np.arange(min(FRAMES, last_valid_start(clip.mel_rows) + 1))
    rows = np.array([[syncnet_mel_start(frame)] for frame in frames.tolist()])
    mels = data.store.mels(np.full(len(frames), place), rows)
    sound = np.full(FRAMES + WINDOW_FRAMES, np.nan)
    sound[frames] = mels[:, 0, :, :ROWS_OF_FRAME].mean(dim=(1, 2)).cpu().numpy()
    return lips, sound


def _correlations(lips: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """Of the changes from frame to frame, for each lag; NaN where there are too few."""
    lips, sound = np.diff(lips), np.diff(sound)
    pad = int(LAGS[-1])
    shifted = np.pad(sound, pad, constant_values=np.nan)
    result = np.full(len(LAGS), np.nan)
    for number, lag in enumerate(LAGS.tolist()):
        heard = shifted[pad + lag : pad + lag + len(lips)]  # what is heard so much later
        known = np.isfinite(lips) & np.isfinite(heard)
        if known.sum() > 2 * WINDOW_FRAMES and lips[known].std() > 0 and heard[known].std() > 0:
            result[number] = np.corrcoef(lips[known], heard[known])[0, 1]
    return result


def _sheet(data: WindowData) -> np.ndarray:
    """Windows of twenty clips, a line each: five faces, and the mel of their 0.2 s."""
    places = np.unique(np.linspace(0, len(data.clips) - 1, SHOWN).astype(int))
    starts = np.array(
        [clip.targets[len(clip.targets) // 2] for clip in (data.clips[n] for n in places)]
    )
    faces = data.store.faces(places, starts).cpu()
    rows = np.array([[syncnet_mel_start(start)] for start in starts.tolist()])
    lines = []
    for place, start, window, mel in zip(
        places.tolist(), starts.tolist(), faces, data.store.mels(places, rows).cpu(), strict=True
    ):
        picture = ((mel[0].numpy()[::-1] + 4) / 8 * 255).clip(0, 255).astype(np.uint8)
        picture = cv2.resize(picture, (FACE_SIZE, FACE_SIZE), interpolation=cv2.INTER_NEAREST)
        coloured = torch.from_numpy(cv2.applyColorMap(picture, cv2.COLORMAP_VIRIDIS))
        line = torch.cat([window, coloured[None]])
        name = f"{data.clips[place].folder.name} {start}"
        first = np.ascontiguousarray(line[0].numpy())
        cv2.putText(first, name, (2, 10), cv2.FONT_HERSHEY_SIMPLEX, 0.32, (255, 255, 255), 1)
        line[0] = torch.from_numpy(first)
        lines.append(line)
    titles = (*(f"frame {n}" for n in range(WINDOW_FRAMES)), "mel, 0.2 s")
    return sheet_of(torch.stack(lines), titles)
