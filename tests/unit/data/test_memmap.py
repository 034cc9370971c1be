"""The memmap cache: the same windows as from the files, built once, and checked."""

import dataclasses
import json
import logging
import os
import pickle
import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import generator_config, make_clip, syncnet_config, trainer

from wav2lip_npu.data import memmap
from wav2lip_npu.data.batches import (
    BatchMaker,
    GeneratorBatches,
    GroupedSyncNetBatches,
    SyncNetBatches,
)
from wav2lip_npu.data.clips import Clip, ClipFiles, load_crop, read_clips
from wav2lip_npu.data.dataset import WindowDataset
from wav2lip_npu.data.memmap import MemmapClips, open_memmap
from wav2lip_npu.data.sampler import GroupSampler, WindowSampler
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import device
from wav2lip_npu.training.metrics import RESOURCE_METRICS, MetricsFile


@pytest.fixture
def found(clips: Path, tmp_path: Path) -> list[Clip]:
    make_clip(clips / "holes", frames=40, missing=(0, 1, 20), seed=5)
    (tmp_path / "lists" / "train.txt").write_text("a\nholes\nb\n")
    return read_clips(clips, tmp_path / "lists" / "train.txt", per_frame_mels=True)


def open_cache(
    found: list[Clip], tmp_path: Path, limit_gb: float | None = None
) -> MemmapClips | None:
    return open_memmap(found, tmp_path / "caches", "train", limit_gb=limit_gb)


@pytest.mark.parametrize("batches", [SyncNetBatches(), GeneratorBatches()])
@pytest.mark.parametrize("place", ["disk", "device", "worker"])
def test_the_same_batches_as_from_the_files(
    found: list[Clip], tmp_path: Path, batches: BatchMaker, place: str
) -> None:
    store = open_cache(found, tmp_path)
    if place == "device":
        store.move(device.Device.open("cpu"))
        for path in (tmp_path / "caches").iterdir():
            path.write_bytes(b"")  # nothing is read from there any more
    elif place == "worker":
        store = pickle.loads(pickle.dumps(store))
    windows = WindowSampler(found, seed=1).sample(range(200))
    expected = batches.training_batch(ClipFiles(found), windows)
    for name, part in batches.training_batch(store, windows).items():
        assert part.is_contiguous()
        assert torch.equal(part, expected[name]), name


def test_a_cache_is_built_once(
    found: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_cache(found, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "caches").iterdir()}
    frames = sum(len(clip.crops) for clip in found)
    sizes = {path.suffix: path.stat().st_size for path in (tmp_path / "caches").iterdir()}
    assert sizes[".crops"] == frames * 96 * 96 * 3
    assert sizes[".mels"] == sum(clip.mel_rows for clip in found) * 80 * 4
    monkeypatch.setattr(memmap, "load_crop", lambda *_: pytest.fail("decoded again"))
    assert open_cache(found, tmp_path) is not None
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "caches").iterdir()}
    assert after == before


@pytest.mark.parametrize("change", ["crop", "new crop", "audio", "clip"])
def test_a_changed_tree_gets_a_new_cache(
    clips: Path, found: list[Clip], tmp_path: Path, change: str
) -> None:
    open_cache(found, tmp_path)
    if change == "crop":  # in place, of the same size
        path = clips / "a" / "3.jpg"
        path.write_bytes(path.read_bytes()[:-2] + b"\xff\xd9")
        os.utime(path, ns=(1, 1))
    elif change == "new crop":
        shutil.copy(clips / "a" / "3.jpg", clips / "a" / "25.jpg")
    elif change == "audio":
        shutil.copy(clips / "b" / "audio.wav", clips / "a" / "audio.wav")
    else:
        shutil.copytree(clips / "c", clips / "d")
        (tmp_path / "lists" / "train.txt").write_text("a\nholes\nb\nd\n")
    now = read_clips(clips, tmp_path / "lists" / "train.txt", per_frame_mels=True)
    former = sorted((tmp_path / "caches").iterdir())
    store = open_cache(now, tmp_path)
    renewed = sorted((tmp_path / "caches").iterdir())
    assert len(renewed) == 3
    assert not set(former) & set(renewed)
    windows = WindowSampler(now, seed=2).sample(range(50))
    expected = GeneratorBatches().training_batch(ClipFiles(now), windows)
    for name, part in GeneratorBatches().training_batch(store, windows).items():
        assert torch.equal(part, expected[name])


