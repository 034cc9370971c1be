"""The sound track of a new video: a stream that is encoded beside the frames."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import av.container
import numpy as np

from wav2lip_npu.media.audio import MAX_SAMPLE, AlignedSound
from wav2lip_npu.media.timestamps import Clocks

_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)  # Hz
# By FFmpeg's name of the encoder; another rate becomes the highest. PCM has any rate.
_RATES = {"aac": frozenset((*_OPUS_RATES, 11025, 22050, 32000, 44100)), "libopus": _OPUS_RATES}
# FFmpeg's documentation recommends it from 64 kbit/s on; it takes a third of the time.
_OPTIONS = {"aac": {"aac_coder": "fast"}}


class LayoutResampler:
    """``av.AudioResampler`` for frames of any rate, format and layout, also if they change."""

    def __init__(self, layout: str, rate: int) -> None:
        self._layout = layout
        self._rate = rate
        self._setup: tuple[object, ...] = ()  # of the frames
        self._mixes = False  # those whose channels have no known places
        self._resampler: av.AudioResampler | None = None

    def resample(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """Planar floats of the layout and rate; what the resampler holds comes later."""
        setup = (frame.format.name, frame.layout.name, frame.sample_rate)
        ended: list[av.AudioFrame] = []
        if setup != self._setup:
            ended = self.flush()
            self._set_up(mixes=False)
            self._setup = setup
        assert self._resampler is not None
        if not self._mixes:
            try:
                return ended + self._resampler.resample(frame)
            except av.FFmpegError:
                self._set_up(mixes=True)
        return ended + self._resampler.resample(_mixed(frame))

    def _set_up(self, *, mixes: bool) -> None:
        self._mixes = mixes
        self._resampler = av.AudioResampler(format="fltp", layout=self._layout, rate=self._rate)

    def flush(self) -> list[av.AudioFrame]:
        """What is held, at the end."""
        if self._resampler is None:
            return []
        frames, self._resampler, self._setup = self._resampler.resample(None), None, ()
        return frames


def _mixed(frame: av.AudioFrame) -> av.AudioFrame:
    """The mean of all channels."""
    (packed,) = av.AudioResampler(format="flt").resample(frame)
    samples = packed.to_ndarray().reshape(packed.samples, -1).mean(axis=1)
    mono = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    mono.sample_rate, mono.pts, mono.time_base = frame.sample_rate, frame.pts, frame.time_base
    return mono


def layout_of(channels: int) -> str:
    """FFmpeg's name of the channels that a sound track of so many gets."""
    return "mono" if channels == 1 else "stereo"


class TrackSound(Protocol):
    """What a sound track is made of: a ``SoundFile``, or a ``Mix`` of several."""

    path: Path
    rate: int
    channels: int
    start: float | None
    announced_seconds: float | None

    def clocks(self) -> Clocks:
        """See ``SoundFile``."""
        ...

    def next_decoded(self) -> av.AudioFrame | None:
        """See ``SoundFile``."""
        ...


class SoundTrack:
    """A stream of sound, encoded step by step."""

    def __init__(
        self, sound: TrackSound, output: av.container.OutputContainer, codec: str = "aac"
    ) -> None:
        """Add a stream to a file.

        Args:
            sound: what is encoded.
            output: the file.
            codec: FFmpeg's name of the encoder, which its build has.
        """
        self._sound = sound
        rates = _RATES.get(codec, (sound.rate,))
        self._rate = sound.rate if sound.rate in rates else max(rates)
        self._layout = layout_of(sound.channels)
        self._resampler = LayoutResampler(self._layout, self._rate)
        self._aligned = AlignedSound(self._resampler, sound.start, sound.path, sound.clocks())
        self._blocks: Iterator[tuple[np.ndarray, int]] = iter(())  # of the frame at hand
        self._waiting = av.AudioFifo()
        self._written = 0  # samples
        self._output = output
        options = _OPTIONS.get(codec, {})
        stream = output.add_stream(codec, rate=self._rate, layout=self._layout, options=options)
        assert isinstance(stream, av.AudioStream)
        self._stream = stream

    def write_until(self, seconds: Fraction) -> None:
        """Encode the sound before ``seconds`` as far as it is decoded, and nothing after it."""
        wanted = round(seconds * self._rate) - self._written
        while self._waiting.samples < wanted:
            block = next(self._blocks, None)
            if block is not None:
                self._append(block[0])
                continue
            decoded = self._sound.next_decoded()
            if decoded is None:
                break
            self._blocks = self._aligned.convert(decoded)
        frame = self._waiting.read(wanted, partial=True) if wanted > 0 else None
        if frame is not None:
            frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
            self._written += frame.samples
            self._output.mux(self._stream.encode(frame))

    def finish(self, seconds: Fraction) -> None:
        """Encode all that is left before ``seconds``."""
        self.write_until(seconds)
        for frame in self._resampler.flush():
            self._append(frame.to_ndarray())
        self.write_until(seconds)
        self._output.mux(self._stream.encode(None))

    def _append(self, block: np.ndarray) -> None:
        if not block.size:
            return
        # The encoder refuses what is no number, and what is far too loud.
        finite = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)
        finite = np.ascontiguousarray(finite.clip(-MAX_SAMPLE, MAX_SAMPLE))
        samples = av.AudioFrame.from_ndarray(finite, format="fltp", layout=self._layout)
        samples.sample_rate = self._rate
        self._waiting.write(samples)
