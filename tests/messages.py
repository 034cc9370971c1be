"""Every error and warning that the code can print, read from its source, with … for each field.

A message is the text of an exception, of ``log.warning`` or ``log.error``, of the last line of a
run that fails, or of a finding of the doctor.
"""

from __future__ import annotations

import ast
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path

from source_texts import FIELD, ROOT, Code, Scope, normal, words

from wav2lip_npu.errors import UserError

ERROR_NAMES = ("error", "failed", "failure")  # what the code calls an exception
MORE_ERRORS = ("Warning",)  # besides names that end in Error
PRINTERS = {"end": 1}  # functions that print a line on stderr, and which argument that is
PASSED_ON = {  # calls that pass on an exception's text under another name
    "log.error('%s: %s', name, fault)",
    "UserError(message.rpartition('UserError: ')[2])",
}
# Parts of messages that say nothing alone, or what is right.
NO_MESSAGES = {
    "True of an earlier version, which averaged the next four frames",
    "bf16, which this device only emulates: much slower than auto",
    "bf16, which this device supports natively",
    "data check: lips and sound",
    "fp16 with scaled gradients, as this device has no native bf16",
    "fp32, as this processor has no native bf16",
    "its pickle",
    "…. All options: …",
    "of unknown version",
    "possibly out of memory",
    "removal of older checkpoints",
    "samples of step …",
    "the expert alone",
    "the last checkpoint is …",
    "there is no checkpoint yet",
    "weights of an unknown network",
    "with fp16 in convolutions, which is all that this card has",
    "with … in convolutions (--strict_fp32 without)",
}
# Parts of messages that are found, but are too short to be kept as such; a test prints each.
SHORT = ("needs …", "needs … values")
_LOGS, _CHECKS = ("warning", "error", "critical", "exception", "warn"), ("warning", "failed")
_PLACE = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?[sdrgfe]")


@dataclass(frozen=True)
class Message:
    """A message, and where it is made."""

    text: str
    file: str
    line: int = field(compare=False)


def collect(root: Path = ROOT) -> list[Message]:
    """All messages, in the order of the files."""
    code = Code(root)
    found: dict[str, Message] = {}
    faults: list[str] = []

    def keep(text: str, file: str, line: int) -> None:
        if words(normal(text)):
            found.setdefault(normal(text), Message(normal(text), file, line))

    for name, calls in sorted(code.calls.items()):
        for call, scope in calls:
            file = scope.module.name
            given, made = sink(code, name, call, scope)
            has_words = any(map(words, made)) or passes_on(code, given, scope)
            if given and not has_words and ast.unparse(call) not in PASSED_ON:
                faults.append(f"{file}:{call.lineno}: {ast.unparse(call)}")
            for text in sorted(made):
                keep(text, file, call.lineno)
    for text, (file, line) in sorted(code.parts.items()):
        keep(text, file, line)
    if root == ROOT and (stale := NO_MESSAGES - {*found}):
        faults.append(f"NO_MESSAGES of {Path(__file__).name} has what is not made: {stale}")
    if faults:
        raise UserError("cannot be read from the source:\n" + "\n".join(faults))
    rest = (message for text, message in found.items() if text not in NO_MESSAGES)
    return sorted(rest, key=lambda message: (message.file, message.line, message.text))


def passes_on(code: Code, given: list[ast.expr], scope: Scope) -> bool:
    """Whether a message without words of its own passes on an exception or known texts."""
    for node in (one for each in given for one in ast.walk(each)):
        if isinstance(node, ast.Name) and node.id in ERROR_NAMES:
            return True
        kinds = ast.Name | ast.Attribute | ast.Call | ast.JoinedStr
        if isinstance(node, kinds) and any(map(words, code.texts(node, scope))):
            return True
    return False


def sink(code: Code, name: str, call: ast.Call, scope: Scope) -> tuple[list[ast.expr], set[str]]:
    """What a call prints or raises: the expressions, and the templates of the whole."""
    args, owner = call.args, ast.unparse(call.func).rpartition(".")[0]
    if (code.is_error(name) or name in MORE_ERRORS) and args:
        text = args[1 if name == "OSError" and len(args) > 1 else 0]
        return [text], code.texts(text, scope)
    if name in PRINTERS and isinstance(call.func, ast.Name):
        return [args[PRINTERS[name]]], code.texts(args[PRINTERS[name]], scope)
    if name == "Finding" or (name in _CHECKS and owner == "Finding"):
        title, *_, detail = args[: 3 if name == "Finding" else 2]
        pairs = itertools.product(code.texts(title, scope), code.texts(detail, scope))
        return [title], {": ".join(pair) for pair in pairs}
    if name in _LOGS and owner and args and owner != "parser":
        for value in args[1:]:
            code.keep(code.texts(value, scope), value, scope)
        return args, {_PLACE.sub(FIELD, text) for text in code.texts(args[0], scope)}
    return [], set()


@dataclass(frozen=True)
class Row:
    """A row of a page's table of messages."""

    section: str
    messages: tuple[str, ...]


def rows(page: Path) -> list[Row]:
    """The rows of all tables whose first column has messages, which are code."""
    found, section, is_table = [], "", False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif not line.startswith("| `"):
            is_table = re.match(r"\| (message|报错原文) \|", line) or (is_table and line[:1] == "|")
        elif is_table:
            first = re.split(r"(?<!\\)\|", line)[1]
            texts = re.findall(r"`([^`]+)`", first.replace("\\|", "|"))
            found.append(Row(section, tuple(texts)))
    return found


def look_up(page: Path, line: str) -> str | None:
    """The message of a page that a printed line is, after its program and file: the longest."""
    fitting = []
    for text in (one for row in rows(page) for one in row.messages):
        pattern = re.escape(text).replace(FIELD, ".*?")
        if re.search(rf"(?:^|: |[a-z] ){pattern}(?:$|[;.] )", line):
            fitting.append(text)
    return max(fitting, key=lambda text: len(text.replace(FIELD, "")), default=None)


if __name__ == "__main__":
    for message in collect():
        print(f"{message.file}:{message.line}: {message.text}")
