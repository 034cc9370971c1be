"""The log-mel spectrogram, and every formula between video frames and mel rows.

A mel row is one time step of the spectrogram: 80 bands for 12.5 ms. The original calls it a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TypeVar

import numpy as np

from wav2lip_npu.constants import FPS, SAMPLE_RATE, WINDOW_FRAMES

HOP = 200  # samples between mel rows: 12.5 ms
STFT_WINDOW = 800  # samples: 50 ms
MEL_BANDS = 80
MEL_RANGE = (55.0, 7600.0)  # Hz
ROWS_PER_SECOND = SAMPLE_RATE // HOP  # 80
WINDOW_ROWS = WINDOW_FRAMES * ROWS_PER_SECOND // FPS  # 16: the 0.2 s of a window of frames
PREEMPHASIS = 0.97
REFERENCE_DB = 20.0  # subtracted from the level in dB
FLOOR_DB = -100.0  # levels below are silence
MEL_LIMIT = 4.0  # the spectrogram is scaled to -4 … 4
MAX_BLOCK_SAMPLES = 2**19  # 33 s, whose spectra take 40 MB
_HANN = np.hanning(STFT_WINDOW + 1)[:-1]  # periodic: it would go on with its first sample

FrameNumber = TypeVar("FrameNumber", int, np.ndarray)


# --- which mel rows belong to a frame ------------------------------------------------------------


def syncnet_mel_start(frame: FrameNumber) -> FrameNumber:
    """First of the 16 mel rows of the window whose first video frame is ``frame``."""
    return ROWS_PER_SECOND * frame // FPS


def generator_mel_starts(frame: int | np.ndarray) -> np.ndarray:
    """First mel row for each of the five frames of a generator's window.

    As in the original each frame hears the 0.2 s that begin one frame before it.

    Args:
        frame: the window's first frame, 1 or later, or an array of any shape of them.

    Returns:
        int (…, 5).

    Raises:
        ValueError: a frame before 1.
    """
    frames = np.asarray(frame)[..., None] + np.arange(-1, WINDOW_FRAMES - 1)
    if frames.min(initial=0) < 0:
        raise ValueError(f"a generator window starts at frame 1 or later, not at {frame}")
    return syncnet_mel_start(frames)


def inference_mel_start(frame: int, fps: float, *, as_trained: bool = False) -> int:
    """First of the 16 mel rows that an output frame hears.

    Args:
        frame: its number, from 0 on.
        fps: frames per second.
        as_trained: begin 1/25 s before the frame, as ``generator_mel_starts`` does, which for the
            first frames is row 0; not with the frame, as the original does.
    """
    if not as_trained:
        return int(frame * (ROWS_PER_SECOND / fps))  # other orders of rounding are off by a row
    seconds = frame / fps - 1 / FPS
    return max(0, math.floor(seconds * ROWS_PER_SECOND + 1e-6))  # 3.2 - 3.2 may be below 0


def last_valid_start(mel_rows: int) -> int:
    """The last frame whose window of 16 rows is whole: the inverse of ``syncnet_mel_start``."""
    return ((mel_rows - WINDOW_ROWS + 1) * FPS - 1) // ROWS_PER_SECOND


def valid_starts(starts: np.ndarray, mel_rows: int, *, per_frame: bool) -> np.ndarray:
    """The starts of windows whose mel rows are all there.

    Args:
        starts: (n,) first frames.
        mel_rows: rows of the clip's spectrogram.
        per_frame: whether the generator's rows are needed too, 16 for each frame.
    """
    if per_frame:
        starts = starts[starts >= 1]
        last_rows = generator_mel_starts(starts)[:, -1]
    else:
        last_rows = syncnet_mel_start(starts)
    return starts[last_rows + WINDOW_ROWS <= mel_rows]


def iter_mel_chunks(
    blocks: Iterable[np.ndarray], fps: float, *, as_trained: bool = False
) -> Iterator[np.ndarray]:
    """The 16 mel rows that each output frame hears, as soon as the sound for them is there.

    Frame n hears the rows from ``inference_mel_start(n)`` on. Where these no longer fit, it hears
    the last 16. The original ends with the first of those, some 0.15 s before the sound does; here
    frames go on for as long as there is sound.

    Args:
        blocks: (n,) mono samples at 16 kHz each.
        fps: frames per second.
        as_trained: see ``inference_mel_start``.

    Yields:
        float32 (80, 16).

    Raises:
        ValueError: there is less sound than one window.
    """
    samples, count, first = 0, 0, 0
    mel = np.zeros((MEL_BANDS, 0), np.float32)  # from row ``first`` on

    def counted() -> Iterator[np.ndarray]:
        nonlocal samples
        for block in blocks:
            samples += len(block)
            yield block

    for piece in stream_mel(counted()):
        mel = np.concatenate([mel, piece], axis=1)
        end = first + mel.shape[1]
        while (row := inference_mel_start(count, fps, as_trained=as_trained)) + WINDOW_ROWS <= end:
            yield mel[:, row - first : row - first + WINDOW_ROWS]
            count += 1
        past = min(row - first, mel.shape[1] - WINDOW_ROWS)
        if past > 0:
            mel, first = mel[:, past:], first + past
    if mel.shape[1] < WINDOW_ROWS:
        seconds = samples / SAMPLE_RATE
        raise ValueError(f"{seconds:.2f} s of sound, at least 0.2 s are needed")
    frames = max(count + 1, round(samples / SAMPLE_RATE * fps))
    for _ in range(count, frames):
        yield mel[:, -WINDOW_ROWS:]


# --- the spectrogram ---------------------------------------------------------------------------


def melspectrogram(samples: np.ndarray) -> np.ndarray:
    """The mel spectrogram that the networks hear.

    ``clip(8·(dB + 100)/100 − 4, −4, 4)`` of ``20·log10(max(1e-5, mel)) − 20``, where mel is the
    magnitude of a centred STFT, mirrored at the edges, through 80 Slaney bands. The formula is the
    original's, whose librosa 0.7 mirrors; zeros (the default of today's) would change the first
    and the last two rows.

    Args:
        samples: (n,) mono samples at 16 kHz.

    Returns:
        float32 (80, 1 + n // 200).
    """
    return np.concatenate(list(stream_mel([samples])), axis=1)


def stream_mel(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """``melspectrogram`` piece by piece, of samples that come in blocks.

    Args:
        blocks: (n,) mono samples at 16 kHz each.

    Yields:
        float32 (80, m), as soon as the samples for the rows are there: 25 ms after a row's own
        time. Joined they are the spectrogram of all samples, to the last digit.
    """
    heard = np.zeros(0)  # from the first sample of the next row's window on
    count, before, mirrored = 0, 0.0, False
    for block in _pieces(blocks):
        sharp = block.astype(np.float64)
        sharp[1:] -= PREEMPHASIS * block[:-1].astype(np.float64)
        sharp[0] -= PREEMPHASIS * before
        heard, before, count = np.concatenate([heard, sharp]), float(block[-1]), count + len(block)
        if not mirrored and count > STFT_WINDOW:
            heard, mirrored = np.concatenate([heard[STFT_WINDOW // 2 : 0 : -1], heard]), True
        rows = (len(heard) - STFT_WINDOW) // HOP + 1 if mirrored else 0
        if rows > 0:
            yield _mel_rows(heard[: (rows - 1) * HOP + STFT_WINDOW])
            heard = heard[rows * HOP :]
    if not mirrored:
        # Up to 50 ms: too short to be mirrored as it is.
        heard = np.pad(heard, (0, max(0, STFT_WINDOW - count)))
        heard = np.concatenate([heard[STFT_WINDOW // 2 : 0 : -1], heard])
    heard = np.concatenate([heard, heard[-2 : -2 - STFT_WINDOW // 2 : -1]])
    given = 0 if not mirrored else 1 + (count - STFT_WINDOW // 2) // HOP
    rows = 1 + count // HOP - given
    if rows > 0:
        yield _mel_rows(heard[: (rows - 1) * HOP + STFT_WINDOW])


def _pieces(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same samples in smaller blocks: the spectra of a block are in memory together."""
    for block in blocks:
        for first in range(0, len(block), MAX_BLOCK_SAMPLES):
            yield block[first : first + MAX_BLOCK_SAMPLES]


def _mel_rows(sharp: np.ndarray) -> np.ndarray:
    """Mel rows of whole windows of pre-emphasised samples."""
    windows = np.lib.stride_tricks.sliding_window_view(sharp, STFT_WINDOW)[::HOP]
    spectrum = np.abs(np.fft.rfft(windows * _HANN)).T
    floor = 10.0 ** (FLOOR_DB / 20.0)
    level = 20.0 * np.log10(np.maximum(floor, _mel_filters() @ spectrum)) - REFERENCE_DB
    scaled = 2.0 * MEL_LIMIT * (level - FLOOR_DB) / -FLOOR_DB - MEL_LIMIT
    return np.clip(scaled, -MEL_LIMIT, MEL_LIMIT).astype(np.float32)


@cache
def _mel_filters() -> np.ndarray:
    """(80, 401) triangles that overlap by half on Slaney's mel scale, each of the area 1 Hz.

    His Auditory Toolbox (1998) has the scale: linear up to 1 kHz, 15 mels, then 27 mels for each
    factor of 6.4.
    """
    low, high = (
        hz * 15 / 1000 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)
        for hz in MEL_RANGE
    )
    mels = np.linspace(low, high, MEL_BANDS + 2)
    edges = np.where(mels < 15, mels * 1000 / 15, 1000 * 6.4 ** ((mels - 15) / 27))[:, None]  # Hz
    bins = np.fft.rfftfreq(STFT_WINDOW, 1 / SAMPLE_RATE)
    left, top, right = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((bins - left) / (top - left), (right - bins) / (right - top))
    return np.maximum(triangles, 0) * 2 / (right - left)
