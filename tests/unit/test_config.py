"""Options of all commands: no number of any kind is an error other than a UserError."""

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from wav2lip_npu import cli
from wav2lip_npu.config import EvaluateConfig, InferConfig
from wav2lip_npu.errors import UserError

PATH = Path("x")
HUGE = 10**30
COMMON = {"checkpoint_path": PATH, "face": PATH, "audio": PATH}


def required(config: type) -> dict[str, Any]:
    missing = dataclasses.MISSING
    given = {item.name: PATH for item in dataclasses.fields(config) if item.default is missing}
    either_or = {InferConfig: COMMON, EvaluateConfig: {"videos": PATH}}
    return given | either_or.get(config, {})


def kind_of(config: type, name: str) -> Any:
    kind = typing.get_type_hints(config)[name]
    return typing.get_args(kind)[0] if isinstance(kind, types.UnionType) else kind


def number_fields(kind: type) -> list[tuple[type, str]]:
    configs = [command.config for command in cli.COMMANDS.values()]
    names = [(config, item.name) for config in configs for item in dataclasses.fields(config)]
    return [(config, name) for config, name in names if kind_of(config, name) is kind]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("config", "name"), number_fields(float))
def test_fractions_are_finite(config: type, name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"--{name} "):
        config(**required(config) | {name: value})


@pytest.mark.parametrize(("config", "name"), number_fields(int) + number_fields(float))
def test_numbers_are_used_or_refused_in_one_line(config: type, name: str) -> None:
    for value in (-1, 0, 1e9, 2**62, -HUGE, HUGE):
        try:
            config(**required(config) | {name: value})
        except UserError as error:
            assert str(error).startswith(f"--{name} {value}") and "\n" not in str(error)
        else:
            assert value not in (-HUGE, HUGE) or kind_of(config, name) is float


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"silence": "still", "box": (0, 9, 0, 9)},
            "--silence still: has no effect with --box",
        ),
        (
            {"enhance": PATH, "box": (0, 9, 0, 9)},
            "--enhance x: has no effect with --box",
        ),
        (
            {"strength": 0.5, "box": (0, 9, 0, 9)},
            "--strength 0.5: has no effect with --box",
        ),
        ({"strength": 2.5}, "--strength 2.5: must be from 0 to 2"),
        (
            {"keep_in_front": True, "box": (0, 9, 0, 9)},
            "--keep_in_front: has no effect with --box",
        ),
        ({"fps": 0.0}, "--fps 0.0: must be from 1 to 240"),
        ({"fps": 1e9}, "--fps 1000000000.0: must be from 1 to 240"),
        ({"crf": 52}, "--crf 52: must be from 0 to 51"),
        ({"face_select": "track:0"}, "--face_select track:0: choose from"),
        ({"box": (-1, 5, 5, 5)}, "--box -1 5 5 5: must be top bottom left right"),
        ({"box": (9, 5, 0, 5)}, "--box 9 5 0 5: must be top bottom left right"),
        ({"crop": (0, -2, 0, -1)}, "--crop 0 -2 0 -1: must be top bottom left right"),
        ({"crop": (5, 5, 0, -1)}, "--crop 5 5 0 -1: must be top bottom left right"),
        ({"pads": (0, -1, 0, 0)}, "--pads 0 -1 0 0: must not be negative"),
        ({"pads": (0, HUGE, 0, 0)}, "--pads 1000000000000000000000000000000: is too large"),
        ({"device": "npu:99999999999"}, "--device npu:99999999999: choose from"),
        ({"device": "cuda:128"}, "--device cuda:128: choose from"),
        ({"device": "cuda:007"}, "--device cuda:007: choose from"),
    ],
)
def test_options_of_infer(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError) as caught:
        InferConfig(**COMMON | options)
    assert reason in str(caught.value)
