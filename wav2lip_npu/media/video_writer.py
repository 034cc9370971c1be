"""Videos out, frame by frame, and their sound track, with PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
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
from wav2lip_npu.media.outfile import (
    CONTAINERS,
    Encoding,
    check_outfile,
    encoding,
    remove_leftovers,
    write_errors,
)
from wav2lip_npu.media.planes import (
    ALPHA_PLANE,
    copy_planes,
    plane_views,
    read_alpha,
    scale_depth,
)
from wav2lip_npu.media.sound_track import SoundTrack, TrackSound
from wav2lip_npu.media.video_reader import Frame, VideoInfo
from wav2lip_npu.runtime.files import partial_path, publish
from wav2lip_npu.runtime.locks import mark_in_use

MAX_SIDE = 16384  # pixels, of x264 and libvpx
MAX_WRITTEN_FPS = 1000
MAX_ASPECT = 64  # of a pixel; what is beyond it is a damaged header
# FFmpeg's numbers of colour matrices, primaries and transfers; others are reserved.
_RGB, _BT709, _UNSPECIFIED, _SMPTE170M = 0, 1, 2, 6
_MATRICES = frozenset((1, *range(4, 15)))
_PRIMARIES = frozenset((1, *range(4, 13), 22))
_TRANSFERS = frozenset((1, *range(4, 19)))
_UNSAID, _LIMITED, _FULL = 0, 1, 2  # ranges
# FFmpeg's SWS_BILINEAR, SWS_ACCURATE_RND and SWS_FULL_CHR_H_INP. Without the second, colours are up
# to five levels darker and tinted.
_CONVERSION = 0x2 | 0x40000 | 0x4000
_HD_HEIGHT = 720  # pixels, from which BT.709 is usual


@dataclass(frozen=True, kw_only=True)
class _Colours:
    """FFmpeg's numbers, as the stream is marked."""

    matrix: int
    range: int
    primaries: int
    transfer: int


def _colours(like: VideoInfo | None, height: int, *, is_rgb: bool) -> _Colours:
    """Those of a video, as far as YUV has them; of RGB, what players expect."""
    matrix, colour_range = (_RGB, _LIMITED) if like is None else (like.colorspace, like.color_range)
    if matrix == _RGB or is_rgb:
        matrix, colour_range = (_BT709 if height >= _HD_HEIGHT else _SMPTE170M), _LIMITED
    primaries = _UNSPECIFIED if like is None else like.color_primaries
    transfer = _UNSPECIFIED if like is None else like.color_transfer
    return _Colours(
        matrix=matrix if matrix in _MATRICES else _UNSPECIFIED,
        range=colour_range if colour_range in (_LIMITED, _FULL) else _UNSAID,
        primaries=primaries if primaries in _PRIMARIES else _UNSPECIFIED,
        transfer=transfer if transfer in _TRANSFERS else _UNSPECIFIED,
    )


