"""Files appear only when they are complete and on the disk."""

import errno
import hashlib
import os
import stat
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import files

pytestmark = pytest.mark.fsync

NAMES = ["plain.txt", "two words.txt", "中文 文件名.txt", "口" * 80 + ".txt", "no-suffix", "a.b.c"]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The kind and inode of everything that is flushed."""
    calls = []

    def record(descriptor: int) -> None:
        status = os.fstat(descriptor)
        calls.append(("folder" if stat.S_ISDIR(status.st_mode) else "file", status.st_ino))

    monkeypatch.setattr(os, "fsync", record)
    return calls


@pytest.mark.parametrize("name", NAMES)
def test_a_file_appears_when_it_is_complete(name: str, tmp_path: Path) -> None:
    path = tmp_path / "新 folder" / name
    with files.atomic_write(path) as partial:
        partial.write_text("half")
        assert not path.exists()
        assert partial.parent == path.parent
        assert partial.name.endswith(path.suffix)
        partial.write_text("whole")
    assert path.read_text() == "whole"
    assert names_in(path.parent) == [name]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file"),
    ],
)
def test_a_failure_leaves_the_old_file(error: Exception, tmp_path: Path) -> None:
    path = tmp_path / "a file.txt"
    files.write_text(path, "old")
    with (
        pytest.raises(UserError, match=r"a file\.txt: cannot be written"),
        files.atomic_write(path) as partial,
    ):
        partial.write_text("ne")
        raise error
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a file.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, UserError])
def test_other_errors_pass_through(error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error), files.atomic_write(tmp_path / "x") as partial:
        partial.touch()
        raise error
    assert names_in(tmp_path) == []


def test_a_full_disk_when_the_file_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "x.txt"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(UserError, match="No space left"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["x.txt"]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        files.write_text(tmp_path / "file" / "x.txt", "text")


def test_file_and_folder_are_flushed(tmp_path: Path, flushed: list[tuple[str, int]]) -> None:
    path = tmp_path / "x.txt"
    files.write_text(path, "text")
    assert flushed == [("file", path.stat().st_ino), ("folder", tmp_path.stat().st_ino)]


def test_a_folder_that_cannot_be_flushed_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", only_files)
    files.write_text(tmp_path / "x.txt", "text")
    assert (tmp_path / "x.txt").read_text() == "text"


def test_a_folder_is_flushed_with_its_files(tmp_path: Path, flushed: list[tuple[str, int]]) -> None:
    partial = tmp_path / ".partial"
    partial.mkdir()
    (partial / "0.jpg").touch()
    (partial / "1.jpg").touch()
    target = tmp_path / "speaker 一" / "clip"
    files.publish_folder(partial, target)
    assert names_in(target) == ["0.jpg", "1.jpg"]
    assert sorted(flushed[:2]) == sorted(("file", path.stat().st_ino) for path in target.iterdir())
    assert flushed[2:] == [("folder", f.stat().st_ino) for f in (target, target.parent)]


def test_a_folder_is_never_replaced(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jpg").touch()
    with pytest.raises(OSError):
        files.publish_folder(tmp_path / "new", tmp_path / "old")
    assert names_in(tmp_path / "old") == ["old.jpg"]


def test_several_threads_write_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "shared.txt"
    texts = [str(number) * 100_000 for number in range(8)]
    together = threading.Barrier(len(texts))

    def write(text: str) -> None:
        with files.atomic_write(path) as partial:
            partial.write_text(text[: len(text) // 2])
            together.wait(timeout=10)  # all have written a half
            partial.write_text(text)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert names_in(tmp_path) == ["shared.txt"]


@pytest.mark.parametrize("name", ["image.png", "图 片.png"])
def test_an_image(name: str, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    files.write_image(tmp_path / name, image)
    content = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
    assert np.array_equal(cv2.imdecode(content, cv2.IMREAD_COLOR), image)


def test_the_digest_of_a_file(tmp_path: Path) -> None:
    content = os.urandom(2**20 + 5)
    (tmp_path / "x").write_bytes(content)
    assert files.sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "nothing"])
def test_what_is_no_file_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    reasons = {"folder": "Is a directory", "nothing": "No such file"}
    with pytest.raises(UserError, match=reasons.get(kind, "not a regular file")):
        files.read_text(path)
