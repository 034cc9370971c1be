"""Sound in and out: any media file to 16 kHz mono samples, and WAV files."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import av.container
import numpy as np
import soxr

from wav2lip_npu.constants import SAMPLE_RATE
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.container import open_media

_SAMPLE_BYTES = 2  # of a WAV file


def load_audio(path: Path | str, *, start: float | None = None) -> np.ndarray:
    """Decode the first audio stream of any media file.

    Args:
        path: the file.
        start: the moment of the file's clock, in seconds, that becomes sample 0 (a video's first
            frame, so that sound and picture share their zero); silence fills what is missing.
            None: the first sample there is.

    Returns:
        float32 samples in [-1, 1], mono (the mean of the channels), 16 kHz.

    Raises:
        UserError: no such file, not media, no audio stream, or no samples in it.
    """
    return np.concatenate(list(stream_audio(Path(path), start=start)))


def rate_and_channels(path: Path) -> tuple[int, int]:
    """Sample rate in Hz and number of channels of a media file's first audio stream.

    Raises:
        UserError: no such file, not media, or no audio stream.
    """
    with open_media(path) as container:
        stream = _audio_stream(container, path)
        return stream.rate, stream.channels


def announced_seconds(path: Path) -> float | None:
    """How long a media file's first audio stream is by its header, or None; it may be wrong.

    Raises:
        UserError: as ``load_audio``.
    """
    with open_media(path) as container:
        stream = _audio_stream(container, path)
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        return container.duration / av.time_base if container.duration else None


def stream_audio(path: Path, *, start: float | None = None) -> Iterator[np.ndarray]:
    """``load_audio`` block by block, for sound of any length."""
    empty = True
    with open_media(path) as container:
        stream = _audio_stream(container, path)
        for block in _mono_16k(container.decode(stream), start):
            empty = empty and not len(block)
            yield block
    if empty:
        raise UserError(f"{path}: its audio stream holds no sound")


def _audio_stream(container: av.container.InputContainer, path: Path) -> av.AudioStream:
    if not container.streams.audio:
        raise UserError(f"{path}: has no audio stream")
    return container.streams.audio[0]


def _mono_16k(frames: Iterator[av.AudioFrame], start: float | None) -> Iterator[np.ndarray]:
    """Mix to mono, move to ``start`` and resample, block by block."""
    resampler: soxr.ResampleStream | None = None
    for channels, rate in sound_from(frames, av.AudioResampler(format="fltp"), start):
        # The mean over channels, as librosa has it (FFmpeg's own mix is 3 dB louder).
        block = channels.mean(axis=0)
        if rate == SAMPLE_RATE:
            yield block
            continue
        if resampler is None:
            resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        yield resampler.resample_chunk(block)
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def sound_from(
    frames: Iterator[av.AudioFrame], resampler: av.AudioResampler, start: float | None
) -> Iterator[tuple[np.ndarray, int]]:
    """Decoded sound from a moment on, as float32 (channels, n) and their rate.

    Args:
        frames: as decoded.
        resampler: makes planar floats of them, whatever the codec gives.
        start: the moment, in seconds of the file's clock; silence fills up what is missing before
            the first sample. None: the first sample, whatever the clock says.
    """
    skip: int | None = None  # samples still to drop
    for source in frames:
        begins = float(source.time or 0.0)
        for frame in resampler.resample(source):
            block = frame.to_ndarray()
            if skip is None:
                skip = 0 if start is None else round((start - begins) * frame.sample_rate)
                if skip < 0:
                    silence = np.zeros((len(block), -skip), np.float32)
                    block = np.concatenate([silence, block], axis=1)
            dropped = min(max(skip, 0), block.shape[1])
            skip -= dropped
            if dropped < block.shape[1]:
                yield block[:, dropped:], frame.sample_rate


def write_wav(path: Path, samples: np.ndarray | Iterable[np.ndarray]) -> int:
    """Write 16 kHz mono float samples in [-1, 1], whole or in blocks, as a 16-bit WAV file.

    Returns:
        The number of samples.
    """
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(_SAMPLE_BYTES)
        file.setframerate(SAMPLE_RATE)
        for block in [samples] if isinstance(samples, np.ndarray) else samples:
            integers = np.clip(np.rint(block * 32768.0), -32768, 32767).astype("<i2")
            file.writeframesraw(integers.tobytes())
        return file.tell()


def cut_wav(source: Path, target: Path, start: int, stop: int) -> int:
    """Copy the samples from ``start`` up to ``stop``, as far as there are, into another WAV file.

    Returns:
        The number of samples.
    """
    with wave.open(str(source), "rb") as whole, wave.open(str(target), "wb") as part:
        part.setparams(whole.getparams())
        whole.setpos(min(start, whole.getnframes()))
        left = stop - whole.tell()
        while left > 0 and (block := whole.readframes(min(left, SAMPLE_RATE))):
            part.writeframesraw(block)
            left -= len(block) // _SAMPLE_BYTES
        return part.tell()
