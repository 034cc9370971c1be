"""The command ``sync``, on clips whose mouths are known: only the network is not run."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import articulation, make_talking_clip, voiced

from face_detection.landmarks import FaceLandmarks
from wav2lip_npu import cli
from wav2lip_npu.data import mouths
from wav2lip_npu.data.clips import AUDIO, MEL, original_audio, remove_clip
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import load_audio, write_wav
from wav2lip_npu.runtime.files import file_state
from wav2lip_npu.sync import command
from wav2lip_npu.sync.report import HISTOGRAM, REPORT
from wav2lip_npu.sync.shift import shift_sound, shifted

LATE = {"a": 0, "b": 4, "c": -6, "d": 1, "e": 0, "f": 3}  # of the first six of twenty clips
WRONG = "s"  # whose sound is another clip's


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Twenty clips with mouths beside their crops, and a file list of them."""
    root = tmp_path / "clips"
    for number, name in enumerate("abcdefghijklmnopqrst"):
        opening = articulation(number)
        sound = voiced(articulation(500) if name == WRONG else opening)
        make_talking_clip(root / name, opening, shifted(sound, -LATE.get(name, 0)))
    (tmp_path / "lists").mkdir()
    lines = [
        f"{name} MV" if name in "aq" else name
        for name in sorted(path.name for path in root.iterdir())
    ]
    (tmp_path / "lists" / "train.txt").write_text("\n".join(lines) + "\n")
    return root


def run(root: Path, *more: str, report: Path | None = None) -> dict[str, dict]:
    words = ["sync", "--data_root", str(root), "--num_workers", "1", *more]
    assert cli.main(words) == 0
    lines = ((report or root) / REPORT).read_text().splitlines()
    return {entry["clip"]: entry for entry in map(json.loads, lines)}


def test_offsets_are_measured_and_nothing_else_happens(tree: Path) -> None:
    before = {path: path.read_bytes() for path in tree.rglob("*.wav")}
    found = run(tree)
    assert len(found) == 20
    for name, entry in found.items():
        if name != WRONG:
            assert abs(entry["offset"] - LATE.get(name, 0)) < 0.6, name
            assert entry["state"] == ("off" if name in "bcf" else "in sync"), name
    assert found[WRONG]["state"] == "unclear"
    assert found[WRONG]["confidence"] < min(e["confidence"] for n, e in found.items() if n != WRONG)
    assert before == {path: path.read_bytes() for path in tree.rglob("*.wav")}
    assert cv2.imread(str(tree / HISTOGRAM)).std() > 0


def test_sound_is_shifted_once_and_the_original_kept(tree: Path) -> None:
    original = (tree / "b" / AUDIO).read_bytes()
    found = run(tree, "--fix")
    assert [name for name in found if found[name]["state"] == "shifted"] == ["b", "c", "f"]
    (kept,) = original_audio(tree / "b")
    assert kept.name == "audio.original.wav"
    assert kept.read_bytes() == original
    assert original_audio(tree / "a") == []
    sound, unshifted = load_audio(tree / "b" / AUDIO), voiced(articulation(1))
    inner = slice(0, len(sound) - 4 * 640)
    np.testing.assert_allclose(sound[inner], unshifted[inner], atol=1e-4)

    again = run(tree, "--fix")
    assert {name for name in again if again[name]["state"] == "shifted"} == set()
    assert all(abs(again[name]["offset"]) < 0.6 for name in "bcf")
    assert original_audio(tree / "b") == [kept]


def test_lists_are_written_without_what_is_unclear_or_off(tree: Path, tmp_path: Path) -> None:
    lists = ("--filelists", str(tmp_path / "lists"), "--filter", str(tmp_path / "clean"))
    run(tree, *lists)
    listed = (tmp_path / "clean" / "train.txt").read_text().split("\n")[:-1]
    assert listed == ["a MV", "d", "e", *"ghijklmnop", "q MV", "r", "t"]
    run(tree, "--fix", "--overwrite", *lists)
    listed = (tmp_path / "clean" / "train.txt").read_text().split("\n")[:-1]
    assert listed == ["a MV", *"bcdefghijklmnop", "q MV", "r", "t"]
    assert (tmp_path / "lists" / "train.txt").read_text().count("\n") == 20


def test_what_is_unreadable_costs_itself(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tree / "h" / AUDIO).write_bytes(b"no sound")
    found = run(tree)
    assert found["h"]["state"] == "unreadable"
    assert f"{tree / 'h' / AUDIO}" in found["h"]["reason"]
    assert f"h: {found['h']['reason']}" in caplog.messages
    assert found["b"]["state"] == "off"


def test_what_cannot_be_asked_for(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists, root = tmp_path / "lists", ("--data_root", str(tree))
    (tmp_path / "file").touch()
    for words, told in (
        (("--filter", f"{lists}/../lists", "--filelists", lists), "is the folder of --filelists"),
        (("--filter", tmp_path / "x", "--filelists", tmp_path), "has none of train.txt, val.txt"),
        (("--filter", tmp_path / "file", "--filelists", lists), "file: File exists"),
        (("--filter", lists, "--filelists", tree.parent / "other"), "has none of"),
        (("--overwrite",), "--overwrite: has no effect without --filter"),
        (("--min_confidence", "0"), "must be above 0"),
        (("--data_root", lists), "no usable clip in it"),
    ):
        assert cli.main(["sync", *root, *map(str, words)]) == 2
        assert told in capsys.readouterr().err
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "val.txt").write_text("mine\n")
    words = ("--filter", tmp_path / "clean", "--filelists", lists)
    assert cli.main(["sync", *root, *map(str, words)]) == 2
    assert "val.txt: is there; give --overwrite" in capsys.readouterr().err
    assert (tmp_path / "clean" / "val.txt").read_text() == "mine\n"


