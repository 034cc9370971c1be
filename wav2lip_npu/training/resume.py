"""Where a training begins: resumed from its folder, started from given weights, or from nothing.

To resume is to go on with everything as it was. To start from weights is a new training: step 0,
its own data check and warm-up, a closed sync gate, no best validation yet.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wav2lip_npu import checkpoint
from wav2lip_npu.checkpoint import Checkpoint
from wav2lip_npu.config import GeneratorConfig, TrainConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.training.metrics import EMA_PREFIX
from wav2lip_npu.training.optimization import TrainableNetwork
from wav2lip_npu.training.tasks import Task
from wav2lip_npu.weight_files import WeightFileError, check_is_file

LISTS = ("train.txt", "val.txt")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Start:
    """The checkpoints that a training begins with, by the prefix of their networks.

    A network without one begins with random weights.
    """

    resumed: dict[str, Checkpoint]  # of the training in this folder, which goes on
    given: dict[str, Checkpoint]  # weights by option, for a new training

    @property
    def main(self) -> Checkpoint | None:
        """The checkpoint with the position to go on from; None in a new training."""
        return self.resumed.get("")


def check_names(config: TrainConfig) -> None:
    """Look for the files and folders that the options name, before anything is computed.

    Raises:
        UserError: one is missing.
    """
    if not config.data_root.is_dir():
        raise UserError(f"--data_root {config.data_root}: no such folder")
    for name in LISTS:
        if not (filelist := config.filelists / name).is_file():
            raise UserError(
                f"{filelist}: no such file; wav2lip-npu filelists writes it, or list there a "
                "clip's folder a line, relative to --data_root"
            )
    expert, discriminator = None, None
    if isinstance(config, GeneratorConfig):
        expert, discriminator = config.syncnet_checkpoint_path, config.disc_checkpoint_path
    paths = [expert, config.checkpoint_path, discriminator]
    # What a training was once started from need not be there any more when it is resumed.
    resumes = checkpoint.newest(config.checkpoint_dir) is not None
    for path in paths[:1] if resumes else paths:
        if path is not None:
            check_is_file(path)


def find_start(config: TrainConfig, task: Task) -> Start:
    """Read the checkpoints to begin with, and see that they fit the networks.

    The folder's newest whole checkpoint is resumed, whatever ``--checkpoint_path`` says; damaged
    ones are named in warnings.

    Raises:
        UserError: a given file cannot be used, or the folder has checkpoints but no whole one.
    """
    own = checkpoint.newest_first(config.checkpoint_dir)
    for path in own:
        try:
            resumed = {
                prefix: _read(path.with_name(prefix + path.name), trained)
                for prefix, trained in task.trained.items()
                if not prefix or path.with_name(prefix + path.name).exists()
            }
        except WeightFileError as error:
            log.warning("%s; trying the checkpoint before it", error)
            continue
        _log_unused(config, path)
        given = {
            prefix: _read(option, task.trained[prefix])
            for prefix, option in _options(config, task).items()
            if prefix not in resumed
        }
        return Start(resumed=resumed, given=given)
    if own:
        raise UserError(
            f"--checkpoint_dir {config.checkpoint_dir}: none of its {len(own)} checkpoints can be "
            "used; move them away to begin anew"
        )
    options = _options(config, task)
    given = {prefix: _read(path, task.trained[prefix]) for prefix, path in options.items()}
    return Start(resumed={}, given=given)


def _options(config: TrainConfig, task: Task) -> dict[str, Path]:
    """The files to start from, by prefix: those given, else those beside ``--checkpoint_path``."""
    found: dict[str, Path] = {}
    main = config.checkpoint_path
    for prefix in task.trained:
        path: Path | None = getattr(config, f"{prefix}checkpoint_path")
        beside = main and main.with_name(prefix + main.name)
        if path is None and beside is not None and beside.is_file():
            path = beside
        if path is not None:
            found[prefix] = path
    return found


def _read(path: Path, trained: TrainableNetwork) -> Checkpoint:
    found = checkpoint.read(path, trained.network)
    checkpoint.fitting_weights(trained.network, found)
    return found


def _log_unused(config: TrainConfig, resumed: Path) -> None:
    """Say that ``--checkpoint_path`` is not used, if it is another file than the resumed one."""
    path = config.checkpoint_path
    if path is None or path.resolve() == resumed.resolve():
        return
    if path.resolve().parent == config.checkpoint_dir.resolve():
        log.warning(
            "--checkpoint_path %s: not used; %s is newer and is resumed. To start from the older "
            "one, give another --checkpoint_dir",
            path, resumed,
        )  # fmt: skip
    else:
        log.info(
            "--checkpoint_path %s: not used, as the training in %s has begun and is resumed",
            path, config.checkpoint_dir,
        )  # fmt: skip


def load(start: Start, task: Task, *, reset_optimizer: bool) -> None:
    """Load the networks of a task.

    Args:
        start: what to load.
        task: a new one.
        reset_optimizer: start without the moments that given checkpoints have.

    Raises:
        UserError: a checkpoint to resume holds something else than a training saves.
    """
    for prefix, trained in task.trained.items():
        name = type(trained.network).__name__
        if (found := start.resumed.get(prefix)) is not None:
            checkpoint.load_network(trained.network, found)
            checkpoint.load_optimizer(trained.optimizer, found)
            try:
                trained.restore(found.extra)
                if not prefix:
                    task.restore(found.extra)
            except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
                raise UserError(
                    f"{found.path}: its state of the training cannot be taken up "
                    f"({type(error).__name__})"
                ) from error
            log.info("%s: resumes from %s, step %d", name, found.path, found.global_step)
        elif (found := start.given.get(prefix)) is not None:
            checkpoint.load_network(trained.network, found)
            if not reset_optimizer:
                _take_moments(trained, found)
            trained.restore({})
            log.info("%s: starts from the weights of %s", name, found.path)
        else:
            log.info("%s: random weights", name)


def _take_moments(trained: TrainableNetwork, found: Checkpoint) -> None:
    try:
        checkpoint.load_optimizer(trained.optimizer, found)
    except UserError as error:
        log.warning("%s; it starts anew", error)


def best_score(extra: Mapping[str, Any], metric: str, task: Task) -> float | None:
    """The best validation of a resumed training, if it is one of this metric.

    Before 0.2 it was a number alone: of the averaged weights if there were any.
    """
    best = extra.get("best")
    if isinstance(best, Mapping):
        value, known = best.get("value"), best.get("metric")
    else:
        options = extra.get("config")
        averaged = isinstance(options, Mapping) and options.get("ema") is not None
        value, known = best, (EMA_PREFIX if averaged else "") + task.score
    return float(value) if isinstance(value, (int, float)) and known == metric else None


def published_steps(extra: Mapping[str, Any]) -> list[int]:
    """The steps of the checkpoints that a resumed training has written and not yet removed."""
    steps = extra.get("published")
    return [n for n in steps if isinstance(n, int)] if isinstance(steps, (list, tuple)) else []
