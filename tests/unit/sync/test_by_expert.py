"""``sync`` with an expert: the network judges nothing here, what it found is written beforehand."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from formula import fill
from helpers import make_clip

from wav2lip_npu import cli
from wav2lip_npu.alignment.embedded import slide
from wav2lip_npu.alignment.expert import embed, open_expert
from wav2lip_npu.alignment.lags import LAGS
from wav2lip_npu.alignment.lse import mfcc, open_syncnet_v2
from wav2lip_npu.data.clips import AUDIO, EXPERT, load_crops, load_mel, original_audio
from wav2lip_npu.data.kept import content_key, keep
from wav2lip_npu.media.audio import load_audio
from wav2lip_npu.models import Generator, SyncNet
from wav2lip_npu.models.syncnet_v2 import SyncNetV2
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.files import sha256
from wav2lip_npu.sync.embedders import open_embedder
from wav2lip_npu.sync.report import REPORT
from wav2lip_npu.sync.workers import other_clips

LATE = {"a": 0, "b": 4, "c": -3}
JUMPS = {"d": [(0, 0), (40, 5)]}


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("expert") / "expert.pth"
    torch.save({"state_dict": fill(SyncNet()).state_dict()}, path)
    return path


@pytest.fixture
def tree(tmp_path: Path, expert: Path) -> Path:
    """Clips, and what an expert has found of each."""
    random = np.random.default_rng(0)
    for number, name in enumerate("abcdn"):
        folder = make_clip(tmp_path / "clips" / name, frames=30, seed=number)
        scores, others = random.normal(size=31), random.normal(size=(16, 31))
        if name in LATE:
            scores[LATE[name] == LAGS] += 20
        parts = JUMPS.get(name, [(0, LATE.get(name, 0))])
        found = {"scores": scores, "others": others, "segments": np.array(parts)}
        more = f"{sha256(expert)} None {other_clips('abcdn')}"
        keep(folder / EXPERT, found, content_key(folder, more))
    return tmp_path / "clips"


def run(root: Path, *more: object) -> dict[str, dict]:
    words = (
        "sync",
        "--data_root",
        root,
        "--by",
        "expert",
        "--device",
        "cpu",
        "--precision",
        "fp32",
    )
    assert cli.main([*map(str, (*words, *more))]) == 0
    return {entry["clip"]: entry for entry in map(json.loads, (root / REPORT).open())}


def test_what_an_expert_found_decides(tree: Path, expert: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text("".join(f"{name}\n" for name in "abcdn"))
    lists = ("--filelists", tmp_path / "lists", "--filter", tmp_path / "clean")
    found = run(tree, "--syncnet_checkpoint_path", expert, "--fix", *lists)
    states = {name: entry["state"] for name, entry in found.items()}
    assert states == {
        "a": "in sync", "b": "shifted", "c": "shifted", "d": "jumps", "n": "unclear"
    }  # fmt: skip
    assert round(found["b"]["offset"]) == 4 and found["b"]["jumps"] is None
    assert found["d"]["jumps"] == [{"first": 0, "late": 0}, {"first": 40, "late": 5}]
    assert found["a"]["confidence"] > 5 > found["n"]["confidence"]
    assert [name for name in "abcdn" if original_audio(tree / name)] == ["b", "c"]
    assert (tmp_path / "clean" / "train.txt").read_text() == "a\nb\nc\n"


def test_what_changed_is_judged_again(tree: Path, expert: Path) -> None:
    kept = (tree / "b" / EXPERT).read_bytes()
    cv2.imwrite(str(tree / "a" / "7.jpg"), np.full((90, 70, 3), 99, np.uint8))
    (tree / "c" / EXPERT).write_bytes(b"nothing")
    found = run(tree, "--syncnet_checkpoint_path", expert)
    assert (tree / "b" / EXPERT).read_bytes() == kept
    assert {name: entry["state"] for name, entry in found.items()}["b"] == "off"
    device = Device.open("cpu", "fp32")
    network = open_expert(expert, device)
    videos = {
        name: embed(
            network,
            load_crops(tree / name, range(30)),
            np.ones(30, bool),
            load_mel(tree / name),
            device,
        )
        for name in "abcdn"
    }
    for name in "ac":
        others = [videos[other].sound for other in other_clips("abcdn") if other != name]
        assert len(others) == 4
        with np.load(tree / name / EXPERT) as content:
            expected = slide(videos[name], others)
            np.testing.assert_allclose(content["scores"], expected.scores, atol=2e-3)
            np.testing.assert_allclose(content["others"], expected.others, atol=2e-3)


def test_other_clips_are_mostly_the_same_when_some_are_added() -> None:
    names = [f"clip{number}" for number in range(200)]
    chosen = other_clips(names)
    assert len(set(chosen)) == 17 and set(chosen) <= set(names)
    assert other_clips(names[::-1]) == chosen
    more = other_clips([*names, *(f"new{number}" for number in range(10))])
    assert len(set(chosen) & set(more)) >= 15
    assert other_clips(["a", "b"]) in (("a", "b"), ("b", "a"))


def test_the_expert_of_a_file_of_several_networks(tree: Path, expert: Path, tmp_path: Path) -> None:
    path = tmp_path / "both.pth"
    weights = torch.load(expert, weights_only=True)["state_dict"]
    torch.save({"generator": Generator().state_dict(), "syncnet": weights}, path)
    device = Device.open("cpu", "fp32")
    alone, among = (open_embedder(one, device).embed_faces(tree / "a") for one in (expert, path))
    torch.testing.assert_close(among, alone)


def test_syncnet_v2_judges_too(tree: Path, tmp_path: Path) -> None:
    """A crop is shown in a frame 1.4 times as wide; windows with a missing frame are left out."""
    path = tmp_path / "syncnet_v2.model"
    torch.save(fill(SyncNetV2()).state_dict(), path)
    device = Device.open("cpu", "fp32")
    (tree / "a" / "9.jpg").unlink()
    (tree / "a" / "20.jpg").write_bytes(b"no picture")
    embedder = open_embedder(path, device)
    seen, heard = embedder.embed_faces(tree / "a"), embedder.embed_sound(tree / "a")
    network = open_syncnet_v2(path, device.torch_device)
    crop = cv2.imread(str(tree / "a" / "10.jpg"))
    frames = []
    for number in range(10, 15):
        crop = cv2.imread(str(tree / "a" / f"{number}.jpg"))  # 90 rows
        width = crop.shape[1]
        frame = np.full((126, 126, 3), 110, np.uint8)
        frame[:90, (126 - width) // 2 :][:, :width] = crop
        frames.append(cv2.resize(frame, (224, 224)))
    window = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2).float()
    assert (seen.shape, heard.shape) == ((26, 1024), (25, 1024))
    torch.testing.assert_close(seen[10], network.embed_faces(window)[0], rtol=1e-3, atol=1e-3)
    unknown = seen.isnan().any(dim=1)
    assert unknown.nonzero().ravel().tolist() == [*range(5, 10), *range(16, 21)]
    sound = torch.from_numpy(mfcc(load_audio(tree / "a" / AUDIO))).float()
    alone = network.embed_audio(sound[None, None, :, 40:60])
    torch.testing.assert_close(heard[10], alone[0], rtol=1e-4, atol=1e-4)


def test_what_cannot_be_asked_for(
    tree: Path, expert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, told in (
        (("--by", "expert"), "--by expert: needs --syncnet_checkpoint_path"),
        (("--by", "both"), "--by both: needs --syncnet_checkpoint_path"),
        (("--devices", "0,1"), "--devices: has no effect without an expert"),
        (("--fractional",), "--fractional: has no effect without --fix"),
        (("--syncnet_checkpoint_path", tree / "no.pth"), "no.pth"),
    ):
        assert cli.main([*map(str, ("sync", "--data_root", tree, *words))]) == 2
        assert told in capsys.readouterr().err
