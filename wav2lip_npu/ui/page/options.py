"""Options of ``infer`` as fields of the page, with the command's own texts and defaults."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from typing import Any

import gradio as gr

from wav2lip_npu.config import InferConfig
from wav2lip_npu.config.base import spelled
from wav2lip_npu.errors import UserError

# These have places of their own on the page.
PLACED = ("checkpoint_path", "face", "audio", "outfile", "face_select")
# Lists and files of the server, and what its operator decides.
NOT_OFFERED = (
    *("voices", "final_audio", "jobs", "resume", "devices", "face_cache", "enhance", "s3fd"),
    *("device", "backend", "strict_fp32"),
)
FIRST = ("blend", "silence", "loop", "strength", "no_face", "keep_in_front")
DEFAULT = "default"  # shown where the default depends on other options


def offered() -> list[Field[Any]]:
    """The options to show: the usual ones, then the others."""
    rest = {item.name: item for item in fields(InferConfig)}
    for name in (*PLACED, *NOT_OFFERED):
        del rest[name]
    usual = [rest.pop(name) for name in FIRST]
    return [*usual, *rest.values()]


def add_field(item: Field[Any]) -> gr.components.FormComponent:
    """Add the field of an option to the page."""
    kind, default = kind_of(item), item.default
    shown: dict[str, Any] = {"label": f"--{item.name}", "info": item.metadata["help"]}
    if item.metadata["choices"]:
        choices = [*([DEFAULT] if default is None else []), *item.metadata["choices"]]
        return gr.Dropdown(choices, value=default or DEFAULT, **shown)
    if kind is bool:
        return gr.Checkbox(value=default, **shown)
    if kind in (int, float) and default is not None:  # Gradio shows an empty number as 0
        return gr.Number(value=default, precision=0 if kind is int else None, **shown)
    return gr.Textbox(value="" if default is None else spelled(default), **shown)


def kind_of(item: Field[Any]) -> Any:
    """The type of an option's value, where it is not None."""
    kind = typing.get_type_hints(InferConfig)[item.name]
    return typing.get_args(kind)[0] if isinstance(kind, types.UnionType) else kind


def values_of(items: Sequence[Field[Any]], given: Sequence[Any]) -> Mapping[str, Any]:
    """What the fields say, as ``InferConfig`` takes it.

    Raises:
        UserError: a field says nothing that could be a value.
    """
    return {item.name: _value(item, one) for item, one in zip(items, given, strict=True)}


def _value(item: Field[Any], given: Any) -> Any:
    kind = kind_of(item)
    if given is None or given == "" or (given == DEFAULT and item.default is None):
        return item.default
    try:
        if typing.get_origin(kind) is tuple:
            numbers = tuple(int(word) for word in str(given).split())
            if len(numbers) != len(typing.get_args(kind)):
                raise ValueError
            return numbers
        return bool(given) if kind is bool else kind(given)
    except (ValueError, TypeError, OverflowError) as error:
        example = f", as in {spelled(item.default)}" if item.default is not None else ""
        raise UserError(f"--{item.name} {given}: cannot be used{example}") from error
