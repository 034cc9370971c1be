"""The options of doctor, demo and completion, and those that every command has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.config.base import DEVICE_HELP, DeviceOptions, Options, option
from wav2lip_npu.errors import UserError

DEMO_MINUTES = 5

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True, kw_only=True)
class CommonOptions(Options):
    """Options of every command: what it says and where, not what it does."""

    config: Path | None = option(
        "YAML file with options of this command; those of the command line go before it (default: "
        "none)",
        None,
    )
    log_file: Path | None = option(
        "file that all messages are added to, with date and time (default: none)", None
    )
    quiet: bool = option("show warnings and errors only, and no progress", False)
    debug: bool = option("show the traceback of an error", False)


@dataclass(frozen=True, kw_only=True)
class CompletionConfig(Options):
    """Print a script that lets a shell complete commands and options."""

    command = "completion"
    shell: str = option("the shell that it is for", choices=SHELLS, positional=True)


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(DeviceOptions):
    """Show what this machine has, what it lacks, and what to do about it."""

    command = "doctor"
    device: str = option(f"the exit code is 0 if this device can be used: {DEVICE_HELP}", "auto")
    s3fd: Path | None = option("S3FD's weight file (default: as for preprocess)", None)
    syncnet_checkpoint_path: Path | None = option(
        "checkpoint of the lip-sync expert (default: checkpoints/lipsync_expert.pth)", None
    )
    json: bool = option("print JSON, for programs", False)


@dataclass(frozen=True, kw_only=True)
class DemoConfig(DeviceOptions):
    """Make a small talking-head data set and run every step on it."""

    command = "demo"
    outdir: Path = option("folder to write to; an earlier demo there is replaced", Path("demo"))
    minutes: float | None = option(
        "minutes to take; the steps of both trainings are planned by them and by what the machine "
        f"is measured to do (default: {DEMO_MINUTES})",
        None,
    )
    clips: int = option(
        "clips in the data set; a seventh of them, at most four, is kept from the trainings", 28
    )
    expert_steps: int | None = option(
        "training steps of the expert (default: planned by --minutes)", None
    )
    generator_steps: int | None = option(
        "training steps of the generator (default: planned by --minutes)", None
    )
    seed: int = option("seed of the data set and of both trainings", 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(4, "clips")
        self.require_at_least(1, "expert_steps", "generator_steps")
        self.require_at_least(0, "seed")
        self.require_above_0("minutes")
        if None not in (self.minutes, self.expert_steps, self.generator_steps):
            raise UserError("--minutes: has no effect with --expert_steps and --generator_steps")
