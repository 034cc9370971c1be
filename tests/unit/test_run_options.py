"""The options beside results: ``--config`` of that file gives the same options again."""

import dataclasses
import re
import shlex
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from wav2lip_npu import cli, run_options
from wav2lip_npu.cli import parser
from wav2lip_npu.config import (
    CompletionConfig,
    EvaluateConfig,
    ExportConfig,
    InferConfig,
    PlotConfig,
    PreprocessConfig,
    SyncConfig,
)
from wav2lip_npu.data.clip_tree import find_clips
from wav2lip_npu.media.video_reader import is_video_by_name
from wav2lip_npu.run_options import options_path, options_path_beside, write_options

COMMANDS = {name: one.config for name, one in cli.COMMANDS.items() if name != "completion"}
HARD_WORDS = ("no", "1e-4", "10:30", "null", "~x", "-1", "", " a  b ", "# x", "a: b", "[1]", "'\"",
              "中文", "é\x85\u2028😀\n\t", "\udcff", "x" * 3000, "!tag", "&a", "*a", "%", "yes",
              "2024-01-01", "0x10", ".inf", "=", "<<", "@", "`", "--x", "\ufeffx")  # fmt: skip
ODD_PATH = Path("数据 集/no: 'a'\n#x")
EITHER_OR = {
    InferConfig: {"face": ODD_PATH, "audio": Path("a")},
    EvaluateConfig: {"videos": ODD_PATH},
}


def required(config: type, path: Path = ODD_PATH) -> dict[str, Any]:
    given: dict[str, Any] = {
        item.name: path
        for item in dataclasses.fields(config)
        if item.default is dataclasses.MISSING
    }
    if config is PlotConfig:
        given["runs"] = (path, Path("b"))
    return given | EITHER_OR.get(config, {})


def again(path: Path, config: Any) -> Any:
    """What ``--config`` makes of the file that was written for these options."""
    write_options(path, config)
    given = parser.parse([config.command, "--config", str(path)], "wav2lip-npu")
    return given.make(type(config))


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_are_read_back(command: str, tmp_path: Path) -> None:
    config = COMMANDS[command](**required(COMMANDS[command]))
    assert config.command == command
    path = options_path(tmp_path / "新", config)
    assert again(path, config) == config
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = [item.name for item in dataclasses.fields(config)]
    assert [*written] == ["command", *names]  # defaults too


def other_values(config: type) -> list[tuple[str, Any]]:
    """Values of each option that are not its default, as far as they can be guessed."""
    found: list[tuple[str, Any]] = []
    hints = typing.get_type_hints(config)
    for item in dataclasses.fields(config):
        kind = hints[item.name]
        if isinstance(kind, types.UnionType):
            kind = typing.get_args(kind)[0]
        by_type: dict[Any, list[Any]] = {
            bool: [True, False], int: [3, -2], float: [0.25, 1e-05, 1 / 3, -1.5],
            Path: [Path(word) for word in HARD_WORDS if word], str: list(HARD_WORDS),
        }  # fmt: skip
        if typing.get_origin(kind) is tuple:
            first, *_, last = typing.get_args(kind)
            count = 2 if last is Ellipsis else len(typing.get_args(kind))
            values = [tuple(by_type[first][:1] * count), tuple(by_type[first][-1:] * count)]
        else:
            values = list(item.metadata["choices"]) or by_type[kind]
        found += [(item.name, value) for value in values]
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_other_values_are_read_back(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that the checks of an option class refuse, which are another matter."""
    config = COMMANDS[command]
    monkeypatch.setattr(config, "__post_init__", lambda self: None)
    for name, value in other_values(config):
        made = config(**required(config) | {name: value})
        home = isinstance(value, Path) and str(value).startswith("~/")
        assert home or again(tmp_path / "a.yaml", made) == made, (name, value)


def test_lists_of_hard_words(tmp_path: Path) -> None:
    paths = tuple(Path(word) for word in HARD_WORDS if word)
    config = PlotConfig(runs=paths, labels=tuple(word for word in HARD_WORDS if word), smooth=0.5)
    assert again(tmp_path / "a.yaml", config) == config
    config = PlotConfig(runs=paths[:2], labels=("", "null"))
    assert again(tmp_path / "a.yaml", config) == config


def test_the_file_tells_how_to_repeat_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my\nfolder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    config = ExportConfig(checkpoint_path=Path("c.pth"), outfile=Path("out/a b.pth"))
    path = options_path_beside(config.outfile)
    write_options(path, config)
    lines = Path("out/a b.pth.yaml").read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(
        r"# Options of a run of wav2lip-npu [\w.]+, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.", lines[0]
    )
    assert lines[1] == f"# To repeat it, in the folder {str(folder)[:-9]}my\\nfolder:"
    program, *words = shlex.split(lines[2].removeprefix("#"))
    assert program == "wav2lip-npu" and lines[3] == "command: export"
    assert parser.parse(words, program).make(ExportConfig) == config


def test_a_file_of_the_user_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = ExportConfig(checkpoint_path=Path("c"), outfile=Path("o"))
    path = tmp_path / "o.yaml"
    path.write_text("mine")
    write_options(path, config)
    assert path.read_text() == "mine"
    assert "is there already, so the options of this run are not written" in caplog.text
    path.unlink()
    for changed in (config, dataclasses.replace(config, weights="ema")):  # ours is replaced
        assert again(path, changed) == changed
    assert [one.name for one in tmp_path.iterdir()] == ["o.yaml"]


def test_no_run_fails_by_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ExportConfig(checkpoint_path=Path("c"), outfile=Path("o"))
    (tmp_path / "file").touch()
    write_options(tmp_path / "file" / "a.yaml", config)
    assert "the options of this run are not written (" in caplog.text
    caplog.clear()
    monkeypatch.setattr(run_options, "format_options", lambda *_: 1 / 0)
    write_options(tmp_path / "b.yaml", config)
    assert "not written (ZeroDivisionError: division by zero)" in caplog.text


def test_only_the_first_of_several_processes_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SyncConfig(data_root=Path("d"))
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        write_options(options_path(tmp_path, config), config)
        there = [path.name for path in tmp_path.iterdir()]
        assert there == ([] if rank == "1" else ["options_sync.yaml"])


def test_it_is_no_clip_and_no_video(tmp_path: Path) -> None:
    config = PreprocessConfig(data_root=Path("d"), preprocessed_root=tmp_path)
    write_options(options_path(tmp_path, config), config)
    assert find_clips(tmp_path) == ([], [])
    for name in ("a.mp4.yaml", "options_infer.yaml", "A.YML"):
        assert is_video_by_name(tmp_path / name) is False  # and is not opened to find out


def test_completion_writes_nothing() -> None:
    assert CompletionConfig(shell="bash").plain() == {"shell": "bash"}
