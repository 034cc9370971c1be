"""File lists: what is a clip, whose it is, and that no speaker is on two sides."""

import errno
import logging
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from wav2lip_npu import cli
from wav2lip_npu.config import FilelistsConfig
from wav2lip_npu.data.clip_tree import find_clips
from wav2lip_npu.errors import UserError
from wav2lip_npu.preprocessing.filelists import (
    divide,
    official_list,
    speaker_of,
    video_of,
    write_filelists,
)

SHARES = {"val": 0.05, "test": 0.05}


def touch_clip(folder: Path, *, crops: int = 16, audio: bool = True) -> None:
    """A preprocessed clip, as far as names tell."""
    folder.mkdir(parents=True)
    names = [f"{2 * number}.jpg" for number in range(crops)] + ["audio.wav"] * audio
    for name in names:
        (folder / name).touch()


def tree(root: Path, clips: list[str]) -> Path:
    for clip in clips:
        touch_clip(root / clip)
    return root


def corpus(speakers: int, clips: int, form: str = "{0}/{1:05d}") -> list[str]:
    return [form.format(6000 + s, c) for s, c in product(range(speakers), range(clips))]


def parents(clips: list[str]) -> set[str]:
    return {clip.split("/")[-2] for clip in clips}


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.mark.parametrize(
    ("clip", "speaker", "official"),
    [
        ("00001", None, None),  # the guide's
        ("main/00001", None, None),
        ("Main/00001", None, None),
        ("6330311066473698535/00001", "6330311066473698535", None),  # LRS2
        ("main/6330311066473698535/00001", "6330311066473698535", None),
        ("mvlrs_v1/main/6330311066473698535/00001", "6330311066473698535", None),
        ("pretrain/6330311066473698535/00001", "6330311066473698535", None),
        ("trainval/0Fi83BHQsMA/00002", "0Fi83BHQsMA", None),  # LRS3
        ("pretrain/0Fi83BHQsMA/00002", "0Fi83BHQsMA", None),
        ("test/0Fi83BHQsMA/00002", "0Fi83BHQsMA", "test"),
        ("s1/bbaf2n", "s1", None),  # GRID
        ("s1/video/mpg_6000/bbaf2n", "s1", None),
        ("grid/s34/bbaf2n", "s34", None),
        ("dev/mp4/id00012/21Uxsk56VDQ/00001", "id00012", None),  # VoxCeleb2
        ("ABOUT/test/ABOUT_00001", None, "test"),  # LRW
        ("ABOUT/val/ABOUT_00001", None, "val"),
        ("Validation/ann/1", "ann", "val"),
        ("test", None, None),  # clips of these names
        ("s1", None, None),
        ("ann/s1", "ann", None),
    ],
)
def test_layouts(clip: str, speaker: str | None, official: str | None) -> None:
    assert speaker_of(clip) == speaker
    assert official_list(clip) == official


def test_shots_are_of_one_video() -> None:
    assert video_of("main/00001-shot12") == video_of("main/00001-shot1") == "main/00001"
    assert video_of("main/00001") != video_of("pretrain/00001")
    assert video_of("a-shot/b-shots") == "a-shot/b-shots"


def test_clips_at_any_depth_and_what_is_wrong_with_others(tmp_path: Path) -> None:
    tree(tmp_path, ["00002", "main/a b/00001", "x/y/z/1", ".partial", "main/.00003.partial"])
    touch_clip(tmp_path / "short", crops=15)
    touch_clip(tmp_path / "main" / "mute", audio=False)
    touch_clip(tmp_path / "no crops", crops=0)
    touch_clip(tmp_path / "two\nlines")
    touch_clip(tmp_path / "not UTF-8 \udcb0")
    (tmp_path / "empty").mkdir()
    for name in ("mel.npy", "thumb.jpg", "1.png"):
        (tmp_path / "short" / name).touch()
    touch_clip(tmp_path / "00002" / "backup")  # a clip has none below
    for name in ("preprocess_report.jsonl", "0.jpg", "audio.wav"):  # the root is no clip
        (tmp_path / name).touch()
    clips, left_out = find_clips(tmp_path)
    assert clips == ["00002", "main/a b/00001", "x/y/z/1"]
    assert left_out == [
        "'not UTF-8 \\udcb0': a name that a list, in UTF-8, cannot hold",
        "'two\\nlines': a name that a list, in UTF-8, cannot hold",
        "main/mute: no audio.wav",
        "no crops: 0 crops, 16 are needed",
        "short: 15 crops, 16 are needed",
    ]


