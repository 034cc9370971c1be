"""The command line: options from the classes in ``config``, errors in one line.

Only this module changes the whole process (environment, garbage collector, malloc, SIGTERM): the
command line owns its process, while a program that imports the package keeps its own settings.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import os
import re
import signal
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from wav2lip_npu import __version__
from wav2lip_npu.config import (
    DemoConfig,
    DoctorConfig,
    EvaluateConfig,
    ExportConfig,
    FilelistsConfig,
    GeneratorConfig,
    InferConfig,
    PlotConfig,
    PreprocessConfig,
    SyncConfig,
    SyncNetConfig,
    TrainConfig,
)
from wav2lip_npu.config.base import spelled
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import failures
from wav2lip_npu.runtime.device import Device, disable_torch_npu_autoload
from wav2lip_npu.runtime.threads import set_passive_waiting

# Exit codes; a shell has 130 for Ctrl-C.
FAULT_CODE, USER_ERROR_CODE, INTERRUPTED_CODE = 1, 2, 130
RAISE_AGAIN_SECONDS = 0.02  # after which no destructor runs any more
EXIT_SECONDS = 1.5  # from Ctrl-C or SIGTERM to the end of the process


def _preprocess(config: PreprocessConfig) -> None:
    from wav2lip_npu.preprocessing.command import preprocess

    preprocess(config)


def _filelists(config: FilelistsConfig) -> None:
    from wav2lip_npu.preprocessing.filelists import write_filelists

    write_filelists(config)


def _sync(config: SyncConfig) -> None:
    from wav2lip_npu.sync.command import sync

    if config.videos is not None:
        _preprocess(
            PreprocessConfig(
                data_root=config.videos, preprocessed_root=config.data_root, device=config.device
            )
        )
    sync(config)


def _train_syncnet(config: SyncNetConfig) -> None:
    from wav2lip_npu.training.trainer import train_syncnet

    _tune_malloc(config)
    train_syncnet(config)


def _train_generator(config: GeneratorConfig) -> None:
    from wav2lip_npu.training.trainer import train_generator

    _tune_malloc(config)
    train_generator(config)


def _tune_malloc(config: TrainConfig) -> None:
    Device.open(config.device, config.precision).tune_malloc()


def _plot(config: PlotConfig) -> None:
    from wav2lip_npu.plotting.command import plot

    plot(config)


def _export(config: ExportConfig) -> None:
    from wav2lip_npu.export import export

    export(config)


def _infer(config: InferConfig) -> None:
    set_passive_waiting()
    gc.disable()  # importing torch is 0.2 s faster without garbage collection
    try:
        from wav2lip_npu.inference.command import infer
    finally:
        gc.enable()
    infer(config)


def _evaluate(config: EvaluateConfig) -> None:
    from wav2lip_npu.evaluation.command import evaluate

    evaluate(config)


def _demo(config: DemoConfig) -> None:
    from wav2lip_npu.demo.run import run_demo

    run_demo(config)


def _doctor(config: DoctorConfig) -> int:
    from wav2lip_npu.doctor.command import diagnose

    return diagnose(config)


@dataclass(frozen=True)
class Command:
    """A subcommand."""

    config: type  # its option class
    run: Callable[[Any], int | None]  # returns the exit code; None is 0
    aliases: tuple[str, ...] = ()


# Each function imports its command when it runs: importing torch takes seconds.
COMMANDS = {
    "preprocess": Command(PreprocessConfig, _preprocess),
    "filelists": Command(FilelistsConfig, _filelists),
    "sync": Command(SyncConfig, _sync),
    "train-syncnet": Command(SyncNetConfig, _train_syncnet),
    "train": Command(GeneratorConfig, _train_generator, ("train-wav2lip",)),
    "plot": Command(PlotConfig, _plot),
    "export": Command(ExportConfig, _export),
    "infer": Command(InferConfig, _infer),
    "evaluate": Command(EvaluateConfig, _evaluate),
    "demo": Command(DemoConfig, _demo),
    "doctor": Command(DoctorConfig, _doctor),
}


def main(arguments: Sequence[str] | None = None, *, prog: str = "wav2lip-npu") -> int:
    """Run a command.

    Args:
        arguments: the words after the program's name; None takes those of this process.
        prog: the program's name in messages.

    Returns:
        The exit code.
    """
    disable_torch_npu_autoload()
    words = [_with_underscores(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    options = vars(_parser(prog).parse_args(words))
    debug, command = options.pop("debug"), COMMANDS[options.pop("command")]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with _interrupts(prog) as interrupted:
        try:
            code = command.run(command.config(**options)) or 0
            sys.stdout.flush()  # an error of the output is seen here
            atexit.register(
                gc.freeze
            )  # else collecting torch's objects at exit takes half a second
            return code
        except KeyboardInterrupt:
            return _end(prog, "interrupted", INTERRUPTED_CODE)
        except Exception as error:
            if interrupted.is_set():  # while C code was called, which made another error of it
                return _end(prog, "interrupted", INTERRUPTED_CODE)
            if debug:
                raise
            code, text = _explain(error, command.config)
            return _end(prog, f"error: {text}", code)


def _explain(error: Exception, config: type) -> tuple[int, str]:
    """The exit code for an exception, and a line about it."""
    if isinstance(error, UserError):
        return USER_ERROR_CODE, str(error)
    if failures.is_out_of_memory(error):
        batches = [item.name for item in fields(config) if item.name.endswith("batch_size")]
        advice = f"; with smaller batches less is needed (--{', --'.join(batches)})"
        return USER_ERROR_CODE, failures.reason(error) + (advice if batches else "")
    if isinstance(error, OSError):
        return USER_ERROR_CODE, failures.reason(error)
    remedy = failures.remedy(error)
    if remedy is not None:
        return USER_ERROR_CODE, f"{failures.reason(error)}; {remedy}"
    return FAULT_CODE, (
        f"unexpected error ({failures.reason(error)}); this is a fault of wav2lip-npu; "
        "--debug shows the traceback"
    )


def _end(prog: str, text: str, code: int) -> int:
    """Print the last line of a run that fails, whatever it names; the exit code is returned."""
    line = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
    with suppress(OSError):  # nobody reads it
        print(f"{prog}: {line}", file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:  # Python would try again when it ends, and fail with a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


@contextmanager
def _interrupts(prog: str) -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt: partial files are removed, results are saved.

    Threads that compute on for longer than ``EXIT_SECONDS`` are not waited for.

    Yields:
        An event that is set by then.
    """
    interrupted = threading.Event()

    def end_process() -> None:
        os._exit(_end(prog, "interrupted", INTERRUPTED_CODE))

    watchdog = threading.Timer(EXIT_SECONDS, end_process)
    watchdog.daemon = True
    timers = [watchdog]

    def interrupt(number: int, frame: types.FrameType | None) -> None:
        if interrupted.is_set():  # cleaning up already
            return
        interrupted.set()
        if not watchdog.is_alive():
            watchdog.start()
        raise KeyboardInterrupt

    def raise_again(unraisable: sys.UnraisableHookArgs) -> None:
        """A destructor was running, out of which nothing can be raised: a moment later."""
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            former_hook(unraisable)
            return
        interrupted.clear()
        timers.append(threading.Timer(RAISE_AGAIN_SECONDS, signal.raise_signal, [signal.SIGINT]))
        timers[-1].start()

    def print_others(kind: type[BaseException], *error: Any) -> None:
        """C code prints what it cannot hand on: NumPy does so where another module imports it."""
        if not issubclass(kind, KeyboardInterrupt):
            former_print(kind, *error)

    if threading.current_thread() is not threading.main_thread():  # Python allows no others
        yield interrupted
        return
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    former = {number: signal.signal(number, interrupt) for number in numbers}
    former_hook, sys.unraisablehook = sys.unraisablehook, raise_again
    former_print, sys.excepthook = sys.excepthook, print_others
    try:
        yield interrupted
    finally:
        for timer in timers:
            timer.cancel()
        sys.unraisablehook, sys.excepthook = former_hook, former_print
        for number, handler in former.items():
            signal.signal(number, handler)


