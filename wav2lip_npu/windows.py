"""Which mel rows belong to which video frames: the arithmetic of training and inference."""

from __future__ import annotations

from wav2lip_npu.audio import ROWS_PER_SECOND

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


def inference_rows(mel_rows: int, fps: float) -> list[int]:
    """First mel row for each output frame of an utterance.

    Frame i hears the 16 rows from ``int(i·80/fps)``; where they no longer fit, one last chunk is
    taken from the end.

    Raises:
        ValueError: the utterance is shorter than one chunk of 16 rows.
    """
    last = mel_rows - WINDOW_ROWS
    if last < 0:
        raise ValueError(f"{mel_rows} mel rows, at least {WINDOW_ROWS} are needed")
    rows_per_frame = ROWS_PER_SECOND / fps  # divided first: other roundings shift chunks by a row
    rows: list[int] = []
    while (row := int(len(rows) * rows_per_frame)) <= last:
        rows.append(row)
    return [*rows, last]
