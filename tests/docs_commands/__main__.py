"""Run the commands of the docs and print what came of them; ``--list`` says only what would be."""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from fuzz import zygote
from fuzz.zygote import Limits
from helpers import thin_networks

from docs_commands.blocks import Line, collect, named_files, pages
from docs_commands.handling import BY_HAND, PARSED, RULES, RUN, SHELL, rule_for
from docs_commands.workplace import Store, prepare, write_config
from wav2lip_npu import checkpoint, cli

LIMITS = Limits(seconds=600)  # on a busy machine, too
SHOWN_LINES = 6  # of the output of a command that failed
CPU = ("--device", "cpu", "--precision", "fp32")
STEPS = 2  # of a training, after those that its folder has
TRAINING = (
    *("--eval_interval", "2", "--checkpoint_interval", "2"),
    *("--batch_size", "4", "--eval_windows", "1", "--num_workers", "0", *CPU),
)
CENTERFACE = ("--detector", "centerface", *CPU)
# Put after the options of a command: it does the same with less.
SMALLER = {
    "preprocess": (*CENTERFACE, "--num_workers", "1"),
    "sync": (*CPU, "--num_workers", "1"),
    "train-syncnet": TRAINING,
    "train": TRAINING,
    "infer": CENTERFACE,
    "evaluate": (*CENTERFACE, "--num_workers", "1"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Handle each command; 1 if one failed or has no rule, or a rule has no command."""
    parser = argparse.ArgumentParser(prog="docs_commands", description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the commands and their rules")
    parser.add_argument("--page", help="only pages whose names contain this")
    options = parser.parse_args(arguments)
    lines = [line for page in pages() for line in collect(page)]
    failures = _unruled(lines)
    if options.page:
        lines = [line for line in lines if options.page in line.page]
    if options.list:
        for line in lines:
            rule = rule_for(line)
            print(f"{rule.way if rule else 'no rule'}: {line}" + (f" ({rule.why})" if rule else ""))
    else:
        failures += _handle(lines)
    for failure in failures:
        print(failure)
    _summarize(lines)
    return 1 if failures else 0


def _unruled(lines: list[Line]) -> list[str]:
    """Commands without a rule, and rules without a command."""
    used = {rule_for(line) for line in lines}
    without = [f"{line}: in no class of tests/docs_commands/handling.py" for line in lines
               if rule_for(line) is None]  # fmt: skip
    return without + [f"the rule {rule.pattern!r} has no command" for rule in RULES
                      if rule not in used]  # fmt: skip


def _summarize(lines: list[Line]) -> None:
    counts = Counter(rule.way for line in lines if (rule := rule_for(line)))
    ways = ", ".join(f"{counts[way]} {way}" for way in (RUN, SHELL, PARSED, BY_HAND))
    print(f"{len(lines)} commands on {len({line.page for line in lines})} pages: {ways}")


def _handle(lines: list[Line]) -> list[str]:
    """Run or parse the commands, each one once, a page after the other; what failed."""
    zygote.prepare()
    thin_networks(pytest.MonkeyPatch())  # commands inherit them
    failures: list[str] = []
    known: set[tuple[str, ...]] = set()  # commands that were handled: pages repeat them
    with zygote.temporary_folder("docs-commands-") as folder:
        (folder / "store").mkdir()
        store = Store(folder / "store")
        for page in dict.fromkeys(line.page for line in lines):
            place = folder / re.sub(r"\W", "_", page) / "work"
            place.mkdir(parents=True)
            for name, content in named_files(page).items():
                (place / name).write_text(content)
            for line in (line for line in lines if line.page == page):
                rule, words = rule_for(line), tuple(line.words)
                if rule is None or rule.way == BY_HAND or (words in known and rule.way != SHELL):
                    continue
                known.add(words)
                started = _cpu_seconds()
                problem = _do(line, rule.way, place, store)
                print(f"{_cpu_seconds() - started:5.1f} s {rule.way}: {line}", flush=True)
                if problem:
                    failures.append(f"{line}\n    {problem}")
    return failures


def _cpu_seconds() -> float:
    """CPU time of this process and of those that it has waited for."""
    own, system, children, children_system, _ = os.times()
    return own + system + children + children_system


def _do(line: Line, way: str, place: Path, store: Store) -> str | None:
    """Handle a command; what went wrong, if something did."""
    if way == SHELL:
        done = subprocess.run(line.text, shell=True, cwd=place, capture_output=True, text=True)
        return done.stderr if done.returncode else None
    words = _arguments(line, place)
    if "--config" in words:
        write_config(words[0], place / words[words.index("--config") + 1])
    with _parsing_only(place) as parsed:
        code, text = _parse(words)
    if code != 0:
        return f"its options are refused: exit code {code}: {text}"
    if way == PARSED or not parsed:  # --help and the like have done all
        return None
    prepare(parsed[0], place, store)
    smaller = _smaller(words[0], parsed[0], place)
    ending = zygote.run(lambda: _run([*words, *smaller]), place, LIMITS)
    if ending.code == 0:
        return None
    text = (place.parent / "stderr").read_text(errors="replace").strip().splitlines()
    return f"exit code {ending.code}\n    " + "\n    ".join(text[-SHOWN_LINES:])


def _run(words: Sequence[str]) -> int:
    zygote.leave_out_what_is_slow()
    os.fsync = lambda descriptor: None
    return cli.main(words)


def _smaller(command: str, config: Any, place: Path) -> tuple[str, ...]:
    """Options that let a command do less."""
    options = SMALLER.get(command, ())
    if options is not TRAINING:
        return options
    newest = checkpoint.newest(place / config.checkpoint_dir)
    done = 0 if newest is None else int(re.sub(r"\D", "", newest.stem))
    return (*options, "--max_steps", str(done + STEPS))


def _arguments(line: Line, place: Path) -> list[str]:
    """The words after the program's name: no redirection, names without the file system's root."""
    words = line.words
    start = words.index("wav2lip_npu" if words[0] == "torchrun" else "wav2lip-npu") + 1
    end = next((n for n, word in enumerate(words) if word in (">", "|", "&")), len(words))
    found: list[str] = []
    for word in words[start:end]:
        word = re.sub(r"^(/|~/)", "", word)
        if "*" in word:
            names = [path.relative_to(place).as_posix() for path in place.glob(word)]
            found += sorted(names) or [word.replace("*", name) for name in ("one", "other")]
        else:
            found.append(word)
    return found


@contextmanager
def _parsing_only(place: Path) -> Iterator[list[Any]]:
    """Let commands, in a folder, do nothing but record their options."""
    former, folder, found = dict(cli.COMMANDS), Path.cwd(), []
    for name, command in former.items():
        cli.COMMANDS[name] = dataclasses.replace(command, run=found.append)
    os.chdir(place)
    try:
        yield found
    finally:
        os.chdir(folder)
        cli.COMMANDS.update(former)


def _parse(words: Sequence[str]) -> tuple[int, str]:
    """The exit code, and the messages."""
    messages = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(messages):
        try:
            code = cli.main(words)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
    return code, messages.getvalue().strip()


if __name__ == "__main__":
    sys.exit(main())
