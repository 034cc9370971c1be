"""Videos, sounds and images of unusual shapes, in the place of the good one."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from random import Random

import cv2
import numpy as np

from fuzz.media_files import FPS, FRAMES, TAG, Recipe, encode, face, speech, wav
from fuzz.mutations import Change, Expected, Mutation

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


def _tag(content: bytes) -> Change:
    """Other bytes in the title, as many."""

    def apply(path: Path, random: Random) -> None:
        data = path.read_bytes()
        assert TAG.encode() in data
        path.write_bytes(data.replace(TAG.encode(), content[: len(TAG)].ljust(len(TAG))))

    return apply


GBK = "中文标题视频".encode("gbk")
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
    ("8000 by 8000", ".mkv", {**FFV1, "side": (8000, 8000), "frames": 1}, ANY),
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


def _sound_only(path: Path, random: Random) -> None:
    wav(path, (speech(1.0) * 32767).astype("<i2"))


def _playlist(path: Path, random: Random) -> None:
    """A list that names other files: reading them is not what was asked for."""
    path.write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\nhttp://127.0.0.1:9/x.ts\n")


def _concat(path: Path, random: Random) -> None:
    path.write_text("ffconcat version 1.0\nfile my notes.txt\n")


VIDEO = (
    *(
        Mutation(name=name, apply=_video(suffix, **recipe), expected=expected)
        for name, suffix, recipe, expected in VIDEOS
    ),
    Mutation(name="mkv named mp4", apply=_in_place(".mkv", **H264), expected=USED),
    Mutation(name="avi named mp4", apply=_in_place(".avi", **RAW), expected=USED),
    Mutation(name="GBK tag", apply=_tag(GBK), expected=USED),
    Mutation(name="tag of any bytes", apply=_tag(b"\xff\xfe\x00\x01\x80"), expected=USED),
    Mutation(name="sizes that change", apply=_sizes_change),
    Mutation(name="sound only", apply=_sound_only, expected=REFUSED),
    Mutation(name="playlist", apply=_playlist, expected=REFUSED),
    Mutation(name="concat script", apply=_concat, expected=REFUSED),
)


def _wav(make: Callable[[Random], tuple[np.ndarray, dict[str, int]]]) -> Change:
    def apply(path: Path, random: Random) -> None:
        samples, options = make(random)
        wav(path, samples, **options)

    return apply


def _wide(channels: int) -> np.ndarray:
    one = (speech(1.0) * 32767).astype("<i2")
    return np.repeat(one[:, None], max(1, channels), axis=1)


def _spoilt(values: tuple[float, ...], share: float) -> np.ndarray:
    samples = speech(1.0)
    count = int(len(samples) * share)
    samples[:count] = np.resize(np.array(values, np.float32), count)
    return samples


def _coded(suffix: str, codec: str, **options: object) -> Change:
    def apply(path: Path, random: Random) -> Path:
        path.unlink()
        recipe = Recipe(frames=0, sound_codec=codec, **options)  # type: ignore[arg-type]
        return _sound_file(path.with_suffix(suffix), recipe)

    return apply


def _sound_file(path: Path, recipe: Recipe) -> Path:
    import av

    from fuzz.media_files import _encode_sound, _sound_stream

    with av.open(str(path), "w") as file:
        file.metadata["title"] = TAG
        stream = _sound_stream(file, recipe)
        _encode_sound(file, stream, recipe, silent=False)
    return path


def _tagged_mp3(content: bytes) -> Change:
    def apply(path: Path, random: Random) -> Path:
        path.unlink()
        options = {"sound_codec": "libmp3lame", "frames": 0, "sound_rate": 16000}
        target = _sound_file(path.with_suffix(".mp3"), Recipe(**options))  # type: ignore[arg-type]
        frame = b"\x00" + content  # "Latin-1", as Chinese players write GBK
        tag = b"TIT2" + struct.pack(">IH", len(frame), 0) + frame
        size = bytes((len(tag) >> shift) & 127 for shift in (21, 14, 7, 0))
        target.write_bytes(b"ID3\x03\x00\x00" + size + tag + target.read_bytes())
        return target

    return apply


INTEGERS = (speech(1.0) * 32767).astype("<i2")
SOUND = (
    *(
        Mutation(
            name=f"WAV of {n} channels",
            apply=_wav(lambda random, n=n: (_wide(n), {"channels": n})),
            expected=USED if n else REFUSED,
        )
        for n in range(25)
    ),
    *(
        Mutation(name=f"{name}", apply=_wav(lambda random, v=v, s=s: (_spoilt(v, s), {})))
        for name, v, s in (
            ("NaN samples", (np.nan,), 0.1),
            ("all NaN", (np.nan,), 1.0),
            ("infinite samples", (np.inf, -np.inf), 0.1),
            ("samples of 1e30", (1e30, -1e30), 0.3),
            ("tiny samples", (1e-42,), 1.0),
        )
    ),
    *(
        Mutation(
            name=f"WAV of {kind}",
            apply=_wav(lambda random, k=kind: (speech(1.0).astype(k), {})),
            expected=USED,
        )
        for kind in ("<f4", "<f8")
    ),
    Mutation(
        name="8-bit WAV",
        apply=_wav(lambda random: ((speech(1.0) * 127 + 128).astype("u1"), {})),
        expected=USED,
    ),
    Mutation(
        name="endless data chunk",
        apply=_wav(lambda random: (INTEGERS, {"data_bytes": 0xFFFFFFFF})),
        expected=USED,
    ),
    Mutation(name="empty data chunk", apply=_wav(lambda random: (INTEGERS[:0], {}))),
    *(
        Mutation(name=f"{n} samples", apply=_wav(lambda random, n=n: (INTEGERS[:n], {})))
        for n in (1, 2, 100, 2000)
    ),
    *(
        Mutation(name=f"{r} Hz", apply=_wav(lambda random, r=r: (INTEGERS, {"rate": r})))
        for r in (0, 1, 7, 100, 1000, 2_000_000, 0xFFFFFFFF)
    ),
    Mutation(name="unknown sample code", apply=_wav(lambda random: (INTEGERS, {"code": 0x7777}))),
    Mutation(name="GBK tag in mp3", apply=_tagged_mp3(GBK), expected=USED),
    Mutation(name="UTF-16 in mp3's Latin-1", apply=_tagged_mp3(b"\xff\xfe\x00\xd8"), expected=USED),
    *(
        Mutation(name=name, apply=_coded(suffix, codec, **options), expected=USED)
        for name, suffix, codec, options in (
            ("flac", ".flac", "flac", {}),
            ("7.1 flac", ".flac", "flac", {"layout": "7.1"}),
            ("aac", ".m4a", "aac", {}),
            ("opus", ".ogg", "libopus", {"sound_rate": 48000}),
            ("7.1 opus", ".ogg", "libopus", {"sound_rate": 48000, "layout": "7.1"}),
            ("vorbis", ".ogg", "libvorbis", {"layout": "stereo", "sound_rate": 44100}),
            ("mp3", ".mp3", "libmp3lame", {}),
            ("alac", ".m4a", "alac", {}),
            ("wma", ".wma", "wmav2", {"sound_rate": 44100}),
        )
    ),
    Mutation(name="playlist", apply=_playlist, expected=REFUSED),
)
# In the place of a clip's audio.wav: other sound than was there, so the result is not known.
WAV = tuple(
    replace(mutation, expected=ANY if mutation.expected is USED else mutation.expected)
    for mutation in SOUND
    if mutation.name.startswith("WAV") or "sample" in mutation.name or "Hz" in mutation.name
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
    Mutation(name="sound", apply=_sound_only, expected=REFUSED),
    Mutation(name="playlist", apply=_playlist, expected=REFUSED),
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
