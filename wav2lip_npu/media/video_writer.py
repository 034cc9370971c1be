"""Video frames out, one at a time, and the sound beside them, with PyAV."""

from __future__ import annotations

from contextlib import ExitStack
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
from wav2lip_npu.media.audio import sound_from
from wav2lip_npu.media.container import open_media
from wav2lip_npu.media.video_reader import Frame, VideoInfo

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
        audio: Path | None = None,
        audio_start: float | None = None,
        like: VideoInfo | None = None,
        crf: int = 18,
        preset: str = "medium",
    ) -> None:
        """Prepare a writer.

        Args:
            path: the file to write; its suffix chooses the container.
            fps: frames a second.
            audio: a media file whose first audio stream becomes the sound, cut to the length of the
                picture.
            audio_start: the moment of that file's clock at the first picture, as in
                ``audio.sound_from``.
            like: a video whose colours and shape of pixels are kept.
            crf: x264's constant rate factor, 0 (lossless) to 51; 18 is visually transparent.
            preset: x264's preset, ``ultrafast`` … ``veryslow``.

        Raises:
            UserError: the suffix names no container, or the folder cannot be written.
        """
        self.path = path
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._fps = Fraction(fps).limit_denominator(1001)
        self._audio, self._audio_start = audio, audio_start
        self._like = like
        self._options = {"crf": str(crf), "preset": preset}
        self._stream: av.VideoStream | None = None
        self._sound: _SoundTrack | None = None
        self._frames = 0
        self._converter = VideoReformatter()  # one for all: a frame's own is set up anew each time
        self._files = ExitStack()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._container = self._files.enter_context(av.open(str(self._partial), "w"))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be written ({error})") from error

    def __enter__(self) -> VideoWriter:
        return self

    def write(
        self, image: np.ndarray, *, source: Frame | None = None, changed: Box | None = None
    ) -> None:
        """Append a picture.

        Args:
            image: (h, w, 3) BGR uint8, every one of the same size.
            source: the frame that the picture was made from. Outside of ``changed`` the samples
                that its decoder gave are encoded, without the loss of a way through BGR.
            changed: the part that was changed; None is nothing.
        """
        height, width = image.shape[:2]
        if height % 2 or width % 2:  # 4:2:0 needs even sides
            image = cv2.copyMakeBorder(
                image, 0, height % 2, 0, width % 2, borderType=cv2.BORDER_REPLICATE
            )
        if self._stream is None:
            self._stream = self._open_streams(*image.shape[:2])
        decoded = None if source is None else source.decoded
        if decoded is not None and (decoded.height, decoded.width) == image.shape[:2]:
            picture = self._changed_within(decoded, image, changed)
        else:
            picture = self._encodable(image)
        picture.time_base = 1 / self._fps
        picture.pts = self._frames
        self._container.mux(self._stream.encode(picture))
        self._frames += 1
        if self._sound is not None:  # side by side, or the muxer would have to hold one of them
            self._sound.write_until(self._frames / self._fps)

    def _encodable(self, image: np.ndarray) -> av.VideoFrame:
        """A picture in 4:2:0, by the very matrix that the decoder used."""
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        if self._like is None:
            return self._converter.reformat(picture, format="yuv420p")
        return self._converter.reformat(
            picture,
            format="yuv420p",
            dst_colorspace=self._like.colorspace,
            dst_color_range=self._like.color_range,
        )

    def _changed_within(
        self, decoded: av.VideoFrame, image: np.ndarray, box: Box | None
    ) -> av.VideoFrame:
        """The decoded frame with ``box`` taken from the picture, in 4:2:0."""
        if decoded.format.name not in ("yuv420p", "yuvj420p"):
            decoded = decoded.reformat(format="yuv420p")
        # Not the decoder's own frame: that tells the encoder what kind of frame to make of it.
        planes = decoded.to_ndarray()
        if box is not None:
            self._fill_in(planes, image, box)
        return av.VideoFrame.from_ndarray(planes, format="yuv420p")

    def _fill_in(self, planes: np.ndarray, image: np.ndarray, box: Box) -> None:
        """Take ``box`` of the picture over into the planes of 4:2:0, both of even sides."""
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
        if self._audio is not None:
            source = self._files.enter_context(open_media(self._audio))
            self._sound = _SoundTrack(source, self._container, self._audio_start)
        return stream

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        complete = False
        try:
            with self._files:
                if kind is None:
                    self._flush()
            complete = kind is None
        finally:
            if complete:
                self._partial.replace(self.path)
            else:
                self._partial.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._stream is None:
            raise UserError(f"{self.path}: not written, there was no frame")
        self._container.mux(self._stream.encode(None))
        if self._sound is not None:
            self._sound.flush()


class _SoundTrack:
    """An AAC stream that is encoded step by step, from the first audio stream of a container."""

    def __init__(
        self,
        source: av.container.InputContainer,
        output: av.container.OutputContainer,
        start: float | None,
    ) -> None:
        heard = source.streams.audio[0]
        self._rate = heard.rate if heard.rate in _AAC_RATES else max(_AAC_RATES)
        self._layout = "mono" if heard.channels == 1 else "stereo"
        resampler = av.AudioResampler(format="fltp", layout=self._layout, rate=self._rate)
        self._decoded = sound_from(source.decode(heard), resampler, start)
        self._waiting = av.AudioFifo()
        self._written = 0  # samples
        self._output = output
        # FFmpeg's documentation has it better than the usual one at 64 kbit/s and more; a third of
        # the time.
        coder = {"aac_coder": "fast"}
        self._stream = output.add_stream("aac", rate=self._rate, layout=self._layout, options=coder)

    def write_until(self, seconds: Fraction) -> None:
        """Encode the sound before ``seconds``, and nothing after it."""
        wanted = round(seconds * self._rate) - self._written
        while self._waiting.samples < wanted and (block := next(self._decoded, None)) is not None:
            samples = np.ascontiguousarray(block[0])
            heard = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self._layout)
            heard.sample_rate = self._rate
            self._waiting.write(heard)
        frame = self._waiting.read(wanted, partial=True) if wanted > 0 else None
        if frame is not None:
            frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
            self._written += frame.samples
            self._output.mux(self._stream.encode(frame))

    def flush(self) -> None:
        """Write what the encoder still holds."""
        self._output.mux(self._stream.encode(None))
