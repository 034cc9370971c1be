"""The command line that does the same: what a shell and the parser make of it."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from wav2lip_npu import cli
from wav2lip_npu.cli import parser
from wav2lip_npu.config import InferConfig, PlotConfig
from wav2lip_npu.config.base import Options
from wav2lip_npu.ui.command_line import shell_line

FILES = {"checkpoint_path": Path("c.pth"), "face": Path("a b.mp4"), "audio": Path("it's.wav")}


def typed(line: str) -> Options:
    """The options that a shell and the command line's parser read from a line."""
    program, *words = shlex.split(line)
    assert program == "wav2lip-npu"
    given = parser.parse(words, program)
    assert given is not None
    config: Options = given.make(cli.COMMANDS[words[0]].config)
    return config


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"box": (10, -1, 5, -1), "pads": (0, 0, 0, 0), "static": True, "nosmooth": True},
        {"start": 0.5, "end": 1.25, "silence": "still", "face_select": "track:2", "crf": 0},
        {"outfile": Path('名字 $(touch x) `y` "z".mp4')},
    ],
)
def test_round_trip(changes: dict[str, Any]) -> None:
    config = InferConfig(**{**FILES, **changes})
    assert typed(shell_line("infer", config)) == config


@pytest.mark.parametrize("name", ["-rf.mp4", "--help", "~", "~x.mp4", "-1"])
def test_names_that_look_like_something_else(name: str) -> None:
    config = typed(shell_line("infer", InferConfig(**{**FILES, "face": Path(name)})))
    assert isinstance(config, InferConfig)
    assert config.face == Path(name)


def test_several_values() -> None:
    config = PlotConfig(runs=(Path("a"), Path("-b")))
    assert typed(shell_line("plot", config)) == config


def test_defaults_are_left_out() -> None:
    line = shell_line("infer", InferConfig(**FILES))
    assert line == (
        "wav2lip-npu infer --checkpoint_path c.pth --face 'a b.mp4' --audio 'it'\"'\"'s.wav'"
    )
