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
MAX_FAULTS = 1  # time stamps that do not rise, among so many frames: those of one damaged place
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
    is_avi: bool  # its time stamps tell when packets are decoded, not when frames are shown
    shift: float  # seconds to add to its time stamps
    max_gap: float  # seconds that may pass without a frame

    @classmethod
    def of(cls, stream: av.VideoStream, first: Sequence[av.VideoFrame]) -> Timing:
        """Judge a stream by its first frames, in display order; there is one at least.

        Raw streams have no time stamps. Those of AVI rise in the order of decoding, and begin later
        than the first frame is shown where frames depend on later ones (B-frames).
        """
        is_avi = stream.container.format.name == "avi"
        unit, length = stream.time_base or Fraction(0), stream.duration
        header_start = float((stream.start_time or 0) * unit)
        stamps = [_stamp(frame, is_avi=is_avi) for frame in first]
        known = [stamp for stamp in stamps if stamp is not None]
        falls = sum(later <= earlier for earlier, later in pairwise(known))
        faults = len(stamps) - len(known) + falls
        is_counted = not known or faults > min(MAX_FAULTS, max(0, len(first) - 2))
        start = header_start if is_counted or is_avi else known[0]
        return cls(
            start=start,
            step=float(1 / nominal_rate(stream)),
            is_counted=is_counted,
            is_avi=is_avi,
            shift=start - known[0] if known else 0.0,
            max_gap=max(MAX_GAP_SECONDS, float((length or 0) * unit)),
        )


def _stamp(frame: av.VideoFrame, *, is_avi: bool) -> float | None:
    """The time stamp of a frame in seconds, if it has one."""
    ticks = frame.dts if is_avi else frame.pts
    unit = frame.time_base
    return None if ticks is None or unit is None else float(ticks * unit)


class FrameClock:
    """The times of a stream's frames, in display order; they rise."""

    def __init__(self, timing: Timing, path: Path) -> None:
        self._timing = timing
        self._path = path
        self._is_counted = timing.is_counted
        self._last = timing.start - timing.step
        self._offset = timing.shift  # seconds to add; more when the clock has been set anew
        self._falls: deque[bool] = deque(maxlen=JUDGED_FRAMES)

    def time(self, frame: av.VideoFrame) -> float:
        """The time of the next frame, in seconds of the file's clock."""
        self._last = self._next(_stamp(frame, is_avi=self._timing.is_avi))
        return self._last

    def _next(self, stamp: float | None) -> float:
        counted = self._last + self._timing.step
        if stamp is None or self._is_counted:
            return counted
        ahead = stamp + self._offset - self._last
        if ahead < -RESET_SECONDS or ahead > self._timing.max_gap:
            log.warning("%s: its clock is set anew at %.2f s", self._path, counted)
            self._offset += counted - (stamp + self._offset)
            return counted
        self._falls.append(ahead <= 0)
        if sum(self._falls) > MAX_FAULTS:
            log.warning("%s: time stamps fall: counted from %.2f s on", self._path, counted)
            self._is_counted = True
        # One that falls may be damaged; the next ones rise again.
        return self._last + (ahead if ahead > 0 else self._timing.step / 2)


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
