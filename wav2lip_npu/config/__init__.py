"""The options of every command: one frozen dataclass each, checked when it is made.

``cli`` builds the command line from these classes: a field's name is the option's name, and its
text and default appear in ``--help``. A new option is one new field here.
"""

from wav2lip_npu.config.data import FilelistsConfig, PreprocessConfig
from wav2lip_npu.config.inference import ExportConfig, InferConfig, LipSyncConfig
from wav2lip_npu.config.machine import (
    CommonOptions,
    CompletionConfig,
    DemoConfig,
    DoctorConfig,
)
from wav2lip_npu.config.measure import EvaluateConfig, PlotConfig, SyncConfig
from wav2lip_npu.config.training import GeneratorConfig, SyncNetConfig, TrainConfig
from wav2lip_npu.config.ui import UiConfig

__all__ = [
    "CommonOptions",
    "CompletionConfig",
    "DemoConfig",
    "DoctorConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FilelistsConfig",
    "GeneratorConfig",
    "InferConfig",
    "LipSyncConfig",
    "PlotConfig",
    "PreprocessConfig",
    "SyncConfig",
    "SyncNetConfig",
    "TrainConfig",
    "UiConfig",
]
