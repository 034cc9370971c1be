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
    keep = np.isfinite(scores)
    for kept, image in zip(keep, boxes.astype(np.float32), strict=True):
        left = np.flatnonzero(kept)
        kept[:] = False
        while len(left):  # one step for each box that is kept
            best, left = left[0], left[1:]
            kept[best] = True
            left = left[_overlap(image[best], image[left]) <= threshold]
    return keep


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box (4,) and others (n, 4), sides counted in whole pixels."""
    corner, far_corner = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.maximum(far_corner - corner + 1, 0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2] + 1).prod(axis=1)
    area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
    return common / (area + areas - common)


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
