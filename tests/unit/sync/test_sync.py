"""The command ``sync``, on clips whose mouths are known: only the network is not run."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_detection.landmarks import FaceLandmarks
from wav2lip_npu import cli
from wav2lip_npu.data import mouths
from wav2lip_npu.data.clips import AUDIO, ORIGINAL_AUDIO
from wav2lip_npu.media.audio import load_audio, write_wav
from wav2lip_npu.sync.report import HISTOGRAM, REPORT
from wav2lip_npu.sync.shift import shift_sound, shifted

FRAMES = 75
LATE = {"a": 0, "b": 4, "c": -6, "d": 1, "e": 0, "f": 3}  # of the first six of twenty clips
WRONG = "s"  # whose sound is another clip's


def articulation(seed: int) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(size=FRAMES + 40)
    smooth = np.convolve(steps, np.hanning(7)[1:-1] / 3, "same")[20:-20]
    return np.asarray((smooth - smooth.min()) / np.ptp(smooth))


def speech(opening: np.ndarray) -> np.ndarray:
    """Noise as loud as the mouth is open."""
    level = np.repeat(opening, 640)
    noise = np.random.default_rng(0).normal(size=len(level))
    return (0.2 * level**2 * noise).astype(np.float32)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Twenty clips with mouths beside their crops, and a file list of them."""
    root = tmp_path / "clips"
    for number, name in enumerate("abcdefghijklmnopqrst"):
        folder = root / name
        folder.mkdir(parents=True)
        for frame in range(FRAMES):
            _, content = cv2.imencode(".jpg", np.full((8, 8, 3), frame, np.uint8))
            (folder / f"{frame}.jpg").write_bytes(content.tobytes())
        opening = articulation(number)
        mouth = np.stack([opening, 0.3 + 0 * opening, opening + 0.1], axis=1).astype(np.float32)
        state = np.array([mouths._state(folder / f"{n}.jpg") for n in range(FRAMES)])
        np.savez(folder / "mouth.npz", mouth=mouth, state=state)
        sound = speech(articulation(500) if name == WRONG else opening)
        write_wav(folder / AUDIO, shifted(sound, -LATE.get(name, 0)))
    (tmp_path / "lists").mkdir()
    lines = [
        f"{name} MV" if name in "aq" else name
        for name in sorted(path.name for path in root.iterdir())
    ]
    (tmp_path / "lists" / "train.txt").write_text("\n".join(lines) + "\n")
    return root


def run(root: Path, *more: str) -> dict[str, dict]:
    words = ["sync", "--data_root", str(root), "--num_workers", "1", *more]
    assert cli.main(words) == 0
    lines = (root / REPORT).read_text().splitlines()
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
    assert (tree / "b" / ORIGINAL_AUDIO).read_bytes() == original
    assert not (tree / "a" / ORIGINAL_AUDIO).exists()
    sound, unshifted = load_audio(tree / "b" / AUDIO), speech(articulation(1))
    inner = slice(0, len(sound) - 4 * 640)
    np.testing.assert_allclose(sound[inner], unshifted[inner], atol=1e-4)

    again = run(tree, "--fix")
    assert {name for name in again if again[name]["state"] == "shifted"} == set()
    assert all(abs(again[name]["offset"]) < 0.6 for name in "bcf")
    assert (tree / "b" / ORIGINAL_AUDIO).read_bytes() == original


def test_lists_are_written_without_what_is_unclear_or_off(tree: Path, tmp_path: Path) -> None:
    lists = ("--filelists", str(tmp_path / "lists"), "--filter", str(tmp_path / "clean"))
    run(tree, *lists)
    listed = (tmp_path / "clean" / "train.txt").read_text().split("\n")[:-1]
    assert listed == ["a MV", "d", "e", *"ghijklmnop", "q MV", "r", "t"]
    run(tree, "--fix", *lists)
    listed = (tmp_path / "clean" / "train.txt").read_text().split("\n")[:-1]
    assert listed == ["a MV", *"bcdefghijklmnop", "q MV", "r", "t"]
    assert (tmp_path / "lists" / "train.txt").read_text().count("\n") == 20


def test_what_is_unreadable_costs_itself(tree: Path) -> None:
    (tree / "h" / AUDIO).write_bytes(b"no sound")
    found = run(tree)
    assert found["h"]["state"] == "unreadable"
    assert f"{tree / 'h' / AUDIO}" in found["h"]["reason"]
    assert found["b"]["state"] == "off"


def test_what_cannot_be_asked_for(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sync", "--data_root", str(tree), "--filter"]
    assert cli.main([*words, "x", "--filelists", "x"]) == 2
    assert "--filter x: is the folder of --filelists" in capsys.readouterr().err
    assert cli.main([*words, "x", "--filelists", str(tmp_path)]) == 2
    assert "has none of train.txt, val.txt, test.txt" in capsys.readouterr().err
    assert cli.main(["sync", "--data_root", str(tmp_path / "lists")]) == 2
    assert "no usable clip in it" in capsys.readouterr().err


def test_shifted_samples() -> None:
    samples = np.arange(1, 2001, dtype=np.float32)
    assert shifted(samples, 2)[:3].tolist() == [1281, 1282, 1283]
    assert shifted(samples, 2)[-1280:].sum() == 0
    assert shifted(samples, -1)[:640].sum() == 0
    assert shifted(samples, -1)[640:643].tolist() == [1, 2, 3]
    assert shifted(samples, 9).tolist() == [0] * 2000
    assert len(shifted(samples, -9)) == 2000


def test_a_shift_keeps_the_samples(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    write_wav(folder / AUDIO, speech(articulation(3)))
    samples = load_audio(folder / AUDIO)
    shift_sound(folder, 3)
    np.testing.assert_array_equal(load_audio(folder / AUDIO)[:-1920], samples[1920:])
    shift_sound(folder, -3)
    np.testing.assert_array_equal(load_audio(folder / AUDIO)[1920:], samples[1920:])
    np.testing.assert_array_equal(load_audio(folder / ORIGINAL_AUDIO), samples)


def test_the_network_is_run_where_a_mouth_is_not_known(tree: Path) -> None:
    (tree / "a" / "mouth.npz").unlink()
    run(tree)
    kept = np.load(tree / "a" / "mouth.npz")["mouth"]
    points = FaceLandmarks().detect(cv2.imread(str(tree / "a" / "0.jpg")))
    np.testing.assert_array_equal(kept[0], mouths.mouth_shape(points))
