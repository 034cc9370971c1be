"""Varied pictures, against OpenCV, SciPy and what can be seen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.fft import dctn

from wav2lip_npu.data.augmentation import make_worse, move


def picture(seed: int = 0, height: int = 96) -> np.ndarray:
    """A smooth picture (h, 96, 3) in [0, 1]."""
    noise = np.random.default_rng(seed).random((height // 8, 12, 3)).astype(np.float32)
    return cv2.resize(noise, (96, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def window(*pictures: np.ndarray) -> torch.Tensor:
    """Two equal frames of each picture: (B, 2, 3, h, w)."""
    frames = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return frames[:, None].expand(-1, 2, -1, -1, -1).contiguous()


def as_picture(faces: torch.Tensor, number: int = 0, frame: int = 0) -> np.ndarray:
    return faces[number, frame].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("height", [96, 48])
def test_moved_is_what_opencv_moves(height: int) -> None:
    """To the right by 6 pixels, down by 3, and smaller by a tenth, about the middle."""
    source = picture(height=height)
    moved = torch.tensor([[6 / 96, 3 / 96, 0.0], [0.0, 0.0, 0.1]]) / 0.2
    found = move(window(source, source), moved, 0.2)
    shift = np.array([[1, 0, 6], [0, 1, 3]], np.float32)
    expected = cv2.warpAffine(source, shift, (96, height), borderMode=cv2.BORDER_REPLICATE)
    np.testing.assert_allclose(as_picture(found), expected, atol=2e-3)
    middle_x, middle_y = 47.5, (height - 1) / 2
    size = 1 / 1.1
    scale = np.array(
        [[size, 0, middle_x * (1 - size)], [0, size, middle_y * (1 - size)]], np.float32
    )
    expected = cv2.warpAffine(source, scale, (96, height), borderMode=cv2.BORDER_REPLICATE)
    np.testing.assert_allclose(as_picture(found, 1), expected, atol=0.02)
    assert torch.equal(found[:, 0], found[:, 1])  # all frames alike


def test_without_strength_nothing_moves() -> None:
    faces = window(picture())
    torch.testing.assert_close(move(faces, torch.ones(1, 3), 0.0), faces, atol=1e-5, rtol=0)


def worse(**parts: float) -> torch.Tensor:
    """The numbers of one sample, from 0 to 1: how much of what."""
    names = ("chosen", "blur", "noise", "compression", "row", "column")
    return torch.tensor([[2 * parts.get(name, 0.0) - 1 for name in names]])


def test_nothing_is_worse_unless_chosen() -> None:
    faces = window(picture())
    strong = worse(chosen=0.5, blur=1, noise=1, compression=1)
    assert torch.equal(make_worse(faces, strong, 0.5), faces)
    assert not torch.equal(make_worse(faces, strong, 0.51), faces)
    torch.testing.assert_close(make_worse(faces, worse(), 1.0), faces, atol=1e-6, rtol=0)


def test_blur_is_two_means_of_nine() -> None:
    source = picture()
    found = make_worse(window(source), worse(blur=1), 1.0)
    expected = cv2.blur(
        cv2.blur(source, (3, 3), borderType=cv2.BORDER_REPLICATE),
        (3, 3), borderType=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    np.testing.assert_allclose(as_picture(found), expected, atol=1e-5)


def test_noise_is_as_strong_as_said_and_differs_from_frame_to_frame() -> None:
    grey = np.full((48, 96, 3), 0.5, np.float32)
    found = make_worse(
        window(grey, grey), torch.cat([worse(noise=1), worse(noise=0.5, row=0.3)]), 1
    )
    assert float((found[0] - 0.5).std()) == pytest.approx(0.04, rel=0.05)
    assert float((found[1] - 0.5).std()) == pytest.approx(0.02, rel=0.05)
    frames = (found[0] - 0.5).flatten(1)
    assert abs(float(torch.corrcoef(frames)[0, 1])) < 0.05
    assert torch.equal(found, make_worse(window(grey, grey), torch.cat(
        [worse(noise=1), worse(noise=0.5, row=0.3)]), 1))  # fmt: skip


def test_compression_rounds_cosine_transforms_of_blocks() -> None:
    source = picture(3)
    found = as_picture(make_worse(window(source), worse(compression=0.5), 1.0))
    order = np.arange(8)
    steps = 1.5 * (16 + 6 * (order[:, None] + order)) / 255
    inner = 0
    for row in range(0, 96, 8):
        for column in range(0, 96, 8):
            block = np.s_[row : row + 8, column : column + 8, 1]
            if not 0.02 < found[block].min() < found[block].max() < 0.98:
                continue  # the edge of what a pixel can be
            parts = dctn(source[block], norm="ortho") / steps
            if np.abs(np.abs(parts % 1) - 0.5).min() < 1e-3:
                continue  # may be rounded either way
            rounded = dctn(found[block], norm="ortho") / steps
            np.testing.assert_allclose(rounded, np.round(parts), atol=1e-3)
            inner += 1
    assert inner > 20
    assert np.abs(found - source).max() > 0.02