def test_links_are_followed_once(tmp_path: Path) -> None:
    tree(tmp_path / "disk", ["ann/1", "bob/1"])
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "disk" / "ann")
    (root / "again").symlink_to(tmp_path / "disk" / "ann")
    (root / "bob").symlink_to(tmp_path / "disk" / "bob" / "1")
    (tmp_path / "disk" / "ann" / "up").symlink_to(root)
    (tmp_path / "disk" / "bob" / "1" / "circle").symlink_to("circle")
    assert find_clips(root) == (["a/1", "bob"], [])


def test_a_folder_that_must_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def guarded(folder: Path | int) -> Iterator[os.DirEntry[str]]:
        if folder == tmp_path / "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scan(folder)

    tree(tmp_path, ["a", "lost+found"])
    monkeypatch.setattr(os, "scandir", guarded)
    assert find_clips(tmp_path) == (["a"], [f"{tmp_path / 'lost+found'}: Permission denied"])


def test_ten_of_those_left_out_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree(tmp_path / "in", ["a", "b"])
    for number in range(12):
        touch_clip(tmp_path / "in" / f"short{number:02d}", crops=3)
    write_filelists(FilelistsConfig(data_root=tmp_path / "in", filelists=tmp_path / "out"))
    told = [text for text in caplog.messages if "left out" in text]
    assert told[0] == "left out: short00: 3 crops, 16 are needed"
    assert "short09" in told[9]
    assert told[10:] == ["left out: 12 clips in all"]