@pytest.mark.parametrize("damage", ["bytes", "cut", "half"])
def test_a_damaged_cache_is_built_again(
    found: list[Clip], tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    open_cache(found, tmp_path)
    (crops,) = (tmp_path / "caches").glob("*.crops")
    sound = crops.read_bytes()
    if damage == "bytes":
        crops.write_bytes(sound[:500] + bytes(100) + sound[600:])
    elif damage == "cut":
        crops.write_bytes(sound[:-27648])
    else:  # killed before the end
        (tmp_path / "caches" / crops.with_suffix(".json").name).unlink()
    with caplog.at_level(logging.WARNING):
        open_cache(found, tmp_path)
    assert ("building it again" in caplog.text) == (damage != "half")
    assert crops.read_bytes() == sound


def test_the_size_is_logged_and_kept_within_bounds(
    found: list[Clip], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = sum(len(clip.crops) for clip in found) * 27648 + sum(c.mel_rows for c in found) * 320
    with caplog.at_level(logging.INFO):
        assert open_cache(found, tmp_path, limit_gb=(size - 1) / 2**30) is None
    assert "JPEG files are read instead" in caplog.text
    assert not list((tmp_path / "caches").iterdir())
    assert open_cache(found, tmp_path, limit_gb=0) is None
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert open_cache(found, tmp_path, limit_gb=(size + 1) / 2**30) is not None
    assert "building the memmap cache of 3 clips, 0.00 GiB" in caplog.text


def test_half_of_what_is_free_is_the_default(
    found: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(len(clip.crops) for clip in found) * 27648 + sum(c.mel_rows for c in found) * 320
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * size - 2))
    assert open_cache(found, tmp_path) is None
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * size))
    assert open_cache(found, tmp_path) is not None


def test_where_nothing_can_be_written_files_are_read(
    found: list[Clip], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "caches").write_text("a file where the folder should be")
    assert open_cache(found, tmp_path) is None
    assert "JPEG files are read instead" in caplog.text


