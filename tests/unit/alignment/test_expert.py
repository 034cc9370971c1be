"""Embeddings of a video by the expert, against the pair-by-pair way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from formula import fill

from wav2lip_npu.alignment.embedded import Embedded
from wav2lip_npu.alignment.expert import embed, probabilities
from wav2lip_npu.alignment.lags import LAGS
from wav2lip_npu.models import SyncNet
from wav2lip_npu.runtime.device import Device

FRAMES, ROWS = 12, 48


@pytest.fixture(scope="module")
def expert() -> SyncNet:
    return fill(SyncNet()).eval()


def test_is_what_each_pair_gives_alone(expert: SyncNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wav2lip_npu.alignment.expert.WINDOWS_AT_A_TIME", 3)
    random = np.random.default_rng(3)
    faces = random.integers(0, 256, (FRAMES, 96, 96, 3), dtype=np.uint8)
    mel = random.uniform(-4, 4, (80, ROWS)).astype(np.float32)
    known = np.ones(FRAMES, bool)
    known[10] = False
    found = probabilities(embed(expert, faces, known, mel, Device.open("cpu", "fp32")))

    assert found.shape == (FRAMES - 4, 31)
    assert np.isnan(found[6:]).all()  # frame 10 is in these windows
    for start, lag in [(0, 0), (0, 3), (5, -5), (5, 2), (2, 8)]:
        window = faces[start : start + 5, 48:].transpose(0, 3, 1, 2).reshape(1, 15, 48, 96) / 255
        row = int((start + lag) * 80 / 25)
        audio, face = expert(
            torch.from_numpy(mel[None, None, :, row : row + 16]), torch.from_numpy(window).float()
        )
        expected = float(torch.nn.functional.cosine_similarity(audio, face)[0].detach())
        assert found[start, LAGS.tolist().index(lag)] == pytest.approx(expected, abs=1e-5)
    # The last window of 16 rows begins at row 32, which is frame 10's.
    assert np.isfinite(found[0, LAGS <= 10][-11:]).all() and np.isnan(found[0, LAGS > 10]).all()
    assert np.isnan(found[0, LAGS < 0]).all()


@pytest.mark.parametrize(("frames", "rows"), [(0, 48), (4, 48), (12, 15), (5, 16)])
def test_little_of_both(expert: SyncNet, frames: int, rows: int) -> None:
    faces, mel = np.zeros((frames, 96, 96, 3), np.uint8), np.zeros((80, rows), np.float32)
    embedded = embed(expert, faces, np.ones(frames, bool), mel, Device.open("cpu", "fp32"))
    assert isinstance(embedded, Embedded)
    found = probabilities(embedded)
    assert found.shape == (max(0, frames - 4), 31)
    assert np.isfinite(found).sum() == (1 if (frames, rows) == (5, 16) else 0)
