"""``--config``: options in a YAML file.

Of YAML only the form is taken: the values are words, which become what they would become on the
command line. So ``no``, ``1e-4`` and ``10:30`` mean there what they say.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from wav2lip_npu.cli.mistakes import meant
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.files import read_text

COMMAND = "command"  # a key that says for which command a file is; it need not be there
_NULL = "tag:yaml.org,2002:null"
# What YAML takes plain words for.
_PLAIN = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "timestamp", "value", "merge")
)
_INFINITE = re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE)  # as YAML spells it

Found = dict[argparse.Action, tuple[Any, int]]  # the value of each option, and its line


def read_options(path: Path, parser: argparse.ArgumentParser, commands: Mapping[str, str]) -> Found:
    """Read a file of options.

    Args:
        path: a YAML file: a mapping from names of options, in either spelling, to values.
        parser: of the command, with a name.
        commands: the commands, by all of their names.

    Raises:
        UserError: it cannot be read, or has something that is no option of this command or no
            value of it.
    """
    command = getattr(parser, "command", "")
    actions = {
        name[2:]: action
        for action in parser._actions
        for name in action.option_strings
        if name.startswith("--") and action.dest not in ("help", "config")
    }
    found: Found = {}
    lines: dict[str, int] = {}  # of keys, by the name of their option
    for key, node in _pairs(path):
        line = key.start_mark.line + 1
        where = f"{path}, line {line}"
        word = str(key.value).replace("-", "_")
        action = actions.get(word)
        if action is None and word != COMMAND:
            likely = meant(word, actions)
            raise UserError(f"{where}: there is no option {key.value} for {command}.{likely}")
        name = COMMAND if action is None else action.dest
        if name in lines:
            raise UserError(f"{where}: {key.value} is there twice, first in line {lines[name]}")
        lines[name] = line
        if action is None:
            _check_command(where, node, command, commands)
        elif not _is_left_out(f"{where}: {key.value}", node, action):
            found[action] = _value(f"{where}: {key.value}", node, action), line
    return found


def _pairs(path: Path) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """The keys and values of a file.

    Raises:
        UserError: it is not a mapping from words.
    """
    text = read_text(path)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise UserError(f"{path}{line}: is not YAML ({error.problem or error.context})") from error
    except (yaml.YAMLError, RecursionError) as error:
        why = getattr(error, "reason", None) or "too deep"
        raise UserError(f"{path}: is not YAML ({why})") from error
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: must be lines of options, as in batch_size: 16")
    for key, _ in root.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(
                f"{path}, line {key.start_mark.line + 1}: must begin with the name of an option"
            )
    return list(root.value)


def _check_command(where: str, node: yaml.Node, command: str, commands: Mapping[str, str]) -> None:
    """Raise a UserError if a file is for another command."""
    named = str(node.value)
    if commands.get(named) != commands.get(command):
        raise UserError(f"{where}: these are options of {named}, not of {command}")


def _is_left_out(where: str, node: yaml.Node, action: argparse.Action) -> bool:
    """Whether a key has no value, and so its option the default that stands for none.

    Raises:
        UserError: it has no value, and its option needs one.
    """
    is_null = isinstance(node, yaml.ScalarNode) and node.tag == _NULL
    is_empty = isinstance(node, yaml.SequenceNode) and not node.value
    if not (is_null or is_empty):
        return False
    if action.required or action.default not in (None, ()):
        raise UserError(f"{where}: has no value")
    return True


def _value(where: str, node: yaml.Node, action: argparse.Action) -> Any:
    """The value of an option, as its action makes it of words.

    Raises:
        UserError: the option has no such value.
    """
    count = action.nargs
    takes_list = isinstance(count, int) or count == "+"
    if isinstance(node, yaml.SequenceNode) and not takes_list:
        raise UserError(f"{where}: takes one value, not a list")
    parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
    words = [_word(where, part, is_number=action.metavar == "X") for part in parts]
    if isinstance(count, int) and len(words) != count:
        example = ", ".join("0" * count)
        raise UserError(f"{where}: takes {count} values, as in [{example}]")
    convert: Any = action.type or str
    try:
        values = [convert(word) for word in words]
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{where} {error}") from error
    return tuple(values) if takes_list else values[0]


def _word(where: str, node: yaml.Node, *, is_number: bool) -> str:
    """A value as on the command line.

    Raises:
        UserError: it is a list or a mapping, or has a tag of its own.
    """
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _PLAIN:
        raise UserError(f"{where}: must be a word or a number, or a list of these")
    word = str(node.value)
    return word.replace(".", "", 1) if is_number and _INFINITE.fullmatch(word) else word
