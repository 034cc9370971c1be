"""Folders of videos: what is found, where a run goes on, what is noticed, and the report."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import make_clip, tone, write_video

import face_detection
from wav2lip_npu.config import PreprocessConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import write_wav
from wav2lip_npu.preprocessing import command as module
from wav2lip_npu.preprocessing.command import preprocess
from wav2lip_npu.preprocessing.report import (
    REPORT,
    SHEET,
    ClipReport,
    merge_reports,
    read_reports,
    report_path,
)
from wav2lip_npu.preprocessing.videos import find_videos
from wav2lip_npu.runtime import device, threads
from wav2lip_npu.runtime.locks import LOCK, folder_lock


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    write_wav(tmp_path / "sound.wav", tone(1.2))
    return tmp_path / "sound.wav"


@pytest.fixture
def config(tmp_path: Path, sound: Path, face: np.ndarray) -> PreprocessConfig:
    """Two videos that can be used, and one that cannot."""
    root = tmp_path / "raw"
    write_video(root / "main" / "00001.mp4", [face] * 6, audio=sound)
    write_video(root / "main" / "00003.mp4", [face] * 3, audio=sound)
    (root / "main" / "bad.mp4").write_text("no video")
    return PreprocessConfig(
        data_root=root, preprocessed_root=tmp_path / "cut", detector="centerface", device="cpu",
        num_workers=1,
    )  # fmt: skip


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != "options_preprocess.yaml"  # which has a date
    }


def by_clip(reports: list[ClipReport]) -> dict[str, ClipReport]:
    return {report.clip: report for report in reports}


def test_layouts(tmp_path: Path) -> None:
    for name in ("main/1.mp4", "main/s2/2.MPG", "3.mkv", "main/notes.txt", "main/.s/4.avi"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert set(find_videos(tmp_path)) == {"3.mkv", "main/.s/4.avi", "main/1.mp4", "main/s2/2.MPG"}
    (tmp_path / "3.mp4").touch()
    with pytest.raises(UserError, match="would both become 3"):
        find_videos(tmp_path)


def test_a_suffix_that_tells_nothing_is_looked_into(
    tmp_path: Path, sound: Path, face: np.ndarray
) -> None:
    whole = write_video(tmp_path / "a.mp4", [face] * 2, audio=sound)
    shutil.copy(whole, tmp_path / "b.dat")
    shutil.copy(whole, tmp_path / "c.json")  # no video by its suffix
    cv2.imwrite(str(tmp_path / "picture.png"), face)
    (tmp_path / "picture.png").rename(tmp_path / "picture.unknown")
    (tmp_path / "d.align").write_text("0 1 sil")
    assert set(find_videos(tmp_path)) == {"a.mp4", "b.dat"}


def test_two_runs_with_the_real_detector(
    config: PreprocessConfig, sound: Path, face: np.ndarray
) -> None:
    root, out = config.data_root, config.preprocessed_root
    (root / "main" / "00003.mp4").unlink()
    reports = by_clip(preprocess(config))
    assert (reports["main/00001"].frames, reports["main/00001"].faces) == (6, 6)
    assert reports["main/bad"].rejected is not None
    (found,) = face_detection.open_detector("centerface").detect([face])
    x1, y1, x2, y2 = found[0, :4].astype(int)
    crop = cv2.imread(str(out / "main" / "00001" / "0.jpg"))
    assert np.abs(np.array(crop.shape[:2]) - (y2 - y1, x2 - x1)).max() <= 3
    lines = (out / REPORT).read_text().splitlines()
    assert {json.loads(line)["clip"] for line in lines} == set(reports)

    write_video(root / "main" / "00002.mp4", [face] * 4, audio=sound)
    (out / REPORT).write_text("")  # as an interrupted run may leave it
    before = (out / "main" / "00001" / "0.jpg").stat().st_mtime_ns
    again = by_clip(preprocess(config))
    assert again["main/00001"].faces == reports["main/00001"].faces
    assert again["main/00002"].faces == 4
    assert (out / "main" / "00001" / "0.jpg").stat().st_mtime_ns == before


def test_an_interrupted_run_is_continued_to_the_same_tree(
    config: PreprocessConfig,
) -> None:
    out = config.preprocessed_root
    preprocess(config)
    whole = tree(out)
    assert {"main/00001/0.jpg", "main/00003/audio.wav", REPORT, SHEET, module.OPTIONS} <= set(whole)
    times = {path: path.stat().st_mtime_ns for path in (out / "main").rglob("*.jpg")}
    preprocess(config)
    assert tree(out) == whole
    assert {path: path.stat().st_mtime_ns for path in times} == times  # nothing was cut again

    # Killed with the report written and the clip not yet in its place; with a line half written;
    # with work left over by it; and by the second of two processes.
    lines = (out / REPORT).read_text().splitlines(keepends=True)
    shutil.rmtree(out / "main" / "00001")
    preprocess(config)
    assert tree(out) == whole
    (out / REPORT).write_text("".join(lines[:1]) + lines[1][:50])
    shutil.rmtree(out / "main" / "00003")
    (out / SHEET).unlink()
    (out / module.PARTIAL / "123" / "main" / "00003.mp4").mkdir(parents=True)
    preprocess(config)
    assert tree(out) == whole
    (out / REPORT).unlink()
    report_path(out, 1).write_text("".join(reversed(lines)))
    times = {path: path.stat().st_mtime_ns for path in (out / "main").rglob("*.jpg")}
    preprocess(config)
    assert tree(out) == whole
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_what_has_changed_is_cut_again(
    config: PreprocessConfig, sound: Path, face: np.ndarray
) -> None:
    preprocess(config)
    root, out = config.data_root, config.preprocessed_root
    untouched = (out / "main" / "00001" / "0.jpg").stat().st_mtime_ns
    write_video(root / "main" / "bad.mp4", [face] * 4, audio=sound)  # mended
    write_video(root / "main" / "00003.mp4", [face] * 5, audio=sound)
    reports = by_clip(preprocess(config))
    assert reports["main/bad"].faces == 4
    assert reports["main/00003"].faces == 5
    assert (out / "main" / "00003" / "4.jpg").is_file()
    assert (out / "main" / "00001" / "0.jpg").stat().st_mtime_ns == untouched
    write_video(root / "main" / "00003.mp4", [face] * 2, audio=sound)
    preprocess(config)
    assert not (out / "main" / "00003" / "4.jpg").exists()
    assert len((out / REPORT).read_text().splitlines()) == 3


def test_changed_options_are_noticed(config: PreprocessConfig) -> None:
    preprocess(config)
    before = tree(config.preprocessed_root)
    values = {"detect_every": 3, "smooth_boxes": True, "scene_cuts": "split", "align": "tilt"}
    for name, value in values.items():
        changed = replace(config, **{name: value})
        with pytest.raises(UserError, match=f"its clips were cut with --{name} .*, not {value}"):
            preprocess(changed)
        assert tree(config.preprocessed_root) == before


def test_folders_of_an_earlier_version_are_continued(config: PreprocessConfig) -> None:
    """Its options file is taken up, unless boxes were smoothed in another way then."""
    preprocess(config)
    path = config.preprocessed_root / module.OPTIONS
    earlier = {
        "detector": "centerface", "detect_every": 1, "smooth_boxes": False, "scene_cuts": "keep",
    }  # fmt: skip
    path.write_text(json.dumps(earlier))
    preprocess(config)
    path.write_text(json.dumps(earlier | {"smooth_boxes": True}))
    with pytest.raises(UserError, match=r"--smooth_boxes True of an earlier version.*, not True"):
        preprocess(replace(config, smooth_boxes=True))


def test_shots_that_are_gone_leave_nothing(tmp_path: Path) -> None:
    def line(clip: str, size: int) -> str:
        known = {"clip": clip, "source": "a.mp4", "source_bytes": size, "source_time": 1}
        return json.dumps(known) + "\n"

    (tmp_path / REPORT).write_text(
        line("a-shot1", 5) + line("a-shot2", 5) + line("a-shot1", 6) + '{"clip": "a-sh'
    )
    merged = merge_reports(tmp_path)
    assert [(entry.clip, entry.source_bytes) for entry in merged["a.mp4"]] == [("a-shot1", 6)]
    assert read_reports(tmp_path / REPORT) == merged


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    config = PreprocessConfig(
        data_root=tmp_path, preprocessed_root=tmp_path / "out", detector="centerface", device="cpu",
        num_workers=1,
    )  # fmt: skip
    with pytest.raises(UserError, match="not one of 1 videos is usable"):
        preprocess(config)
    assert tree(tmp_path / "out").keys() == {REPORT, module.OPTIONS, LOCK}


def test_names_that_nest_do_not_cost_each_other(
    config: PreprocessConfig, sound: Path, face: np.ndarray
) -> None:
    """main.mp4 beside main/: its clip goes into the folder that holds the clips of the others."""
    root, out = config.data_root, config.preprocessed_root
    preprocess(config)
    before = tree(out / "main")
    (out / "main" / "notes.txt").write_text("mine")
    (out / "main" / "00001" / "landmarks.npy").write_text("mine too")
    write_video(root / "main.mp4", [face] * 4, audio=sound)
    preprocess(config)
    after = tree(out / "main")
    assert {name: after[name] for name in before} == before
    assert {"0.jpg", "3.jpg", "audio.wav", "notes.txt"} <= set(after)
    write_video(root / "main.mp4", [face] * 2, audio=sound)
    write_video(root / "main" / "00001.mp4", [face] * 3, audio=sound)
    preprocess(config)
    assert not (out / "main" / "3.jpg").exists()
    assert not (out / "main" / "00001" / "5.jpg").exists()
    assert (out / "main" / "notes.txt").read_text() == "mine"
    assert (out / "main" / "00001" / "landmarks.npy").read_text() == "mine too"
    assert (out / "main" / "00003" / "2.jpg").is_file()


def test_a_report_cannot_lead_out_of_the_folder(config: PreprocessConfig, tmp_path: Path) -> None:
    """Former clips of a changed video are removed: by its own name, not by what a line says."""
    mine = make_clip(tmp_path / "mine")
    before = tree(mine)
    config.preprocessed_root.mkdir()
    lines = []
    for clip in (str(mine), "../mine", "main/../../mine"):
        lines.append({"clip": clip, "source": "main/00001.mp4", "source_bytes": 1})
        lines.append({"clip": clip, "source": f"{clip}.mp4", "source_bytes": 1})
    (config.preprocessed_root / REPORT).write_text("\n".join(map(json.dumps, lines)))
    assert read_reports(config.preprocessed_root / REPORT) == {}
    preprocess(config)
    assert tree(mine) == before


def test_lines_of_a_report_that_are_none(tmp_path: Path) -> None:
    good = {"clip": "a", "source": "a.mp4", "frames": 3, "of_a_later_version": 1}
    bad = [
        {"clip": "a", "source": "b.mp4"}, {"clip": 5, "source": "a.mp4"}, {"clip": "a"}, [], None,
        {**good, "frames": "many"}, {**good, "warnings": "one"}, {**good, "warnings": [1]},
        {**good, "frames": 10**400}, {**good, "box_width": float("nan")}, {**good, "rejected": 0},
        {**good, "retry": "no"},
    ]  # fmt: skip
    texts = [json.dumps(good), *map(json.dumps, bad), "[" * 100_000, '{"clip": "a-sh', ""]
    (tmp_path / REPORT).write_bytes("\n".join(texts).encode() + b"\n\xff\xfe\x00")
    assert read_reports(tmp_path / REPORT) == {
        "a.mp4": [ClipReport(clip="a", source="a.mp4", frames=3)]
    }


def test_an_options_file_that_is_damaged(config: PreprocessConfig) -> None:
    config.preprocessed_root.mkdir()
    for content in (b"", b"{", b"[]", b"\xff\xfe"):
        (config.preprocessed_root / module.OPTIONS).write_bytes(content)
        with pytest.raises(UserError, match=r"options.json: cannot be read .* delete it"):
            preprocess(config)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    for name in ("raw/a", "elsewhere/b", "elsewhere/deep/c"):
        path = tmp_path / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "raw" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "raw" / "loop").symlink_to(tmp_path / "raw")
    (tmp_path / "elsewhere" / "deep" / "up").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "raw" / "self.mp4").symlink_to("self.mp4")
    (tmp_path / "raw" / "broken.mp4").symlink_to("nowhere.mp4")
    assert set(find_videos(tmp_path / "raw")) == {"a.mp4", "linked/b.mp4", "linked/deep/c.mp4"}


def test_a_worker_that_is_killed_costs_its_clip_alone(
    config: PreprocessConfig, sound: Path, face: np.ndarray
) -> None:
    """It is tried twice, reported, and tried again by the next run."""
    root, out = config.data_root, config.preprocessed_root
    long = write_video(root / "main" / "00000.mp4", [face] * 400, audio=sound)
    work = out / ".partial" / "0" / "0"

    def kill_twice() -> None:
        for _ in range(2):
            since = time.time()
            while not work.exists() or work.stat().st_ctime < since:  # until it is at this clip
                time.sleep(0.02)
            for task in Path("/proc/self/task").iterdir():
                for child in (task / "children").read_text().split():
                    if "spawn_main" in Path("/proc", child, "cmdline").read_text():
                        os.kill(int(child), signal.SIGKILL)

    killer = threading.Thread(target=kill_twice)
    killer.start()
    reports = by_clip(preprocess(config))
    killer.join()
    failed = reports["main/00000"]
    assert failed.retry
    assert failed.rejected == (
        f"{long}: the process that did it was ended by signal SIGKILL, possibly out of memory"
    )
    assert reports["main/00001"].faces == 6
    assert not (out / ".partial").exists()
    again = by_clip(preprocess(config))
    assert again["main/00000"].faces == 400
    assert again["main/00000"].rejected is None


@pytest.mark.parametrize("whole_group", [pytest.param(False, marks=pytest.mark.slow), True])
def test_sigterm_keeps_the_clips_that_are_done(
    config: PreprocessConfig, sound: Path, face: np.ndarray, whole_group: bool
) -> None:
    out = config.preprocessed_root
    shutil.copy(config.data_root / "main" / "00003.mp4", config.data_root / "main" / "00002.mp4")
    long = write_video(config.data_root / "main" / "long.mp4", [face] * 1500, audio=sound)
    run = subprocess.Popen(
        [
            *(sys.executable, "-m", "wav2lip_npu", "preprocess", "--num_workers", "2"),
            *("--data_root", config.data_root, "--preprocessed_root", out),
            *("--detector", "centerface", "--device", "cpu"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not all((out / "main" / clip / "0.jpg").exists() for clip in ("00001", "00003")):
        assert run.poll() is None
        time.sleep(0.05)
    started = time.monotonic()
    if whole_group:
        os.killpg(run.pid, signal.SIGTERM)
    else:
        run.terminate()
    _, log = run.communicate(timeout=60)
    assert time.monotonic() - started < 15  # a second alone, more beside other tests
    assert run.returncode == 130, log
    assert "stopped; the clips that are done are kept" in log
    assert not (out / "main" / "long").exists()
    assert not (out / ".partial").exists()
    done = {clip: (out / "main" / clip / "0.jpg").stat().st_mtime_ns for clip in ("00001", "00003")}
    long.unlink()
    assert set(by_clip(preprocess(config))) == {
        "main/00001",
        "main/00002",
        "main/00003",
        "main/bad",
    }
    for clip, written in done.items():
        assert (out / "main" / clip / "0.jpg").stat().st_mtime_ns == written


def test_two_runs_on_one_folder(config: PreprocessConfig) -> None:
    refused = pytest.raises(UserError, match="another run works there")
    with folder_lock(config.preprocessed_root, "preprocess"), refused:
        preprocess(config)


def test_devices_are_numbers_of_cards(tmp_path: Path) -> None:
    roots = {"data_root": tmp_path, "preprocessed_root": tmp_path / "out"}
    assert PreprocessConfig(**roots, devices="0,3").cards == [0, 3]
    assert PreprocessConfig(**roots, ngpu=2).cards == [0, 1]
    with pytest.raises(UserError, match="--devices a: must be indices of cards"):
        PreprocessConfig(**roots, devices="a")


def test_clips_are_spread_over_the_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def workers(name: str, detector: str = "s3fd", **options: object) -> list[int]:
        roots = {"data_root": tmp_path, "preprocessed_root": tmp_path / "out"}
        place = device.Device(torch_device=torch.device(name), dtype=None, reason="a test")
        return module._choose_workers(PreprocessConfig(**roots, **options), place, detector)

    monkeypatch.setattr(device.Device, "card_count", lambda self: 4)
    monkeypatch.setattr(threads, "share_of_cores", lambda: 16)
    assert workers("cuda:0", devices="0,3") == [0, 3] * 4
    assert workers("cuda:0", ngpu=3, num_workers=3) == [0, 1, 2]
    assert workers("cuda:0", ngpu=2, num_workers=1) == [0, 1]  # no card is idle
    assert workers("cpu") == workers("cuda:0", detector="centerface") == [0] * 16
    with pytest.raises(UserError, match="--devices 0,4: 4 cards are here, cuda:0 is the first"):
        workers("cuda:0", devices="0,4")
    with pytest.raises(UserError, match="--ngpu 5: 4 cards are here"):
        workers("cuda:0", ngpu=5)
    with pytest.raises(UserError, match="has no effect with --device cuda:1"):
        workers("cuda:1", device="cuda:1", devices="0")