def test_a_crop_that_cannot_be_read_costs_its_windows_alone(
    clips: Path, found: list[Clip], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From the cache and from files alike; other windows are sampled in place of its own."""
    jpeg = (clips / "a" / "9.jpg").read_bytes()
    (clips / "a" / "4.jpg").write_text("no image")
    (clips / "a" / "9.jpg").write_bytes(jpeg[: len(jpeg) // 2])  # OpenCV would fill it up with grey
    sampler = WindowSampler(found, seed=1)
    windows = sampler.sample(range(200))
    spoilt = {
        place
        for place in range(200)
        for starts in (windows.target_starts, windows.reference_starts)
        if found[windows.clips[place]].folder.name == "a"
        and any(frame in (4, 9) for frame in range(starts[place], starts[place] + 5))
    }
    assert 5 < len(spoilt) < 150
    stores = {"files": ClipFiles(found), "cache": open_cache(found, tmp_path)}
    assert isinstance(stores["cache"], MemmapClips)
    with pytest.raises(UserError, match=r"a/9\.jpg: broken off"):
        load_crop(clips / "a" / "9.jpg")
    caplog.clear()
    batches = {}
    for name, store in stores.items():
        with caplog.at_level(logging.WARNING):
            batches[name] = WindowDataset(store, GeneratorBatches(), sampler).__getitems__(
                range(200)
            )
        assert caplog.text.count("a/4.jpg: cannot be read as an image") == 1
        assert caplog.text.count("a/9.jpg: broken off") == 1
        caplog.clear()
    sound = [place for place in range(200) if place not in spoilt]
    (clips / "a" / "4.jpg").write_bytes((clips / "a" / "3.jpg").read_bytes())
    (clips / "a" / "9.jpg").write_bytes(jpeg)
    whole = GeneratorBatches().training_batch(ClipFiles(found), windows)
    for name, part in batches["files"].items():
        assert torch.equal(part, batches["cache"][name]), name
        assert torch.equal(part[sound], whole[name][sound]), name


def test_a_group_is_sampled_anew_as_a_whole(clips: Path, found: list[Clip]) -> None:
    (clips / "a" / "4.jpg").write_text("no image")
    dataset = WindowDataset(ClipFiles(found), GroupedSyncNetBatches(), GroupSampler(found, seed=1))
    asked = []
    sample = dataset.sampler.sample
    dataset.sampler.sample = lambda indices: asked.append([*indices]) or sample(indices)
    assert len(dataset.__getitems__(range(40))["mel"]) == 40
    assert len(asked) > 1
    for indices in asked:
        offsets = np.array(indices) - np.arange(40)
        assert (offsets.reshape(-1, 4) == offsets.reshape(-1, 4)[:, :1]).all()


def test_old_caches_are_removed_for_a_new_one_only(
    clips: Path, found: list[Clip], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def bases() -> set[str]:
        return {path.stem for path in (tmp_path / "caches").glob("*.crops")}

    used = open_cache(found, tmp_path)  # by a run that goes on
    first = bases()
    crop = clips / "a" / "0.jpg"
    crop.write_bytes(crop.read_bytes() + b"\0")
    changed = read_clips(clips, tmp_path / "lists" / "train.txt", per_frame_mels=True)
    assert open_cache(changed, tmp_path, limit_gb=1e-6) is None  # too large: nothing is built
    assert bases() == first
    assert open_cache(changed, tmp_path) is not None
    assert len(bases()) == 2
    windows = WindowSampler(found, seed=1).sample(range(9))
    GeneratorBatches().training_batch(pickle.loads(pickle.dumps(used)), windows)  # still there
    del used
    crop.write_bytes(crop.read_bytes() + b"\0")
    newest = read_clips(clips, tmp_path / "lists" / "train.txt", per_frame_mels=True)
    assert open_cache(newest, tmp_path) is not None
    assert len(bases()) == 1


@pytest.mark.parametrize(
    "record",
    [
        "[]", "null", "{", "[" * 100_000, '{"checksums": 5}', '{"checksums": [1, 2, 3]}',
        '{"checksums": [], "faults": {}}', '{"checksums": null, "faults": {"x": 1}}',
    ],
)  # fmt: skip
def test_a_record_of_a_cache_that_is_none(found: list[Clip], tmp_path: Path, record: str) -> None:
    open_cache(found, tmp_path)
    (path,) = (tmp_path / "caches").glob("*.json")
    sound = path.read_text()
    path.write_text(record)
    assert open_cache(found, tmp_path) is not None
    assert path.read_text() == sound


def test_a_set_larger_than_the_device_is_an_error(
    found: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device.Device, "free_memory", lambda _: 1000)
    with pytest.raises(UserError, match=r"take 0\.0 GiB and cpu has 0\.0 GiB free"):
        open_cache(found, tmp_path).move(device.Device.open("cpu"))


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("kind", [pytest.param("expert", marks=pytest.mark.slow), "generator"])
def test_training_is_the_same_from_anywhere(
    clips: Path, expert_file: Path, tmp_path: Path, kind: str
) -> None:
    losses = {}
    for name, changes in {
        "files": {"cache_gb": 0},
        "workers": {"cache_gb": 0, "num_workers": 2},
        "memmap": {"num_workers": 1},
        "device": {"data_on_device": True, "num_workers": 2},
    }.items():
        out = tmp_path / name
        if kind == "expert":
            config = syncnet_config(clips, out)
        else:
            config = generator_config(clips, out, expert_file)
        changes |= {"max_steps": 3, "log_interval": 1, "eval_interval": 3}
        run = trainer(dataclasses.replace(config, **changes))
        run.run()
        losses[name] = {
            key: values
            for key, values in MetricsFile(out).read().items()
            if key[0] not in RESOURCE_METRICS
        }
        assert run.train_data.on_device == (name == "device")
        assert isinstance(run.train_data.store, ClipFiles) == (name in ("files", "workers"))
    assert len(losses["files"]) >= 3
    assert losses["memmap"] == losses["device"] == losses["workers"] == losses["files"]
    assert (clips / ".packed").is_dir()


def test_on_the_device_without_a_cache_is_an_error(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data_on_device: needs the memmap cache"):
        trainer(syncnet_config(clips, tmp_path / "out", cache_gb=0, data_on_device=True))


def test_crops_of_a_cache_are_those_that_the_original_reads(
    clips: Path, found: list[Clip], tmp_path: Path
) -> None:
    open_cache(found, tmp_path)
    (path,) = (tmp_path / "caches").glob("*.crops")
    crops = np.fromfile(path, np.uint8).reshape(-1, 96, 96, 3)
    image = cv2.resize(cv2.imread(str(clips / "holes" / "21.jpg")), (96, 96))
    np.testing.assert_array_equal(crops[25 + 18], image)  # frames 2 to 19 come before it


def test_files_of_the_users_are_left_alone(found: list[Clip], tmp_path: Path) -> None:
    folder = tmp_path / "caches"
    folder.mkdir()
    for name in ("train-00000-of-00010.parquet", "train-1f2e3d4c.txt", "train-mine.crops"):
        (folder / name).write_text("the user's")
    (folder / "train-1f2e3d4c.crops").write_text("of an earlier cache")
    assert open_cache(found, tmp_path) is not None
    names = {path.name for path in folder.iterdir()}
    assert {"train-00000-of-00010.parquet", "train-1f2e3d4c.txt", "train-mine.crops"} < names
    assert "train-1f2e3d4c.crops" not in names


def test_what_a_killed_run_left_is_removed(found: list[Clip], tmp_path: Path) -> None:
    folder = tmp_path / "caches"
    folder.mkdir()
    left = folder / ".train-1f2e3d4c.12-345.partial.crops"
    mine = folder / ".train-mine.12-345.partial.crops"
    for path in (left, mine):
        path.write_text("half")
    assert open_cache(found, tmp_path) is not None
    assert mine.exists()
    assert not left.exists()


def test_a_cache_of_an_earlier_version_is_taken_up(tmp_path: Path) -> None:
    """Its name is a digest of the clips' folders and fingerprints, and its layout is documented."""
    numbers = np.arange(16)
    clips = [
        Clip(
            folder=Path("main") / name, crops=numbers, targets=numbers[:9], windows=numbers[:12],
            mel_rows=rows, fingerprint=2 * fingerprint,
        )
        for name, rows, fingerprint in (("a", 52, "01234567"), ("b", 60, "89abcdef"))
    ]  # fmt: skip
    random = np.random.default_rng(0)
    crops = [random.integers(0, 256, (16, 96, 96, 3), np.uint8) for _ in clips]
    mels = [random.random((clip.mel_rows, 80), np.float32) for clip in clips]
    base = tmp_path / "caches" / "train-52a59869"
    base.parent.mkdir()
    np.concatenate(crops).tofile(base.with_suffix(".crops"))
    np.concatenate(mels).tofile(base.with_suffix(".mels"))
    sums = [[zlib.crc32(c.data), zlib.crc32(m.data)] for c, m in zip(crops, mels, strict=True)]
    base.with_suffix(".json").write_text(json.dumps({"format": 1, "checksums": sums}))
    store = open_memmap(clips, base.parent, "train", limit_gb=None, build=False)
    assert store is not None
    assert torch.equal(store.faces(np.array([1]), np.array([3]))[0], torch.tensor(crops[1][3:8]))
    mel = store.mels(np.array([1]), np.array([[7]]))
    assert torch.equal(mel[0, 0], torch.tensor(mels[1][7:23].T))