def _with_even_sides(image: np.ndarray) -> np.ndarray:
    """An image, or a plane, that was grown by a row or a column if need be."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = cv2.copyMakeBorder(
            image, 0, height % 2, 0, width % 2, borderType=cv2.BORDER_REPLICATE
        )
    return image


class VideoWriter:
    """Encode frames and, beside them, a sound track, in one pass.

    They become H.264 and AAC; in .webm VP9 and Opus; and in .mov, with transparency, ProRes 4444.

    The file is written under another name and takes its own when the ``with`` block ends without an
    error: there is never half a file at ``path``.
    """

    def __init__(
        self,
        path: Path,
        *,
        fps: Fraction | float,
        sound: TrackSound | None = None,
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
            crf: x264's constant rate factor, 0 (lossless) to 51; 18 is visually transparent. VP9
                has one too, on a scale of its own. ProRes has none.
            preset: x264's preset, ``ultrafast`` … ``veryslow``; of no other codec.

        Raises:
            UserError: that many frames per second cannot be written.
        """
        self.path = path
        self._partial = partial_path(path)
        self._fps = Fraction(fps).limit_denominator(1001)
        if not 0 < self._fps <= MAX_WRITTEN_FPS:
            raise UserError(f"{path}: {fps} frames per second cannot be written")
        self._sound = sound
        self._like = like
        self._crf, self._preset = crf, preset
        self._encoding: Encoding | None = None  # until the first frame
        self._stream: av.VideoStream | None = None
        self._colours = _colours(like, 0, is_rgb=False)  # until the first frame
        self._sound_track: SoundTrack | None = None
        self._frames = 0
        # One for all frames, as a frame's own is set up anew each time; and one for each kind, as
        # old releases of PyAV keep the colours of the first conversion.
        self._image_converter, self._source_converter = VideoReformatter(), VideoReformatter()
        self._alpha_converter = VideoReformatter()
        self._files = ExitStack()

    def __enter__(self) -> VideoWriter:
        """Open the file.

        Raises:
            UserError: see ``check_outfile``.
        """
        check_outfile(self.path)
        remove_leftovers(self.path)
        try:
            with write_errors(self.path):
                # Not by its name: FFmpeg takes some names for addresses, and its errors have no
                # errno then.
                file = self._files.enter_context(self._partial.open("wb"))
                self._files.enter_context(mark_in_use(self._partial))
                container = av.open(file, "w", format=CONTAINERS[self.path.suffix.lower()])
                self._container = self._files.enter_context(container)
        except BaseException:
            self._discard()
            raise
        return self

    def write(
        self, image: np.ndarray, *, source: Frame | None = None, changed: Sequence[Box] = ()
    ) -> None:
        """Append a frame.

        Args:
            image: (h, w, 3) BGR uint8, every one of the same size.
            source: the frame that the image was made from. Outside of ``changed`` the samples
                that its decoder gave are encoded, without the loss of a way through BGR. Its
                alpha plane, if the first frame has one, is kept where the file can.
            changed: the parts that were changed.
        """
        height, width = image.shape[:2]
        alpha = None if source is None else source.alpha
        if self._encoding is None:
            self._encoding = encoding(
                self.path, with_alpha=alpha is not None, crf=self._crf, preset=self._preset
            )
        if self._encoding.is_halved:
            image = _with_even_sides(image)
            alpha = None if alpha is None else _with_even_sides(alpha)
        decoded = None if source is None else source.decoded
        if self._stream is None:
            is_rgb = decoded is not None and (decoded.format.is_rgb or decoded.format.has_palette)
            self._colours = _colours(self._like, height, is_rgb=is_rgb)
            with write_errors(self.path):
                self._stream = self._open_streams(self._encoding, *image.shape[:2])
        elif (self._stream.height, self._stream.width) != image.shape[:2]:
            raise UserError(
                f"{self.path}: a frame of {width} × {height} pixels cannot follow those of "
                f"{self._stream.width} × {self._stream.height}"
            )
        if decoded is not None and (decoded.height, decoded.width) == image.shape[:2]:
            frame = self._changed_within(decoded, image, changed)
        else:
            decoded, frame = None, self._encodable(image)
        if alpha is not None and len(frame.planes) > ALPHA_PLANE:
            self._fill_alpha(frame, alpha if decoded is None else decoded)
        frame.time_base = 1 / self._fps
        frame.pts = self._frames
        with write_errors(self.path):
            self._container.mux(self._stream.encode(frame))
            self._frames += 1
            if self._sound_track is not None:  # side by side, or the muxer would have to hold one
                self._sound_track.write_until(self._frames / self._fps)

    def _encodable(self, image: np.ndarray) -> av.VideoFrame:
        """An opaque image in the encoder's format, by the matrix that the decoder used."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        assert self._encoding is not None
        return self._image_converter.reformat(
            frame,
            format=self._encoding.pix_fmt,
            dst_colorspace=self._colours.matrix,
            dst_color_range=self._range,
            interpolation=_CONVERSION,
        )

    def _converted(self, decoded: av.VideoFrame) -> av.VideoFrame:
        """A decoded frame in the encoder's format.

        Old releases of PyAV want to be told the colours of both.
        """
        assert self._encoding is not None
        is_rgb = decoded.format.is_rgb or decoded.format.has_palette
        name, wanted = decoded.format.name, self._encoding.pix_fmt
        same_range = is_rgb or self._colours.range in (_UNSAID, self._range)
        if not same_range or name not in (wanted, wanted.replace("yuv", "yuvj")):
            decoded = self._source_converter.reformat(
                decoded,
                format=wanted,
                src_colorspace=None if is_rgb else self._colours.matrix,
                src_color_range=None if is_rgb else self._colours.range,
                dst_colorspace=self._colours.matrix,
                dst_color_range=self._range,
                interpolation=_CONVERSION,
            )
        # Not the decoder's frame, nor one that was made of it: the encoder would give it the same
        # frame type (I, P or B).
        return copy_planes(decoded, wanted)

    def _changed_within(
        self, decoded: av.VideoFrame, image: np.ndarray, boxes: Sequence[Box]
    ) -> av.VideoFrame:
        """The decoded frame with the colours of boxes taken from the image."""
        frame = self._converted(decoded)
        for box in boxes:
            self._fill_in(frame, image, box)
        return frame

    def _fill_in(self, frame: av.VideoFrame, image: np.ndarray, box: Box) -> None:
        """Copy ``box`` of the image into the three planes of brightness and colours."""
        assert self._encoding is not None
        x1, y1, x2, y2 = box
        step = 2 if self._encoding.is_halved else 1  # a chroma sample is for so many pixels
        left, top = x1 // step * step, y1 // step * step
        right, bottom = -(-x2 // step) * step, -(-y2 // step) * step
        new = plane_views(self._encodable(image[top:bottom, left:right]))
        planes = plane_views(frame)
        planes[0][y1:y2, x1:x2] = new[0][y1 - top : y2 - top, x1 - left : x2 - left]
        for chroma, part in zip(planes[1:3], new[1:3], strict=True):
            chroma[top // step : bottom // step, left // step : right // step] = part

    def _fill_alpha(self, frame: av.VideoFrame, alpha: av.VideoFrame | np.ndarray) -> None:
        """Set the alpha plane to that of a decoded frame, or to (h, w) uint8."""
        bits = frame.format.components[ALPHA_PLANE].bits
        if isinstance(alpha, av.VideoFrame):
            plane = read_alpha(alpha, self._alpha_converter, bits=bits)
        else:
            plane = scale_depth(alpha, 8, bits)
        plane_views(frame)[ALPHA_PLANE][:] = plane

    @property
    def _range(self) -> int:
        """FFmpeg's number of the range that is written."""
        assert self._encoding is not None
        return self._colours.range if self._encoding.has_full_range else _LIMITED

    def _open_streams(self, chosen: Encoding, height: int, width: int) -> av.VideoStream:
        if max(height, width) > MAX_SIDE:
            raise UserError(
                f"{self.path}: {width} × {height} pixels; {chosen.name} has up to {MAX_SIDE} on a "
                "side: --resize_factor makes them smaller"
            )
        stream = self._container.add_stream(chosen.codec, rate=self._fps, options=chosen.options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = height, width, chosen.pix_fmt
        codec = stream.codec_context
        codec.time_base = 1 / self._fps
        codec.colorspace, codec.color_range = self._colours.matrix, self._range
        codec.color_primaries, codec.color_trc = self._colours.primaries, self._colours.transfer
        aspect = Fraction(1) if self._like is None else self._like.pixel_aspect
        if 1 / MAX_ASPECT <= aspect <= MAX_ASPECT:
            codec.sample_aspect_ratio = aspect.limit_denominator(1000)
        if self._sound is not None:
            self._sound_track = SoundTrack(self._sound, self._container, chosen.sound_codec)
        return stream

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                with write_errors(self.path):
                    self._flush()
                    self._files.close()
                    publish(self._partial, self.path)
        finally:
            self._discard()

    def _discard(self) -> None:
        """Remove the partial file, whatever else fails."""
        with suppress(OSError):
            self._partial.unlink(missing_ok=True)
        with suppress(av.FFmpegError, OSError, ValueError):
            self._files.close()

    def _flush(self) -> None:
        if self._stream is None:
            raise UserError(f"{self.path}: not written, there was no frame")
        self._container.mux(self._stream.encode(None))
        if self._sound_track is not None:
            self._sound_track.finish(self._frames / self._fps)
