"""Non-maximum suppression of a whole batch."""

from __future__ import annotations

import numpy as np


def suppress(boxes: np.ndarray, scores: np.ndarray, max_overlap: float) -> np.ndarray:
    """Greedy non-maximum suppression.

    From the best score downwards, a box is kept unless its overlap (intersection over union, with
    sides of x2 − x1 + 1 pixels) with a box that is already kept exceeds ``max_overlap``.

    Args:
        boxes: (B, N, 4) x1, y1, x2, y2, sorted by descending score within an image.
        scores: (B, N); −inf marks padding, which is never kept.
        max_overlap: of two boxes that are kept.

    Returns:
        bool (B, N), true for boxes that are kept.
    """
    keep = np.isfinite(scores)
    for kept, image in zip(keep, boxes.astype(np.float32), strict=True):
        candidates = np.flatnonzero(kept)
        kept[:] = False
        while len(candidates):  # keeps one box per iteration
            best, candidates = candidates[0], candidates[1:]
            kept[best] = True
            overlaps = _overlap(image[best], image[candidates])
            candidates = candidates[overlaps <= max_overlap]
    return keep


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box (4,) and others (n, 4), sides of x2 − x1 + 1."""
    corner, far_corner = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.maximum(far_corner - corner + 1, 0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2] + 1).prod(axis=1)
    area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
    return common / (area + areas - common)


def best_first(
    boxes: np.ndarray, scores: np.ndarray, *, min_score: float, max_overlap: float
) -> list[np.ndarray]:
    """The detections of each image: finite, above the score, suppressed, sorted by score.

    Boxes with low scores are dropped before the suppression, to compare fewer of them. The result
    is the same, because only a better box suppresses another.

    Args:
        boxes: (B, N, 4) x1, y1, x2, y2.
        scores: (B, N).
        min_score: scores must exceed this.
        max_overlap: see ``suppress``.

    Returns:
        For each image float32 (n, 5): x1, y1, x2, y2, score.
    """
    scores = np.where(scores > min_score, scores, -np.inf)
    count = int(np.isfinite(scores).sum(axis=1).max(initial=0))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    scores = np.take_along_axis(scores, order, axis=1)
    boxes = np.take_along_axis(boxes, order[..., None], axis=1)
    scores = np.where(np.isfinite(boxes).all(axis=2), scores, -np.inf)
    keep = suppress(boxes, scores, max_overlap)
    detections = np.concatenate([boxes, scores[..., None]], axis=2).astype(np.float32)
    return [image[kept] for image, kept in zip(detections, keep, strict=True)]
