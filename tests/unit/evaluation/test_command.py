"""The command ``evaluate`` with networks that are played; all else is real: files, order, resume.

A frame's brightness tells how far its mouth is open.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_video

from face_detection.landmarks import EYE_CORNERS, LOWER_LIP_INNER, POINTS
from wav2lip_npu import cli
from wav2lip_npu.alignment.lse import LipSyncError
from wav2lip_npu.config import InferConfig
from wav2lip_npu.evaluation import command, generated, measure
from wav2lip_npu.inference.jobs import Job
from wav2lip_npu.media.audio import write_wav
from wav2lip_npu.runtime.workers import Outcome, _outcome
from wav2lip_npu.tracking.detection import BatchedDetector

FRAMES = 60
SWING = 50  # of the brightness; more from frame to frame would be a shot cut


class PlayedPool:
    """Does the jobs in this process, the last first."""

    def __init__(self, worker: type, arguments: Sequence[tuple]) -> None:
        self._make, self._jobs = (worker, arguments[0]), []

    def submit(self, job: object) -> None:
        self._jobs.append(job)

    def outcomes(self, stop: object = None) -> Iterator[Outcome]:
        worker = self._make[0](*self._make[1]) if self._jobs else None
        while self._jobs:
            yield _outcome(worker, self._jobs.pop())

    def try_again(self, outcome: Outcome, job: object) -> bool:
        return False

    def close(self) -> None: ...


class PlayedDetector:
    """A face in every frame that is not black."""

    name = "played"

    def detect(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        box = np.array([[8, 6, 48, 46, 0.9]], np.float32)
        return [box if image.mean() > 2 else box[:0] for image in images]


class PlayedLandmarks:
    """A mouth that is open as far as a crop is bright."""

    def detect(self, image: np.ndarray) -> np.ndarray:
        points = np.zeros((POINTS, 3), np.float32)
        points[:, 0] = np.arange(POINTS)
        points[EYE_CORNERS[1], 1] = 40
        points[LOWER_LIP_INNER, 1] = image.mean()
        return points


def played_lse(network: object, faces: Iterator[np.ndarray], samples: np.ndarray, device: object):
    faces = list(faces)
    assert all(face.shape == (224, 224, 3) for face in faces)
    return LipSyncError(
        distance=len(faces), confidence=len(samples) / 640, late=-2, distances=np.zeros(31)
    )


@pytest.fixture(autouse=True)
def played(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace networks and processes; the videos that are measured are noted."""
    seen: list[Path] = []

    class Worker(measure.EvaluationWorker):
        def process(self, item):  # type: ignore[no-untyped-def]
            seen.append(item.video)
            return super().process(item)

    monkeypatch.setattr(command, "WorkerPool", PlayedPool)
    monkeypatch.setattr(command, "EvaluationWorker", Worker)
    monkeypatch.setattr(command, "choose_detector", lambda config: "played")
    monkeypatch.setattr(measure, "open_detector", lambda config, device: PlayedDetector())
    monkeypatch.setattr(measure, "FaceLandmarks", PlayedLandmarks)
    monkeypatch.setattr(measure.threads, "limit_threads", lambda workers: None)
    monkeypatch.setattr(measure, "open_syncnet_v2", lambda path, device: path)
    monkeypatch.setattr(measure, "lip_sync_error", played_lse)
    return seen


def opening(seed: int) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(size=FRAMES + 12)
    smooth = np.convolve(steps, np.hanning(7)[1:-1] / 3, "same")[6:-6]
    return np.asarray((smooth - smooth.min()) / np.ptp(smooth))


def make_video(path: Path, seed: int, *, mouth: np.ndarray | None = None) -> Path:
    """A face whose mouth is as open as its voice is loud, or as it is told."""
    path.parent.mkdir(parents=True, exist_ok=True)
    level = np.repeat(opening(seed), 640)
    noise = np.random.default_rng(seed).normal(size=len(level))
    write_wav(path.with_suffix(".wav"), (0.2 * level**2 * noise).astype(np.float32))
    texture = np.random.default_rng(0).integers(0, 30, (52, 64, 3))
    shown = opening(seed) if mouth is None else mouth
    images = [(texture + 30 + SWING * one).astype(np.uint8) for one in shown]
    write_video(path, images, audio=path.with_suffix(".wav"))
    path.with_suffix(".wav").unlink()
    return path


