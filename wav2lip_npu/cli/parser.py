"""From words to options: the parser of each command, built from its option class."""

from __future__ import annotations

import argparse
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from wav2lip_npu import __version__
from wav2lip_npu.cli import mistakes
from wav2lip_npu.cli.commands import COMMANDS
from wav2lip_npu.cli.values import value_arguments
from wav2lip_npu.config import CommonOptions
from wav2lip_npu.config.base import spelled
from wav2lip_npu.errors import UserError

HELP = ("-h", "--help")
NAMES = {
    name: command for command, one in COMMANDS.items() for name in (command, *one.aliases)
}  # of commands, by all of their names


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a command line says."""

    command: str
    options: Mapping[str, Any]  # of its option class
    common: CommonOptions
    lines: Mapping[str, int]  # of the file of options: where each of those is that count

    def make(self, config: type) -> Any:
        """The options as an object of their class.

        Raises:
            UserError: a value is not allowed; one of a file is named with its line.
        """
        try:
            return config(**self.options)
        except UserError as error:
            named = re.match(r"--(\w+)", str(error))
            if named is None or named[1] not in self.lines:
                raise
            where = f"{self.common.config}, line {self.lines[named[1]]}"
            raise UserError(f"{where}: {error}") from error


class Parser(argparse.ArgumentParser):
    """Raises a UserError for what is wrong."""

    command = ""
    help_words = ""  # what to type for the help

    def error(self, message: str) -> NoReturn:
        """Raise it."""
        raise UserError(mistakes.explain(message, self.command, self.help_words))


def parse(words: Sequence[str], prog: str) -> Given | None:
    """Read a command line.

    Args:
        words: that follow the program's name.
        prog: the program's name.

    Returns:
        What it says; None if there is nothing on it, and so the help was printed.

    Raises:
        UserError: it is wrong, or the file of options is.
        SystemExit: after the help or the version was printed.
    """
    if not words:
        overview(prog).print_help()
        return None
    if words[0] in (*HELP, "--version"):
        overview(prog).parse_args(words[:1])
    mistakes.check_command(words, NAMES, prog)
    name = NAMES[words[0]]
    rest = [with_underscores(word) for word in words[1:]]
    parser = command_parser(words[0], prog)
    if any(word in HELP for word in rest):
        parser.parse_args(["--help"])
    _check_options(rest, parser)
    lines = _take_file(parser, rest)
    options = vars(parser.parse_args(rest))
    common = {item.name: options.pop(item.name) for item in fields(CommonOptions)}
    return Given(
        command=name,
        options=options,
        common=CommonOptions(**common),
        lines=lines,
    )


def with_underscores(word: str) -> str:
    """Turn ``--data-root=x`` into ``--data_root=x``: both spellings mean the same option."""
    return re.sub(r"^--[^=]+", lambda name: "--" + name[0][2:].replace("-", "_"), word)


def overview(prog: str, *, with_options: bool = False) -> argparse.ArgumentParser:
    """The parser of all commands, which knows their options only if these are asked for."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Train and run Wav2Lip on Ascend NPUs, CUDA GPUs and CPUs."
    )
    parser.add_argument("--version", action="version", version=f"wav2lip-npu {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        child = commands.add_parser(name, help=_about(command.config), aliases=command.aliases)
        if with_options:
            _add_all_options(child, command.config)
    return parser


def command_parser(name: str, prog: str) -> Parser:
    """The parser of a command's options.

    Args:
        name: the command, or an alias of it.
        prog: the program's name.
    """
    config = COMMANDS[NAMES[name]].config
    parser = Parser(prog=f"{prog} {name}", description=_about(config), allow_abbrev=False)
    parser.command = name
    # A script of the guide has its command in itself.
    parser.help_words = f"{prog if prog.endswith('.py') else parser.prog} --help"
    _add_all_options(parser, config)
    return parser


def _about(config: type) -> str:
    return (config.__doc__ or "").rstrip(".")


def _add_all_options(parser: argparse.ArgumentParser, config: type) -> None:
    add_options(parser, config)
    add_options(parser.add_argument_group("options of every command"), CommonOptions)


def add_options(parser: argparse._ActionsContainer, config: type) -> None:
    """Add an option for each field of an option class, required ones first."""
    types_of = typing.get_type_hints(config)
    for item in sorted(fields(config), key=lambda item: item.default is not MISSING):
        text, required = item.metadata["help"], item.default is MISSING
        if not required and item.default not in (None, ()):  # of these the text says what they mean
            text += f" (default: {spelled(item.default)})"
        names = [f"--{name}" for name in (item.name, *item.metadata["other_names"])]
        more: dict[str, Any] = {"dest": item.name, "required": required}
        if item.metadata["positional"]:
            names, more = [item.name], {}
        parser.add_argument(
            *names,
            default=None if required else item.default,
            choices=item.metadata["choices"] or None,
            help=text.replace("%", "%%"),
            **value_arguments(types_of[item.name], item.metadata["choices"]),
            **more,
        )


def _options_of(config: type) -> set[str]:
    """The names of a command's options."""
    found = (item for one in (config, CommonOptions) for item in fields(one))
    return {name for item in found for name in (item.name, *item.metadata["other_names"])}


def _check_options(words: Sequence[str], parser: Parser) -> None:
    """Raise a UserError for an option that the command lacks."""
    booleans = {item.dest: item.metavar == "BOOL" for item in parser._actions}
    config = COMMANDS[NAMES[parser.command]].config
    options = {name: booleans.get(name, False) for name in sorted(_options_of(config))}
    others = {name: _options_of(command.config) for name, command in COMMANDS.items()}
    mistakes.check_options(words, parser.command, options, others, parser.help_words)


def _take_file(parser: Parser, words: Sequence[str]) -> dict[str, int]:
    """Make the options of the file of ``--config``, if it is given, the defaults of a parser.

    Returns:
        The line of each that the command line does not give again.
    """
    finder = Parser(add_help=False, allow_abbrev=False)
    finder.command, finder.help_words = parser.command, parser.help_words
    finder.add_argument("--config", **value_arguments(Path))
    path = finder.parse_known_args(words)[0].config
    if path is None:
        return {}
    from wav2lip_npu.cli.config_file import read_options  # PyYAML, which is seldom needed

    given = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
    lines = {}
    for action, (value, line) in read_options(path, parser, NAMES).items():
        action.default, action.required = value, False
        if not given & {name[2:] for name in action.option_strings}:
            lines[action.dest] = line
    return lines
