"""When frames of a video are shown: by their time stamps, or counted where these cannot be used."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av

USUAL_FPS = Fraction(25)
MAX_FPS = 240  # files of varying rate may name the ticks of their clock
JUDGED_FRAMES = 8  # at the start of a stream, by whose times it is judged
JUDGED_BYTES = 2**26  # that these may take in memory; of 4K fewer frames are judged
RESET_SECONDS = 1.0  # time stamps that fall by more belong to a clock that was set anew
MIN_STEP, MAX_STEP = 0.0005, 60.0  # seconds from frame to frame, in the mean of the first ones
USUAL_GAP = 600.0  # seconds without a frame or sound, in a file that does not say how long it is
MAX_GAP = 3600.0  # the same, in any file; more is a clock that was set anew
MAX_CLOCKS = 16  # of one file that are remembered
CATCH_UP = 0.98  # of a step, for frames whose time stamps rise, but are behind
# Formats whose index leads to a moment by the time stamps of the frames there.
_INDEXED = ("mov,", "matroska,")

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
    is_counted: bool  # its frames have no time stamps
    by_decoding: bool  # its time stamps tell when frames come out of the decoder
    shift: float  # seconds to add to its time stamps
    is_seekable: bool  # the index of the file leads to a moment

    @classmethod
    def of(cls, stream: av.VideoStream, first: Sequence[av.VideoFrame]) -> Timing:
        """Judge a stream by its first frames, in display order; there is one at least.

        Raw streams have no time stamps at all. AVI, some ASF and some MP4 have those of decoding
        only: they rise in another order than frames are shown in where frames depend on later ones
        (B-frames), and begin before the first frame can be shown. FFmpeg then gives no PTS, or PTS
        that fall; the DTS with which a frame came out of the decoder rises.
        """
        name = stream.container.format.name
        shown = [_seconds(frame, frame.pts) for frame in first]
        decoded = [_seconds(frame, frame.dts) for frame in first]
        by_decoding = name == "avi" or _count_falls(decoded) < _count_falls(shown)
        if not by_decoding:
            decoded = [b if a is None else a for a, b in zip(shown, decoded, strict=True)]
        stamps = [stamp for stamp in decoded if stamp is not None]
        is_counted = not _is_usable(stamps)
        header_start = float((stream.start_time or 0) * (stream.time_base or Fraction(0)))
        if is_counted or name == "avi":  # which counts its frames from its start
            start = header_start
        else:
            start = stamps[0] if shown[0] is None else shown[0]
        return cls(
            start=start,
            step=float(1 / nominal_rate(stream)),
            is_counted=is_counted,
            by_decoding=by_decoding,
            shift=start - stamps[0] if by_decoding and stamps else 0.0,
            is_seekable=name.startswith(_INDEXED) and not (by_decoding or is_counted),
        )

    def stamp(self, frame: av.VideoFrame) -> float | None:
        """When a frame is shown by its time stamp, in seconds; None if it has none to use."""
        if self.is_counted:
            return None
        pts = None if self.by_decoding else _seconds(frame, frame.pts)
        stamp = _seconds(frame, frame.dts) if pts is None else pts
        return None if stamp is None else stamp + self.shift


def _seconds(frame: av.VideoFrame, ticks: int | None) -> float | None:
    unit = frame.time_base
    return None if ticks is None or unit is None else float(ticks * unit)


def _count_falls(stamps: Sequence[float | None]) -> int:
    """How many are not after the one before them."""
    known = [stamp for stamp in stamps if stamp is not None]
    return sum(later <= earlier for earlier, later in pairwise(known))


def _is_usable(stamps: Sequence[float]) -> bool:
    """Whether most rise, by steps that a video may have."""
    if not stamps or 2 * _count_falls(stamps) >= len(stamps):
        return False
    steps = len(stamps) - 1
    return not steps or MIN_STEP <= (max(stamps) - min(stamps)) / steps <= MAX_STEP


class Clocks:
    """The clocks of a file, which are set anew where recordings were joined.

    All streams of the file share them, so that sound and picture stay together.
    """

    def __init__(self, path: Path, seconds: float | None) -> None:
        """Prepare for a file.

        Args:
            path: the file, for warnings.
            seconds: how long it is by its header: no gap in it is longer. None: not said.
        """
        self._path = path
        self.max_gap = min(max(seconds or USUAL_GAP, RESET_SECONDS), MAX_GAP)
        # Seconds to add to the time stamps of each, the latest at the end.
        self._offsets = deque([0.0], MAX_CLOCKS)

    def is_reset(self, ahead: float) -> bool:
        """Whether a time stamp that is so many seconds after the due one is of another clock."""
        return not -RESET_SECONDS <= ahead <= self.max_gap

    def offset(self, stamp: float, due: float) -> float:
        """The seconds to add to a time stamp, by which it is due at a moment or close to it."""
        nearest = min(self._offsets, key=lambda offset: abs(stamp + offset - due))
        if abs(stamp + nearest - due) <= RESET_SECONDS:
            return nearest
        if len(self._offsets) == 1:
            log.warning("%s: its clock is set anew at %.2f s", self._path, due)
        self._offsets.append(due - stamp)
        return due - stamp


class FrameClock:
    """The times of a stream's frames, in display order; they rise."""

    def __init__(self, timing: Timing, clocks: Clocks) -> None:
        self._timing = timing
        self._clocks = clocks
        self._last = timing.start - timing.step
        self._offset = 0.0  # seconds to add to time stamps
        self._stamp: float | None = None  # of the frame before

    def time(self, frame: av.VideoFrame) -> float:
        """The time of the next frame, in seconds of the file's clock."""
        stamp = self._timing.stamp(frame)
        self._last = self._next(stamp)
        self._stamp = stamp
        return self._last

    def _next(self, stamp: float | None) -> float:
        counted = self._last + self._timing.step
        if stamp is None:
            return counted
        ahead = stamp + self._offset - self._last
        if self._clocks.is_reset(ahead):
            self._offset = self._clocks.offset(stamp, counted)
            ahead = stamp + self._offset - self._last
        if ahead > 0:
            return self._last + ahead
        if self._stamp is not None and stamp > self._stamp:
            return self._last + CATCH_UP * self._timing.step
        return counted


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
