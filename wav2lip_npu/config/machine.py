"""The options of the commands that try a machine: doctor and demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.config.base import DEVICE_HELP, DeviceOptions, option


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(DeviceOptions):
    """Show what this machine has, what it lacks, and what to do about it."""

    device: str = option(f"the exit code is 0 if this device can be used: {DEVICE_HELP}", "auto")
    s3fd: Path | None = option("S3FD's weight file (default: as for preprocess)", None)
    syncnet_checkpoint_path: Path | None = option(
        "checkpoint of the lip-sync expert (default: checkpoints/lipsync_expert.pth)", None
    )
    json: bool = option("print JSON, for programs", False)


@dataclass(frozen=True, kw_only=True)
class DemoConfig(DeviceOptions):
    """Make a small talking-head data set and run every step on it."""

    outdir: Path = option("folder to write to; an earlier demo there is replaced", Path("demo"))
    clips: int = option("clips in the data set", 12)
    expert_steps: int = option("training steps of the expert", 60)
    generator_steps: int = option("training steps of the generator", 60)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(4, "clips")
        self.require_at_least(1, "expert_steps", "generator_steps")
