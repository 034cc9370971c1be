"""The file that a video is written to: can it be, how, and what did killed runs leave there."""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import av

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import partial_path
from wav2lip_npu.runtime.locks import is_in_use

# FFmpeg's names of the containers, by suffix: of H.264 and AAC; of VP9 and Opus.
CONTAINERS = {
    **{".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".flv": "flv"},
    **{".ts": "mpegts", ".mts": "mpegts", ".m2ts": "mpegts", ".3gp": "3gp", ".avi": "avi"},
    ".webm": "webm",
}
KEEP_ALPHA = ".mov, .webm and PNG files as in out/%05d.png keep it"  # what a warning says
IN_USE = "in_use"  # a file in the partial folder of a sequence, see ``runtime/locks.py``
ABANDONED_SECONDS = 3600  # without a change, after which a partial file is nobody's

_NUMBER = re.compile(r"%(0[1-9])?d")  # in the name of a sequence

FileIdentity = tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How frames and sound of a video are encoded."""

    name: str  # of the video codec, for people
    codec: str  # FFmpeg's name of its encoder
    pix_fmt: str
    options: dict[str, str]  # of the encoder
    sound_codec: str = "aac"
    has_full_range: bool = True  # else brightness has the limited range alone

    @property
    def is_halved(self) -> bool:
        """Whether colours have half the columns and rows: frames need even sides."""
        return "420p" in self.pix_fmt


def encoding(path: Path, *, with_alpha: bool, crf: int, preset: str) -> Encoding:
    """How a video is encoded, by its suffix.

    Args:
        path: the file.
        with_alpha: whether its frames have an alpha plane, which .webm and .mov keep.
        crf: of x264, or of VP9.
        preset: of x264.

    Raises:
        UserError: this build of FFmpeg has no such encoder.
    """
    suffix = path.suffix.lower()
    if suffix == ".webm":
        options = {"crf": str(crf), "b": "0", "deadline": "good", "cpu-used": "5", "row-mt": "1"}
        if with_alpha:  # which libvpx cannot reorder
            options["auto-alt-ref"] = "0"
        chosen = Encoding(
            name="VP9",
            codec="libvpx-vp9",
            pix_fmt="yuva420p" if with_alpha else "yuv420p",
            options=options,
            sound_codec="libopus",
        )
    elif suffix == ".mov" and with_alpha:
        chosen = Encoding(
            name="ProRes 4444",
            codec="prores_ks",
            pix_fmt="yuva444p10le",
            options={"profile": "4444", "vendor": "apl0"},  # Apple's, as some programs want it
            has_full_range=False,
        )
    else:
        options = {"crf": str(crf), "preset": preset}
        if CONTAINERS[suffix] == "avi":
            options["bf"] = "0"  # AVI has no time stamps: frames must be in order of time
        chosen = Encoding(name="H.264", codec="libx264", pix_fmt="yuv420p", options=options)
    for codec in (chosen.codec, chosen.sound_codec):
        if codec not in av.codecs_available:
            raise UserError(f"{path}: this PyAV has no encoder {codec}; choose another suffix")
    return chosen


def is_sequence(path: Path) -> bool:
    """Whether a name is that of numbered PNG files, as in ``out/%05d.png``."""
    return (
        path.suffix.lower() == ".png"
        and path.name.count("%") == len(_NUMBER.findall(path.name)) == 1
    )


def keeps_alpha(path: Path) -> bool:
    """Whether transparency can be written there."""
    return path.suffix.lower() in (".mov", ".webm") or is_sequence(path)


def sequence_file(path: Path, number: int) -> Path:
    """One of the files of a sequence; numbers begin with 0."""
    return path.with_name(_NUMBER.sub(lambda match: match[0] % number, path.name))


def sequence_sound(path: Path) -> Path:
    """The file with the sound of a sequence."""
    return path.with_name(_NUMBER.sub("audio", path.stem) + ".wav")


def is_written(path: Path) -> bool:
    """Whether a video or a sequence is there; the first of its files comes last."""
    return sequence_file(path, 0).exists() if is_sequence(path) else path.exists()


def _existing(path: Path) -> Path | None:
    """A file that a sequence would have, of whatever number."""
    head, tail = (re.escape(part) for part in _NUMBER.sub("\0", path.name).split("\0"))
    pattern = re.compile(rf"{head}\d+{tail}")
    sound = sequence_sound(path)
    for file in path.parent.iterdir():
        if pattern.fullmatch(file.name) or file.name == sound.name:
            return file
    return None


def check_outfile(path: Path) -> None:
    """See whether a video can be written here; its folder is made.

    Raises:
        UserError: by its suffix, its place, or what is there already.
    """
    if path.suffix.lower() not in CONTAINERS and not is_sequence(path):
        fault = f"the suffix {path.suffix} cannot be written" if path.suffix else "has no suffix"
        raise UserError(
            f"{path}: {fault}; choose one of {' '.join(CONTAINERS)}, or PNG files as in %05d.png"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise UserError(f"{path}: is a folder; choose another name")
        with suppress(FileNotFoundError):  # other errors: a name that is too long …
            path.lstat()
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if is_sequence(path) and (file := _existing(path)) is not None:
            raise UserError(f"{file}: is there already; remove it, or choose another folder")
    except (OSError, ValueError) as error:
        raise cannot_be_written(path, error) from error


def file_identity(path: Path) -> FileIdentity:
    """What tells a file from others, by whatever name: links, and other cases, are the same.

    Raises:
        OSError: neither the file nor its folder is there.
        ValueError: such a name cannot be.
    """
    try:
        status = path.stat()
        return status.st_dev, status.st_ino
    except FileNotFoundError:
        folder = path.parent.resolve()
        status = folder.stat()
        swapped = folder.with_name(folder.name.swapcase())
        ignores_case = swapped != folder and swapped.exists() and swapped.samefile(folder)
        name = path.name.casefold() if ignores_case else path.name
        return status.st_dev, status.st_ino, name


def check_files(outfile: Path, inputs: list[Path]) -> None:
    """See whether a video can be written, and is none of the files that are read.

    Raises:
        UserError: one of these.
    """
    check_outfile(outfile)
    for path in inputs:
        try:
            same = file_identity(path) == file_identity(outfile)
        except (OSError, ValueError):
            continue  # what is wrong with an input is told where it is read
        if same:
            raise UserError(f"--outfile {outfile}: is also an input ({path}); choose another name")


def cannot_be_written(path: Path, error: Exception) -> UserError:
    """What to say of a failure to write; a path that the error has is named if it is another."""
    if isinstance(error, OSError) and error.strerror:
        name = error.filename
        beside = name is None or Path(os.fsdecode(name)).parent == path.parent
        if beside:  # the file itself, by its partial name too
            return UserError(f"{path}: cannot be written ({error.strerror})")
    return UserError(f"{path}: cannot be written ({reason(error)})")


@contextmanager
def write_errors(path: Path, *others: type[Exception]) -> Iterator[None]:
    """A failure to write becomes a UserError that names the file.

    Args:
        path: the file.
        others: exceptions that are such failures too.
    """
    kinds: tuple[type[Exception], ...] = (av.FFmpegError, OSError, ValueError, *others)
    try:
        yield
    except kinds as error:
        raise cannot_be_written(path, error) from error


def remove_leftovers(path: Path) -> None:
    """Remove the partial files and folders of runs that were killed while they wrote this video."""
    own = partial_path(path).name
    head = own[: -len(f"{os.getpid()}-{threading.get_ident()}.partial{path.suffix}")]
    pattern = re.compile(rf"{re.escape(head)}(\d+)-\d+\.partial{re.escape(path.suffix)}")
    with suppress(OSError):
        for file in path.parent.iterdir():
            match = pattern.fullmatch(file.name)
            if match and _is_abandoned(file, int(match[1])):
                remove_partial(file)


def remove_partial(partial: Path) -> None:
    """Remove a file that is not complete, or the folder of a sequence.

    Raises:
        OSError: it cannot be removed.
    """
    if partial.is_dir():
        for file in partial.iterdir():
            file.unlink(missing_ok=True)
        partial.rmdir()
    else:
        partial.unlink(missing_ok=True)


def _is_abandoned(partial: Path, process: int) -> bool:
    """Whether nobody writes it; the process may be on another machine that shares the folder."""
    if is_in_use(partial) or is_in_use(partial / IN_USE):
        return False
    if time.time() - partial.stat().st_mtime > ABANDONED_SECONDS:
        return True
    if os.name != "posix":  # elsewhere signal 0 would end the process
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return process == os.getpid()  # in a container each run may have the same number
