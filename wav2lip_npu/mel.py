"""Which mel rows belong to which video frames: the arithmetic of training and inference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from wav2lip_npu.media.audio import MEL_BANDS, ROWS_PER_SECOND, SAMPLE_RATE, stream_mel

FPS = 25  # video frames a second of all training data
WINDOW_FRAMES = 5  # frames that the expert judges together: 0.2 s
WINDOW_ROWS = WINDOW_FRAMES * ROWS_PER_SECOND // FPS  # 16 mel rows: the same 0.2 s
FACE_SIZE = 96  # pixels, width and height of a crop as the networks see it
LOWER_HALF = FACE_SIZE // 2  # first row of the half that is masked and judged


def expert_row(frame: int) -> int:
    """First mel row of the window whose first video frame is ``frame``."""
    return ROWS_PER_SECOND * frame // FPS


def last_frame(mel_rows: int) -> int:
    """The last frame whose window of 16 rows is whole: the inverse of ``expert_row``."""
    return ((mel_rows - WINDOW_ROWS + 1) * FPS - 1) // ROWS_PER_SECOND


def generator_rows(frame: int) -> list[int]:
    """First mel row for each of the window's five frames.

    Each frame hears the 0.2 s that begin one frame before it, so ``frame`` must be at least 1.
    """
    if frame < 1:
        raise ValueError(f"a generator window starts at frame 1 or later, not at {frame}")
    return [expert_row(frame + k - 1) for k in range(WINDOW_FRAMES)]


def inference_row(frame: int, fps: float) -> int:
    """First of the 16 mel rows that an output frame hears."""
    return int(frame * (ROWS_PER_SECOND / fps))  # other orders of rounding are off by a row


def spoken_windows(blocks: Iterable[np.ndarray], fps: float) -> Iterator[np.ndarray]:
    """What each output frame hears, as soon as the sound for it is there.

    Frame n hears 16 rows from ``inference_row(n)``; where they no longer fit, the last there are.
    The original ends with these, some 0.15 s before the sound does; here they are held for as long
    as there is sound.

    Args:
        blocks: (n,) mono samples at 16 kHz each.
        fps: frames a second.

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
        while (row := inference_row(count, fps)) + WINDOW_ROWS <= first + mel.shape[1]:
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
