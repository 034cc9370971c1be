"""Videos out, frame by frame, and their sound track, with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.container
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from face_detection import Box
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import AlignedSound, SoundFile
from wav2lip_npu.media.video_reader import Frame, VideoInfo
from wav2lip_npu.runtime.files import partial_path, publish

_AAC_RATES = frozenset((8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000))  # Hz


class VideoWriter:
    """Encode frames to H.264 and, beside them, a sound track to AAC, in one pass.

    The file is written under another name and takes its own when the ``with`` block ends without an
    error: there is never half a file at ``path``.
    """

    def __init__(
        self,
        path: Path,
        *,
        fps: Fraction | float,
        sound: SoundFile | None = None,
        like: VideoInfo | None = None,
        crf: int = 18,
        preset: str = "medium",
    ) -> None:
        """Prepare a writer.

        Args:
            path: the file to write; its suffix chooses the container.
            fps: frames per second.
            sound: becomes the sound track, cut to the length of the frames. Its ``start`` is the
                moment of the first frame.
            like: a video whose colours and shape of pixels are kept.
            crf: x264's constant rate factor, 0 (lossless) to 51; 18 is visually transparent.
            preset: x264's preset, ``ultrafast`` … ``veryslow``.

        Raises:
            UserError: the suffix names no container, or the folder cannot be written.
        """
        self.path = path
        self._partial = partial_path(path)
        self._fps = Fraction(fps).limit_denominator(1001)
        self._sound = sound
        self._like = like
        self._options = {"crf": str(crf), "preset": preset}
        self._stream: av.VideoStream | None = None
        self._sound_track: _SoundTrack | None = None
        self._frames = 0
        self._converter = VideoReformatter()  # one for all: a frame's own is set up anew each time
        self._files = ExitStack()
        with self._write_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._container = self._files.enter_context(av.open(str(self._partial), "w"))

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        """A failure to write becomes a UserError that names the file."""
        try:
            yield
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UserError(f"{self.path}: cannot be written ({error})") from error

    def __enter__(self) -> VideoWriter:
        return self

    def write(
        self, image: np.ndarray, *, source: Frame | None = None, changed: Box | None = None
    ) -> None:
        """Append a frame.

        Args:
            image: (h, w, 3) BGR uint8, every one of the same size.
            source: the frame that the image was made from. Outside of ``changed`` the samples
                that its decoder gave are encoded, without the loss of a way through BGR.
            changed: the part that was changed; None is nothing.
        """
        height, width = image.shape[:2]
        if height % 2 or width % 2:  # 4:2:0 needs even sides
            image = cv2.copyMakeBorder(
                image, 0, height % 2, 0, width % 2, borderType=cv2.BORDER_REPLICATE
            )
        decoded = None if source is None else source.decoded
        if decoded is not None and (decoded.height, decoded.width) == image.shape[:2]:
            frame = self._changed_within(decoded, image, changed)
        else:
            frame = self._encodable(image)
        frame.time_base = 1 / self._fps
        frame.pts = self._frames
        with self._write_errors():
            if self._stream is None:
                self._stream = self._open_streams(*image.shape[:2])
            self._container.mux(self._stream.encode(frame))
            self._frames += 1
            if self._sound_track is not None:  # side by side, or the muxer would have to hold one
                self._sound_track.write_until(self._frames / self._fps)

    def _encodable(self, image: np.ndarray) -> av.VideoFrame:
        """An image in 4:2:0, by the matrix that the decoder used."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        if self._like is None:
            return self._converter.reformat(frame, format="yuv420p")
        return self._converter.reformat(
            frame,
            format="yuv420p",
            dst_colorspace=self._like.colorspace,
            dst_color_range=self._like.color_range,
        )

    def _changed_within(
        self, decoded: av.VideoFrame, image: np.ndarray, box: Box | None
    ) -> av.VideoFrame:
        """The decoded frame with ``box`` taken from the image, in 4:2:0."""
        if decoded.format.name not in ("yuv420p", "yuvj420p"):
            decoded = decoded.reformat(format="yuv420p")
        # Not the decoder's own frame: the encoder would give it the same frame type (I, P or B).
        planes = decoded.to_ndarray()
        if box is not None:
            self._fill_in(planes, image, box)
        return av.VideoFrame.from_ndarray(planes, format="yuv420p")

    def _fill_in(self, planes: np.ndarray, image: np.ndarray, box: Box) -> None:
        """Copy ``box`` of the image into the planes of 4:2:0, both of even sides."""
        height, width = image.shape[:2]
        x1, y1, x2, y2 = box
        left, top = x1 // 2 * 2, y1 // 2 * 2  # chroma samples are for two by two pixels
        right, bottom = -(-x2 // 2) * 2, -(-y2 // 2) * 2
        new = self._encodable(image[top:bottom, left:right]).to_ndarray()
        planes[y1:y2, x1:x2] = new[y1 - top : y2 - top, x1 - left : x2 - left]
        chroma = planes[height:].reshape(2, height // 2, width // 2)
        chroma[:, top // 2 : bottom // 2, left // 2 : right // 2] = new[bottom - top :].reshape(
            2, (bottom - top) // 2, (right - left) // 2
        )

    def _open_streams(self, height: int, width: int) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=self._fps, options=self._options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.time_base = 1 / self._fps
        if self._like is not None:
            codec = stream.codec_context
            codec.colorspace = self._like.colorspace
            codec.color_range = self._like.color_range
            codec.color_primaries = self._like.color_primaries
            codec.color_trc = self._like.color_transfer
            codec.sample_aspect_ratio = self._like.pixel_aspect
        if self._sound is not None:
            self._sound_track = _SoundTrack(self._sound, self._container)
        return stream

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with self._write_errors(), self._files:
                if kind is None:
                    self._flush()
            if kind is None:
                with self._write_errors():
                    publish(self._partial, self.path)
        finally:
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._stream is None:
            raise UserError(f"{self.path}: not written, there was no frame")
        self._container.mux(self._stream.encode(None))
        if self._sound_track is not None:
            self._sound_track.write_until(self._frames / self._fps)
            self._sound_track.flush()


class _SoundTrack:
    """An AAC stream, encoded step by step."""

    def __init__(self, sound: SoundFile, output: av.container.OutputContainer) -> None:
        self._sound = sound
        self._rate = sound.rate if sound.rate in _AAC_RATES else max(_AAC_RATES)
        self._layout = "mono" if sound.channels == 1 else "stereo"
        resampler = av.AudioResampler(format="fltp", layout=self._layout, rate=self._rate)
        self._aligned = AlignedSound(resampler, sound.start)
        self._waiting = av.AudioFifo()
        self._written = 0  # samples
        self._output = output
        # FFmpeg's documentation recommends it from 64 kbit/s on; it takes a third of the time.
        coder = {"aac_coder": "fast"}
        self._stream = output.add_stream("aac", rate=self._rate, layout=self._layout, options=coder)

    def write_until(self, seconds: Fraction) -> None:
        """Encode the sound before ``seconds`` as far as it is decoded, and nothing after it."""
        wanted = round(seconds * self._rate) - self._written
        while self._waiting.samples < wanted:
            decoded = self._sound.next_decoded()
            if decoded is None:
                break
            block = np.ascontiguousarray(self._aligned.convert(decoded)[0])
            if block.size:
                samples = av.AudioFrame.from_ndarray(block, format="fltp", layout=self._layout)
                samples.sample_rate = self._rate
                self._waiting.write(samples)
        frame = self._waiting.read(wanted, partial=True) if wanted > 0 else None
        if frame is not None:
            frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
            self._written += frame.samples
            self._output.mux(self._stream.encode(frame))

    def flush(self) -> None:
        """Write what the encoder still holds."""
        self._output.mux(self._stream.encode(None))