def _with_underscores(word: str) -> str:
    """Turn ``--data-root=x`` into ``--data_root=x``: both spellings mean the same option."""
    return re.sub(r"^--[^=]+", lambda name: "--" + name[0][2:].replace("-", "_"), word)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description="Train and run Wav2Lip on Ascend NPUs, CUDA GPUs and CPUs."
    )
    parser.add_argument("--version", action="version", version=f"wav2lip-npu {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        text = (command.config.__doc__ or "").rstrip(".")
        child = commands.add_parser(
            name, help=text, description=text, aliases=command.aliases, allow_abbrev=False
        )
        child.set_defaults(command=name)
        add_options(child, command.config)
        child.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_options(parser: argparse.ArgumentParser, config: type) -> None:
    """Add an option for each field of an option class, required ones first."""
    types_of = typing.get_type_hints(config)
    for item in sorted(fields(config), key=lambda item: item.default is not MISSING):
        text, required = item.metadata["help"], item.default is MISSING
        if not required and item.default not in (None, ()):  # of these the text says what they mean
            text += f" (default: {spelled(item.default)})"
        parser.add_argument(
            f"--{item.name}",
            *(f"--{name}" for name in item.metadata["other_names"]),
            dest=item.name,
            required=required,
            default=None if required else item.default,
            choices=item.metadata["choices"] or None,
            help=text.replace("%", "%%"),
            **_value_arguments(types_of[item.name]),
        )


def _value_arguments(kind: Any) -> dict[str, Any]:
    """How argparse parses a value of this type."""
    if isinstance(kind, types.UnionType):  # "X | None"
        kind = typing.get_args(kind)[0]
    if kind is bool:  # "--static", and also "--static False", which the original accepts
        return {"type": _parse_bool, "nargs": "?", "const": True, "metavar": "BOOL"}
    if typing.get_origin(kind) is tuple:  # "tuple[int, int]", or "tuple[Path, ...]": one or more
        first, *_, last = typing.get_args(kind)
        count = "+" if last is Ellipsis else len(typing.get_args(kind))
        return {**_value_arguments(first), "nargs": count, "action": _Tuple}
    if kind is Path:
        return {"type": _parse_path, "metavar": "PATH"}
    return {"type": kind, "metavar": {int: "N", float: "X"}.get(kind)}


class _Tuple(argparse.Action):
    """A tuple; of any number of values, those of an option that is given twice count together."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        former = getattr(namespace, self.dest)
        is_more = self.nargs == "+" and former is not self.default
        setattr(namespace, self.dest, (*(former if is_more else ()), *values))


def _parse_path(word: str) -> Path:
    """A path; ``~`` is the home folder also where a shell leaves it, as in ``--face=~/a.mp4``."""
    if not word:
        raise argparse.ArgumentTypeError("an empty name")
    return Path(word).expanduser() if re.match(r"~(/|$)", word) else Path(word)


def _parse_bool(word: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if word.lower() not in values:
        raise argparse.ArgumentTypeError(f"{word!r} is neither true nor false")
    return values[word.lower()]
