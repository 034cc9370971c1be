"""The losses, in float32 whatever the networks computed in."""

from __future__ import annotations

import torch
from torch.nn import functional as F

# Where the mouth is in a crop of the original's framing; rows and columns of 96.
MOUTH_ROWS, MOUTH_COLUMNS = slice(54, 88), slice(24, 72)
# L1 is least at the median: where a mouth is shut most of the time, that is a shut mouth, until the
# voice is learned. A square is least at the mean. So a difference of 0.2 counts twice.
SQUARE_WEIGHT = 5.0


def reconstruction_loss(
    generated: torch.Tensor, target: torch.Tensor, mouth_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """L1, and a loss in which the mouth counts more.

    Each pixel of the mouth's region counts ``mouth_weight`` times in its mean, and its error is
    |d| + 5 d² instead of |d|, d being the difference.

    Args:
        generated: (…, 96, 96) in [0, 1].
        target: of the same shape.
        mouth_weight: 1 or more; with 1 both results are L1.
    """
    difference = (generated - target).abs()
    l1 = difference.mean()
    if mouth_weight == 1:
        return l1, l1
    mouth = difference[..., MOUTH_ROWS, MOUTH_COLUMNS]
    more = (mouth_weight - 1) * mouth.numel() / difference.numel()
    square = SQUARE_WEIGHT * mouth.numel() / difference.numel() * mouth.square().mean()
    return l1, (l1 + more * mouth.mean() + mouth_weight * square) / (1 + more)


def sync_loss(audio: torch.Tensor, face: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of the embeddings' cosine, which the ReLUs keep in [0, 1].

    Args:
        audio: (B, 512) audio embeddings.
        face: (B, 512) face embeddings.
        label: (B,) 1 where they match, else 0.
    """
    cosine = F.cosine_similarity(audio.float(), face.float())
    # Rounding may give a little more than 1, where the logarithm of 1 − cosine ends.
    return _cross_entropy(cosine.clamp(max=1.0), label.float())


def contrastive_loss(audio: torch.Tensor, face: torch.Tensor, group_size: int) -> torch.Tensor:
    """As ``sync_loss``, of all pairs within a group; those that match weigh a half together.

    So its scale is that of ``sync_loss``, whose labels are 1 half of the time.

    Args:
        audio: (B, 512) audio embeddings.
        face: (B, 512) embeddings of the faces that match.
        group_size: elements of a group, which follow each other.
    """
    groups = (x.float().unflatten(0, (-1, group_size)) for x in (audio, face))
    cosines = torch.einsum("gse,gfe->gsf", *groups).clamp(max=1.0)  # the lengths are 1
    # Weights instead of a choice by a mask, whose size a card would have to tell the CPU.
    own = torch.eye(group_size, device=cosines.device)
    share = (own + (1 - own) / (group_size - 1)) * (group_size / 2)
    return _cross_entropy(cosines, own.expand_as(cosines), share.expand_as(cosines))


def adversarial_loss(probability: torch.Tensor, *, real: bool) -> torch.Tensor:
    """Binary cross-entropy of the discriminator's (N, 1) probabilities with one label for all."""
    return _cross_entropy(probability, torch.full_like(probability, float(real)))


def _cross_entropy(
    probability: torch.Tensor, label: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """The mean over all, each times its weight; NaN, and so its gradients, if a probability is NaN.

    Torch's own function refuses NaN, on some devices by ending the process, though the step could
    be skipped.
    """
    unknown = probability.isnan()
    loss = F.binary_cross_entropy(probability.masked_fill(unknown, 0.5), label, weight)
    return loss * torch.where(unknown.any(), torch.nan, 1.0)
