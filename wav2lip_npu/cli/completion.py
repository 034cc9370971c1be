"""Scripts with which a shell completes commands, options and their values."""

from __future__ import annotations

import argparse

import shtab

from wav2lip_npu.cli.parser import overview

PROGRAM = "wav2lip-npu"


def script(shell: str) -> str:
    """The script for a shell, one of ``config.machine.SHELLS``."""
    parser = overview(PROGRAM, with_options=True)
    _complete_files(parser)
    return str(shtab.complete(parser, shell=shell)).rstrip("\n") + "\n"


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Have the values of options that name files completed as files."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in set(action.choices.values()):
                _complete_files(child)
        elif action.metavar == "PATH":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
