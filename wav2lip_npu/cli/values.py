"""The values of options: how argparse, and a file of options, make them of words."""

from __future__ import annotations

import argparse
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def value_arguments(kind: Any, choices: tuple[str, ...] = ()) -> dict[str, Any]:
    """How argparse parses a value.

    Args:
        kind: the type of the field.
        choices: the words that are allowed; none: all.
    """
    if isinstance(kind, types.UnionType):  # "X | None"
        kind = typing.get_args(kind)[0]
    if kind is bool:  # "--static", and also "--static False", which the original accepts
        return {"type": parse_bool, "nargs": "?", "const": True, "metavar": "BOOL"}
    if typing.get_origin(kind) is tuple:  # "tuple[int, int]", or "tuple[Path, ...]": one or more
        first, *_, last = typing.get_args(kind)
        count = "+" if last is Ellipsis else len(typing.get_args(kind))
        return {**value_arguments(first), "nargs": count, "action": TupleAction}
    if kind is Path:
        return {"type": parse_path, "metavar": "PATH"}
    if kind in (int, float):
        return {"type": _number_parser(kind), "metavar": {int: "N", float: "X"}[kind]}
    return {"type": _choice_parser(choices)} if choices else {"type": kind}


class TupleAction(argparse.Action):
    """A tuple; of any number of values, those of an option that is given twice count together."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        former = getattr(namespace, self.dest)
        is_more = self.nargs == "+" and former is not self.default
        setattr(namespace, self.dest, (*(former if is_more else ()), *values))


def parse_path(word: str) -> Path:
    """A path; ``~`` is the home folder also where a shell leaves it, as in ``--face=~/a.mp4``."""
    if not word:
        raise argparse.ArgumentTypeError('"": must be a name, and is empty')
    return Path(word).expanduser() if re.match(r"~(/|$)", word) else Path(word)


def parse_bool(word: str) -> bool:
    """A word that means true or false."""
    if word.lower() not in BOOLEANS:
        raise argparse.ArgumentTypeError(f"{word}: must be true or false")
    return BOOLEANS[word.lower()]


def _number_parser(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(word: str) -> Any:
        try:
            return kind(word)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{word}: must be {wanted}") from None

    return parse


def _choice_parser(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(word: str) -> str:
        if word not in choices:
            raise argparse.ArgumentTypeError(f"{word}: choose from {', '.join(choices)}")
        return word

    return parse
