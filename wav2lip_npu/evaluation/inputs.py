"""Which videos are measured, of what they were made, and with which sound."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from wav2lip_npu.config import EvaluateConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.video_reader import VIDEO_SUFFIXES, is_video_by_name
from wav2lip_npu.preprocessing.videos import find_videos
from wav2lip_npu.runtime.files import read_text

SOUND_SUFFIXES = frozenset(
    f".{name}" for name in ("aac", "flac", "m4a", "mp3", "oga", "ogg", "opus", "wav", "wma")
)
NAMES_IN_A_LINE = 2


@dataclass(frozen=True, kw_only=True)
class Item:
    """A video to measure."""

    name: str  # in reports
    video: Path
    source: Path | None = None  # the video it was made of
    audio: Path | None = None  # the sound to generate it with; None: it is there already
    reconstruction: bool | None = None  # whether it has its source's sound; None: not known


@dataclass(kw_only=True)
class Inputs:
    """All videos, and what cannot be one, by its name or line, with the reason."""

    items: list[Item] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)


def find_items(config: EvaluateConfig) -> Inputs:
    """The videos of ``--videos`` with their ``--sources``.

    Raises:
        UserError: there is no video, or ``--sources`` is not of the kind of ``--videos``.
    """
    assert config.videos is not None
    videos, sources = config.videos, config.sources
    if videos.is_file():
        source = sources
        if sources is not None and sources.is_dir():
            source = _sources(sources).get(videos.stem)
        item = Item(
            name=videos.name, video=videos, source=source, reconstruction=config.reconstruction
        )
        return Inputs(items=[item])
    found = find_videos(videos, "--videos")
    if sources is not None and sources.is_file():
        raise UserError(f"--sources {sources}: is a file, and --videos {videos} a folder")
    by_name = {} if sources is None else _sources(sources)
    return Inputs(
        items=[
            Item(
                name=name,
                video=path,
                source=by_name.get(_without_suffix(name)),
                reconstruction=config.reconstruction,
            )
            for name, path in found.items()
        ]
    )


def _sources(folder: Path) -> dict[str, Path]:
    """The videos of ``--sources`` by their names without suffix."""
    found = find_videos(folder, "--sources")
    return {_without_suffix(name): path for name, path in found.items()}


def _without_suffix(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def read_list(config: EvaluateConfig, folder: Path) -> Inputs:
    """The videos of ``--filelist``, which are to be generated into ``folder``.

    A line is ``audio video``, or one video that is given its own sound; names are relative to
    ``--data_root``, with or without a suffix. A line that cannot be used costs itself alone.

    Raises:
        UserError: the list or ``--data_root`` cannot be read, or the list is empty.
    """
    assert config.filelist is not None and config.data_root is not None
    root = config.data_root
    if not root.is_dir():
        raise UserError(f"--data_root {root}: no such folder")
    found = Inputs()
    lines: dict[str, tuple[int, list[str]]] = {}  # by the name of the video that a line makes
    for number, line in enumerate(read_text(config.filelist).splitlines(), start=1):
        if not (words := line.split()):
            continue
        try:
            item = _read_line(words, root, folder, config.reconstruction)
            if item.name in lines:
                raise UserError(f"makes the same video as line {lines[item.name][0]}")
        except UserError as error:
            found.faults[f"line {number} ({line.strip()})"] = str(error)
        else:
            lines[item.name] = number, words
            found.items.append(item)
    if not found.items and not found.faults:
        raise UserError(f"--filelist {config.filelist}: is empty")
    return found


def _read_line(words: list[str], root: Path, folder: Path, reconstruction: bool | None) -> Item:
    """Raise a UserError where a line names no files."""
    if len(words) > NAMES_IN_A_LINE:
        raise UserError("a line is: audio video, or: video; names without blanks")
    audio_name, video_name = words[0], words[-1]
    source = _find(root, video_name, VIDEO_SUFFIXES)
    own = len(words) == 1 or audio_name == video_name
    audio = source if own else _find(root, audio_name, VIDEO_SUFFIXES | SOUND_SUFFIXES)
    name = source.relative_to(root).with_suffix("").as_posix()
    if not own:
        # Of one level, so that no other line can make a video of this name.
        name += f"__{audio.relative_to(root).with_suffix('').as_posix().replace('/', '_')}"
    return Item(
        name=f"{name}.mp4",
        video=folder / f"{name}.mp4",
        source=source,
        audio=audio,
        reconstruction=own if reconstruction is None else reconstruction,
    )


def _find(root: Path, name: str, suffixes: frozenset[str]) -> Path:
    """The file of a name, which may lack its suffix.

    Raises:
        UserError: there is none, or several, or the name leads out of the folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise UserError(f"{name}: must be a name below --data_root")
    whole = root / path
    if whole.is_file() and (whole.suffix.lower() in suffixes or is_video_by_name(whole)):
        return whole
    beside = whole.parent.iterdir() if whole.parent.is_dir() else ()
    found = sorted(
        one
        for one in beside
        if one.stem == path.name and one.suffix.lower() in suffixes and one.is_file()
    )
    if not found:
        raise UserError(f"{whole}: no such file, with or without a suffix")
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise UserError(f"{whole}: may be any of {names}; write the suffix")
    return found[0]
