"""Run a command, and turn what goes wrong into one line and an exit code."""

from __future__ import annotations

import atexit
import gc
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from wav2lip_npu import __version__
from wav2lip_npu.cli import parser
from wav2lip_npu.cli.commands import COMMANDS, Command
from wav2lip_npu.cli.ending import INTERRUPTED_CODE, USER_ERROR_CODE, end, explain
from wav2lip_npu.cli.interrupts import interrupts
from wav2lip_npu.console import logs
from wav2lip_npu.console.progress import interval_seconds
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.device import disable_torch_npu_autoload


def main(arguments: Sequence[str] | None = None, *, prog: str = "wav2lip-npu") -> int:
    """Run a command.

    Args:
        arguments: the words after the program's name; None takes those of this process.
        prog: the program's name in messages.

    Returns:
        The exit code.
    """
    disable_torch_npu_autoload()
    words = sys.argv[1:] if arguments is None else [*arguments]
    try:
        given = parser.parse(words, prog)
    except UserError as error:
        return end(prog, str(error), USER_ERROR_CODE)
    if given is None:  # the help was printed
        return 0
    common = given.common
    with ExitStack() as stack:
        try:
            settings = logs.LogSettings(quiet=common.quiet, file=common.log_file)
            stack.enter_context(logs.logging_to(settings))
            interval_seconds()
        except UserError as error:
            return end(prog, f"error: {error}", USER_ERROR_CODE)
        logs.note(f"{prog} {shlex.join(words)} (version {__version__})")
        return _run(COMMANDS[given.command], given, prog)


def _run(command: Command, given: parser.Given, prog: str) -> int:
    """Run a command until it ends, in whatever way; its exit code is returned."""
    with interrupts(prog) as interrupted:
        try:
            code = command.run(given.make(command.config)) or 0
            sys.stdout.flush()  # an error of the output is seen here
            atexit.register(
                gc.freeze
            )  # else collecting torch's objects at exit takes half a second
            return code
        except KeyboardInterrupt:
            return end(prog, "interrupted", INTERRUPTED_CODE)
        except Exception as error:
            if interrupted.is_set():  # while C code was called, which made another error of it
                return end(prog, "interrupted", INTERRUPTED_CODE)
            if given.common.debug:
                raise
            code, text = explain(error, command.config)
            return end(prog, f"error: {text}", code)
