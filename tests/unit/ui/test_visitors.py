"""The files of visitors: nobody has another's, and none stays."""

from pathlib import Path

import pytest

from wav2lip_npu.errors import UserError
from wav2lip_npu.ui.visitors import Visitors


def upload(files: Path, name: str, text: str = "x") -> Path:
    """Write a file where Gradio puts an upload: into a folder named by the content."""
    path = files / f"digest_of_{text}" / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    return path.resolve()


def test_files_go_when_their_visitor_leaves(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path)
    ann, bob = visitors.of("ann"), visitors.of("bob")
    assert visitors.of("ann") is ann and ann.folder != bob.folder
    first, second = upload(tmp_path, "a.mp4"), upload(tmp_path, "b.mp4", "y")
    (ann.folder / "result.mp4").touch()
    (bob.folder / "result.mp4").touch()
    assert visitors.take(ann, "face", str(first)) == first
    visitors.take(bob, "face", str(second))
    visitors.leave("ann")
    visitors.leave("nobody")
    assert not first.parent.exists() and not ann.folder.exists()
    assert second.exists() and (bob.folder / "result.mp4").exists()
    assert visitors.of("ann") is not ann


def test_a_new_upload_replaces_the_former(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path)
    ann = visitors.of("ann")
    first, second = upload(tmp_path, "a.mp4"), upload(tmp_path, "b.mp4", "y")
    visitors.take(ann, "face", str(first))
    visitors.take(ann, "audio", str(first))  # a video with sound as both
    visitors.take(ann, "face", str(second))
    assert first.exists() and ann.uploads == {"face": second, "audio": first}
    visitors.drop(ann, "audio")
    visitors.drop(ann, "audio")
    assert not first.exists() and ann.uploads == {"face": second}


def test_equal_uploads_of_two_visitors(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path)
    shared = upload(tmp_path, "a.mp4")
    for key in ("ann", "bob"):
        visitors.take(visitors.of(key), "face", str(shared))
    visitors.leave("ann")
    assert shared.exists()
    visitors.leave("bob")
    assert not shared.exists()


@pytest.mark.parametrize(
    "name", ["../secret.mp4", "files/../../secret.mp4", "link.mp4", "none", ".", "a\0b"]
)
def test_only_uploads_are_taken(tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret.mp4"
    secret.touch()
    files = tmp_path / "files"
    files.mkdir()
    (files / "link.mp4").symlink_to(secret)
    visitors = Visitors(files)
    with pytest.raises(UserError, match="was not uploaded"):
        visitors.take(visitors.of("ann"), "face", str(files / name))
    assert visitors.of("ann").uploads == {} and secret.exists()
