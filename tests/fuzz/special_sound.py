"""Sounds of unusual shapes, in the place of the good one."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import av
import numpy as np

from fuzz.media_files import TAG, Recipe, encode_sound, sound_stream, speech, wav
from fuzz.mutations import Change, Expected, Mutation

USED, REFUSED, ANY = Expected.USED, Expected.REFUSED, Expected.ANY


def tag_of(content: bytes) -> Change:
    """Other bytes in the title, as many."""

    def apply(path: Path, random: Random) -> None:
        data = path.read_bytes()
        assert TAG.encode() in data
        path.write_bytes(data.replace(TAG.encode(), content[: len(TAG)].ljust(len(TAG))))

    return apply


GBK = "中文标题视频".encode("gbk")


def become_sound(path: Path, random: Random) -> None:
    wav(path, (speech(1.0) * 32767).astype("<i2"))


def become_playlist(path: Path, random: Random) -> None:
    """A list that names other files: reading them is not what was asked for."""
    path.write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\nhttp://127.0.0.1:9/x.ts\n")


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

    with av.open(str(path), "w") as file:
        file.metadata["title"] = TAG
        stream = sound_stream(file, recipe)
        encode_sound(file, stream, recipe, silent=False)
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
        Mutation(
            name=f"{r} Hz", apply=_wav(lambda random, r=r: (INTEGERS[: max(1, r)], {"rate": r}))
        )
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
            ("mp3", ".mp3", "libmp3lame", {}),
            ("alac", ".m4a", "alac", {}),
            ("wma", ".wma", "wmav2", {"sound_rate": 44100, "layout": "stereo"}),
        )
    ),
    Mutation(name="playlist", apply=become_playlist, expected=REFUSED),
)
# In the place of a clip's audio.wav: other sound than was there, so the result is not known.
WAV = tuple(
    replace(mutation, expected=ANY if mutation.expected is USED else mutation.expected)
    for mutation in SOUND
    if mutation.name.startswith("WAV") or "sample" in mutation.name or "Hz" in mutation.name
)
