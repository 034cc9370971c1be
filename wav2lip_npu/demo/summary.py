"""What the demo has reached: three numbers, and what more time would give."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from wav2lip_npu.training.metrics import MetricsFile

REPORT = "evaluation.json"  # as ``evaluate`` calls it
# What a mouth needs that convinces.
MIN_ACCURACY, MIN_PSNR_LOWER, MIN_OPENING_CORR = 0.80, 26.0, 0.6


@dataclass(frozen=True, kw_only=True)
class Results:
    """Numbers of clips that no training saw; None where one could not be measured."""

    accuracy: float | None  # of pairs of sound and faces that the expert judges rightly
    psnr_lower: float | None  # dB, of the lower halves of the generated faces
    opening_corr: float | None  # of the mouth's opening and the voice's loudness, over frames

    @property
    def is_convincing(self) -> bool:
        """Whether all marks are reached."""
        return (
            _reaches(self.accuracy, MIN_ACCURACY)
            and _reaches(self.psnr_lower, MIN_PSNR_LOWER)
            and _reaches(self.opening_corr, MIN_OPENING_CORR)
        )

    def lines(self) -> list[str]:
        """One line for each number, with its mark."""
        accuracy, psnr, corr = self.accuracy, self.psnr_lower, self.opening_corr
        return [
            f"expert     pairs judged rightly: {_spelled(accuracy, '.0%')} (mark "
            f"{MIN_ACCURACY:.0%}, chance 50%)",
            f"generator  PSNR of the lower half of the face: {_spelled(psnr, '.1f')} dB (mark "
            f"{MIN_PSNR_LOWER:g} dB)",
            f"mouth      its opening against the voice's loudness: r = {_spelled(corr, '.2f')} "
            f"(mark {MIN_OPENING_CORR:g})",
        ]


def read_results(expert: Path, generator: Path, evaluation: Path) -> Results:
    """Read what the commands have written.

    Args:
        expert: the folder of the expert's training.
        generator: the folder of the generator's training.
        evaluation: the folder of ``evaluate``.
    """
    report = json.loads((evaluation / REPORT).read_text(encoding="utf-8"))
    return Results(
        accuracy=_last(expert, "accuracy"),
        psnr_lower=_last(generator, "psnr"),
        opening_corr=report["metrics"]["opening_corr_voice"]["mean"],
    )


def _last(folder: Path, metric: str) -> float | None:
    """A metric of a training's last validation."""
    values = MetricsFile(folder).read().get((metric, "eval"), {})
    return values[max(values)] if values else None


def _reaches(value: float | None, mark: float) -> bool:
    return value is not None and value >= mark


def _spelled(value: float | None, form: str) -> str:
    return "not measured" if value is None else format(value, form)
