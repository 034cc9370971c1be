"""Clips and lists that are damaged: what is left out, computed again, or refused with a reason."""

import logging
from pathlib import Path

import numpy as np
import pytest
from helpers import make_clip

from wav2lip_npu.data.clips import (
    Clip,
    load_mel,
    publish_clip,
    read_clips,
    remove_clip,
)
from wav2lip_npu.data.dataset import ClipData, warn_of_shared_clips
from wav2lip_npu.errors import UserError
from wav2lip_npu.mel import melspectrogram


def read(clips: Path) -> list[Clip]:
    return read_clips(clips, clips.parent / "lists" / "train.txt", per_frame_mels=True)


def write_list(clips: Path, content: bytes) -> None:
    (clips.parent / "lists" / "train.txt").write_bytes(content)


def names(found: list[Clip]) -> list[str]:
    return [clip.folder.name for clip in found]


def test_lists_with_a_byte_order_mark_and_windows_lines(clips: Path) -> None:
    write_list(clips, b"\xef\xbb\xbfa\r\n\r\nb \r\n")
    assert names(read(clips)) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("口型/1\n".encode("gbk"), "is GBK, it seems; save it as UTF-8"),
        ("a\nb\n".encode("utf-16"), "is UTF-16, it seems"),
        ("a\nb\n".encode("utf-16-le"), "is not text in UTF-8; UTF-16, perhaps"),
        (b"\xff\x80\x81", "is not text in UTF-8"),
        (b"a.mp4\n", "a list names folders of preprocessed clips, not videos"),
        (b"main\\a\n", "write / between folders"),
        (b"a/../../nowhere\n", "no such folder"),
        (b"a\nb\n"[:0], "none of its 0 clips is usable"),
    ],
)
def test_lists_that_cannot_be_used(clips: Path, content: bytes, reason: str) -> None:
    write_list(clips, content)
    with pytest.raises(UserError, match=reason) as caught:
        read(clips)
    assert "train.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_where_a_list_or_a_crop_should_be(clips: Path) -> None:
    (clips / "a" / "25.jpg").mkdir()
    (clips / "a" / "26.jpg").symlink_to("nowhere.jpg")
    (clips / "a" / "27.jpg").symlink_to("27.jpg")
    write_list(clips, b"a\n")
    assert read(clips)[0].crops.tolist() == list(range(25))
    (clips.parent / "lists" / "train.txt").unlink()
    (clips.parent / "lists" / "train.txt").mkdir()
    with pytest.raises(UserError, match=r"train\.txt: no such file"):
        read(clips)


def test_crops_that_are_empty_files_are_no_crops(
    clips: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (7, 8):
        (clips / "a" / f"{number}.jpg").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        found = read(clips)[0]
    assert found.crops.tolist() == [n for n in range(25) if n not in (7, 8)]
    assert "a/7.jpg and 1 more: not JPEG files" in caplog.text
    for number in range(20):
        (clips / "a" / f"{number}.jpg").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert names(read(clips)) == ["b"]
    assert "left out" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"", b"no array", b"\x93NUMPY\x01\x00v\x00{'descr'", np.zeros((80, 81), np.float64),
        np.zeros((81, 80), np.float32), np.full((80, 81), np.nan, np.float32),
        np.full((80, 81), 99, np.float32), np.array([{"a": 1}], object), np.float32(3),
    ],
)  # fmt: skip
def test_a_damaged_spectrogram_is_computed_again(
    clips: Path, content: bytes | np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    load_mel.cache_clear()
    expected = load_mel(clips / "a").copy()
    load_mel.cache_clear()
    if isinstance(content, bytes):
        (clips / "a" / "mel.npy").write_bytes(content)
    else:
        np.save(clips / "a" / "mel.npy", content, allow_pickle=True)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(load_mel(clips / "a"), expected)
    assert "mel.npy: damaged, computed again" in caplog.text
    np.testing.assert_array_equal(np.load(clips / "a" / "mel.npy"), expected)


def test_where_no_spectrogram_can_be_kept(clips: Path) -> None:
    load_mel.cache_clear()
    (clips / "a" / "mel.npy").mkdir()  # root may write into any folder
    assert load_mel(clips / "a").shape == (80, 81)
    expected = {"audio.wav", "mel.npy", *(f"{n}.jpg" for n in range(25))}
    assert {path.name for path in (clips / "a").iterdir()} == expected


def test_a_long_spectrogram_takes_bounded_memory() -> None:
    """Piece by piece it is what it would be of the whole: each row depends on 50 ms alone."""
    random = np.random.default_rng(0)
    samples = random.standard_normal(1_200_000).astype(np.float32) * 0.1
    whole = melspectrogram(samples)
    assert whole.shape == (80, 1 + 1_200_000 // 200)
    first = 600_000 // 200  # a row beyond the first piece
    part = melspectrogram(samples[600_000 - 800 : 604_000])
    np.testing.assert_allclose(whole[:, first : first + 10], part[:, 4:14], atol=2e-6)


def test_clips_of_both_lists_are_told(clips: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = read(clips)
    (clips / "also_a").symlink_to("a")
    write_list(clips, b"also_a\n")
    train, val = (ClipData(clips=some, store=None) for some in (found, read(clips)))
    with caplog.at_level(logging.WARNING):
        warn_of_shared_clips(train, ClipData(clips=found[1:], store=None))
        assert "1 of 1 clips to validate with are also trained on" in caplog.text
        caplog.clear()
        warn_of_shared_clips(train, val)
        assert "also_a" in caplog.text


def test_a_clip_is_published_beside_what_is_there(tmp_path: Path) -> None:
    target = make_clip(tmp_path / "out" / "main", frames=30)
    make_clip(target / "00001", frames=3)
    (target / "notes.txt").write_text("mine")
    (target / "0007.jpg").write_text("mine too")
    (target / "mel.npy").write_text("of the former sound")
    new = make_clip(tmp_path / "new", frames=20, seed=3)
    expected = {path.name: path.read_bytes() for path in new.iterdir()}
    publish_clip(new, target)
    assert {name: (target / name).read_bytes() for name in expected} == expected
    assert not new.exists()
    others = {path.name for path in target.iterdir()} - expected.keys()
    assert others == {"00001", "notes.txt", "0007.jpg"}
    assert len(list((target / "00001").iterdir())) == 4
    remove_clip(target)
    assert {path.name for path in target.iterdir()} == others
    remove_clip(target / "00001")
    assert not (target / "00001").exists()
    remove_clip(target / "nothing")
