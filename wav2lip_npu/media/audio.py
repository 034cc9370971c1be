"""Speech in, mel spectrogram out, with the numbers of the original Wav2Lip."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import av
import av.container
import numpy as np
import soxr

from wav2lip_npu.errors import UserError
from wav2lip_npu.media.container import open_media

SAMPLE_RATE = 16_000  # Hz
HOP = 200  # samples between mel rows: 12.5 ms
WINDOW = 800  # samples of the STFT window: 50 ms
MEL_BANDS = 80
MEL_RANGE = (55.0, 7600.0)  # Hz
ROWS_PER_SECOND = SAMPLE_RATE // HOP  # 80
PREEMPHASIS = 0.97
REFERENCE_DB = 20.0  # subtracted from the level in dB
FLOOR_DB = -100.0  # levels below are silence
_SAMPLE_BYTES = 2  # of a WAV file
MEL_LIMIT = 4.0  # the spectrogram is scaled to -4 … 4
_HANN = np.hanning(WINDOW + 1)[:-1]  # periodic: it would go on with its first sample


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
    for block in blocks:
        sharp = block.astype(np.float64)
        if not len(sharp):
            continue
        sharp[1:] -= PREEMPHASIS * block[:-1].astype(np.float64)
        sharp[0] -= PREEMPHASIS * before
        heard, before, count = np.concatenate([heard, sharp]), float(block[-1]), count + len(block)
        if not mirrored and count > WINDOW:
            heard, mirrored = np.concatenate([heard[WINDOW // 2 : 0 : -1], heard]), True
        rows = (len(heard) - WINDOW) // HOP + 1 if mirrored else 0
        if rows > 0:
            yield _mel_rows(heard[: (rows - 1) * HOP + WINDOW])
            heard = heard[rows * HOP :]
    if not mirrored:
        # Up to 50 ms: too short to be mirrored as it is.
        heard = np.pad(heard, (0, max(0, WINDOW - count)))
        heard = np.concatenate([heard[WINDOW // 2 : 0 : -1], heard])
    heard = np.concatenate([heard, heard[-2 : -2 - WINDOW // 2 : -1]])
    given = 0 if not mirrored else 1 + (count - WINDOW // 2) // HOP
    rows = 1 + count // HOP - given
    if rows > 0:
        yield _mel_rows(heard[: (rows - 1) * HOP + WINDOW])


def _mel_rows(sharp: np.ndarray) -> np.ndarray:
    """Mel rows of whole windows of pre-emphasised samples."""
    windows = np.lib.stride_tricks.sliding_window_view(sharp, WINDOW)[::HOP]
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
    bins = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    left, top, right = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((bins - left) / (top - left), (right - bins) / (right - top))
    return np.maximum(triangles, 0) * 2 / (right - left)
