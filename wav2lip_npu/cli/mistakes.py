"""What is wrong with a command line, in one line that names what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from wav2lip_npu.errors import UserError

LEAST_LIKENESS = 0.6  # of a word and its correction, as difflib measures it


def nearest(word: str, words: Collection[str]) -> str | None:
    """The word that was probably meant; None if none is like it."""
    from difflib import get_close_matches  # not at the top: a run without mistakes does without

    if found := get_close_matches(word, words, 1, LEAST_LIKENESS):
        return found[0]
    begun = [known for known in words if known.startswith(word)] if len(word) > 1 else []
    return begun[0] if len(begun) == 1 else None


def meant(word: str, words: Collection[str], prefix: str = "") -> str:
    """A sentence that names the word that was probably meant, to be added to others; or nothing."""
    found = nearest(word, words)
    return "" if found is None else f" Did you mean {prefix}{found}?"


def check_command(words: Sequence[str], commands: Collection[str], prog: str) -> None:
    """See whether the first word is a command.

    Raises:
        UserError: it is none, or an option.
    """
    first, *others = words
    if first in commands:
        return
    known = next((word for word in others if word in commands), None)
    if first.startswith("-") and known is not None:
        raise UserError(
            f"{first} comes before the command. Options follow it, as in: {prog} {known} {first}"
        )
    if first.startswith("-"):
        raise UserError(f"{first} without a command. All commands: {prog} --help")
    likely = meant(first.replace("_", "-"), commands)
    raise UserError(f"there is no command {first}.{likely} All commands: {prog} --help")


def check_options(
    words: Sequence[str],
    command: str,
    options: Mapping[str, bool],
    others: Mapping[str, Collection[str]],
    help_words: str,
) -> None:
    """See whether a command has the options that are given to it.

    Args:
        words: that follow the command, options in the spelling with underscores.
        command: its name.
        options: that it has, without dashes, and whether each is true or false.
        others: the options of all commands.
        help_words: what to type for the help.

    Raises:
        UserError: it lacks one.
    """
    for word in words:
        name = word[2:].partition("=")[0]
        if not word.startswith("--") or not name or name in options:
            continue
        if name.startswith("no_") and options.get(name[3:]):
            likely = f" Did you mean --{name[3:]} false?"
        elif not (likely := meant(name, options, "--")):
            having = [other for other in others if name in others[other]]
            likely = f" {' and '.join(having)} have it." if len(having) > 1 else likely
            likely = f" {having[0]} has it." if len(having) == 1 else likely
        raise UserError(
            f"there is no option --{name} for {command}.{likely} All options: {help_words}"
        )


def explain(message: str, command: str, help_words: str) -> str:
    """An error message of argparse in our words.

    Args:
        message: argparse's.
        command: that was given.
        help_words: what to type for the help.
    """
    return f"{_reworded(message, command)}. All options: {help_words}"


def _reworded(message: str, command: str) -> str:
    if match := re.fullmatch(r"the following arguments are required: (.*)", message):
        names = match[1].split(", ")
        return f"{command} needs {_list(names)}"
    if match := re.fullmatch(r"argument (\S+): (.*)", message, re.DOTALL):
        name, reason = match[1].split("/")[0], match[2]
        if reason == "expected one argument":
            return f"{name}: needs a value; one that begins with - is given as in {name}=-1"
        if reason == "expected at least one argument":
            return f"{name}: needs one value or more"
        if count := re.fullmatch(r"expected (\d+) arguments?", reason):
            return f"{name}: needs {count[1]} values"
        return f"{name} {reason}"
    if match := re.fullmatch(r"unrecognized arguments: (.*)", message, re.DOTALL):
        return f"{match[1]}: belongs to no option of {command}; quote values that have spaces"
    return message


def _list(names: Sequence[str]) -> str:
    """Names as in ``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
