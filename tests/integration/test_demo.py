"""The whole pipeline as a user runs it: the demo, shortened."""

import re
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from wav2lip_npu import checkpoint, cli
from wav2lip_npu.training.metrics import MetricsFile


def test_the_demo(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("espeakng_loader")
    out = tmp_path / "a demo"
    words = ["--outdir", str(out), "--clips=4", "--expert_steps=1", "--generator-steps", "1"]
    assert cli.main(["demo", *words, "--device", "cpu"]) == 0
    the_video_plays(out)
    every_talking_head_was_found(out)
    both_trainings_left_their_marks(out)
    the_pictures_are_there(out)
    the_summary_names_the_results(capfd.readouterr().out)


def the_video_plays(demo: Path) -> None:
    with av.open(str(demo / "lip_synced.mp4")) as file:
        kinds = {s.type: s for s in file.streams}
        assert kinds["video"].codec_context.name == "h264"
        assert kinds["audio"].codec_context.name == "aac"
        seconds = {k: float(s.duration * s.time_base) for k, s in kinds.items()}
    assert abs(seconds["video"] - seconds["audio"]) < 1 / 25
    with av.open(str(demo / "lip_synced.mp4")) as file:
        frames = sum(1 for _ in file.decode(video=0))
    assert frames == round(seconds["video"] * 25)


def every_talking_head_was_found(demo: Path) -> None:
    folder = demo / "preprocessed" / "main"
    clips = sorted(path for path in folder.iterdir() if path.name != ".packed")
    assert [clip.name for clip in clips] == ["00001", "00002", "00003", "00004"]
    for clip in clips:
        capture = cv2.VideoCapture(str(demo / "videos" / "main" / f"{clip.name}.mp4"))
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        assert len(list(clip.glob("*.jpg"))) == frames > 40


def both_trainings_left_their_marks(demo: Path) -> None:
    for folder, metric in (("expert", "loss"), ("generator", "l1")):
        assert checkpoint.read(checkpoint.newest(demo / folder)).global_step == 1
        assert sorted(MetricsFile(demo / folder).read()[metric, "eval"]) == [1]
        assert cv2.imread(str(demo / f"curves_{folder}.png")).std() > 5
    weights = checkpoint.read(demo / "generator" / "best.pth").state_dict
    assert sum(value.numel() for value in weights.values()) > 36_000_000  # not the tests' thin ones
    sheet = cv2.imread(str(demo / "contact_sheet.png"))
    assert sheet.shape[1] == 4 * 96
    target = sheet[18:114, 288:]
    assert np.ptp(target) > 60


def the_pictures_are_there(demo: Path) -> None:
    for name in ("curves_expert.png", "curves_generator.png"):
        assert cv2.imread(str(demo / name)).std() > 5
    with av.open(str(demo / "demo.gif")) as gif, av.open(str(demo / "lip_synced.mp4")) as video:
        frames, whole = (sum(1 for _ in file.decode(video=0)) for file in (gif, video))
    assert frames == -(-whole // 2)


def the_summary_names_the_results(printed: str) -> None:
    lines = printed[printed.index("== Done in") :].splitlines()
    assert [line.split()[0] for line in lines[1:6]] == [
        *("data", "expert", "generator", "mouth", "video"),
    ]
    psnr = re.search(r"lower half of the face: ([0-9.]+) dB", printed)
    assert psnr is not None and 5 < float(psnr[1]) < 26  # after one step
    assert "below a mark: with more time" in printed
    assert sum(line.startswith("$ wav2lip-npu") for line in lines) == 3


def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    assert cli.main(["demo", "--outdir", str(tmp_path)]) == 2
    assert "is not empty, and not an earlier demo" in capsys.readouterr().err
    assert (tmp_path / "videos").is_dir()
