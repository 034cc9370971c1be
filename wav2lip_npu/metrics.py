"""What a training leaves to be looked at: a file of metrics, curves, and sheets of samples."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import torch

METRICS = "metrics.jsonl"
CURVES = "curves.png"
NOT_PLOTTED = {"items_per_second", "memory_gib"}


class Mean:
    """Mean of named scalars that stay on their device until they are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, scalars: dict[str, torch.Tensor]) -> None:
        """Take in one step's or batch's scalars, without waiting for the device."""
        for name, value in scalars.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] += 1

    def take(self) -> dict[str, float]:
        """The means so far; a new mean begins."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self.__init__()  # type: ignore[misc]
        return means


class MetricsFile:
    """``metrics.jsonl``: a line for each entry of the log and each evaluation."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / METRICS

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Append ``values``; kind is "train" or "eval"."""
        with self.path.open("a", encoding="utf-8") as file:
            print(json.dumps({"kind": kind, "step": step, **values}), file=file)

    def read(self) -> dict[tuple[str, str], dict[int, float]]:
        """All curves: (metric, kind) → step → value. Steps done twice count as done last."""
        curves: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                kind, step = entry.pop("kind"), entry.pop("step")
                for name, value in entry.items():
                    curves[name, kind][step] = value
        return curves


def plot_curves(metrics: MetricsFile) -> Path:
    """Draw every metric over the steps, training and evaluation in one plot each."""
    # Without pyplot: it would look for a screen and keep every figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = metrics.read()
    names = sorted({name for name, _ in curves} - NOT_PLOTTED)
    columns = min(3, max(1, len(names)))
    rows = -(-len(names) // columns) or 1
    figure = Figure(figsize=(4.5 * columns, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, place, title=name, xlabel="step")
        for kind, marker in (("train", ""), ("eval", "o")):
            curve = curves.get((name, kind), {})
            if curve:
                steps = sorted(curve)
                axes.plot(steps, [curve[step] for step in steps], marker=marker, label=kind)
        axes.grid(alpha=0.3)
        axes.legend()
    path = metrics.path.with_name(CURVES)
    partial = path.with_name(f".{CURVES}.{os.getpid()}.png")
    figure.savefig(partial, dpi=110)
    partial.replace(path)
    return path


def save_sheet(path: Path, pictures: torch.Tensor, titles: tuple[str, ...]) -> None:
    """Write pictures side by side, a column for each title.

    Args:
        path: the PNG file.
        pictures: uint8 (rows, columns, h, w, 3) BGR.
        titles: one for each column.
    """
    rows, columns, height, width = pictures.shape[:4]
    sheet = pictures.permute(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3).numpy()
    header = np.full((18, columns * width, 3), 255, np.uint8)
    for column, title in enumerate(titles):
        place = (column * width + 4, 13)
        cv2.putText(header, title, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.imwrite(str(path), np.concatenate([header, sheet]))
