"""Changes to any file: its bytes, its name, what it is, and who may read it."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random


class Expected(enum.Enum):
    """What a command must make of a changed file."""

    ANY = "used, left out and named, or refused"
    USED = "used, with the right result"
    REFUSED = "refused, or left out and named"


Change = Callable[[Path, Random], "Path | None"]  # returns the new path, if it is another


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A change, and what must come of it."""

    name: str
    apply: Change
    expected: Expected = Expected.ANY


GIT_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
HTML = b"<!DOCTYPE html><html><body>404</body></html>\n"
NAMES = {
    "spaces": "two  words{}",
    "quotes": 'it\'s "q"{}',
    "substitution": "$(touch EXECUTED)`touch EXECUTED`{}",
    "newline": "two\nlines{}",
    "colon": "10:30{}",
    "protocol": "http:x{}",
    "concat": "concat:a|b{}",
    "chinese": "中文 视频{}",
    "dash": "-i{}",
    "percent": "%05d%s%n{}",
    "glob": "[a-z]*?{}",
    "backslash": "a\\b{}",
    "emoji": "🙂{}",
    "long": "n" * 200 + "{}",
    "trailing dot": "name.{}",
    "hash": "a#b?c=1{}",
    "comma": "a,b;c{}",
    "two suffixes": "wav2lip-1.0{}",
    "bidi": "\u202eabc{}",
    "control": "a\x1b[31m\x07{}",
    "gbk": os.fsdecode("中文".encode("gbk")) + "{}",
    "line separator": "a\u2028b{}",
}


def _bytes(change: Callable[[bytearray, Random], bytearray]) -> Change:
    def apply(path: Path, random: Random) -> None:
        path.write_bytes(change(bytearray(path.read_bytes()), random))

    return apply


def _cut(data: bytearray, random: Random) -> bytearray:
    """Break off anywhere, more often near an end."""
    where = random.choice((random.random(), random.random() ** 6, 1 - random.random() ** 6))
    return data[: int(len(data) * where)]


def _flip(data: bytearray, random: Random) -> bytearray:
    limit = random.choice((len(data), min(len(data), 512)))
    for _ in range(random.choice((1, 4, 32, 256))):
        if limit:
            data[random.randrange(limit)] ^= 1 << random.randrange(8)
    return data


def _overwrite(data: bytearray, random: Random) -> bytearray:
    """A number that is absurd, most often in the header."""
    limit = random.choice((64, 256, 4096, len(data)))
    number = random.choice(
        (b"\xff\xff\xff\x7f", b"\xff" * 4, b"\xff" * 8, b"\x00" * 8, b"\x80\0\0\0")
    )
    where = random.randrange(max(1, min(limit, len(data))))
    data[where : where + len(number)] = number
    return data


def _zero_block(data: bytearray, random: Random) -> bytearray:
    start, length = random.randrange(len(data) + 1), random.choice((16, 512, 4096))
    length = min(length, len(data) - start)
    data[start : start + length] = bytes(length)
    return data


def _noise_block(data: bytearray, random: Random) -> bytearray:
    start, length = random.randrange(len(data) + 1), random.choice((16, 512, 4096))
    length = min(length, len(data) - start)
    data[start : start + length] = random.randbytes(length)
    return data


def _drop_block(data: bytearray, random: Random) -> bytearray:
    start = random.randrange(len(data) + 1)
    del data[start : start + random.choice((1, 16, 1000))]
    return data


def _repeat_block(data: bytearray, random: Random) -> bytearray:
    start = random.randrange(len(data) + 1)
    block = data[start : start + random.choice((1, 16, 1000))]
    data[start:start] = block * random.choice((1, 50))
    return data


def _become_link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _become_folder(path: Path, random: Random) -> None:
    path.unlink()
    path.mkdir()


def _become_pipe(path: Path, random: Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _behind_a_link(path: Path, random: Random) -> None:
    other = path.with_name("linked to" + path.suffix + ".real")
    path.rename(other)
    path.symlink_to(other.name)


def _pad(path: Path, random: Random) -> None:
    """A hole at the end: the file looks large, and reads as zeros."""
    os.truncate(path, path.stat().st_size + random.choice((1, 1 << 20, 200 << 20)))


def _named(pattern: str) -> Change:
    def apply(path: Path, random: Random) -> Path:
        return path.rename(path.with_name(pattern.format(path.suffix)))

    return apply


def _mode(mode: int) -> Change:
    return lambda path, random: path.chmod(mode)


def _unwritable_folder(path: Path, random: Random) -> None:
    path.parent.chmod(0o555)


def _with_bytes(content: bytes) -> Change:
    def apply(path: Path, random: Random) -> None:
        path.write_bytes(content)

    return apply


def _with_noise(path: Path, random: Random) -> None:
    path.write_bytes(random.randbytes(random.choice((1, 7, 4096))))


DAMAGE = (
    *(
        Mutation(name=change.__name__.strip("_").replace("_", " "), apply=_bytes(change))
        for change in (
            *(_cut, _flip, _overwrite, _zero_block, _noise_block, _drop_block, _repeat_block),
        )
    ),
    Mutation(name="pad", apply=_pad),
)
OTHER_CONTENT = (
    Mutation(name="empty", apply=_with_bytes(b""), expected=Expected.REFUSED),
    Mutation(name="noise", apply=_with_noise, expected=Expected.REFUSED),
    Mutation(name="git-lfs pointer", apply=_with_bytes(GIT_LFS), expected=Expected.REFUSED),
    Mutation(name="web page", apply=_with_bytes(HTML), expected=Expected.REFUSED),
    Mutation(name="zeros", apply=_with_bytes(bytes(10_000)), expected=Expected.REFUSED),
)
OTHER_THINGS = (
    Mutation(name="folder", apply=_become_folder, expected=Expected.REFUSED),
    Mutation(name="pipe", apply=_become_pipe, expected=Expected.REFUSED),
    Mutation(
        name="link loop",
        apply=lambda path, random: _become_link(path, path.name),
        expected=Expected.REFUSED,
    ),
    Mutation(
        name="dangling link",
        apply=lambda path, random: _become_link(path, "nowhere"),
        expected=Expected.REFUSED,
    ),
    Mutation(
        name="endless device",
        apply=lambda path, random: _become_link(path, "/dev/zero"),
        expected=Expected.REFUSED,
    ),
    Mutation(name="link", apply=_behind_a_link, expected=Expected.USED),
    Mutation(
        name="missing",
        apply=lambda path, random: path.unlink(),
        expected=Expected.REFUSED,
    ),
    Mutation(name="unreadable", apply=_mode(0), expected=Expected.REFUSED),
    Mutation(name="read-only", apply=_mode(0o444), expected=Expected.USED),
    Mutation(name="read-only folder", apply=_unwritable_folder),
)
ODD_NAMES = tuple(
    Mutation(name=f"name with {name}", apply=_named(pattern), expected=Expected.USED)
    for name, pattern in NAMES.items()
)
ANY_FILE = (*DAMAGE, *OTHER_CONTENT, *OTHER_THINGS)


def make_writable(folder: Path) -> None:
    """Undo what keeps a folder from being read or removed."""
    for parent, folders, _ in os.walk(folder):
        for name in (".", *folders):
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o755)
