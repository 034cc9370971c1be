"""Lists as the original's tests have them, folders of videos, and what cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from wav2lip_npu.config import EvaluateConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.evaluation.inputs import find_items, read_list

NAMES = (
    *("main/a/00001.mp4", "main/a/00001.txt", "main/a/00002.MP4", "main/b/v1.2.mkv"),
    *("speech.wav", "both.mp4", "both.wav", "视频/一.mp4", "notes.txt"),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "data"


def read(root: Path, content: str | bytes, **options: object) -> tuple[list, dict[str, str]]:
    """Name, audio, source and reconstruction of each line; and the faults."""
    path = root.parent / "list.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    config = EvaluateConfig(checkpoint_path=Path("g"), filelist=path, data_root=root, **options)
    found = read_list(config, Path("out"))
    assert all(item.video == Path("out") / item.name for item in found.items)
    return [
        (item.name, str(item.audio.relative_to(root)), str(item.source.relative_to(root)),
         item.reconstruction)
        for item in found.items
    ], found.faults  # fmt: skip


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("main/a/00001", ("main/a/00001.mp4", "main/a/00001.mp4", "main/a/00001.mp4", True)),
        ("main/a/00001.mp4", ("main/a/00001.mp4", "main/a/00001.mp4", "main/a/00001.mp4", True)),
        (
            "main/a/00002  main/a/00001\t",
            ("main/a/00001__main_a_00002.mp4", "main/a/00002.MP4", "main/a/00001.mp4", False),
        ),
        (
            "main/a/00001 main/a/00001",
            ("main/a/00001.mp4", "main/a/00001.mp4", "main/a/00001.mp4", True),
        ),
        ("speech main/b/v1.2", ("main/b/v1.2__speech.mp4", "speech.wav", "main/b/v1.2.mkv", False)),
        ("both.wav both", ("both__both.mp4", "both.wav", "both.mp4", False)),
        ("both", ("both.mp4", "both.mp4", "both.mp4", True)),
        ("视频/一", ("视频/一.mp4", "视频/一.mp4", "视频/一.mp4", True)),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n \n"])
def test_lines(root: Path, line: str, expected: tuple, start: str, end: str) -> None:
    assert read(root, start + line + end) == ([expected], {})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nobody", "nobody: no such file, with or without a suffix"),
        ("none/nobody", "nobody: no such file, with or without a suffix"),
        ("main/a/00001.txt", "no such file"),
        ("both main/a/00001", "both: may be any of both.mp4, both.wav; write the suffix"),
        ("speech", "speech: no such file"),
        ("a b c", "a line is: audio video, or: video"),
        ("../data/both", "must be a name below --data_root"),
        ("/etc/passwd", "must be a name below --data_root"),
        (".", "must be a name below --data_root"),
        ("main/a/00002", "makes the same video as line 1"),
    ],
)
def test_a_bad_line_costs_itself(root: Path, line: str, reason: str) -> None:
    found, faults = read(root, f"main/a/00002\n{line}\nboth\n")
    assert [name for name, *_ in found] == ["main/a/00002.mp4", "both.mp4"]
    assert [*faults] == [f"line 2 ({line})"] and reason in faults[f"line 2 ({line})"]


def test_lists_that_cannot_be_read(root: Path) -> None:
    with pytest.raises(UserError, match="is empty"):
        read(root, " \n\n")
    with pytest.raises(UserError, match="is GBK, it seems; save it as UTF-8"):
        read(root, "视频/一\n".encode("gbk"))
    with pytest.raises(UserError, match="no such folder"):
        read(root / "none", "both")


def test_the_option_overrules_the_list(root: Path) -> None:
    ((*_, found),), _ = read(root, "speech both", reconstruction=True)
    assert found is True


def test_videos_and_their_sources(root: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    for name in ("main/a/00001.mkv", "other.mp4"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).touch()
    items = find_items(EvaluateConfig(videos=made, sources=root)).items
    assert [(item.name, item.source) for item in items] == [
        ("main/a/00001.mkv", root / "main/a/00001.mp4"),
        ("other.mp4", None),
    ]
    assert {item.audio for item in items} == {item.reconstruction for item in items} == {None}
    (one,) = find_items(EvaluateConfig(videos=made / "other.mp4", sources=root / "both.mp4")).items
    assert (one.name, one.source) == ("other.mp4", root / "both.mp4")
    (one,) = find_items(EvaluateConfig(videos=root / "both.mp4", sources=root)).items
    assert one.source == root / "both.mp4"


def test_videos_that_cannot_be(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for options, reason in (
        ({"videos": tmp_path / "none"}, "--videos .*none: no such folder"),
        ({"videos": tmp_path / "empty"}, "--videos .*empty: no video in it"),
        ({"videos": root, "sources": tmp_path / "empty"}, "--sources .*empty: no video in it"),
        ({"videos": root, "sources": root / "both.mp4"}, "is a file, and --videos .* a folder"),
    ):
        with pytest.raises(UserError, match=reason):
            find_items(EvaluateConfig(**options))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "--videos: is required, or --checkpoint_path with --filelist"),
        ({"checkpoint_path": Path("g"), "data_root": Path("d")}, "--filelist: is required with"),
        ({"filelist": Path("l")}, "--checkpoint_path: is required with --filelist"),
        ({"videos": Path("v"), "filelist": Path("l")}, "--videos: has no effect with --filelist"),
        (
            {"checkpoint_path": Path("g"), "data_root": Path("d"), "filelist": Path("l"),
             "sources": Path("s")},
            "--sources: has no effect without --videos",
        ),
        ({"videos": Path("v"), "protocol": "lrs"}, "--protocol lrs: choose from track, frame"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(options: dict, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        EvaluateConfig(**options)