@pytest.fixture
def real(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a", "deep/b", "视频,|c")):
        make_video(tmp_path / "real" / f"{name}.mp4", seed)
    return tmp_path / "real"


def run(out: Path, *words: object, code: int = 0) -> dict:
    given = ("evaluate", "--outdir", out, "--device", "cpu", "--num_workers", 1, *words)
    assert cli.main([str(word) for word in given]) == code
    return json.loads((out / "evaluation.json").read_text(encoding="utf-8"))


def values(report: dict) -> dict[str, dict]:
    return {video["name"]: video["values"] for video in report["videos"]}


def test_videos_against_themselves(real: Path, tmp_path: Path) -> None:
    (tmp_path / "v2").write_bytes(b"weights")
    found = run(tmp_path / "out", "--videos", real, "--sources", real, "--syncnet_v2",
                tmp_path / "v2")  # fmt: skip
    assert [video["name"] for video in found["videos"]] == ["a.mp4", "deep/b.mp4", "视频,|c.mp4"]
    for video in found["videos"]:
        assert (video["frames"], video["faces"], video["tracks"]) == (FRAMES, FRAMES, 1)
        assert video["reconstruction"] is True
        numbers = video["values"]
        assert numbers["psnr"] == numbers["psnr_lower"] == 100
        assert numbers["ssim"] == numbers["ssim_lower"] == 1
        assert numbers["lmd"] == 0 and numbers["opening_corr_source"] == 1
        assert numbers["opening_corr_voice"] > 0.8
        assert numbers["lse_d"] == FRAMES
        assert numbers["lse_c"] == pytest.approx(FRAMES, abs=1)
        assert numbers["lse_offset"] == -2
        empty = {name for name, value in numbers.items() if value is None}
        assert empty == video["reasons"].keys() == {"sync_loss", "sync_offset", "sync_confidence"}
        assert set(video["reasons"].values()) == {"no --syncnet_checkpoint_path"}
    assert found["weights"] == {"syncnet_v2": sha256(b"weights").hexdigest()}
    assert found["options"]["protocol"] == "track" and "outdir" not in found["options"]
    assert found["failed"] == [] and found["fid"]["reason"] == "no --inception"


def test_the_whole_frame_and_the_track(tmp_path: Path) -> None:
    """Without a face in the first three frames the track begins later, and so does its sound."""
    images = [np.zeros((52, 64, 3), np.uint8)] * 3 + [np.full((52, 64, 3), 18, np.uint8)] * 57
    real = make_video(tmp_path / "real.mp4", 1)
    write_video(tmp_path / "late.mp4", images, audio=real)
    (tmp_path / "v2").touch()
    words = ("--videos", tmp_path / "late.mp4", "--syncnet_v2", tmp_path / "v2", "--protocol")
    whole = values(run(tmp_path / "frame", *words, "frame"))["late.mp4"]
    cut = values(run(tmp_path / "track", *words, "track"))["late.mp4"]
    assert (whole["lse_d"], cut["lse_d"]) == (60, 57)
    assert whole["lse_c"] >= 60 and cut["lse_c"] == 57  # the codec makes the sound a bit longer


def test_another_face_and_another_sound(real: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    less = 0.2 + 0.6 * opening(0)
    make_video(made / "a.mkv", 0, mouth=less)  # the sound of a
    make_video(made / "deep" / "b.mp4", 7)  # another sound than b's
    make_video(made / "new.mp4", 8)
    found = run(tmp_path / "out", "--videos", made, "--sources", real)
    by_name = {video["name"]: video for video in found["videos"]}
    numbers = by_name["a.mkv"]["values"]
    assert by_name["a.mkv"]["reconstruction"] is True
    assert 10 < numbers["psnr"] < 40
    assert numbers["opening_corr_source"] > 0.98
    opened = SWING * np.abs(less - opening(0)).mean()
    assert numbers["lmd"] == pytest.approx(opened * 2 * 39 / 40 / 40 / np.hypot(230, 40), rel=0.05)
    assert by_name["deep/b.mp4"]["reconstruction"] is False
    assert by_name["deep/b.mp4"]["reasons"]["lmd"] == "another sound than the source's"
    assert by_name["deep/b.mp4"]["values"]["opening_corr_voice"] > 0.8
    assert by_name["new.mp4"]["reasons"]["psnr"] == "no source of this name in --sources"
    assert found["metrics"]["psnr"]["n"] == 1 and found["metrics"]["psnr"]["low"] is None
    assert found["metrics"]["opening_corr_voice"]["n"] == 3

    told = run(tmp_path / "told", "--videos", made, "--sources", real, "--reconstruction")
    assert told["metrics"]["psnr"]["n"] == 2


def test_a_size_that_is_not_the_sources(real: Path, tmp_path: Path) -> None:
    images = [np.full((100, 128, 3), 90, np.uint8)] * FRAMES
    write_video(tmp_path / "a.mp4", images, audio=real / "a.mp4")
    words = ("--videos", tmp_path / "a.mp4", "--sources", real, "--reconstruction")
    (tmp_path / "v2").touch()
    found = run(tmp_path / "out", *words, "--syncnet_v2", tmp_path / "v2")
    assert found["videos"][0]["reasons"]["psnr"] == "128 × 100 pixels, the source has 64 × 52"


def test_what_fails_costs_itself(
    real: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (real / "broken.mp4").write_bytes(b"no video")
    mute = [np.full((52, 64, 3), 0, np.uint8)] * 5
    write_video(real / "dark.mp4", mute)
    found = run(tmp_path / "out", "--videos", real)
    assert len(found["videos"]) == 3
    failed = {one["name"]: one["reason"] for one in found["failed"]}
    assert "cannot be read as media" in failed["broken.mp4"]
    assert "no metric can be computed" in failed["dark.mp4"]
    assert "has no audio stream" in failed["dark.mp4"]
    assert "failed: broken.mp4: " in caplog.text
    text = (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    assert "3 videos measured, 2 failed" in text and "- broken.mp4: " in text


def test_if_all_fail_the_exit_code_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"no video")
    found = run(tmp_path / "out", "--videos", tmp_path / "videos", code=2)
    assert [one["name"] for one in found["failed"]] == ["a.mp4"]
    assert "not one of 1 videos could be measured; " in capsys.readouterr().err


def test_only_what_changed_is_measured_again(
    real: Path, tmp_path: Path, played: list[Path]
) -> None:
    out, words = tmp_path / "out", ("--videos", real, "--sources", real)
    first = run(out, *words)
    files = {path: path.read_bytes() for path in out.glob("evaluation.*")}
    assert sorted(path.name for path in files) == [
        "evaluation.csv", "evaluation.json", "evaluation.md",
    ]  # fmt: skip
    played.clear()
    with (out / "measured.jsonl").open("a") as file:
        file.write('{"name": "a.mp4", "sta')  # of a run that was killed
    run(out, *words)
    assert played == [] and files == {path: path.read_bytes() for path in files}

    make_video(real / "a.mp4", 9)
    again = run(out, *words)
    assert played == [real / "a.mp4"]
    assert values(again)["a.mp4"] != values(first)["a.mp4"]
    assert values(again)["deep/b.mp4"] == values(first)["deep/b.mp4"]
    played.clear()
    run(out, *words, "--smooth_boxes")
    assert len(played) == 3
    played.clear()
    (tmp_path / "v2").touch()
    run(out, *words, "--smooth_boxes", "--syncnet_v2", tmp_path / "v2")
    assert len(played) == 3


def test_two_runs_write_the_same_files(real: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        run(tmp_path / name, "--videos", real, "--sources", real)
    for suffix in ("json", "csv", "md"):
        one, other = (tmp_path / name / f"evaluation.{suffix}" for name in ("one", "other"))
        assert one.read_bytes() == other.read_bytes()


def test_the_table_opens_in_a_spreadsheet(real: Path, tmp_path: Path) -> None:
    (real / "broken.mp4").write_bytes(b"no video")
    found = run(tmp_path / "out", "--videos", real, "--sources", real)
    content = (tmp_path / "out" / "evaluation.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbfname,")
    rows = [*csv.DictReader(content.decode("utf-8-sig").splitlines())]
    assert [row["name"] for row in rows] == ["a.mp4", "deep/b.mp4", "视频,|c.mp4", "broken.mp4"]
    for row, video in zip(rows, found["videos"], strict=False):
        for name, value in video["values"].items():
            assert row[name] == ("" if value is None else str(value))
        assert row["reasons"].startswith("lse_d, lse_c, lse_offset: no --syncnet_v2; ")
    assert rows[3]["failed"] == found["failed"][0]["reason"]
    text = (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    assert "| 视频,\\|c.mp4 | 60 | 60 | 1 | – |" in text
    assert "- lse_d, lse_c, lse_offset: no --syncnet_v2 (3 videos)" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in tables}) == 2


def test_the_expert_sees_what_preprocess_cuts(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    def embed(expert, faces, known, mel, device):  # type: ignore[no-untyped-def]
        given.update(faces=faces, known=known, mel=mel)

    likely = np.full((FRAMES - 4, 31), 0.25)
    likely[:, 12] = 0.5
    monkeypatch.setattr(measure.lip_sync_expert, "open_expert", lambda path, device: path)
    monkeypatch.setattr(measure.lip_sync_expert, "embed", embed)
    monkeypatch.setattr(measure.lip_sync_expert, "probabilities", lambda embedded: likely)
    (real / "expert").touch()
    words = ("--videos", real / "a.mp4", "--syncnet_checkpoint_path", real / "expert")
    found = values(run(real / "out", *words))["a.mp4"]
    assert found["sync_loss"] == pytest.approx(-np.log(0.25), abs=1e-6)
    assert (found["sync_offset"], found["sync_confidence"]) == (-3, 0.25)
    assert given["faces"].shape == (FRAMES, 96, 96, 3) and given["known"].all()
    assert given["mel"].shape[0] == 80


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A generator that copies the face's video; what it makes is noted."""
    made: list[tuple[str, str]] = []

    def do_jobs(jobs: Sequence[Job], config: InferConfig) -> Iterator[tuple[Job, str | None]]:
        for job in jobs:
            made.append((job.face.name, job.audio.name))
            if job.audio.name == "bad.wav":
                yield job, "no face in any of 60 frames"
            else:
                shutil.copyfile(job.face, job.outfile)
                yield job, None

    monkeypatch.setattr(generated, "do_jobs", do_jobs)
    return made


def test_a_list_is_generated_then_measured(
    real: Path, tmp_path: Path, generator: list[tuple[str, str]]
) -> None:
    (real / "bad.wav").touch()
    (tmp_path / "list.txt").write_text("a\na deep/b\nbad a.mp4\nnobody a\n", encoding="utf-8")
    (tmp_path / "g.pth").write_bytes(b"one")
    words = ("--checkpoint_path", tmp_path / "g.pth", "--filelist", tmp_path / "list.txt",
             "--data_root", real)  # fmt: skip
    out = tmp_path / "out"
    found = run(out, *words)
    assert generator == [("a.mp4", "a.mp4"), ("b.mp4", "a.mp4"), ("a.mp4", "bad.wav")]
    assert [video["name"] for video in found["videos"]] == ["a.mp4", "deep/b__a.mp4"]
    assert [video["reconstruction"] for video in found["videos"]] == [True, False]
    assert values(found)["a.mp4"]["psnr"] == 100
    assert values(found)["deep/b__a.mp4"]["psnr"] is None
    failed = {one["name"]: one["reason"] for one in found["failed"]}
    assert failed["a__bad.mp4"] == "cannot be generated: no face in any of 60 frames"
    assert "no such file" in failed["line 4 (nobody a)"]
    assert (out / "videos" / "deep" / "b__a.mp4").is_file()

    generator.clear()
    assert run(out, *words) == found
    assert generator == [("a.mp4", "bad.wav")]  # what failed is tried again
    generator.clear()
    make_video(out / "videos" / "a.mp4", 4)  # not what was generated
    run(out, *words)
    assert generator[0] == ("a.mp4", "a.mp4")
    generator.clear()
    (tmp_path / "g.pth").write_bytes(b"another")
    run(out, *words)
    assert len(generator) == 3


def test_weights_are_looked_at_before_anything_is_done(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--videos", str(real), "--outdir", str(tmp_path / "out")]
    assert cli.main([*words, "--syncnet_v2", str(tmp_path / "none")]) == 2
    assert "--syncnet_v2" in capsys.readouterr().err
    torch.save({"netcnnlip.0.weight": torch.zeros(1)}, tmp_path / "v2")
    assert cli.main([*words, "--syncnet_checkpoint_path", str(tmp_path / "v2")]) == 2
    assert "holds the SyncNet v2, the lip-sync expert is wanted" in capsys.readouterr().err
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_the_played_detector_is_one() -> None:
    found = BatchedDetector(detector=PlayedDetector(), batch_size=2).detect(
        {0: np.zeros((52, 64, 3), np.uint8), 1: np.full((52, 64, 3), 9, np.uint8)}
    )
    assert [len(found[n]) for n in (0, 1)] == [0, 1]
