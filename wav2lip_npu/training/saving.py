"""The checkpoint files of a training: written, named as the best, removed when there are newer."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path

from wav2lip_npu import checkpoint
from wav2lip_npu.config import TrainConfig
from wav2lip_npu.runtime.files import PARTIAL_PATTERN, WriteError
from wav2lip_npu.training.checks import SHEET as DATA_CHECK
from wav2lip_npu.training.figures import CURVES, FILM_STRIP
from wav2lip_npu.training.metrics import optional
from wav2lip_npu.training.tasks import Task

# Of ``atomic_write``, and of versions before 0.2.
_IMAGE_STEMS = "|".join(Path(name).stem for name in (CURVES, FILM_STRIP, DATA_CHECK))
_PARTIAL_NAME = re.compile(
    rf"\.(disc_)?(checkpoint_step\d+|best)\.({PARTIAL_PATTERN}\.pth|pth\.partial)"
    rf"|\.(samples_step\d+|{_IMAGE_STEMS})\.{PARTIAL_PATTERN}\.png"
)

log = logging.getLogger(__name__)


def remove_partial(folder: Path) -> None:
    """Remove what a training that was killed while it wrote has left; no files of others."""
    for path in folder.glob(".*"):
        if _PARTIAL_NAME.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


class CheckpointFiles:
    """What the first process of a training writes into ``--checkpoint_dir``."""

    def __init__(self, config: TrainConfig, metric: str, *, clips: int) -> None:
        """Prepare; nothing is written yet.

        Args:
            config: the options, which are saved too.
            metric: by which the best checkpoint is found.
            clips: of the training data: samples of an epoch.
        """
        self.published: list[int] = []  # steps of the checkpoints that this training has written
        self.best_is_ours = False  # the file of that name is of this training and metric
        self._config = config
        self._metric = metric
        self._clips = clips

    def save(self, task: Task, *, step: int, samples: int, best: float | None) -> None:
        """Write a checkpoint of every network, and remove those that are too old.

        Args:
            task: whose networks they are.
            step: how many are done.
            samples: how many the training has had.
            best: value of the metric so far.

        Raises:
            WriteError: it cannot be written; earlier ones stay as they were.
        """
        published = [*(n for n in self.published if n != step), step]
        common = {
            "items": samples,
            "config": self._config.plain(),
            "best": None if best is None else {"metric": self._metric, "value": best},
            "published": published,
            **task.state(),
        }
        # The one without prefix last: a resumed run looks for it, and finds the others beside it.
        for prefix, trained in reversed(task.trained.items()):
            trained.repair_statistics()
            path = self._path(prefix, step)
            checkpoint.save(
                path,
                trained.network,
                trained.optimizer,
                step=step,
                epoch=samples // self._clips,
                extra={**common, **trained.state()},
            )
            log.info("saved %s", path)
        self.published = published
        with optional("removal of older checkpoints"):
            self._prune(task)

    def _prune(self, task: Task) -> None:
        """Remove the oldest checkpoints of this training; others' in the folder stay."""
        keep = self._config.keep_last
        while keep and len(self.published) > keep:
            step = self.published.pop(0)
            for prefix in task.trained:  # the main one first, or it would be found alone
                self._path(prefix, step).unlink(missing_ok=True)

    def name_best(self, task: Task, step: int) -> bool:
        """Give the checkpoints of a step the name of the best; whether that was possible.

        A file of that name that another training has left gets a new name.
        """
        try:
            for prefix in task.trained:
                path = self._path(prefix, step)
                if not self.best_is_ours:
                    checkpoint.set_aside(path.with_name(prefix + checkpoint.BEST_NAME))
                checkpoint.name_best(path, prefix + checkpoint.BEST_NAME)
        except WriteError as error:
            log.warning("step %d is the best so far, but is not named so: %s", step, error)
            return False
        self.best_is_ours = True
        log.info("step %d is the best so far", step)
        return True

    def _path(self, prefix: str, step: int) -> Path:
        return self._config.checkpoint_dir / (prefix + checkpoint.file_name(step))
