"""A GIF that plays in a README: before and after side by side, above the voice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import av.filter
import cv2
import numpy as np

from wav2lip_npu.constants import FPS, SAMPLE_RATE
from wav2lip_npu.media.audio import load_audio
from wav2lip_npu.media.video_reader import read_frames
from wav2lip_npu.runtime.files import atomic_write

SHOWN = (slice(46, 222), slice(40, 216))  # rows and columns of the demo's frames: the face
FACE_SIDE = 160  # px, of each of both pictures
VOICE_HEIGHT = 32  # px, of the strip below them
EVERY = 2  # frames of the video for one of the GIF, which keeps it small
FRAMES_PER_SECOND = Fraction(FPS, EVERY)
COLOURS = 96  # of the palette: with 256, which look alike, the file is half as large again
COLOUR, HEARD_COLOUR, GROUND = (120, 120, 120), (40, 120, 230), 245  # BGR; grey


def write_gif(before: Path, after: Path, path: Path) -> None:
    """Write the GIF, atomically.

    Args:
        before: the video that was lip-synced.
        after: the result, whose sound is drawn.
        path: the file to write.
    """
    voice = load_audio(after)
    with atomic_write(path) as partial:
        _encode(_frames(_images(before), _images(after), voice), partial)


def _images(video: Path) -> Iterator[np.ndarray]:
    """The face in every second frame of a video, small."""
    for frame in islice(read_frames(video), 0, None, EVERY):
        yield cv2.resize(frame.image[SHOWN], (FACE_SIDE, FACE_SIDE), interpolation=cv2.INTER_AREA)


def _frames(
    left: Iterator[np.ndarray], right: Iterator[np.ndarray], voice: np.ndarray
) -> Iterator[np.ndarray]:
    bars = _bars(voice, 2 * FACE_SIDE)
    for place, faces in enumerate(zip(left, right, strict=False)):
        strip = np.full((VOICE_HEIGHT, 2 * FACE_SIDE, 3), GROUND, np.uint8)
        heard = (place + 0.5) * EVERY / FPS * SAMPLE_RATE / max(1, len(voice)) * 2 * FACE_SIDE
        for x, height in enumerate(bars):
            top = (VOICE_HEIGHT - height) // 2
            strip[top : top + height, x] = HEARD_COLOUR if x <= heard else COLOUR
        yield np.vstack([np.hstack(faces), strip])


def _bars(voice: np.ndarray, width: int) -> list[int]:
    """The height of the sound in each column, in pixels."""
    blocks = np.array_split(np.abs(voice), width)
    peaks = np.array([block.max(initial=0.0) for block in blocks])
    return [max(1, int(peak)) for peak in peaks / max(peaks.max(), 1e-6) * (VOICE_HEIGHT - 4)]


def _encode(images: Iterator[np.ndarray], path: Path) -> None:
    """Encode a GIF with one palette for all of its frames."""
    frames = [av.VideoFrame.from_ndarray(image, format="bgr24") for image in images]
    with av.open(str(path), "w", format="gif") as file:
        stream = file.add_stream("gif", rate=FRAMES_PER_SECOND)
        stream.width, stream.height = frames[0].width, frames[0].height
        stream.pix_fmt = "pal8"
        for frame in _with_palette(frames):
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def _with_palette(frames: Sequence[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The frames in the colours that suit all of them, by FFmpeg's filters for that."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frames[0].width,
        height=frames[0].height,
        format=frames[0].format,
        time_base=1 / FRAMES_PER_SECOND,
    )
    both, palette = graph.add("split"), graph.add("palettegen", f"max_colors={COLOURS}")
    use = graph.add("paletteuse", "dither=none")
    sink = graph.add("buffersink")
    source.link_to(both)
    both.link_to(palette, 0, 0)
    both.link_to(use, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    for place, frame in enumerate(frames):
        frame.pts, frame.time_base = place, 1 / FRAMES_PER_SECOND
        graph.vpush(frame)
    graph.vpush(None)
    for _ in frames:
        yield graph.vpull()
