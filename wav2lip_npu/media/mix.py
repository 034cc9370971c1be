"""Several sounds as one, each with its gain."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from wav2lip_npu.media.audio import AlignedSound, SoundFile
from wav2lip_npu.media.sound_track import LayoutResampler, layout_of
from wav2lip_npu.media.timestamps import Clocks

BLOCK_SAMPLES = 4096  # that are mixed at a time

log = logging.getLogger(__name__)


class Mix:
    """Sounds that begin together, added up; it ends with the longest."""

    def __init__(self, path: Path, sounds: Sequence[tuple[SoundFile, float]]) -> None:
        """Prepare to decode.

        Args:
            path: of the list, for messages.
            sounds: files that nobody else reads, each with its gain in dB.
        """
        self.path = path
        self.start: float | None = None  # the first sample is time 0
        self.rate = max(sound.rate for sound, _ in sounds)
        self.channels = max(sound.channels for sound, _ in sounds)
        lengths = [sound.announced_seconds for sound, _ in sounds]
        known = [seconds for seconds in lengths if seconds is not None]
        self.announced_seconds = max(known) if len(known) == len(lengths) else None
        self._layout = layout_of(self.channels)
        self._parts = [_Part(sound, gain, self._layout, self.rate) for sound, gain in sounds]
        self._given = 0  # samples
        self._peak = 0.0

    def clocks(self) -> Clocks:
        """See ``SoundFile``."""
        return Clocks(self.path, self.announced_seconds)

    def next_decoded(self) -> av.AudioFrame | None:
        """The next frame of the mix, planar floats; None at the end."""
        blocks = [part.read(BLOCK_SAMPLES) for part in self._parts]
        length = max(block.shape[1] for block in blocks)
        if length == 0:
            self._warn_of_cut_peaks()
            return None
        mixed = np.zeros((len(blocks[0]), length), np.float32)
        for block in blocks:
            mixed[:, : block.shape[1]] += block
        self._peak = max(self._peak, float(np.abs(mixed).max()))
        frame = av.AudioFrame.from_ndarray(mixed.clip(-1, 1), format="fltp", layout=self._layout)
        frame.sample_rate, frame.time_base = self.rate, Fraction(1, self.rate)
        frame.pts, self._given = self._given, self._given + length
        return frame

    def _warn_of_cut_peaks(self) -> None:
        if self._peak > 1:
            log.warning(
                "%s: the mix is up to %.1f dB above full scale, and cut there; lower the gains",
                self.path, 20 * math.log10(self._peak),
            )  # fmt: skip
        self._peak = 0.0


class _Part:
    """One sound, in the layout and rate of the mix."""

    def __init__(self, sound: SoundFile, gain: float, layout: str, rate: int) -> None:
        self._sound = sound
        self._factor = np.float32(10 ** (gain / 20))
        self._resampler = LayoutResampler(layout, rate)
        self._aligned = AlignedSound(self._resampler, sound.start, sound.path, sound.clocks())
        self._waiting = np.zeros((1 if layout == "mono" else 2, 0), np.float32)
        self._ended = False

    def read(self, samples: int) -> np.ndarray:
        """The next samples (channels, n); fewer at the end."""
        blocks, count = [self._waiting], self._waiting.shape[1]
        while count < samples and not self._ended:
            new = self._next()
            blocks += new
            count += sum(block.shape[1] for block in new)
        whole = np.concatenate(blocks, axis=1)
        self._waiting = whole[:, samples:]
        return whole[:, :samples] * self._factor

    def _next(self) -> list[np.ndarray]:
        decoded = self._sound.next_decoded()
        if decoded is not None:
            return [block for block, _ in self._aligned.convert(decoded)]
        self._ended = True
        return [frame.to_ndarray() for frame in self._resampler.flush()]
