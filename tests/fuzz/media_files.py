"""Small media files of any shape, made with PyAV; frames tell their number by brightness."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from skimage import data as pictures

SIDE = 128  # pixels of the frames
FPS = 25
FRAMES = 25
RATE = 16_000  # Hz
STEP = 3  # of brightness, from a frame to the next
TAG = "T" * 12  # the title of every file; mutations put other bytes there


def face(number: int, side: int = SIDE) -> np.ndarray:
    """A face that CenterFace finds, (side, side, 3) BGR; all of it is brighter by the number."""
    picture = pictures.astronaut()[:256, 96:352, ::-1]
    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return np.rint(small * 0.6 + STEP * number).clip(0, 255).astype(np.uint8)


def number_of(image: np.ndarray, first: np.ndarray) -> int:
    """The number of a frame, or of a part, by that of number 0."""
    return round((float(image.mean()) - float(first.mean())) / STEP)


def speech(seconds: float, rate: int = RATE) -> np.ndarray:
    """A tone that swells, float32 (n,)."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * 300 * t) * np.sin(2 * np.pi * t) ** 2).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is to be in a video file."""

    codec: str = "libx264"
    pixels: str = "yuv420p"
    frames: int = FRAMES
    fps: Fraction = Fraction(FPS)
    side: tuple[int, int] | None = None  # (width, height) where the faces are stretched to
    ticks: tuple[int, ...] = ()  # time stamps of the frames, in 1/fps; empty: 0, 1, 2 …
    options: dict[str, str] = field(default_factory=dict)
    muxing: dict[str, str] = field(default_factory=dict)
    sound_codec: str | None = "pcm_s16le"
    sound_rate: int = RATE
    sound_seconds: float = 1.0
    layout: str = "mono"
    tracks: int = 1  # sound tracks; only the first has the speech


def encode(path: Path, recipe: Recipe) -> Path:
    """Write a video file; the suffix chooses the container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"fflags": "+bitexact", **recipe.muxing}) as file:
        file.metadata["title"] = TAG
        video = file.add_stream(recipe.codec, rate=recipe.fps, options=recipe.options)
        width, height = recipe.side or (SIDE, SIDE)
        video.width, video.height, video.pix_fmt = width, height, recipe.pixels
        video.codec_context.time_base = 1 / recipe.fps
        sounds = [
            sound_stream(file, recipe) for _ in range(recipe.tracks if recipe.sound_codec else 0)
        ]
        for number in range(recipe.frames):
            image = face(number % FRAMES)
            if recipe.side:
                image = cv2.resize(image, recipe.side)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame = frame.reformat(format=recipe.pixels)
            frame.pts = recipe.ticks[number] if recipe.ticks else number
            frame.time_base = 1 / recipe.fps
            file.mux(video.encode(frame))
        if recipe.frames:
            file.mux(video.encode(None))
        for place, sound in enumerate(sounds):
            encode_sound(file, sound, recipe, silent=place > 0)
    return path


def sound_stream(file: av.container.OutputContainer, recipe: Recipe) -> av.AudioStream:
    stream = file.add_stream(recipe.sound_codec, rate=recipe.sound_rate, layout=recipe.layout)
    if recipe.sound_codec == "wmav2":  # it has no default
        stream.bit_rate = 64_000
    return stream


def encode_sound(
    file: av.container.OutputContainer, stream: av.AudioStream, recipe: Recipe, *, silent: bool
) -> None:
    samples = speech(recipe.sound_seconds, recipe.sound_rate) * (not silent)
    channels = stream.codec_context.layout.nb_channels
    whole = np.repeat((samples * 32767).astype(np.int16)[:, None], channels, axis=1)
    resampler = av.AudioResampler(
        format=stream.codec_context.format, layout=recipe.layout, rate=recipe.sound_rate
    )
    fifo = av.AudioFifo()
    if channels > 8:  # FFmpeg's resampler takes no more; raw PCM needs none
        resampler = None
    for start in range(0, len(whole), 1024):
        block = whole[start : start + 1024]
        frame = av.AudioFrame.from_ndarray(block.reshape(1, -1), "s16", recipe.layout)
        frame.sample_rate, frame.pts = recipe.sound_rate, start
        frame.time_base = Fraction(1, recipe.sound_rate)
        for each in resampler.resample(frame) if resampler else [frame]:
            fifo.write(each)
    size = stream.codec_context.frame_size or 1024
    for frame in [
        *fifo.read_many(size),
        *([fifo.read(0, partial=True)] if fifo.samples % size else []),
    ]:
        if frame is not None:
            file.mux(stream.encode(frame))
    if len(whole):
        file.mux(stream.encode(None))


def wav(
    path: Path,
    samples: np.ndarray,
    *,
    rate: int = RATE,
    channels: int = 1,
    code: int | None = None,
    data_bytes: int | None = None,
) -> Path:
    """Write a WAV file by hand: any channel count, any sample type, any size in the header."""
    data = np.ascontiguousarray(samples).tobytes()
    width = samples.dtype.itemsize
    code = code if code is not None else 3 if samples.dtype.kind == "f" else 1
    block = (width * channels) & 0xFFFF
    form = struct.pack(
        "<HHIIHH", code, channels, rate, (rate * block) & 0xFFFFFFFF, block, width * 8
    )
    size = len(data) if data_bytes is None else data_bytes
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size)
    path.write_bytes(b"RIFF" + struct.pack("<I", (len(body) + size) & 0xFFFFFFFF) + body + data)
    return path
