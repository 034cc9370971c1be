"""The commands: each has an option class and a function, which imports what it needs.

Importing torch takes seconds, so it is imported when a command runs that uses it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wav2lip_npu.config import (
    CompletionConfig,
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
    UiConfig,
)
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.threads import set_passive_waiting


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


def _ui(config: UiConfig) -> None:
    from wav2lip_npu.ui.command import run_ui

    run_ui(config)


def _demo(config: DemoConfig) -> None:
    from wav2lip_npu.demo.run import run_demo

    run_demo(config)


def _doctor(config: DoctorConfig) -> int:
    from wav2lip_npu.doctor.command import diagnose

    return diagnose(config)


def _completion(config: CompletionConfig) -> None:
    from wav2lip_npu.cli.completion import script

    print(script(config.shell), end="")


@dataclass(frozen=True)
class Command:
    """A subcommand."""

    config: type  # its option class
    run: Callable[[Any], int | None]  # returns the exit code; None is 0
    aliases: tuple[str, ...] = ()


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
    "ui": Command(UiConfig, _ui),
    "demo": Command(DemoConfig, _demo),
    "doctor": Command(DoctorConfig, _doctor),
    "completion": Command(CompletionConfig, _completion),
}
