"""When frames of a video are shown: by their time stamps, or counted where these cannot be used."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

USUAL_FPS = Fraction(25)
MAX_FPS = 240  # files of varying rate may name the ticks of their clock
JUDGED_FRAMES = 8  # at the start of a stream, by whose times it is judged
JUDGED_BYTES = 2**26  # that these may take in memory; of 4K fewer frames are judged
MAX_FAULTS = 1  # times that do not rise, among so many frames: those of one damaged place
RESET_SECONDS = 1.0  # times that fall by more belong to a clock that was set anew
MAX_GAP_SECONDS = 600.0  # without a frame, unless the file is longer; more is a clock set anew

log = logging.getLogger(__name__)


def nominal_rate(stream: av.VideoStream) -> Fraction:
    """Frames per second by the file; of a varying rate, that of the finest steps."""
    announced = (stream.guessed_rate, stream.average_rate, USUAL_FPS)
    return next(Fraction(rate) for rate in announced if rate is not None and 1 <= rate <= MAX_FPS)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How the times of a stream are told."""

    start: float  # seconds of the file's clock at its first frame
    step: float  # seconds from frame to frame where they are counted
    is_counted: bool  # its time stamps are missing, or do not rise
    max_gap: float  # seconds that may pass without a frame

    @classmethod
    def of(cls, stream: av.VideoStream, first: Sequence[av.VideoFrame]) -> Timing:
        """Judge a stream by its first frames, in display order.

        Raw streams have no times. AVI has those of decoding, which do not rise in display order
        where frames depend on later ones (B-frames).
        """
        times = [frame.time for frame in first]
        known = [float(time) for time in times if time is not None]
        faults = len(times) - len(known) + sum(b <= a for a, b in zip(known, known[1:]))  # noqa: B905, RUF007
        counted = faults > MAX_FAULTS or not known or (len(times) < 4 and faults > 0)
        unit, length = stream.time_base or Fraction(0), stream.duration
        header_start = float((stream.start_time or 0) * unit)
        return cls(
            start=header_start if counted else known[0],
            step=float(1 / nominal_rate(stream)),
            is_counted=counted,
            max_gap=max(MAX_GAP_SECONDS, float((length or 0) * unit)),
        )


class FrameClock:
    """The times of a stream's frames, in display order; they rise."""

    def __init__(self, timing: Timing, path: Path) -> None:
        self._timing = timing
        self._path = path
        self._is_counted = timing.is_counted
        self._last = timing.start - timing.step
        self._offset = 0.0  # seconds to add, since the clock was set anew
        self._faults: deque[bool] = deque([False] * JUDGED_FRAMES, JUDGED_FRAMES)

    def time(self, frame: av.VideoFrame) -> float:
        """The time of the next frame, in seconds of the file's clock."""
        self._last = self._next(None if frame.time is None else float(frame.time))
        return self._last

    def _next(self, stamp: float | None) -> float:
        counted = self._last + self._timing.step
        if self._is_counted:
            return counted
        fault = stamp is None
        if stamp is not None:
            ahead = stamp + self._offset - self._last
            if ahead < -RESET_SECONDS or ahead > self._timing.max_gap:
                log.warning("%s: its clock is set anew at %.2f s", self._path, counted)
                self._offset += counted - (stamp + self._offset)
                return counted
            fault = ahead <= 0
            if not fault:
                counted = self._last + ahead
        self._faults.append(fault)
        if sum(self._faults) > MAX_FAULTS:
            log.warning("%s: frames are counted from %.2f s on: no times", self._path, counted)
            self._is_counted = True
        # One damaged time: the next ones rise again.
        return min(counted, self._last + self._timing.step / 2) if fault else counted


def first_frames(
    decoded: Iterator[av.VideoFrame | av.AudioFrame],
) -> tuple[list[av.VideoFrame], list[av.VideoFrame | av.AudioFrame]]:
    """Take the frames by which a stream is judged.

    Returns:
        The first frames of the video, and all that was taken, with the sound between them.
    """
    video: list[av.VideoFrame] = []
    taken: list[av.VideoFrame | av.AudioFrame] = []
    size = 0
    for frame in decoded:
        taken.append(frame)
        if isinstance(frame, av.VideoFrame):
            video.append(frame)
            size += sum(plane.buffer_size for plane in frame.planes)
            if len(video) == JUDGED_FRAMES or size > JUDGED_BYTES:
                break
    return video, taken
