"""Frames out as numbered PNG files, and their sound beside them as WAV."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np

from face_detection import Box
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.outfile import (
    IN_USE,
    check_outfile,
    remove_leftovers,
    remove_partial,
    sequence_file,
    sequence_sound,
    write_errors,
)
from wav2lip_npu.media.sound_track import SoundTrack, TrackSound
from wav2lip_npu.media.video_reader import Frame
from wav2lip_npu.runtime.files import partial_path, publish_files
from wav2lip_npu.runtime.locks import mark_in_use

log = logging.getLogger(__name__)


class ImageSequenceWriter:
    """Write frames as PNG files with their transparency; used as ``VideoWriter`` is.

    All files are written to a hidden folder, and take their places when the ``with`` block ends
    without an error. Nothing that was there before is replaced.
    """

    def __init__(self, path: Path, *, fps: Fraction | float, sound: TrackSound | None) -> None:
        """Prepare a writer.

        Args:
            path: the name of the files, with ``%05d`` or the like for their numbers.
            fps: frames per second, by which the sound is cut.
            sound: becomes a WAV file, cut to the length of the frames.
        """
        self.path = path
        self._partial = partial_path(path)
        self._fps = Fraction(fps).limit_denominator(1001)
        self._sound = sound
        self._sound_track: SoundTrack | None = None
        self._frames = 0
        self._files = ExitStack()

    def __enter__(self) -> ImageSequenceWriter:
        """Make the hidden folder.

        Raises:
            UserError: see ``check_outfile``.
        """
        check_outfile(self.path)
        remove_leftovers(self.path)
        try:
            with write_errors(self.path, cv2.error):
                self._partial.mkdir()
                (self._partial / IN_USE).touch()
                self._files.enter_context(mark_in_use(self._partial / IN_USE))
                if self._sound is not None:
                    self._open_sound_track(self._sound)
        except BaseException:
            self._discard()
            raise
        return self

    def _open_sound_track(self, sound: TrackSound) -> None:
        target = sequence_sound(self.path)
        file = self._files.enter_context((self._partial / target.name).open("wb"))
        container = self._files.enter_context(av.open(file, "w", format="wav"))
        self._sound_track = SoundTrack(sound, container, "pcm_s16le")
        log.info("%s: PNG files hold no sound, %s has it", self.path, target.name)

    def write(
        self, image: np.ndarray, *, source: Frame | None = None, changed: Sequence[Box] = ()
    ) -> None:
        """Append a frame.

        Args:
            image: (h, w, 3) BGR uint8.
            source: the frame that the image was made from, whose alpha plane is kept.
            changed: see ``VideoWriter.write``; here the whole image is written.
        """
        if source is not None and source.alpha is not None:
            image = np.dstack([image, source.alpha])
        name = sequence_file(self.path, self._frames).name
        with write_errors(self.path, cv2.error):
            (self._partial / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
            self._frames += 1
            if self._sound_track is not None:
                self._sound_track.write_until(self._frames / self._fps)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                with write_errors(self.path, cv2.error):
                    self._finish()
        finally:
            self._discard()

    def _finish(self) -> None:
        if not self._frames:
            raise UserError(f"{self.path}: not written, there was no frame")
        if self._sound_track is not None:
            self._sound_track.finish(self._frames / self._fps)
        self._files.close()
        # The first image last: where it is, the others are.
        names = [sequence_file(self.path, number).name for number in range(self._frames)][::-1]
        if self._sound_track is not None:
            names.insert(0, sequence_sound(self.path).name)
        check_outfile(self.path)  # again, as time has passed
        publish_files(self._partial, self.path.parent, names)

    def _discard(self) -> None:
        """Remove the hidden folder, whatever else fails."""
        with suppress(av.FFmpegError, OSError, ValueError):
            self._files.close()
        with suppress(OSError):
            remove_partial(self._partial)
