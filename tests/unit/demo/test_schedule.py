"""What the demo plans, and what it says of the results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wav2lip_npu.demo import dataset, schedule
from wav2lip_npu.demo.schedule import Schedule, StepSeconds
from wav2lip_npu.demo.summary import Results, read_results
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.training.metrics import MetricsFile


def planned(minutes: float, *, step: float, data_seconds: float = 28.0) -> Schedule:
    return Schedule(
        total_seconds=60 * minutes,
        data_seconds=data_seconds,
        step=StepSeconds(expert=step, generator=step),
    )


@pytest.mark.parametrize("minutes", [5.0, 8.0])
def test_the_plan_fills_the_minutes(minutes: float) -> None:
    plan, elapsed, step = planned(minutes, step=0.7), 35.0, 0.7
    started = schedule.START_SHARE * 28
    elapsed += started + step * plan.expert_steps(elapsed)
    elapsed += started + step * plan.generator_steps(elapsed)
    elapsed += schedule.ENDING_SHARE * 28
    assert 60 * minutes * (1 - schedule.RESERVE) - 2 * step <= elapsed <= 60 * minutes


def test_steps_have_limits_on_fast_and_on_slow_machines() -> None:
    fast, slow = planned(5, step=0.001), planned(5, step=100.0)
    assert fast.expert_steps(10.0) == schedule.MAX_EXPERT_STEPS
    assert fast.generator_steps(10.0) == schedule.MAX_GENERATOR_STEPS
    assert slow.expert_steps(10.0) == slow.generator_steps(400.0) == schedule.MIN_STEPS
    assert fast.needed_seconds(10.0) < 120 < 5 * 60 < slow.needed_seconds(10.0)


@pytest.mark.usefixtures("thin")
def test_steps_of_both_networks_are_timed() -> None:
    step = schedule.measure_step_seconds(Device.open("cpu", "fp32"))
    assert 0 < step.expert < 600
    assert 0 < step.generator < 600


def test_no_sentence_that_is_held_out_is_trained() -> None:
    assert not set(dataset.SENTENCES) & set(dataset.HELD_OUT_SENTENCES)
    assert [dataset.held_out_clips(clips) for clips in (4, 14, 28, 100)] == [1, 2, 4, 4]


def test_file_lists_share_no_clip(tmp_path: Path) -> None:
    dataset.make_filelists(tmp_path, 28)
    train, val = ((tmp_path / f"{name}.txt").read_text().split() for name in ("train", "val"))
    assert train == [f"{number:05d}" for number in range(1, 25)]
    assert val == ["00025", "00026", "00027", "00028"]


@pytest.mark.parametrize(
    ("accuracy", "psnr", "corr", "convincing"),
    [
        (0.8, 26.0, 0.6, True),
        (0.79, 26.0, 0.6, False),
        (0.8, 25.9, 0.6, False),
        (0.8, 26.0, 0.59, False),
        (0.8, 26.0, None, False),
    ],
)
def test_all_marks_must_be_reached(
    accuracy: float, psnr: float, corr: float | None, convincing: bool
) -> None:
    results = Results(accuracy=accuracy, psnr_lower=psnr, opening_corr=corr)
    assert results.is_convincing == convincing
    assert ("not measured" in results.lines()[2]) == (corr is None)


def test_results_are_those_of_the_reports(tmp_path: Path) -> None:
    expert, generator = tmp_path / "expert", tmp_path / "generator"
    for folder, metric, values in (
        (expert, "accuracy", {30: 0.7, 60: 0.9}),
        (generator, "psnr", {100: 20.0, 200: 27.5}),
    ):
        folder.mkdir()
        metrics = MetricsFile(folder)
        for step, value in values.items():
            metrics.write("eval", step, {metric: value})
        metrics.close()
    report = {"metrics": {"opening_corr_voice": {"mean": None}}}
    (tmp_path / "evaluation.json").write_text(json.dumps(report))
    found = read_results(expert, generator, tmp_path)
    assert found == Results(accuracy=0.9, psnr_lower=27.5, opening_corr=None)
    assert found.lines() == [
        "expert     pairs judged rightly: 90% (mark 80%, chance 50%)",
        "generator  PSNR of the lower half of the face: 27.5 dB (mark 26 dB)",
        "mouth      its opening against the voice's loudness: r = not measured (mark 0.6)",
    ]
