"""Which files a visitor can reach."""

from pathlib import Path

import pytest

from wav2lip_npu.errors import UserError
from wav2lip_npu.ui.folders import MAX_DEPTH, Roots


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """Of ``shown``; ``other`` is beside it."""
    (tmp_path / "shown" / "a" / "b").mkdir(parents=True)
    (tmp_path / "shown" / ".hidden").mkdir()
    (tmp_path / "shown2").mkdir()
    (tmp_path / "other").mkdir()
    for folder in ("shown", "shown/a/b", "shown/.hidden", "shown2", "other"):
        (tmp_path / folder / "g.pth").touch()
    (tmp_path / "shown" / "out").symlink_to(tmp_path / "other")
    (tmp_path / "shown" / "out.pth").symlink_to(tmp_path / "other" / "g.pth")
    (tmp_path / "shown" / "loop").symlink_to(tmp_path / "shown" / "loop")
    return Roots("checkpoints", [tmp_path / "shown", tmp_path / "gone"])


def test_what_is_inside(roots: Roots, tmp_path: Path) -> None:
    file = tmp_path / "shown" / "a" / "b" / "g.pth"
    assert roots.inside(str(file)) == file.resolve()
    assert roots.inside(f"{tmp_path}/shown/a/../a/b/g.pth") == file.resolve()
    assert roots.inside(str(tmp_path / "shown")) == (tmp_path / "shown").resolve()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/etc/passwd",
        "{root}/other/g.pth",
        "{root}/shown2/g.pth",  # begins with the same letters
        "{root}/shown/../other/g.pth",
        "{root}/shown/out/g.pth",  # a link
        "{root}/shown/out.pth",
        "{root}/shown/loop",
        "{root}/shown/none.pth",
        "{root}/shown/\0g.pth",
        "{root}/shown/" + "x" * 5000,
        "file:///etc/passwd",
        "~root",
    ],
)
def test_what_is_not(roots: Roots, tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="is not below a folder of --checkpoints"):
        roots.inside(text.format(root=tmp_path))


def test_what_is_listed(roots: Roots, tmp_path: Path) -> None:
    shown = (tmp_path / "shown").resolve()
    assert roots.files(".pth") == [
        ("shown/g.pth", str(shown / "g.pth")),
        ("shown/a/b/g.pth", str(shown / "a" / "b" / "g.pth")),
    ]
    assert roots.with_file("*.pth") == [
        ("shown", str(shown)),
        ("shown/a/b", str(shown / "a" / "b")),
    ]


def test_a_list_ends(tmp_path: Path) -> None:
    """However deep the folders are."""
    (tmp_path / "/".join("abcdefg")).mkdir(parents=True)
    depths = [
        len(one.relative_to(tmp_path.resolve()).parts)
        for one in Roots("data", [tmp_path]).folders()
    ]
    assert depths == [*range(MAX_DEPTH + 1)]
