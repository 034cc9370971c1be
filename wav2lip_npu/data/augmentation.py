"""How the pictures of samples are varied: mirrored, recoloured, moved, and made worse.

The random numbers belong to the sample, see ``sampler``; the pictures are varied where the networks
are. All frames of a window are varied alike.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch.nn import functional as F

from wav2lip_npu.constants import FACE_SIZE
from wav2lip_npu.data.sampler import Windows

MAX_VIEWS = 4  # ways in which a sample can be moved
MAX_BLUR = 2  # passes of a 3 × 3 mean
MAX_NOISE = 0.04  # standard deviation, of pixels from 0 to 1
MAX_COARSENESS = 3.0  # factor of the quantisation steps; 1 is about JPEG's quality 50
BLOCK = 8  # pixels, of JPEG
NOISE_SEED = 0
_FRAME_STRIDE = 37  # rows by which the noise of a frame is another than that of the one before

Variation = dict[str, torch.Tensor]


def variation(windows: Windows) -> Variation:
    """How samples are to be varied, as part of a batch.

    Returns:
        "mirrored" (n,) bool; the others float32 from -1 to 1: "colour" (n, 4), more or less of
        blue, green and red, and brighter or darker; "moved" (n, 4, 3), right, down and smaller, of
        four views; "worse" (n, 6), see ``make_worse``. Nothing without augmentation.
    """
    if windows.augmentation is None:
        return {}
    mirrored, colour, moved, worse = np.split(
        windows.augmentation.astype(np.float32), [1, 5, 5 + 3 * MAX_VIEWS], axis=1
    )
    return {
        "mirrored": torch.from_numpy(mirrored[:, 0] < 0),
        "colour": torch.from_numpy(colour),
        "moved": torch.from_numpy(moved.reshape(-1, MAX_VIEWS, 3)),
        "worse": torch.from_numpy(worse),
    }


def mirror(faces: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Faces (B, T, 3, h, w), some of them mirrored: (B,) bool."""
    return torch.where(mirrored.view(-1, 1, 1, 1, 1), faces.flip(-1), faces)


def recolour(faces: torch.Tensor, colour: torch.Tensor, strength: float) -> torch.Tensor:
    """Faces (B, T, 3, h, w) in [0, 1] with other colours and brightness: (B, 4), -1 to 1."""
    change = strength * colour.view(-1, 1, 4, 1, 1)
    return (faces * (1 + change[:, :, :3]) + change[:, :, 3:] / 2).clamp(0, 1)


def move(faces: torch.Tensor, moved: torch.Tensor, strength: float) -> torch.Tensor:
    """Faces shifted and scaled; the edge is repeated where nothing is known.

    Args:
        faces: (B, T, 3, h, w), where w is the width of a whole face.
        moved: (B, 3) from -1 to 1: to the right, downwards, and smaller.
        strength: the largest shift and change of size, as a fraction of the face's size.
    """
    size = faces.shape[3:]
    right, down, smaller = (strength * moved.float()).T
    zero, one = torch.zeros_like(right), torch.ones_like(right)
    rows = (
        torch.stack([one + smaller, zero, -2 * right * FACE_SIZE / size[1]], dim=1),
        torch.stack([zero, one + smaller, -2 * down * FACE_SIZE / size[0]], dim=1),
    )
    pictures = faces.flatten(1, 2)
    grid = F.affine_grid(torch.stack(rows, dim=1), [*pictures.shape], align_corners=False)
    found = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return found.unflatten(1, faces.shape[1:3])


def make_worse(faces: torch.Tensor, worse: torch.Tensor, share: float) -> torch.Tensor:
    """Some faces blurred, noisy and compressed, as videos of phones and of the web are.

    Args:
        faces: (B, T, 3, h, w) in [0, 1]; h and w are multiples of 8.
        worse: (B, 6) from -1 to 1: whether at all, blur, noise, compression, and where the noise
            begins.
        share: of the samples that are made worse.
    """
    chosen, blur, noise, coarseness, row, column = ((worse.float() + 1) / 2).T
    strength = [
        (part * (chosen < share)).view(-1, 1, 1, 1, 1) for part in (blur, noise, coarseness)
    ]
    result = faces
    for done in range(MAX_BLUR):
        part = (MAX_BLUR * strength[0] - done).clamp(0, 1)
        result = torch.lerp(result, _mean_of_neighbours(result), part)
    result = result + MAX_NOISE * strength[1] * _noise(faces, row, column)
    steps = MAX_COARSENESS * strength[2]
    return torch.where(steps > 0, _compressed(result, steps), result).clamp(0, 1)


def _mean_of_neighbours(faces: torch.Tensor) -> torch.Tensor:
    pictures = F.pad(faces.flatten(1, 2), (1, 1, 1, 1), "replicate")
    return F.avg_pool2d(pictures, 3, stride=1).unflatten(1, faces.shape[1:3])


def _noise(faces: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """Normal noise (B, T, 3, h, w): parts of one picture, so that it is the same in every run."""
    count, (height, width) = faces.shape[1], faces.shape[3:]
    tile = _noise_tile().to(faces.device)
    frames = torch.arange(count, device=faces.device)[None, :, None] * _FRAME_STRIDE
    rows = (row * FACE_SIZE).long()[:, None, None] + frames
    rows = (rows + torch.arange(height, device=faces.device)) % FACE_SIZE  # (B, T, h)
    columns = (column * FACE_SIZE).long()[:, None] + torch.arange(width, device=faces.device)
    found = tile[:, rows[..., None], (columns % FACE_SIZE)[:, None, None, :]]  # (3, B, T, h, w)
    return found.permute(1, 2, 0, 3, 4)


@cache
def _noise_tile() -> torch.Tensor:
    generator = torch.Generator().manual_seed(NOISE_SEED)
    return torch.randn(3, FACE_SIZE, FACE_SIZE, generator=generator)


def _compressed(faces: torch.Tensor, coarseness: torch.Tensor) -> torch.Tensor:
    """Quantised cosine transforms of blocks, as JPEG's: the finer the detail the coarser.

    Args:
        faces: (B, T, 3, h, w).
        coarseness: (B, 1, 1, 1, 1), 0 or more.
    """
    cosines = _cosines().to(faces.device)
    order = torch.arange(BLOCK, device=faces.device)
    # Near the middle of JPEG's table for brightness: from 16 at the lowest to 100 at the highest.
    steps = (16 + 6 * (order[:, None] + order)) / 255
    blocks = faces.unflatten(4, (-1, BLOCK)).unflatten(3, (-1, BLOCK))  # (B, T, 3, r, 8, c, 8)
    parts = torch.einsum("ui,btkricj,vj->btkrcuv", cosines, blocks, cosines)
    size = (coarseness[..., None, None] * steps).clamp_min(1e-4)
    parts = (parts / size).round() * size
    blocks = torch.einsum("ui,btkrcuv,vj->btkricj", cosines, parts, cosines)
    return blocks.flatten(5, 6).flatten(3, 4)


@cache
def _cosines() -> torch.Tensor:
    """The orthonormal cosine transform (8, 8)."""
    order, place = torch.arange(BLOCK)[:, None], torch.arange(BLOCK)
    matrix = torch.cos(math.pi * (2 * place + 1) * order / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix
