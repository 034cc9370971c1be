"""Non-maximum suppression, over a whole batch at once."""

from __future__ import annotations

import numpy as np


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression.

    From the best score downwards, a box is kept unless its overlap (intersection over union, with
    sides counted in whole pixels, x2 − x1 + 1) with one already kept exceeds the threshold.

    Args:
        boxes: (B, N, 4) x1, y1, x2, y2, each image's sorted by falling score.
        scores: (B, N); −inf marks padding, which is never kept.
        threshold: largest overlap that two kept boxes may have.

    Returns:
        bool (B, N), true for what is kept.
    """
    x1, y1, x2, y2 = np.moveaxis(boxes.astype(np.float32), -1, 0)
    area = (x2 - x1 + 1) * (y2 - y1 + 1)
    keep = np.isfinite(scores)
    for i in range(boxes.shape[1] - 1):  # one step for all images; N is small
        this, later = np.s_[:, i, None], np.s_[:, i + 1 :]
        width = np.minimum(x2[this], x2[later]) - np.maximum(x1[this], x1[later]) + 1
        height = np.minimum(y2[this], y2[later]) - np.maximum(y1[this], y1[later]) + 1
        common = np.maximum(width, 0) * np.maximum(height, 0)
        overlap = common / (area[this] + area[later] - common)
        keep[later] &= ~(keep[this] & (overlap > threshold))
    return keep


def best_first(
    boxes: np.ndarray, scores: np.ndarray, *, score_above: float, overlap: float
) -> list[np.ndarray]:
    """The detections of each image that matter: scored high enough, suppressed, sorted.

    Candidates below ``score_above`` are dropped first. That changes nothing (a box is suppressed
    only by a better one) and leaves few to compare.

    Args:
        boxes: (B, N, 4) x1, y1, x2, y2.
        scores: (B, N).
        score_above: scores must exceed this.
        overlap: threshold of ``suppress``.

    Returns:
        For each image float32 (n, 5): x1, y1, x2, y2, score.
    """
    scores = np.where(scores > score_above, scores, -np.inf)
    most = int(np.isfinite(scores).sum(axis=1).max(initial=0))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :most]
    scores = np.take_along_axis(scores, order, axis=1)
    boxes = np.take_along_axis(boxes, order[..., None], axis=1)
    keep = suppress(boxes, scores, overlap)
    detections = np.concatenate([boxes, scores[..., None]], axis=2).astype(np.float32)
    return [image[kept] for image, kept in zip(detections, keep, strict=True)]