def test_lists_with_odd_lines(tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "lists" / "train.txt").write_text("./a\n/\nnobody\nd//\n")
    lists = ("--filelists", str(tmp_path / "lists"), "--filter", str(tmp_path / "clean"))
    with caplog.at_level("WARNING"):
        run(tree, *lists)
    assert (tmp_path / "clean" / "train.txt").read_text() == "./a\nd//\n"
    assert "2 clips left out that are no usable clips below --data_root" in caplog.text


def test_few_clips_are_all_unclear(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "cdefghijk":
        remove_clip(tree / name)
    with caplog.at_level("WARNING"):
        found = run(tree, "--fix", "--outdir", str(tmp_path / "report"), report=tmp_path / "report")
    assert {entry["state"] for entry in found.values()} == {"unclear"}
    assert "11 clips are too few to learn from" in caplog.text
    assert not (tree / REPORT).exists()


def test_not_one_that_can_be_read_is_an_error(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in tree.iterdir():
        (folder / AUDIO).write_bytes(b"no sound")
    assert cli.main(["sync", "--data_root", str(tree), "--num_workers", "1"]) == 2
    assert "not one of 20 clips can be read; " in capsys.readouterr().err


def test_whatever_fails_in_a_shift_costs_its_clip(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(folder: Path, late: int, measured: tuple[int, int]) -> None:
        if folder.name == "b":
            raise MemoryError
        shift_sound(folder, late, measured)

    monkeypatch.setattr(command, "shift_sound", fails)
    found = run(tree, "--fix")
    assert (found["b"]["state"], found["b"]["reason"]) == ("off", "out of memory")
    assert found["c"]["state"] == found["f"]["state"] == "shifted"


def test_ctrl_c_while_shifting_keeps_what_is_done(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path, late: int, measured: tuple[int, int]) -> None:
        shift_sound(folder, late, measured)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(command, "shift_sound", interrupted)
        assert cli.main(["sync", "--data_root", str(tree), "--num_workers", "1", "--fix"]) == 130
    assert [bool(original_audio(tree / name)) for name in "bcf"] == [True, False, False]
    found = run(tree, "--fix")
    assert [found[name]["state"] for name in "bcf"] == ["in sync", "shifted", "shifted"]


def test_shifted_samples() -> None:
    samples = np.arange(1, 2001, dtype=np.float32)
    assert shifted(samples, 2)[:3].tolist() == [1281, 1282, 1283]
    assert shifted(samples, 2)[-1280:].sum() == 0
    assert shifted(samples, -1)[:640].sum() == 0
    assert shifted(samples, -1)[640:643].tolist() == [1, 2, 3]
    assert shifted(samples, 9).tolist() == [0] * 2000
    assert len(shifted(samples, -9)) == 2000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clip's folder with sound alone."""
    (tmp_path / "a").mkdir()
    write_wav(tmp_path / "a" / AUDIO, voiced(articulation(3)))
    return tmp_path / "a"


def shift(folder: Path, late: int) -> None:
    shift_sound(folder, late, file_state(folder / AUDIO))


def test_shifting_twice_loses_nothing(folder: Path) -> None:
    samples = load_audio(folder / AUDIO)
    (folder / MEL).touch()
    shift(folder, 3)
    assert not (folder / MEL).exists()
    np.testing.assert_array_equal(load_audio(folder / AUDIO)[:-1920], samples[1920:])
    shift(folder, -15)  # 12 earlier in all
    np.testing.assert_array_equal(load_audio(folder / AUDIO)[7680:], samples[:-7680])
    shift(folder, 12)
    np.testing.assert_array_equal(load_audio(folder / AUDIO), samples)
    (kept,) = original_audio(folder)
    np.testing.assert_array_equal(load_audio(kept), samples)


def test_sound_that_the_user_has_put_there_is_kept_too(folder: Path) -> None:
    shift(folder, 3)
    write_wav(folder / AUDIO, voiced(articulation(4)))
    mine = (folder / AUDIO).read_bytes()
    shift(folder, 2)
    first, second = original_audio(folder)
    assert second.name == "audio.original-2.wav"
    assert second.read_bytes() == mine
    expected = shifted(load_audio(second), 2)
    np.testing.assert_array_equal(load_audio(folder / AUDIO), expected)
    shift(folder, -2)
    np.testing.assert_array_equal(load_audio(folder / AUDIO), load_audio(second))
    assert original_audio(folder) == [first, second]


def test_sound_that_changed_since_it_was_measured_stays(folder: Path) -> None:
    measured = file_state(folder / AUDIO)
    write_wav(folder / AUDIO, voiced(articulation(4))[:9000])
    content = (folder / AUDIO).read_bytes()
    with pytest.raises(UserError, match="has changed since it was measured"):
        shift_sound(folder, 3, measured)
    assert (folder / AUDIO).read_bytes() == content


def test_the_network_is_run_where_a_mouth_is_not_known(tree: Path) -> None:
    (tree / "a" / "mouth.npz").unlink()
    run(tree)
    kept = np.load(tree / "a" / "mouth.npz")["mouth"]
    points = FaceLandmarks().detect(cv2.imread(str(tree / "a" / "0.jpg")))
    np.testing.assert_array_equal(kept[0], mouths.mouth_shape(points))
