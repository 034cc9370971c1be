"""The losses, in float32 whatever the networks computed in."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def sync_loss(speech: torch.Tensor, face: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of the embeddings' cosine, which the ReLUs keep in [0, 1].

    Args:
        speech: (B, 512) embeddings of speech.
        face: (B, 512) embeddings of faces.
        label: (B,) 1 where they belong together, else 0.
    """
    cosine = F.cosine_similarity(speech.float(), face.float())
    # Rounding may carry it past 1, where the logarithm of 1 − cosine ends.
    return _cross_entropy(cosine.clamp(max=1.0), label.float())


def contrastive_loss(speech: torch.Tensor, face: torch.Tensor, together: int) -> torch.Tensor:
    """As ``sync_loss``, of all pairs within a group: those that belong together weigh a half.

    So its scale is that of ``sync_loss``, whose labels are 1 half of the time.

    Args:
        speech: (B, 512) embeddings of speech.
        face: (B, 512) embeddings of the faces that belong to it.
        together: elements of a group, which follow each other.
    """
    groups = (x.float().unflatten(0, (-1, together)) for x in (speech, face))
    cosines = torch.einsum("gse,gfe->gsf", *groups).clamp(max=1.0)  # the lengths are 1
    own = torch.eye(together, dtype=torch.bool, device=cosines.device).expand_as(cosines)
    matched, others = cosines[own], cosines[~own]
    right = _cross_entropy(matched, torch.ones_like(matched))
    wrong = _cross_entropy(others, torch.zeros_like(others))
    return (right + wrong) / 2


def real_or_not(probability: torch.Tensor, *, real: bool) -> torch.Tensor:
    """Binary cross-entropy of the discriminator's (N, 1) probabilities with one answer for all."""
    return _cross_entropy(probability, torch.full_like(probability, float(real)))


def _cross_entropy(probability: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    """The mean over all; NaN, and so its gradients, if there is a NaN among the probabilities.

    Torch's own refuses NaN, on some devices by ending the process, when the step could be skipped.
    """
    unknown = probability.isnan()
    loss = F.binary_cross_entropy(probability.masked_fill(unknown, 0.5), answer)
    return loss * torch.where(unknown.any(), torch.nan, 1.0)
