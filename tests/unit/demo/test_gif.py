"""The GIF shows both videos side by side, at half their rate, above the voice."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from wav2lip_npu.constants import SAMPLE_RATE
from wav2lip_npu.demo.gif import COLOUR, FACE_SIDE, HEARD_COLOUR, VOICE_HEIGHT, write_gif
from wav2lip_npu.media.audio import open_sound, write_wav
from wav2lip_npu.media.video_writer import VideoWriter


def colour_of(image: np.ndarray) -> np.ndarray:
    return np.median(image.reshape(-1, 3).astype(int), axis=0)


def test_both_videos_are_side_by_side(tmp_path: Path) -> None:
    before, after, wav = (tmp_path / name for name in ("before.mp4", "after.mp4", "voice.wav"))
    samples = np.zeros(2 * SAMPLE_RATE, np.float32)
    samples[SAMPLE_RATE:] = 0.5 * np.sin(np.arange(SAMPLE_RATE) * 0.3)  # silent, then loud
    write_wav(wav, samples)
    with VideoWriter(before, fps=25) as writer:
        for _ in range(50):
            writer.write(np.full((64, 64, 3), (200, 40, 40), np.uint8))
    with open_sound(wav) as sound, VideoWriter(after, fps=25, sound=sound) as writer:
        for _ in range(50):
            writer.write(np.full((64, 64, 3), (40, 160, 40), np.uint8))
    path = tmp_path / "demo.gif"
    write_gif(before, after, path)
    with av.open(str(path)) as file:
        (stream,) = file.streams.video
        frames = [frame.to_ndarray(format="bgr24") for frame in file.decode(stream)]
        assert abs(float(stream.average_rate or 0) - 12.5) < 0.2
    assert len(frames) == 25
    assert frames[0].shape == (FACE_SIDE + VOICE_HEIGHT, 2 * FACE_SIDE, 3)
    for frame in frames:
        assert np.abs(colour_of(frame[:FACE_SIDE, :FACE_SIDE]) - (200, 40, 40)).max() < 12
        assert np.abs(colour_of(frame[:FACE_SIDE, FACE_SIDE:]) - (40, 160, 40)).max() < 12
    middle = FACE_SIDE + VOICE_HEIGHT // 2
    early, late = frames[2][middle], frames[-2][middle]
    loud = slice(FACE_SIDE + 20, 2 * FACE_SIDE - 40)  # heard by the end, not at the beginning
    assert np.abs(early[loud].astype(int) - COLOUR).max() < 12
    assert np.abs(late[loud].astype(int) - HEARD_COLOUR).max() < 12
    above = FACE_SIDE + 4  # where only the loud half of the voice reaches
    assert np.abs(colour_of(late_row(frames[-2], above)[loud]) - HEARD_COLOUR).max() < 12
    assert colour_of(late_row(frames[-2], above)[: FACE_SIDE - 20]).min() > 225


def late_row(frame: np.ndarray, y: int) -> np.ndarray:
    return frame[y]
