"""Sound in and out: any media file to 16 kHz mono samples, and WAV files."""

from __future__ import annotations

import logging
import threading
import wave
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Protocol

import av
import av.container
import numpy as np
import soxr

from wav2lip_npu.constants import SAMPLE_RATE
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.container import (
    audio_stream,
    decode,
    demux,
    find_video_stream,
    header_seconds,
    media_errors,
    open_media,
)
from wav2lip_npu.media.timestamps import Clocks, Timing, first_frames

_SAMPLE_BYTES = 2  # of a WAV file
MIN_GAP_SECONDS = 0.04  # a video frame; time stamps of sound that is whole differ by less
MAX_SAMPLE = 4.0  # full scale is 1; codecs decode a little more, and damaged floats far more

log = logging.getLogger(__name__)


def load_audio(path: Path | str, *, start: float | None = None) -> np.ndarray:
    """Decode the audio stream of any media file that players take.

    Args:
        path: the file.
        start: the moment of the file's clock, in seconds, that becomes sample 0; silence fills
            what is missing. None: the first sample there is.

    Returns:
        float32 samples in [-1, 1], mono (the mean of the channels), 16 kHz.

    Raises:
        UserError: no such file, not media, no audio stream, or no samples in it.
    """
    path = Path(path)
    blocks: list[np.ndarray] = []
    with open_media(path) as container:
        converter = MonoConverter(start, path, Clocks(path, header_seconds(container)))
        for frame in decode(demux(container, [audio_stream(container, path)], path)):
            if isinstance(frame, av.AudioFrame):
                blocks.extend(converter.convert(frame))
    blocks.append(converter.flush())
    if not sum(map(len, blocks)):
        raise no_sound(path)
    return np.concatenate(blocks)


def no_sound(path: Path) -> UserError:
    """What to say of an audio stream without a sample."""
    return UserError(f"{path}: its audio stream holds no sound")


class SoundFile:
    """An open sound file, or a video whose sound is taken: decoded once.

    Two readers share what is decoded: ``mono_blocks`` for the networks and ``next_decoded`` for the
    sound track of a new video. They may run in two threads.
    """

    def __init__(self, container: av.container.InputContainer, path: Path) -> None:
        """See ``open_sound``."""
        self.path = path
        self._stream = audio_stream(container, path)
        self.rate: int = self._stream.rate  # Hz
        self.channels: int = self._stream.channels
        video = find_video_stream(container)
        streams: list[av.AudioStream | av.VideoStream] = [self._stream]
        if video is not None:
            streams.append(video)
        self._packets = demux(container, streams, path)
        # What was decoded with the first frames of the video.
        self._early: list[av.VideoFrame | av.AudioFrame] = []
        # Seconds of the file's clock that are time 0: the first frame of a video, so that sound and
        # picture share their zero. None: the first sample.
        self.start = None if video is None else self._first_frame_time(video)
        self._header_seconds = header_seconds(container)
        self.announced_seconds = self._announced_seconds()
        self._frames = self._sound_frames()
        self._decoded: deque[av.AudioFrame] = deque()  # that ``next_decoded`` has not given yet
        self._lock = threading.Lock()  # of decoding
        self._networks_read = False

    def _first_frame_time(self, video: av.VideoStream) -> float | None:
        first, self._early = first_frames(decode(self._packets))
        return Timing.of(video, first).start if first else None

    def _announced_seconds(self) -> float | None:
        """How long the sound is by the file's header, or None; it may be wrong."""
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        return self._header_seconds

    def _sound_frames(self) -> Iterator[av.AudioFrame]:
        sound = (packet for packet in self._packets if packet.stream.type == "audio")
        for frame in chain(self._early, decode(sound)):
            if isinstance(frame, av.AudioFrame):
                yield frame

    def clocks(self) -> Clocks:
        """New clocks of the file, for one reader."""
        return Clocks(self.path, self._header_seconds)

    def mono_blocks(self, *, shared: bool = True) -> Iterator[np.ndarray]:
        """The sound from ``start`` on, block by block: float32 (n,) mono at 16 kHz.

        Args:
            shared: keep what was decoded until ``next_decoded`` has given it too.

        Raises:
            UserError: the sound cannot be decoded, or there is none.
        """
        converter = MonoConverter(self.start, self.path, self.clocks())
        empty, self._networks_read = True, True
        try:
            while (frame := self._next_frame(keep=shared)) is not None:
                for block in converter.convert(frame):
                    empty = empty and not len(block)
                    yield block
            block = converter.flush()
            empty = empty and not len(block)
            yield block
        finally:
            self._networks_read = False
        if empty:
            raise no_sound(self.path)

    def next_decoded(self) -> av.AudioFrame | None:
        """The next frame of sound as decoded.

        None at the end, and while ``mono_blocks``, which is still read, has not come there.
        """
        if not self._decoded and not self._networks_read:
            return self._next_frame(keep=False)
        return self._decoded.popleft() if self._decoded else None

    def _next_frame(self, *, keep: bool) -> av.AudioFrame | None:
        with self._lock:
            frame = next(self._frames, None)
            if keep and frame is not None:
                self._decoded.append(frame)
            return frame


