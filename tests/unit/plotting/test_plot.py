"""The command ``plot``: what is drawn and told, against files written by hand."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from wav2lip_npu import cli
from wav2lip_npu.plotting.runs import read_runs
from wav2lip_npu.plotting.table import markdown, summarize
from wav2lip_npu.sync.report import draw_offsets
from wav2lip_npu.training.figures import draw_curves, metric_names, smoothed

TRAIN = {10: 0.9, 20: 0.7, 30: 0.8}  # step → loss
EVAL = {15: 0.75, 30: 0.65}
AVERAGED = {15: 0.7, 30: 0.72}
CHINESE = "学习率"


def write_lines(path: Path, lines: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def expert(tmp_path: Path) -> Path:
    """The folder of a SyncNet with averaged weights."""
    rates = {10: 40.0, 20: 60.0, 30: 1.0}
    train = [
        {"kind": "train", "step": step, "loss": loss, "samples_per_second": rates[step]}
        for step, loss in TRAIN.items()
    ]
    validation = [
        {"kind": "eval", "step": step, "loss": EVAL[step], "ema_loss": AVERAGED[step]}
        for step in EVAL
    ]
    write_lines(tmp_path / "expert" / "metrics.jsonl", [*train, *validation])
    return tmp_path / "expert"


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    """The folder of a generator: its last validation has no "psnr", and no weights are averaged."""
    lines = [
        {"kind": "train", "step": 5, "l1": 0.2},
        {"kind": "eval", "step": 10, "sync": 1.25, "l1": 0.2, "psnr": 18.0},
        {"kind": "eval", "step": 20, "sync": 0.5, "l1": 0.1},
        {"kind": "eval", "step": 1234, "sync": 0.50001, "l1": 0.123456},
    ]
    write_lines(tmp_path / "generator" / "metrics.jsonl", lines)
    return tmp_path / "generator"


def write_sheet(folder: Path, step: int, rows: int, seed: int, windows: int = 0) -> np.ndarray:
    """A sheet of random faces; its targets and references depend on ``windows`` alone."""
    own, common = np.random.default_rng(seed + 1000), np.random.default_rng(windows)
    sheet = own.integers(0, 256, (18 + 8 * 96, 4 * 96, 3), dtype=np.uint8)
    for column in (0, 3):
        shape = sheet[18:, 96 * column : 96 * (column + 1)].shape
        sheet[18:, 96 * column : 96 * (column + 1)] = common.integers(0, 256, shape)
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / f"samples_step{step:09d}.png"), sheet[: 18 + 96 * rows])
    return sheet[18 : 18 + 96 * rows]


def write_report(folder: Path, entries: Sequence[tuple[str, float | None]]) -> None:
    lines = [
        {"clip": f"c{n}", "state": state, "offset": offset, "confidence": 1.0, "reason": None}
        for n, (state, offset) in enumerate(entries)
    ]
    write_lines(folder / "sync_report.jsonl", lines)


def lines_of(figure: Figure, title: str) -> list[tuple[str, str, dict[float, float]]]:
    """Colour, style (a point for markers) and data of each line of a panel."""
    (axes,) = (axes for axes in figure.axes if axes.get_title() == title)
    return [
        (
            to_hex(line.get_color()),
            line.get_linestyle() + ("." if line.get_marker() == "o" else ""),
            dict(zip(*map(np.ndarray.tolist, map(np.asarray, line.get_data())), strict=True)),
        )
        for line in axes.get_lines()
    ]


def curves_of(folders: Sequence[Path], **options: object) -> Figure:
    runs = [(run.label, run.curves) for run in read_runs(folders, None)]
    return draw_curves(runs, **options)  # type: ignore[arg-type]


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


BLUE, ORANGE, GREEN = "#1f77b4", "#ff7f0e", "#2ca02c"


def test_one_training_has_a_colour_for_each_kind_of_curve(expert: Path) -> None:
    figure = curves_of([expert])
    assert [axes.get_title() for axes in figure.axes] == ["loss"]
    assert lines_of(figure, "loss") == [
        (BLUE, "-", TRAIN),
        (ORANGE, "-.", EVAL),
        (GREEN, "--.", AVERAGED),
    ]
    assert legend_of(figure) == ["train", "eval", "eval, averaged weights"]
    assert figure.legends[0].get_title().get_text() == "expert"


def test_each_of_several_trainings_has_a_colour(expert: Path, generator: Path) -> None:
    other = expert.with_name("other")
    write_lines(other / "metrics.jsonl", [{"kind": "eval", "step": 12, "loss": 0.5}])
    figure = curves_of([expert, generator, other])
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert titles == ["l1", "loss", "psnr", "sync"]
    assert lines_of(figure, "loss") == [
        (BLUE, "-", TRAIN),
        (BLUE, "-.", EVAL),
        (BLUE, "--.", AVERAGED),
        (GREEN, "-.", {12: 0.5}),
    ]
    assert lines_of(figure, "sync") == [(ORANGE, "-.", {10: 1.25, 20: 0.5, 1234: 0.50001})]
    kinds = ["train", "eval", "eval, averaged weights"]
    assert legend_of(figure) == ["expert", "generator", "other", *kinds]
    many = _many(expert, 13)
    assert len({line[0] for line in lines_of(curves_of(many), "loss")}) == 13


def _many(folder: Path, count: int) -> list[Path]:
    folders = [folder.with_name(f"run{n}") for n in range(count)]
    for one in folders:
        write_lines(one / "metrics.jsonl", [{"kind": "eval", "step": 1, "loss": 0.5}])
    return folders


def test_speed_is_shown_where_it_is_asked_for(expert: Path) -> None:
    figure = curves_of([expert], names=["samples_per_second"])
    assert lines_of(figure, "samples_per_second") == [(BLUE, "-", {10: 40.0, 20: 60.0, 30: 1.0})]
    assert legend_of(figure) == ["train"]


def test_only_training_curves_are_smoothed(expert: Path) -> None:
    as_it_was, smooth, *validation = lines_of(curves_of([expert], smooth=0.5), "loss")
    assert as_it_was == (BLUE, "-", TRAIN)
    # Weights 1, 2, 4 of the three values, the last weighs most.
    expected = {10: 0.9, 20: (0.9 + 2 * 0.7) / 3, 30: (0.9 + 2 * 0.7 + 4 * 0.8) / 7}
    assert smooth[2] == pytest.approx(expected)
    assert [line[2] for line in validation] == [EVAL, AVERAGED]
    with (expert / "metrics.jsonl").open("a") as file:
        file.writelines(f'{{"kind": "train", "step": {n}, "learning_rate": {n}}}\n' for n in (1, 2))
    learning_rate = lines_of(curves_of([expert], smooth=0.5), "learning_rate")
    assert learning_rate == [(BLUE, "-", {1: 1.0, 2: 2.0})]
    assert smoothed([3.0] * 9, 0.99) == pytest.approx([3.0] * 9)
    assert smoothed([1.0, 5.0], 0.0) == [1.0, 5.0]


def test_the_table(expert: Path, generator: Path) -> None:
    runs = [(run.label, run.curves) for run in read_runs([expert, generator], ["a|b", "c"])]
    names = metric_names(curves for _, curves in runs)
    head, *rows = markdown(summarize(runs, names)).splitlines()
    numbers = "l1 | loss | ema_loss | psnr | sync | samples per second"
    assert head == f"| run | steps | best validation | {numbers} |"
    assert rows == [
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        r"| a\|b | 30 | ema_loss 0.7000 (step 15) | – | 0.6500 | 0.7200 | – | – | 40.00 |",
        "| c | 1234 | sync 0.5000 (step 20) | 0.1235 | – | – | – | 0.5000 | – |",
    ]
    assert summarize(runs[1:], ["sync"]).head[3:] == ["sync", "samples per second"]


def test_a_training_without_validation_has_no_best(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", [{"kind": "train", "step": 7, "loss": 0.5}])
    (run,) = read_runs([tmp_path], ["new"])
    assert summarize([("new", run.curves)], ["loss"]).rows == [["new", "7", "–", "–"]]


def test_numbers_that_cannot_be_drawn_are_left_out(
    expert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (expert / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "eval", "step": 9223372036854775808, "loss": 0.5}\n')
        file.write('{"kind": "eval", "step": 40, "loss": 1.5e308, "psnr": -1e299}\n')
        file.write('{"kind": "eval", "step": 50, "loss": NaN, "psnr": 1e299}\n')
    assert run_plot("--runs", expert, "--outdir", tmp_path / "out") == 0
    assert cv2.imread(str(tmp_path / "out" / "curves.png")).std() > 5
    assert "metrics.jsonl: 1 lines are no metrics" in caplog.text
    assert lines_of(curves_of([expert]), "loss")[1][2] == EVAL


def heights(figure: Figure, panel: int, label: str) -> dict[int, int]:
    """Offset → clips of the bars that the legend calls so."""
    axes = figure.axes[panel]
    (bars,) = (bars for bars in axes.containers if bars[0].get_label() == label)
    counts = {round(bar.get_x() + bar.get_width() / 2): round(bar.get_height()) for bar in bars}
    return {offset: count for offset, count in counts.items() if count}


def test_histograms_count_the_clips(tmp_path: Path) -> None:
    in_sync = [("in sync", offset) for offset in (0.4, -0.4, 0.6)]
    without = [("unclear", None), ("unreadable", None)]
    write_report(tmp_path / "a", [*in_sync, ("unclear", -15.0), *without])
    write_report(tmp_path / "b", [("shifted", 4.2), ("shifted", 3.9), ("off", 15.0)])
    runs = read_runs([tmp_path / "a", tmp_path / "b"], None)
    figure = draw_offsets([(run.label, run.clips) for run in runs])
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    assert heights(figure, 0, "in sync: 3") == {0: 2, 1: 1}
    assert heights(figure, 0, "unclear: 1") == {-15: 1}
    assert heights(figure, 1, "shifted: 2") == {4: 2}
    assert heights(figure, 1, "off: 1") == {15: 1}
    first, second = figure.axes
    assert first.get_xlim() == second.get_xlim() and first.get_ylim() == second.get_ylim()
    assert [len(axes.containers) for axes in (first, second)] == [2, 2]


def test_lines_that_are_none_of_a_report_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"clip": "a", "state": "off", "offset": 3, "of a later version": 1}
    strange = [
        *({**good, "state": "lost"}, {**good, "offset": "3"}, {**good, "offset": 16}),
        *({**good, "offset": True}, {**good, "clip": None}, {}, [], 3),
    ]
    write_lines(tmp_path / "sync_report.jsonl", [good, *strange])  # type: ignore[list-item]
    with (tmp_path / "sync_report.jsonl").open("a") as file:
        file.write('\n{"clip": "half a li')
    (run,) = read_runs([tmp_path], None)
    assert [(entry.clip, entry.state, entry.offset) for entry in run.clips] == [("a", "off", 3)]
    assert "9 lines are none of a sync report" in caplog.text


def run_plot(*words: object) -> int:
    return cli.main(["plot", *map(str, words)])


def test_samples_are_the_pixels_of_the_sheets(tmp_path: Path) -> None:
    folders, out = [tmp_path / name for name in "abc"], tmp_path / "out"
    write_sheet(folders[0], 500, rows=3, seed=9)
    first = write_sheet(folders[0], 2_000_000_000, rows=3, seed=0)
    second = write_sheet(folders[1], 30, rows=2, seed=1)
    other = write_sheet(folders[2], 30, rows=3, seed=2, windows=5)
    (folders[1] / "samples_step000000040.png").write_bytes(b"\x89PNG, cut")
    cv2.imwrite(str(folders[1] / "samples_step000000050.png"), second[:, :11])
    assert run_plot("--runs", *folders, "--outdir", out) == 0
    assert {path.name for path in out.glob("*.png")} == {"samples.png"}
    found = cv2.imread(str(out / "samples.png"))
    titles, images = np.split(found, [48])
    columns = np.split(images, 7, axis=1)
    expected = [(first, 0), (first, 2), (second, 2), (first, 3), (other, 0), (other, 2), (other, 3)]
    for column, (sheet, number) in zip(columns, expected, strict=True):
        part = sheet[: 2 * 96, 96 * number : 96 * (number + 1)]
        np.testing.assert_array_equal(column, part.repeat(2, axis=0).repeat(2, axis=1))
    assert all(title.std() > 5 for title in np.split(titles, 7, axis=1))


def test_all_that_is_there_is_written(
    expert: Path,
    generator: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_sheet(generator, 10, rows=1, seed=0)
    write_report(expert, [("in sync", 0.0)])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    nothing, broken = tmp_path / "nothing", tmp_path / "broken"
    nothing.mkdir()
    (broken / "sync_report.jsonl").mkdir(parents=True)
    out = tmp_path / "out"
    folders = [nothing, expert, broken, generator, tmp_path / "gone"]
    assert run_plot("--runs", *folders, "--outdir", out, "--smooth", 0.9) == 0
    assert (out / "options_plot.yaml").is_file()
    assert {path.name for path in out.glob("*.png")} == {
        *("curves.png", "offsets.png", "samples.png", "runs.png")
    }
    for path in out.glob("*.png"):
        assert cv2.imread(str(path)).std() > 5, path
    table = capsys.readouterr().out
    assert table.startswith("| run |") and table.count("\n") == 4
    for told in (
        f"left out: {nothing}: has no metrics.jsonl, ",
        f"{broken / 'sync_report.jsonl'}: left out",
        f"left out: {tmp_path / 'gone'}: no such folder",
    ):
        assert told in caplog.text
    assert before == {path: path.read_bytes() for path in before}


def test_what_is_not_there_is_not_written(
    expert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert run_plot("--runs", expert, "--outdir", tmp_path / "out") == 0
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"curves.png", "runs.png"}
    assert "offsets.png: not written, no folder has sync_report.jsonl" in caplog.text
    assert "samples.png: not written, no folder has samples_step….png" in caplog.text


def test_what_cannot_be_asked_for(
    expert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for words, told in (
        ((tmp_path / "gone",), "--runs: nothing to plot; "),
        ((tmp_path / "gone",), "gone: no such folder"),
        ((tmp_path / "file",), "file: no such folder"),
        ((tmp_path / "empty", tmp_path / "gone"), "empty: has no metrics.jsonl, samples_step….png"),
        ((expert, "--labels", "a", "b"), "--labels a b: must be one for each of the 1 folders"),
        (
            (expert, "--metrics", "loss", "lose"),
            "--metrics lose: no folder has it; there are: loss",
        ),
        ((expert, "--smooth", "1"), "--smooth 1.0: must be 0 or more, and below 1"),
        ((expert, "--outdir", tmp_path / "file"), "curves.png: cannot be written"),
    ):
        assert run_plot("--runs", *words) == 2
        assert told in capsys.readouterr().err


def test_labels(expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (expert / "metrics.jsonl").read_bytes()
    folders = [Path(name) for name in ("x/same", "y/same", "_old", CHINESE, ".")]
    monkeypatch.chdir(tmp_path)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").write_bytes(content)
    names = [run.label for run in read_runs(folders, None)]
    assert names == ["x/same", "y/same", " _old", CHINESE, tmp_path.name]
    figure = draw_curves([(run.label, run.curves) for run in read_runs(folders, None)])
    assert legend_of(figure)[:5] == names
    long = "a" * 30 + "\n\udcff" + "b" * 30
    (run,) = read_runs(folders[:1], [long])
    assert run.label == "a" * 20 + "…" + "b" * 19
    (run,) = read_runs(folders[:1], ["\udcff\n"])
    assert run.label == "??"


@pytest.mark.usefixtures("own_fonts")
def test_characters_that_no_font_has_are_told_once(
    expert: Path, generator: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_report(expert, [("in sync", 0.0)])
    write_sheet(generator, 10, rows=1, seed=0)
    labels = ("--labels", f"{CHINESE} $\\frac$", "Ünïcödé ☃ $")
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        assert run_plot("--runs", expert, generator, "--outdir", tmp_path / "out", *labels) == 0
    (record,) = caplog.records
    assert record.message.startswith(f"no font of this machine has {' '.join(sorted(CHINESE))}: ")
