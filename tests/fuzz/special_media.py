"""Videos, sounds and images of unusual shapes, in the place of the good one."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from random import Random

import cv2
import numpy as np

from fuzz.media_files import FPS, FRAMES, Recipe, encode, face
from fuzz.mutations import Change, Expected, Mutation
from fuzz.special_sound import GBK, become_playlist, become_sound, tag_of

USED, REFUSED, ANY = Expected.USED, Expected.REFUSED, Expected.ANY
SHARP = {"crf": "10"}


def _video(suffix: str, **changes: object) -> Change:
    """Another video of the same 25 frames and second of sound."""

    def apply(path: Path, random: Random) -> Path:
        path.unlink()
        return encode(path.with_suffix(suffix), Recipe(**changes))  # type: ignore[arg-type]

    return apply


def _in_place(suffix: str, **changes: object) -> Change:
    """The same, under the name that the file had: only its content tells what it is."""

    def apply(path: Path, random: Random) -> None:
        other = encode(path.with_name(f"other{suffix}"), Recipe(**changes))  # type: ignore[arg-type]
        other.replace(path)

    return apply


RAW = {"codec": "rawvideo", "pixels": "bgr24"}
FFV1 = {"codec": "ffv1", "pixels": "bgr0"}
H264 = {"options": SHARP}
# name, suffix, recipe, expected
VIDEOS: tuple[tuple[str, str, dict[str, object], Expected], ...] = (
    ("avi with B-frames", ".avi", {"options": {**SHARP, "bf": "3"}}, USED),
    ("raw h264", ".h264", {**H264, "sound_codec": None}, USED),
    ("mpeg ts", ".ts", {**H264, "sound_codec": "aac"}, USED),
    ("flv", ".flv", {**H264, "sound_codec": "aac"}, USED),
    ("mkv ffv1", ".mkv", FFV1, USED),
    ("mov mjpeg", ".mov", {"codec": "mjpeg", "pixels": "yuvj420p"}, USED),
    ("avi mpeg4", ".avi", {"codec": "mpeg4", "options": {"b": "4M"}}, USED),
    ("webm vp8", ".webm", {"codec": "libvpx", "sound_codec": "libopus", "sound_rate": 48000,
                           "options": {"b": "2M", "deadline": "realtime"}}, USED),
    ("mpg", ".mpg", {"codec": "mpeg1video", "sound_codec": "mp2", "options": {"b": "4M"}}, ANY),
    ("gif", ".gif", {"codec": "gif", "pixels": "rgb8", "sound_codec": None}, ANY),
    ("4:4:4", ".mp4", {**H264, "pixels": "yuv444p", "sound_codec": "aac"}, USED),
    ("10 bits", ".mkv", {"codec": "ffv1", "pixels": "yuv420p10le"}, USED),
    ("rgb h264", ".mp4", {"codec": "libx264rgb", "pixels": "rgb24", "sound_codec": "aac", **H264},
     USED),
    ("grey", ".mkv", {"codec": "ffv1", "pixels": "gray"}, USED),
    ("no frames", ".mkv", {**H264, "frames": 0}, REFUSED),
    ("no frames avi", ".avi", {**H264, "frames": 0}, REFUSED),
    ("one frame", ".mkv", {**H264, "frames": 1}, ANY),
    ("two frames", ".mkv", {**H264, "frames": 2}, ANY),
    ("negative time stamps", ".mkv",
     {**H264, "ticks": tuple(range(-20, 5)), "muxing": {"avoid_negative_ts": "disabled"}}, ANY),
    ("late start", ".mkv", {**H264, "ticks": tuple(range(90_000, 90_025))}, ANY),
    ("gap of an hour", ".mkv", {**H264, "ticks": (*range(12), *range(90_012, 90_025))}, ANY),
    ("gap of a year", ".mkv",
     {**H264, "ticks": (*range(12), *(788_400_000 + n for n in range(13)))}, ANY),
    ("jumps in time", ".avi", {**RAW, "ticks": (*range(10), *range(20, 35))}, ANY),
    ("1000 frames a second", ".mkv", {**H264, "fps": Fraction(1000)}, ANY),
    ("a frame in 100 seconds", ".mkv", {**H264, "fps": Fraction(1, 100)}, ANY),
    ("1 fps", ".avi", {**RAW, "fps": Fraction(1)}, ANY),
    ("2 by 2 pixels", ".mkv", {**FFV1, "side": (2, 2)}, ANY),
    ("1 by 1 pixels", ".mkv", {**FFV1, "side": (1, 1)}, ANY),
    ("odd sides", ".mkv", {**FFV1, "side": (131, 133)}, ANY),
    ("4096 by 2", ".mkv", {**FFV1, "side": (4096, 2), "frames": 3}, ANY),
    ("4000 by 4000", ".mkv", {**FFV1, "side": (4000, 4000), "frames": 1}, ANY),
    ("no sound", ".mkv", {**H264, "sound_codec": None}, ANY),
    ("sound of no length", ".mkv", {**H264, "sound_seconds": 0.0}, ANY),
    ("short sound", ".mkv", {**H264, "sound_seconds": 0.02}, ANY),
    ("three sound tracks", ".mkv", {**H264, "tracks": 3}, USED),
    ("sound of 1000 Hz", ".mkv", {**H264, "sound_rate": 1000}, ANY),
    ("sound of 192 kHz", ".mkv", {**H264, "sound_rate": 192_000}, USED),
    *((f"{n} channels", ".mkv", {**H264, "layout": f"{n}C"}, USED) for n in (3, 5, 7)),
    *((f"layout {name}", ".mkv", {**H264, "layout": name}, USED)
      for name in ("stereo", "5.1", "7.1", "quad", "hexadecagonal")),
    ("7.1 aac", ".mp4", {**H264, "layout": "7.1", "sound_codec": "aac", "sound_rate": 48000}, USED),
)  # fmt: skip


def _sizes_change(path: Path, random: Random) -> Path:
    """Raw H.264: a stream of one size, and then one of another."""
    path.unlink()
    parts = [
        encode(path.with_name(f"{n}.h264"), Recipe(side=side, options=SHARP, sound_codec=None))
        for n, side in enumerate(((128, 128), (96, 64)))
    ]
    target = path.with_suffix(".h264")
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()
    return target


def _concat(path: Path, random: Random) -> None:
    path.write_text("ffconcat version 1.0\nfile my notes.txt\n")


VIDEO = (
    *(
        Mutation(name=name, apply=_video(suffix, **recipe), expected=expected)
        for name, suffix, recipe, expected in VIDEOS
    ),
    Mutation(name="mkv named mp4", apply=_in_place(".mkv", **H264), expected=USED),
    Mutation(name="avi named mp4", apply=_in_place(".avi", **RAW), expected=USED),
    Mutation(name="GBK tag", apply=tag_of(GBK), expected=USED),
    Mutation(name="tag of any bytes", apply=tag_of(b"\xff\xfe\x00\x01\x80"), expected=USED),
    Mutation(name="sizes that change", apply=_sizes_change),
    Mutation(name="sound only", apply=become_sound, expected=REFUSED),
    Mutation(name="playlist", apply=become_playlist, expected=REFUSED),
    Mutation(name="concat script", apply=_concat, expected=REFUSED),
)


def _image(suffix: str, make: Callable[[], np.ndarray], *options: int) -> Change:
    def apply(path: Path, random: Random) -> Path:
        path.unlink()
        target = path.with_suffix(suffix)
        content = cv2.imencode(suffix, make(), list(options))[1]
        target.write_bytes(content.tobytes())
        return target

    return apply


def _misnamed(suffix: str, shown: str) -> Change:
    def apply(path: Path, random: Random) -> Path:
        return _image(suffix, lambda: face(0))(path, random).rename(path.with_suffix(shown))  # type: ignore[union-attr]

    return apply


def _huge_png(path: Path, random: Random) -> None:
    """A header of 60000 by 60000 pixels, and hardly any data."""
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    import zlib

    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


def _grey() -> np.ndarray:
    return cv2.cvtColor(face(0), cv2.COLOR_BGR2GRAY)


def _alpha() -> np.ndarray:
    return np.dstack([face(0), np.full((128, 128), 128, np.uint8)])


def _still_gif(path: Path, random: Random) -> Path:
    path.unlink()
    return encode(
        path.with_suffix(".gif"), Recipe(codec="gif", pixels="rgb8", frames=1, sound_codec=None)
    )


IMAGE = (
    *(
        Mutation(name=f"{suffix} image", apply=_image(suffix, lambda: face(0)), expected=USED)
        for suffix in (".jpg", ".bmp", ".webp", ".tiff", ".png", ".ppm", ".JPG", ".jpe")
    ),
    *(
        Mutation(name=f"{real} named {shown}", apply=_misnamed(real, shown), expected=USED)
        for real, shown in ((".png", ".jpg"), (".jpg", ".png"), (".webp", ".jpg"), (".bmp", ".png"))
    ),
    Mutation(name="without suffix", apply=_misnamed(".png", ""), expected=USED),
    Mutation(name="named mp4", apply=_misnamed(".png", ".mp4"), expected=ANY),
    Mutation(name="grey png", apply=_image(".png", _grey), expected=USED),
    Mutation(name="grey jpg", apply=_image(".jpg", _grey), expected=USED),
    Mutation(name="png with alpha", apply=_image(".png", _alpha), expected=USED),
    Mutation(
        name="16-bit png",
        apply=_image(".png", lambda: face(0).astype(np.uint16) * 257),
        expected=USED,
    ),
    Mutation(name="float tiff", apply=_image(".tiff", lambda: face(0).astype(np.float32) / 255)),
    Mutation(name="odd sides", apply=_image(".png", lambda: face(0)[:127, :125]), expected=USED),
    *(
        Mutation(
            name=f"{width} by {height} pixels",
            apply=_image(".png", lambda w=width, h=height: cv2.resize(face(0), (w, h))),
            expected=ANY,
        )
        for width, height in ((1, 1), (1, 500), (500, 1), (2, 2), (20_000, 2), (7000, 7000))
    ),
    Mutation(name="header of 60000 pixels", apply=_huge_png, expected=REFUSED),
    Mutation(name="gif of one frame", apply=_still_gif, expected=ANY),
    Mutation(name="sound", apply=become_sound, expected=REFUSED),
    Mutation(name="playlist", apply=become_playlist, expected=REFUSED),
)


def _crop_of(make: Callable[[], np.ndarray], suffix: str = ".jpg") -> Change:
    def apply(path: Path, random: Random) -> None:
        path.write_bytes(cv2.imencode(suffix, make())[1].tobytes())

    return apply


def _beside(name: str) -> Change:
    """One more crop, with an odd name."""

    def apply(path: Path, random: Random) -> None:
        os.link(path, path.with_name(name))

    return apply


def _renamed(name: str) -> Change:
    return lambda path, random: path.rename(path.with_name(name))


CROP = (
    *(
        Mutation(name=f"crop of {w} by {h}", apply=_crop_of(lambda w=w, h=h: _noise(h, w)))
        for w, h in ((1, 1), (1, 3000), (3000, 1), (6000, 6000))
    ),
    Mutation(name="png as jpg", apply=_crop_of(lambda: _noise(90, 70), ".png")),
    Mutation(name="grey crop", apply=_crop_of(lambda: _noise(90, 70)[..., 0])),
    *(
        Mutation(name=f"also {name}", apply=_beside(name))
        for name in (
            *("00005.jpg", "٣.jpg", "99999999999999999999999.jpg", "-1.jpg", "5.JPG", "5.jpeg"),
            *("1e3.jpg", "5 .jpg", "²5.jpg", "4294967296.jpg", "9223372036854775808.jpg"),
            *("９.jpg", "1" * 240 + ".jpg", "1000000000.jpg"),
        )
    ),
    Mutation(name="named 00005.jpg", apply=_renamed("00005.jpg")),
)


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


assert FRAMES == FPS  # a video of one second
