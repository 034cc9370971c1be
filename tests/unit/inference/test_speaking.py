"""Who speaks in a video: portraits whose mouths follow a voice, or do not."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from helpers import tone, write_video
from portraits import two_portraits

from wav2lip_npu import LipSync
from wav2lip_npu.config import InferConfig
from wav2lip_npu.constants import SAMPLES_PER_FRAME
from wav2lip_npu.demo.talking_head import render
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.command import infer
from wav2lip_npu.inference.speaking import agreement
from wav2lip_npu.media.audio import write_wav
from wav2lip_npu.media.video_reader import read_frames

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "voice_activity.npz")
VOICE = (GOLDEN["samples"][8000:27_200] / 32768).astype(np.float32)  # 1.2 s of speech
FRAMES = 50  # of a shot
SPEECH = np.concatenate([VOICE, 0.7 * VOICE[::-1]])[: FRAMES * SAMPLES_PER_FRAME]
SPEECH = np.pad(SPEECH, (0, FRAMES * SAMPLES_PER_FRAME - len(SPEECH)))


def loudness(sound: np.ndarray) -> np.ndarray:
    """In each frame, 0 to 1."""
    power = np.sqrt(np.mean(sound.reshape(-1, SAMPLES_PER_FRAME) ** 2, axis=1))
    return np.asarray(power / power.max())


def person(number: int, opening: np.ndarray) -> list[np.ndarray]:
    mouth = np.stack([opening, 0 * opening, 0 * opening], axis=1)
    return list(render(two_portraits()[number], mouth, seed=number, fps=25))


@pytest.fixture(scope="module")
def interview(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """Two of whom the left one speaks; the other one; the same listens; both, in noise alone."""
    follows, still = loudness(SPEECH), np.zeros(FRAMES)
    wide = [np.pad(one, ((0, 0), (128, 128), (0, 0)), "edge") for one in person(1, follows)]
    listens = [np.pad(one, ((0, 0), (64, 192), (0, 0))) for one in person(1, still)]
    moves = np.tile([0.0, 0.3, 0.7, 0.3, 0.0], 10)
    frames = [
        *map(np.hstack, zip(person(0, follows), person(1, still), strict=True)),
        *wide,
        *listens,
        *map(np.hstack, zip(person(1, moves), person(0, moves), strict=True)),
    ]
    folder = tmp_path_factory.mktemp("interview")
    noise = np.zeros(FRAMES * SAMPLES_PER_FRAME, np.float32)
    noise[8000:] = 0.1 * np.random.default_rng(0).normal(size=len(noise) - 8000)
    write_wav(folder / "sound.wav", np.concatenate([SPEECH, SPEECH, SPEECH, noise]))
    video = write_video(folder / "a.mp4", frames, audio=folder / "sound.wav")
    return video, frames


def options(folder: Path, generator: Path, face: Path, **more: object) -> InferConfig:
    write_wav(folder / "new.wav", tone(8.0))
    common = {"device": "cpu", "precision": "fp32", "detector": "centerface", "detect_every": 5}
    common["blend"] = "paste"  # so that much of a frame changes
    return InferConfig(
        **{**common, "face_select": "speaking", **more}, checkpoint_path=generator, face=face,
        audio=folder / "new.wav", outfile=folder / "out.mp4",
    )  # fmt: skip


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("start", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_whoever_speaks_is_chosen_in_each_shot(
    tmp_path: Path, generator_file: Path, interview: tuple[Path, list], start: float,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    video, _ = interview
    config = options(tmp_path, generator_file, video, start=start, loop="cut")
    infer(config)
    times = [max(0.0, 2.0 * shot - start) for shot in range(4)]
    people = ["1", "2", "nobody", "nobody"]
    expected = ", ".join(f"{time:.2f} s: {who}" for time, who in zip(times, people, strict=True))
    assert f"who speaks in the shots from {expected}" in caplog.text
    source = [frame.image.astype(int) for frame in read_frames(video)][round(25 * start) :]
    result = [frame.image.astype(int) for frame in read_frames(config.outfile)]
    assert len(result) == len(source)
    changed = [np.abs(one - other) > 40 for one, other in zip(result, source, strict=True)]
    sides = np.array([[part.mean() for part in np.split(x, 2, axis=1)] for x in changed]) > 0.01
    shot = (np.arange(len(sides)) + round(25 * start)) // FRAMES
    assert sides[shot == 0, 0].all() and not sides[shot == 0, 1].any()
    assert sides[shot == 1].any(axis=1).all()
    assert not sides[shot >= 2].any()
    assert "without a face" not in caplog.text


def test_what_it_needs(
    tmp_path: Path, generator_file: Path, interview: tuple[Path, list], face: np.ndarray
) -> None:
    _, frames = interview
    silent = write_video(tmp_path / "silent.mp4", frames[:5])
    with pytest.raises(
        UserError, match=r"--face_select speaking: .*silent\.mp4: has no audio stream"
    ):
        infer(options(tmp_path, generator_file, silent))
    write_wav(tmp_path / "tone.wav", tone(0.2))
    nobody = write_video(tmp_path / "nobody.mp4", frames[:5], audio=tmp_path / "tone.wav")
    with pytest.raises(UserError, match="--face_select speaking: nobody who is seen speaks in 1"):
        infer(options(tmp_path, generator_file, nobody))
    with pytest.raises(UserError, match=r"--face_select speaking: .* is used as a still image"):
        infer(options(tmp_path, generator_file, silent, static=True))
    with pytest.raises(UserError, match="--face_select speaking: has no effect with --box"):
        options(tmp_path, generator_file, silent, box=(1, 2, 3, 4))
    with pytest.raises(UserError, match="face_select speaking: choose from largest"):
        LipSync(generator_file, device="cpu", face_select="speaking")


def test_agreement() -> None:
    """A mouth that follows the level, late by a few frames, against one that follows another."""
    rng = np.random.default_rng(0)
    level, other = (np.convolve(rng.normal(size=130), np.hanning(7), "valid") for _ in range(2))
    for late in (-3, 0, 3):
        opening = np.roll(level, late) + 0.3 * rng.normal(size=len(level))
        shapes = np.stack([opening, 0 * opening, opening], axis=1)
        assert agreement(shapes, level) > agreement(shapes, other) + 3