@contextmanager
def open_sound(path: Path) -> Iterator[SoundFile]:
    """Open a sound file, or a video whose sound is taken.

    Raises:
        UserError: no such file, not media, or no audio stream.
    """
    with open_media(path) as container:
        yield SoundFile(container, path)


class Resampler(Protocol):
    """Makes frames of one kind of those that a decoder gives, as ``av.AudioResampler`` does."""

    def resample(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """The frames that this one completes."""
        ...


class PackedResampler:
    """Frames of any kind as packed float32, of their own rate and channels, which may change.

    Packed, as PyAV crashes with planar frames of eight channels or more.
    """

    def __init__(self) -> None:
        self._kind: tuple[object, ...] = ()  # of the frames so far
        self._resampler = av.AudioResampler(format="flt")

    def resample(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """See ``Resampler``."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            self._resampler, self._kind = av.AudioResampler(format="flt"), kind
        return self._resampler.resample(frame)


class AlignedSound:
    """Decoded frames of sound as float32 blocks, from a moment on.

    By their time stamps: where packets are missing there is silence, so that what follows stays
    in its place.
    """

    def __init__(
        self, resampler: Resampler, start: float | None, path: Path, clocks: Clocks
    ) -> None:
        """Prepare for the frames of one stream.

        Args:
            resampler: makes floats of them, whatever the codec gives.
            start: the moment, in seconds of the file's clock; silence fills up what is missing
                before the first sample. None: the first sample, whatever the clock says.
            path: the file, for warnings.
            clocks: those of the file; what reads its picture beside shares them.
        """
        self._resampler = resampler
        self._start = start
        self._path = path
        self._clocks = clocks
        self._due: float | None = None  # seconds at which the next frame is due; None: no matter
        self._offset = 0.0  # seconds to add to time stamps
        self._shift = 0.0  # seconds of silence still to give out; below zero: of sound to leave out
        self._warned: set[str] = set()

    def convert(self, source: av.AudioFrame) -> Iterator[tuple[np.ndarray, int]]:
        """The samples of the next frame, and silence for what is missing before it.

        Yields:
            Samples (channels, n), silence by the second, and their rate in Hz.
        """
        if not source.samples or source.sample_rate <= 0:
            return
        self._shift += self._shift_before(source)
        with media_errors(self._path):
            frames = self._resampler.resample(source)
        for frame in frames:
            samples, rate = self._sane(_samples(frame)), frame.sample_rate
            shift = round(self._shift * rate)
            while shift > 0:
                length = min(shift, rate)
                yield np.zeros((len(samples), length), np.float32), rate
                shift -= length
            left_out = min(-shift, samples.shape[1])
            # What is left over is less than half a sample, or more to leave out.
            self._shift = (shift + left_out) / rate
            yield samples[:, left_out:], rate

    def _shift_before(self, source: av.AudioFrame) -> float:
        """Seconds of silence that belong before a frame; below zero: that it has too many."""
        length = source.samples / source.sample_rate
        time = None if source.time is None else float(source.time)
        due, self._due = self._due, None
        if time is None:
            self._due = None if due is None else due + length
            return 0.0
        if due is None:
            return self._start_at(time, length)
        ahead = time + self._offset - due
        is_reset = self._clocks.is_reset(ahead)
        if is_reset:
            self._offset = self._clocks.offset(time, due)
            ahead = time + self._offset - due
        if ahead >= MIN_GAP_SECONDS:
            self._warn("sound is missing in places, which are silent now")
        elif not is_reset or ahead > 0:
            ahead = 0.0  # jitter, or a packet twice: nothing is cut
        self._due = due + ahead + length
        return ahead

    def _start_at(self, time: float, length: float) -> float:
        """As above, for the first frame with a time stamp."""
        shift = 0.0 if self._start is None else time - self._start
        if abs(shift) > self._clocks.max_gap:
            self._warn("its sound and its picture have other clocks: both start at 0 s")
            self._offset, shift = -shift, 0.0
        self._start = None
        self._due = time + self._offset + length
        return shift

    def _sane(self, samples: np.ndarray) -> np.ndarray:
        """Samples that are no numbers become silence, and those that are far too loud are cut."""
        finite = np.isfinite(samples)
        if not finite.all():
            self._warn("some samples are no numbers: silence")
            samples = np.where(finite, samples, np.float32(0))
        if samples.size and np.abs(samples).max() > MAX_SAMPLE:
            self._warn(f"some samples are above {MAX_SAMPLE:g} times full scale, and cut there")
            samples = samples.clip(-MAX_SAMPLE, MAX_SAMPLE)
        return samples

    def _warn(self, fault: str) -> None:
        """Log a fault once."""
        if fault not in self._warned:
            self._warned.add(fault)
            log.warning("%s: %s", self._path, fault)


def _samples(frame: av.AudioFrame) -> np.ndarray:
    """The samples of a frame of floats, (channels, n)."""
    samples: np.ndarray = frame.to_ndarray()
    if frame.format.is_packed:
        samples = np.ascontiguousarray(samples.reshape(frame.samples, -1).T)
    return samples


class MonoConverter:
    """Decoded frames of sound as 16 kHz mono samples, from a moment on."""

    def __init__(self, start: float | None, path: Path, clocks: Clocks) -> None:
        """See ``AlignedSound``."""
        self._aligned = AlignedSound(PackedResampler(), start, path, clocks)
        self._resampler: soxr.ResampleStream | None = None
        self._rate = SAMPLE_RATE  # of the frames so far

    def convert(self, frame: av.AudioFrame) -> Iterator[np.ndarray]:
        """The samples that the next frame completes, in blocks of float32 (n,)."""
        for channels, rate in self._aligned.convert(frame):
            # The mean over channels, as librosa has it (FFmpeg's own mix is 3 dB louder).
            block = channels.mean(axis=0)
            if len(block) and rate != self._rate:
                yield self.flush()
                self._rate = rate
                if rate != SAMPLE_RATE:
                    self._resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
            if self._resampler is not None:
                block = self._resampler.resample_chunk(block)
            yield block

    def flush(self) -> np.ndarray:
        """The samples that are left when there are no more frames."""
        if self._resampler is None:
            return np.zeros(0, np.float32)
        rest = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        self._resampler = None
        return rest


class WavWriter:
    """A 16-bit WAV file, 16 kHz mono, written block by block."""

    def __init__(self, path: Path) -> None:
        self._file = wave.open(str(path), "wb")  # noqa: SIM115 (closed by ``close``)
        self._file.setnchannels(1)
        self._file.setsampwidth(_SAMPLE_BYTES)
        self._file.setframerate(SAMPLE_RATE)

    def write(self, samples: np.ndarray) -> None:
        """Append float samples (n,) in [-1, 1]."""
        integers = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
        self._file.writeframesraw(integers.tobytes())

    def close(self) -> int:
        """Complete the file.

        Returns:
            The number of samples.
        """
        samples = self._file.tell()
        self._file.close()
        return samples


def write_wav(path: Path, samples: np.ndarray | Iterable[np.ndarray]) -> int:
    """Write 16 kHz mono float samples in [-1, 1], whole or in blocks, as a 16-bit WAV file.

    Returns:
        The number of samples.
    """
    writer = WavWriter(path)
    for block in [samples] if isinstance(samples, np.ndarray) else samples:
        writer.write(block)
    return writer.close()


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
