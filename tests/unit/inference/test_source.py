"""In which order pictures are shown while there is sound."""

import dataclasses
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import number_of, numbered, write_video

from wav2lip_npu.config import InferConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.source import FaceSource
from wav2lip_npu.media import video_reader as video
from wav2lip_npu.tracking import detection


def opened(path: Path, **options: object) -> FaceSource:
    words = {"checkpoint_path": path, "audio": path, "face": path}
    return FaceSource(InferConfig(**words, **options))


def order(shown: FaceSource, loop: str, count: int) -> tuple[list[int], list[int]]:
    """The numbers announced after a first pass, and those in the pictures."""
    frames = list(shown.frames())
    pairs = list(islice(shown.loop(loop, len(frames), frames[-1]), count))
    return [number for number, _ in pairs], [number_of(frame.image) for _, frame in pairs]


@pytest.mark.parametrize(
    ("loop", "expected"),
    [
        ("repeat", [*range(7), *range(7), 0]),
        ("pingpong", [5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6, 5, 4, 3]),
        ("hold", [6] * 15),
        ("cut", []),
    ],
)
def test_after_the_last_picture(tmp_path: Path, loop: str, expected: list[int]) -> None:
    source = write_video(tmp_path / "a.mp4", numbered(7))
    announced, seen = order(opened(source), loop, 15)
    assert announced == seen == expected


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0.0, None, [*range(80)]),
        (0.4, None, [*range(10, 80)]),
        (0.0, 0.4, [*range(10)]),
        (2.0, 2.2, [*range(50, 55)]),
        (3.0, 9.0, [*range(75, 80)]),
        (0.05, 0.06, [1]),  # rounded to the nearest frames
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mpg"])
def test_a_part_of_the_video(
    tmp_path: Path, start: float, end: float | None, expected: list[int], suffix: str
) -> None:
    source = write_video(tmp_path / "a.mp4", numbered(80))
    if suffix != "mp4":
        source = converted(source, tmp_path / f"a.{suffix}")
    whole = [frame.image for frame in opened(source).frames()]
    assert len(whole) == 80
    part = opened(source, start=start, end=end)
    frames = list(part.frames())
    np.testing.assert_array_equal([frame.image for frame in frames], [whole[n] for n in expected])
    if len(expected) > 1:  # and again, backwards
        back = islice(part.loop("pingpong", len(frames), frames[-1]), len(frames) - 1)
        again = [whole[n] for n in expected[-2::-1]]
        np.testing.assert_array_equal([frame.image for _, frame in back], again)
    (first,) = opened(source, start=start, static=True).frames()
    np.testing.assert_array_equal(first.image, whole[expected[0]])


def test_a_part_that_is_not_there(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered(20))
    with pytest.raises(UserError, match=r"--start 5.0: .*a.mp4 ends before"):
        list(opened(source, start=5.0).frames())
    for options, fault in (
        ({"start": 2.0, "end": 1.0}, "--end 1.0: must be after --start 2.0"),
        ({"start": 0.4, "end": 0.41}, "--end 0.41: less than a frame after --start 0.4"),
        ({"end": 0.01}, "--end 0.01: less than a frame after --start 0.0, at 25 frames"),
        ({"end": 1.0, "static": True}, "--end 1.0: has no effect with --static"),
        ({"start": 1e308}, "--start 1e.308: must be from 0 to 1000000"),
    ):
        with pytest.raises(UserError, match=fault):
            opened(source, **options)
    image = tmp_path / "a.png"
    image.write_bytes(cv2.imencode(".png", numbered(1)[0])[1].tobytes())
    for options, name in (({"start": 1.0}, "--start 1.0"), ({"end": 1.0}, "--end 1.0")):
        with pytest.raises(UserError, match=f"{name}: has no effect, .*a.png is an image"):
            opened(image, **options)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mpg"])
def test_backwards_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Each block is looked up in the file, 2.5 s and more after its only key frame or not."""
    source = write_video(tmp_path / "a.mp4", numbered(80))
    if suffix != "mp4":
        source = converted(source, tmp_path / f"a.{suffix}")
    monkeypatch.setattr(detection, "MAX_HELD_BYTES", 64 * 48 * 3 * 3 // 2 * 13)  # thirteen pictures
    shown = opened(source)
    frames = list(shown.frames())
    back = list(islice(shown.loop("pingpong", 80, frames[-1]), 79))
    assert [number for number, _ in back] == [*range(78, -1, -1)]
    for number, frame in back:
        np.testing.assert_array_equal(frame.image, frames[number].image)


def converted(source: Path, target: Path) -> Path:
    """The same pictures in another container, with a key frame every twelve."""
    import av

    with av.open(str(source)) as given, av.open(str(target), "w") as file:
        codec = "mpeg2video" if target.suffix == ".mpg" else "libx264"
        stream = file.add_stream(codec, rate=25, options={"g": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 2_000_000
        for frame in given.decode(video=0):
            frame.pict_type = 0
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return target


def test_an_index_that_leads_too_far_is_not_believed(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered(10))
    frames = list(video.read_frames(source, since=-1.0))  # no frame is as early as that
    assert [number_of(frame.image) for frame in frames] == [*range(10)]


def test_a_still_is_shown_as_it_is(tmp_path: Path, face: np.ndarray) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), face)
    (frame,) = opened(tmp_path / "a.png").frames()
    np.testing.assert_array_equal(frame.image, face)


def test_a_size_of_nothing_is_refused(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered(2))
    with pytest.raises(UserError, match="--resize_factor 1000: nothing is left of 64 × 48 pixels"):
        next(opened(source, resize_factor=1000).frames())
    (tiny, _) = opened(source, resize_factor=48).frames()
    assert tiny.image.shape == (1, 1, 3)


def test_a_damaged_shape_of_pixels_is_turned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_video(tmp_path / "a.mp4", numbered(2))
    info = dataclasses.replace(video.probe(source), pixel_aspect=Fraction(0))
    monkeypatch.setattr(video, "probe", lambda path: info)
    assert opened(source, rotate=True).info.pixel_aspect == 0
    monkeypatch.setattr(
        video, "probe", lambda path: dataclasses.replace(info, pixel_aspect=Fraction(2))
    )
    assert opened(source, rotate=True).info.pixel_aspect == Fraction(1, 2)
