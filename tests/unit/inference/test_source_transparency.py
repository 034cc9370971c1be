"""Transparency follows what is done with frames; each has one of its own, by which it is known."""

from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from wav2lip_npu.config import InferConfig
from wav2lip_npu.inference.source import FaceSource

FRAMES = 12


def shapes(count: int = FRAMES) -> list[np.ndarray]:
    """BGRA (51, 66, 4): the alpha is a slope, and brighter from frame to frame."""
    y, x = np.mgrid[:51, :66]
    colours = np.stack([2 * x, 3 * y, x + y], axis=2)
    return [np.dstack([colours, x + y + 8 * n]).astype(np.uint8) for n in range(count)]


@pytest.fixture
def face(tmp_path: Path) -> Path:
    """They as a video without loss."""
    with av.open(str(tmp_path / "a.mov"), "w") as output:
        stream = output.add_stream("qtrle", rate=25)
        stream.height, stream.width, stream.pix_fmt = 51, 66, "argb"
        for number, image in enumerate(shapes()):
            frame = av.VideoFrame.from_ndarray(image, format="bgra").reformat(format="argb")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return tmp_path / "a.mov"


def opened(path: Path, outfile: str = "o.mov", **options: object) -> FaceSource:
    words = {"checkpoint_path": path, "audio": path, "face": path, "outfile": Path(outfile)}
    return FaceSource(InferConfig(**words, **options))


@pytest.mark.parametrize("outfile", ["o.mov", "o.webm", "%05d.png"])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"rotate": True}, {"crop": (5, 40, 10, -1)}, {"resize_factor": 2}, {"static": True},
        {"start": 0.16, "end": 0.4}, {"rotate": True, "crop": (2, 20, 3, -1), "resize_factor": 3},
    ],
)  # fmt: skip
def test_it_follows_the_edits_of_frames(
    face: Path, options: dict[str, object], outfile: str
) -> None:
    expected = shapes()[4:10] if "start" in options else shapes()
    source = opened(face, outfile, **options)
    found = list(source.frames())
    assert source.has_alpha
    assert len(found) == (1 if "static" in options else len(expected))
    for frame, image in zip(found, expected, strict=False):
        factor = options.get("resize_factor", 1)
        image = cv2.resize(image, (66 // factor, 51 // factor))
        if "rotate" in options:
            image = np.rot90(image, -1)
        top, bottom, left, right = options.get("crop", (0, None, 0, None))
        image = image[top:bottom, left : None if right == -1 else right]
        np.testing.assert_array_equal(frame.image, image[..., :3])
        np.testing.assert_array_equal(frame.alpha, image[..., 3])


@pytest.mark.parametrize("loop", ["repeat", "pingpong", "hold"])
def test_it_comes_again_with_its_frame(face: Path, loop: str) -> None:
    source = opened(face)
    frames = list(source.frames())
    again = list(islice(source.loop(loop, FRAMES, frames[-1]), 30))
    assert len(again) == 30
    for number, frame in again:
        np.testing.assert_array_equal(frame.alpha, shapes()[number][..., 3])


def test_it_is_converted_to_a_constant_rate(tmp_path: Path) -> None:
    """A video whose frames are shown for 1, 3, 1, 3 … ticks."""
    ticks = np.cumsum([0, *([1, 3] * FRAMES)])[:FRAMES]
    with av.open(str(tmp_path / "a.mov"), "w") as output:
        stream = output.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = 51, 66, "rgba"
        for tick, image in zip(ticks, shapes(), strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="bgra").reformat(format="rgba")
            frame.pts, frame.time_base = int(tick), Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    frames = list(opened(tmp_path / "a.mov").frames())
    assert len(frames) > FRAMES
    for frame in frames:  # whichever it is, its colours and its alpha belong together
        same = [np.array_equal(frame.alpha, image[..., 3]) for image in shapes()]
        assert sum(same) == 1
        np.testing.assert_array_equal(frame.image, shapes()[same.index(True)][..., :3])


@pytest.mark.parametrize("outfile", ["o.mp4", "o.mkv", "o.avi"])
@pytest.mark.parametrize("kind", ["video", "still"])
def test_where_it_cannot_be_kept_one_line_says_so(
    face: Path, tmp_path: Path, kind: str, outfile: str, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "still":
        face = tmp_path / "a.png"
        face.write_bytes(cv2.imencode(".png", shapes()[0])[1].tobytes())
    source = opened(face, outfile)
    frames = list(source.frames())
    list(islice(source.loop("repeat", len(frames), frames[-1]), 30))
    assert not source.has_alpha
    assert all(frame.alpha is None for frame in frames)
    keep = ".mov, .webm and PNG files as in out/%05d.png keep it"
    assert caplog.messages == [f"{face}: its transparency is left out; {keep}"]
    caplog.clear()
    kept = opened(face, "o.mov")
    assert kept.has_alpha and not caplog.messages
    np.testing.assert_array_equal(next(kept.frames()).alpha, shapes()[0][..., 3])
