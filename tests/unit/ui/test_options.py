"""Options of infer as fields of the page."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from wav2lip_npu.config import InferConfig
from wav2lip_npu.errors import UserError

pytest.importorskip("gradio")
from wav2lip_npu.ui.page.options import NOT_OFFERED, PLACED, add_field, offered, values_of

FILES = {"checkpoint_path": Path("c"), "face": Path("f"), "audio": Path("a")}


def test_every_option_has_its_place() -> None:
    names = [item.name for item in offered()]
    assert sorted([*names, *PLACED, *NOT_OFFERED]) == sorted(
        one.name for one in fields(InferConfig)
    )


def test_fields_that_nobody_touched_are_the_defaults() -> None:
    items = offered()
    shown = [add_field(item) for item in items]
    given = values_of(items, [one.value for one in shown])
    assert InferConfig(**FILES, **given) == InferConfig(**FILES)
    assert all(one.label == f"--{item.name}" for one, item in zip(shown, items, strict=True))
    assert not [one for one in shown if type(one).__name__ == "Number" and one.value is None]


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("pads", "0 20  0 0", (0, 20, 0, 0)),
        ("end", "1.5", 1.5),
        ("end", "", None),
        ("crf", 20, 20),
        ("crf", None, 18),
        ("silence", "still", "still"),
        ("silence", "default", None),
        ("static", True, True),
    ],
)
def test_values(name: str, given: Any, value: Any) -> None:
    items = [item for item in offered() if item.name == name]
    assert values_of(items, [given]) == {name: value}


@pytest.mark.parametrize(
    ("name", "given"),
    [("pads", "1 2 3"), ("pads", "a b c d"), ("end", "soon"), ("crf", [1]), ("box", "1e9 0 0 0")],
)
def test_what_is_no_value(name: str, given: Any) -> None:
    items = [item for item in offered() if item.name == name]
    with pytest.raises(UserError, match=f"--{name} .*: cannot be used"):
        values_of(items, [given])
