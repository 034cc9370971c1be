"""The command line: options from the classes in ``config``, errors in one line."""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import re
import signal
import sys
import threading
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from face_detection import FaceDetectionError
from wav2lip_npu import __version__
from wav2lip_npu.config import (
    DemoConfig,
    DoctorConfig,
    ExportConfig,
    FilelistsConfig,
    GeneratorConfig,
    InferConfig,
    PreprocessConfig,
    SyncNetConfig,
)
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import device

USER_ERROR, INTERRUPTED = 2, 130  # exit codes; 130 is a shell's for Ctrl-C


def _preprocess(config: PreprocessConfig) -> None:
    from wav2lip_npu.preprocessing.command import preprocess

    preprocess(config)


def _filelists(config: FilelistsConfig) -> None:
    from wav2lip_npu.preprocessing.filelists import write_filelists

    write_filelists(config)


def _train_syncnet(config: SyncNetConfig) -> None:
    from wav2lip_npu.training.trainer import train_syncnet

    train_syncnet(config)


def _train_generator(config: GeneratorConfig) -> None:
    from wav2lip_npu.training.trainer import train_generator

    train_generator(config)


def _export(config: ExportConfig) -> None:
    from wav2lip_npu.inference.export import export

    export(config)


def _infer(config: InferConfig) -> None:
    device.yield_cores()
    gc.disable()  # imports make no garbage, but it is looked for: a fifth of a second with torch's
    from wav2lip_npu.inference.command import infer

    gc.enable()
    infer(config)


def _demo(config: DemoConfig) -> None:
    from wav2lip_npu.demo.run import run_demo

    run_demo(config)


def _doctor(config: DoctorConfig) -> int:
    from wav2lip_npu.doctor.command import diagnose

    return diagnose(config)


@dataclass(frozen=True)
class Command:
    """A subcommand: its options, its work (an exit code, if not 0), and other names."""

    config: type
    run: Callable[[Any], int | None]
    aliases: tuple[str, ...] = ()


# The work is imported when it is asked for: importing torch takes seconds.
COMMANDS = {
    "preprocess": Command(PreprocessConfig, _preprocess),
    "filelists": Command(FilelistsConfig, _filelists),
    "train-syncnet": Command(SyncNetConfig, _train_syncnet),
    "train": Command(GeneratorConfig, _train_generator, ("train-wav2lip",)),
    "export": Command(ExportConfig, _export),
    "infer": Command(InferConfig, _infer),
    "demo": Command(DemoConfig, _demo),
    "doctor": Command(DoctorConfig, _doctor),
}


def main(arguments: Sequence[str] | None = None, *, prog: str = "wav2lip-npu") -> int:
    """Run the command line ``arguments`` (default: the process's own); returns the exit code."""
    words = [_with_underscores(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    options = vars(_parser(prog).parse_args(words))
    debug, command = options.pop("debug"), COMMANDS[options.pop("command")]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if threading.current_thread() is threading.main_thread():
        # So that what is half done is cleared away; Python's own answer is to die on the spot.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = command.run(command.config(**options)) or 0
        # Or half a second goes into looking for garbage in torch's objects as the process ends.
        atexit.register(gc.freeze)
        return code
    except (UserError, FaceDetectionError) as error:
        if debug:
            raise
        print(f"{prog}: error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _with_underscores(word: str) -> str:
    """``--data-root=x`` as ``--data_root=x``: both spellings are one option."""
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
    """One option for each field of an option class, required ones first."""
    types_of = typing.get_type_hints(config)
    for item in sorted(fields(config), key=lambda item: item.default is not MISSING):
        text, choices = item.metadata["help"], item.metadata["choices"]
        if item.default is MISSING:
            parser.add_argument(
                f"--{item.name}", required=True, help=text, **_reading(types_of[item.name])
            )
            continue
        if item.default is not None:
            shown = item.default if not isinstance(item.default, tuple) else _spaced(item.default)
            text += f" (default: {shown})"
        parser.add_argument(
            f"--{item.name}",
            default=item.default,
            choices=choices or None,
            help=text.replace("%", "%%"),
            **_reading(types_of[item.name]),
        )


def _spaced(values: tuple[int, ...]) -> str:
    return " ".join(map(str, values))


def _reading(kind: Any) -> dict[str, Any]:
    """How argparse reads a field of this type."""
    if isinstance(kind, types.UnionType):  # "X | None"
        kind = typing.get_args(kind)[0]
    if kind is bool:  # "--static", and "--static False" as the original's users write
        return {"type": _truth, "nargs": "?", "const": True, "metavar": "BOOL"}
    if typing.get_origin(kind) is tuple:
        return {"type": int, "nargs": len(typing.get_args(kind)), "metavar": "N", "action": _Tuple}
    return {"type": kind, "metavar": {Path: "PATH", int: "N", float: "X"}.get(kind)}


class _Tuple(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        setattr(namespace, self.dest, tuple(values))


def _truth(word: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if word.lower() not in known:
        raise argparse.ArgumentTypeError(f"{word!r} is neither true nor false")
    return known[word.lower()]