def test_the_lists_share_no_speaker_and_lose_no_clip(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    everything = corpus(20, 2, "main/{0}/{1:05d}") + corpus(20, 1, "pretrain/{0}/{1:05d}")
    root, out = tree(tmp_path / "in", everything), tmp_path / "new" / "lists"
    lists = write_filelists(FilelistsConfig(data_root=root, filelists=out, val=0.1))
    lists_there = {"train.txt", "val.txt", "test.txt"}
    assert {path.name for path in out.iterdir()} == {*lists_there, "options_filelists.yaml"}
    for name, clips in lists.items():
        text = (out / f"{name}.txt").read_text(encoding="utf-8")
        assert text == "".join(f"{clip}\n" for clip in sorted(clips))
    assert sorted(lists["train"] + lists["val"] + lists["test"]) == sorted(everything)
    speakers = {name: parents(clips) for name, clips in lists.items()}
    assert {name: len(those) for name, those in speakers.items()} == {
        "train": 17, "val": 2, "test": 1,
    }  # fmt: skip
    assert not speakers["train"] & (speakers["val"] | speakers["test"])
    assert not speakers["val"] & speakers["test"]
    assert "train.txt: 51 clips of 17 speakers" in caplog.messages
    assert "disjoint by speaker" in caplog.messages


def test_another_seed_another_choice_the_same_seed_the_same() -> None:
    clips = corpus(40, 3)
    first = divide(clips, SHARES, 0)
    assert divide(clips[::-1], SHARES, 0) == first
    chosen = {tuple(divide(clips, SHARES, seed)["val"]) for seed in range(10)}
    assert len(chosen) > 5
    assert len({speaker for val in chosen for speaker in parents(list(val))}) > 10


def test_clips_that_are_added_move_few_speakers() -> None:
    before = divide(corpus(100, 10), SHARES, 0)
    after = divide(corpus(110, 11), SHARES, 0)  # a fifth more
    for name in ("val", "test"):
        old, new = parents(before[name]), parents(after[name])
        assert len(old) == 5
        assert len(old & new) >= 4
    assert not parents(before["test"]) & parents(after["val"])


def test_a_speaker_of_many_clips_stays_in_train() -> None:
    clips = corpus(30, 2) + [f"star/{number:05d}" for number in range(60)]
    for seed in range(20):
        lists = divide(clips, SHARES, seed)
        assert {clip for clip in clips if clip.startswith("star/")} <= set(lists["train"])
        assert len(lists["val"]) == len(lists["test"]) == 6


def test_shares_are_met_to_the_clip_where_speakers_are_unknown() -> None:
    clips = [f"{number:05d}" for number in range(100)]
    for percent in (1, 7, 29, 45):
        lists = divide(clips, {"val": percent / 100, "test": 0.0}, 0)
        assert [len(lists[name]) for name in ("train", "val", "test")] == [
            100 - percent,
            percent,
            0,
        ]


def test_the_official_test_part_is_the_test_list(caplog: pytest.LogCaptureFixture) -> None:
    training = corpus(20, 3, "trainval/{0}/{1:05d}") + corpus(20, 2, "pretrain/{0}/{1:05d}")
    official = [f"test/{speaker}/00001" for speaker in ("ann", "bob", "cy")]
    lists = divide(training + official, {"val": 0.05, "test": 0.5}, 0)
    assert lists["test"] == official
    assert [len(lists["val"]), len(lists["train"])] == [5, 95]
    lists = divide(training + official, {"val": 0.05, "test": 0.0}, 0)
    assert lists["test"] == official
    # A speaker of the official part is nowhere else, even with clips in other parts.
    lists = divide([*training, *official, "test/6003/1", "val/6003/2", "val/dee/1"], SHARES, 0)
    assert {clip for clip in training if "/6003/" in clip} < set(lists["test"])
    assert lists["val"] == ["val/dee/1"]
    assert not caplog.messages


def test_an_official_part_of_every_speaker_is_kept_by_clip() -> None:
    training, official = corpus(9, 4, "train/{0}/{1:05d}"), corpus(9, 1, "test/{0}/9{1:05d}")
    lists = divide(training + official, SHARES, 0)
    assert lists["test"] == official
    assert sorted(lists["train"] + lists["val"]) == training
    assert len(lists["val"]) == 2


def test_the_log_tells_what_is_official_and_what_is_unknown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tree(tmp_path / "in", ["test/ann/1", "test/bob/1", "test/bob/2", "1", "2", "3"])
    write_filelists(FilelistsConfig(data_root=root, filelists=tmp_path / "out"))
    assert caplog.messages[:4] == [
        "train.txt: 2 clips, 2 of unknown speakers",
        "val.txt: 1 clips, 1 of unknown speakers",
        "test.txt: 3 clips of 2 speakers, the official part",
        "disjoint by clip: who speaks in 3 of them is not known",
    ]


@pytest.mark.parametrize(
    ("speakers", "warning"),
    [
        (1, "one speaker only: split by clip, so validation hears a voice that training knows"),
        (
            3,
            "3 speakers only: split by clip, so validation hears voices that training knows",
        ),
        (4, None),
    ],
)
def test_too_few_speakers_are_split_by_clip(
    speakers: int, warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    lists = divide(corpus(speakers, 60), SHARES, 0)
    counts = [len(lists[name]) for name in ("train", "val", "test")]
    if warning:
        share = 60 * speakers // 20
        assert counts == [60 * speakers - 2 * share, share, share]
        assert caplog.messages == [warning]
    else:
        assert counts == [120, 60, 60]
        assert not caplog.messages


@pytest.mark.parametrize("folder", ["", "main/", "ann/"])
def test_shots_are_kept_together(folder: str) -> None:
    videos = [f"{folder}{number:05d}" for number in range(30)]
    clips = [f"{video}-shot{shot}" for video in videos for shot in range(1, 4)]
    for seed in range(5):
        lists = divide(clips, SHARES, seed)
        assert [len(lists[name]) for name in ("train", "val", "test")] == [78, 6, 6]
        for those in lists.values():
            for clip in those:
                video = clip.split("-")[0]
                assert {f"{video}-shot{shot}" for shot in range(1, 4)} <= set(those)


@pytest.mark.parametrize("share", [0.05, 0.49])
def test_two_videos_will_do(share: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tree(tmp_path / "in", ["a", *(f"b-shot{number}" for number in range(1, 6))])
    lists = write_filelists(
        FilelistsConfig(data_root=root, filelists=tmp_path / "out", val=share, test=share)
    )
    assert lists["val"] == ["a"]
    assert len(lists["train"]) == 5
    assert (tmp_path / "out" / "test.txt").read_bytes() == b""
    assert "test.txt: empty, as there are too few clips for it" in caplog.messages
    assert "disjoint by clip: who speaks in 6 of them is not known" in caplog.messages


@pytest.mark.parametrize(
    "clips", [["a"], ["a-shot1", "a-shot2"], ["test/a/1", "test/b/1"], ["val/a/1", "test/b/1"]]
)
def test_nothing_to_divide_is_an_error(clips: list[str], tmp_path: Path) -> None:
    root = tree(tmp_path / "in", clips)
    with pytest.raises(UserError, match=f"its {len(clips)} usable clips are too few"):
        write_filelists(FilelistsConfig(data_root=root, filelists=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_lists_of_other_clips_are_not_lost(tmp_path: Path) -> None:
    root, out = tree(tmp_path / "in", corpus(20, 1)), tmp_path / "out"
    config = FilelistsConfig(data_root=root, filelists=out)
    write_filelists(config)
    write_filelists(config)  # the same again
    written = {path: path.read_text() for path in out.glob("*.txt")}
    (out / "val.txt").write_text("mine\n")
    (out / "train.txt").unlink()
    with pytest.raises(UserError, match=r"val\.txt: is there with other clips; give --overwrite"):
        write_filelists(config)
    assert (out / "val.txt").read_text() == "mine\n"
    assert not (out / "train.txt").exists()
    write_filelists(FilelistsConfig(data_root=root, filelists=out, overwrite=True))
    assert {path: path.read_text() for path in out.glob("*.txt")} == written


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"val": 0.0}, "--val 0.0: must be above 0"),
        ({"val": 0.6}, "--val 0.6: must be above 0 and at most 0.5"),
        ({"val": float("nan")}, "--val nan"),
        ({"test": -0.1}, "--test -0.1: must be from 0 to 0.5"),
        ({"test": 0.6}, "--test 0.6"),
        ({"val": 0.5, "test": 0.5}, "leaves no clips to train on"),
        ({"seed": -1}, "--seed -1: must be 0 or more"),
    ],
)
def test_options_are_validated(changes: dict[str, float], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        FilelistsConfig(data_root=Path(), **changes)  # type: ignore[arg-type]


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, reason in (
        ("nowhere", "--data_root nowhere: no such folder"),
        ("empty", "--data_root empty: no usable clip in it, at any depth"),
        ("short", "left out: a: 3 crops, 16 are needed"),
    ):
        if name != "nowhere":
            Path(name).mkdir()
        if name == "short":
            touch_clip(Path(name, "a"), crops=3)
        assert cli.main(["filelists", "--data_root", name]) == 2
        (line,) = [text for text in capsys.readouterr().err.splitlines() if "error:" in text]
        assert reason in line
    tree(tmp_path / "s1", [f"{number:05d}" for number in range(10)])
    assert (
        cli.main(["filelists", "--data-root", "s1", "--filelists", "empty/file", "--test=0"]) == 0
    )
    assert len(Path("empty/file/train.txt").read_text().splitlines()) == 9
    Path("file").touch()
    assert cli.main(["filelists", "--data_root", "s1", "--filelists", "file"]) == 2
    assert "--filelists file: is a file; name a folder" in capsys.readouterr().err
