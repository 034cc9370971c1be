"""``--config``: what a file of options may say, and how it is told what is wrong with it."""

from pathlib import Path
from typing import Any

import pytest

from wav2lip_npu import cli
from wav2lip_npu.cli import parser
from wav2lip_npu.config import InferConfig, PlotConfig
from wav2lip_npu.errors import UserError

GIVEN = "checkpoint_path: c\nface: f\naudio: a\n"


def options(path: Path, text: str | bytes, *words: str, command: str = "infer") -> Any:
    """The options of a command with a file of this text, and these words."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    given = parser.parse([command, "--config", str(path), *words], "wav2lip-npu")
    return given.make(cli.COMMANDS[command].config)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "选项.yaml"


def test_names_in_both_spellings(file: Path) -> None:
    text = "checkpoint-path: c\nface: f\naudio: a\nwav2lip-batch-size: 4\nface_det_batch_size: 8\n"
    config = options(file, text)
    assert config == InferConfig(
        checkpoint_path=Path("c"), face=Path("f"), audio=Path("a"), wav2lip_batch_size=4,
        face_det_batch_size=8,
    )  # fmt: skip


def test_other_names_of_options(file: Path) -> None:
    config = options(file, f"{GIVEN}from: 1.5\nto: 2\n")
    assert (config.start, config.end) == (1.5, 2.0)


def test_the_command_line_goes_before_the_file(file: Path) -> None:
    config = options(
        file, f"{GIVEN}box: [1, 2, 3, 4]\nstatic: true\ncrf: 20\n",
        "--face", "other", "--box", "-1", "-1", "-1", "-1", "--static=false",
    )  # fmt: skip
    assert (config.face, config.box, config.static) == (Path("other"), (-1, -1, -1, -1), False)
    assert config.crf == 20
    plot = options(file, "runs: [a, b]\n", "--runs", "c", "--runs", "d", command="plot")
    assert plot == PlotConfig(runs=(Path("c"), Path("d")))  # not those of the file besides


def test_common_options_may_be_there(file: Path, tmp_path: Path) -> None:
    file.write_text(f"{GIVEN}quiet: yes\nlog_file: {tmp_path}/a.log\ndebug: off\n")
    common = parser.parse(["infer", "--config", str(file)], "wav2lip-npu").common
    assert (common.quiet, common.debug, common.log_file) == (True, False, tmp_path / "a.log")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # In YAML 1.1 these are a truth, a number that is a text, and 630 seconds.
        ("device: no", ("device", "no")),
        ("strength: 1e-1", ("strength", 0.1)),
        ("face: 10:30", ("face", Path("10:30"))),
        ("face: 2024-01-01", ("face", Path("2024-01-01"))),
        ("face: 007", ("face", Path("007"))),
        ("face: 'null'", ("face", Path("null"))),
        ("face: ~/a.mp4", ("face", Path.home() / "a.mp4")),
        ("end:", ("end", None)),
        ("enhance: ~", ("enhance", None)),
        ("static: On", ("static", True)),
        ("rotate: 0", ("rotate", False)),
        ("pads: [0, 20, 0, 0]", ("pads", (0, 20, 0, 0))),
        ("pads:\n- 1\n- 2\n- 3\n- 4", ("pads", (1, 2, 3, 4))),
    ],
)
def test_values_are_those_of_the_command_line(
    text: str, value: tuple[str, object], file: Path
) -> None:
    file.write_text(text + "\n")
    given = parser.parse(["infer", "--config", str(file), "--checkpoint_path", "c"], "wav2lip-npu")
    name, wanted = value
    assert given.options[name] == wanted


WRONG = {
    f"{GIVEN}chekpoint_path: x": (
        ", line 4: there is no option chekpoint_path for infer. Did you mean checkpoint_path?"
    ),
    f"{GIVEN}--crf: 3": ", line 4: there is no option --crf for infer. Did you mean crf?",
    f"{GIVEN}config: x": ", line 4: there is no option config for infer.",
    f"{GIVEN}help: x": ", line 4: there is no option help for infer.",
    f"{GIVEN}crf: many": ", line 4: crf many: must be a whole number",
    f"{GIVEN}crf: 1.5": ", line 4: crf 1.5: must be a whole number",
    f"{GIVEN}fps: 10:30": ", line 4: fps 10:30: must be a number",
    f"{GIVEN}static: maybe": ", line 4: static maybe: must be true or false",
    f"{GIVEN}loop: twice": ", line 4: loop twice: choose from repeat, pingpong, hold, cut",
    f"{GIVEN}crf: [1, 2]": ", line 4: crf: takes one value, not a list",
    f"{GIVEN}pads: [1, 2]": ", line 4: pads: takes 4 values, as in [0, 0, 0, 0]",
    f"{GIVEN}pads: 0 10 0 0": ", line 4: pads: takes 4 values, as in [0, 0, 0, 0]",
    f"{GIVEN}pads: {{top: 1}}": (
        ", line 4: pads: must be a word or a number, or a list of these"
    ),
    f"{GIVEN}device: !!python/name:os.system x": (
        ", line 4: device: must be a word or a number, or a list of these"
    ),
    f"{GIVEN}face: ''": ', line 4: face is there twice, first in line 2',
    "face: ''": ', line 1: face "": must be a name, and is empty',
    f"{GIVEN}wav2lip-batch-size: 4\nwav2lip_batch_size: 4": (
        ", line 5: wav2lip_batch_size is there twice, first in line 4"
    ),
    f"{GIVEN}start: 1\nfrom: 1": ", line 5: from is there twice, first in line 4",
    f"{GIVEN}crf:": ", line 4: crf: has no value",
    "checkpoint_path: ~": ", line 1: checkpoint_path: has no value",
    f"{GIVEN}crf: 99": ", line 4: --crf 99: must be from 0 to 51",
    f"{GIVEN}fps: .inf": ", line 4: --fps inf: must be a finite number",
    "command: train\nface: f": ", line 1: these are options of train, not of infer",
    "command: nothing": ", line 1: these are options of nothing, not of infer",
    "- a\n- b": ": must be lines of options, as in batch_size: 16",
    "just words": ": must be lines of options, as in batch_size: 16",
    "? [a, b]\n: c": ", line 1: must begin with the name of an option",
    "face: [a": ", line 1: is not YAML (expected ',' or ']', but got '<stream end>')",
    "face: a\n\tcrf: 3": (
        ", line 2: is not YAML (found character '\\t' that cannot start any token)"
    ),
    "face: a\n---\ncrf: 3": ", line 2: is not YAML (but found another document)",
    "face: \x07": ": is not YAML (special characters are not allowed)",
    f"face: {'[' * 5000}": ": is not YAML (too deep)",
    "face: 说话的人.mp4".encode("gb18030"): ": is GBK, it seems; save it as UTF-8",
    "face: 说话的人.mp4".encode("utf-16"): ": is UTF-16, it seems; save it as UTF-8",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG, ids=lambda text: WRONG[text][:40])
def test_what_is_wrong_is_told_with_its_line(text: str | bytes, file: Path) -> None:
    with pytest.raises(UserError) as caught:
        options(file, text)
    assert str(caught.value) == f"{file}{WRONG[text]}"


def test_a_value_of_the_command_line_is_not_that_of_the_file(file: Path) -> None:
    with pytest.raises(UserError, match=r"^--crf 99: must be from 0 to 51$"):
        options(file, f"{GIVEN}crf: 20\n", "--crf", "99")


def test_a_byte_order_mark_and_windows_lines(file: Path) -> None:
    config = options(file, b"\xef\xbb\xbf" + GIVEN.replace("\n", "\r\n").encode())
    assert config.face == Path("f")


def test_an_empty_file_says_nothing(file: Path) -> None:
    words = ("--checkpoint_path", "c", "--face", "f", "--audio", "a")
    assert options(file, "# nothing\n", *words) == options(file, "", *words)


def test_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["infer", "--config", str(tmp_path / "none.yaml")]) == 2
    line = f"{tmp_path}/none.yaml: cannot be read ({tmp_path}/none.yaml: No such file or directory)"
    assert capsys.readouterr().err == f"wav2lip-npu: {line}\n"
