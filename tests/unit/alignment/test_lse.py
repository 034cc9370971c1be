"""LSE-D and LSE-C, against what the field's scripts compute for weights by formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import _random, fill, golden_arrays, golden_json
from helpers import same_weights

from wav2lip_npu.alignment import lse
from wav2lip_npu.alignment.lse import compare, lip_sync_error, mfcc, open_syncnet_v2
from wav2lip_npu.errors import UserError
from wav2lip_npu.models.syncnet_v2 import SyncNetV2

CPU = torch.device("cpu")
FRAMES = 20


@pytest.fixture(scope="module")
def network() -> SyncNetV2:
    return fill(SyncNetV2()).eval()


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    """Of the golden numbers."""
    names = (f"lse.frame{n}" for n in range(FRAMES))
    return [_random(name).integers(0, 256, (224, 224, 3), dtype=np.int64).astype(np.uint8)
            for name in names]  # fmt: skip


def samples() -> np.ndarray:
    return golden_arrays("lse")["wav"].astype(np.float32) / 32768


def test_names_and_shapes_are_the_published_ones(network: SyncNetV2) -> None:
    state = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert state == golden_json("lse_names")


def test_mfcc() -> None:
    expected = golden_arrays("lse")["mfcc"]
    found = mfcc(samples())
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("count", [1, 399, 400, 401, 560, 561])
def test_the_columns_of_little_sound(count: int) -> None:
    columns = mfcc(np.zeros(count, np.float32))
    assert columns.shape == (13, 1 if count <= 400 else 1 + -(-(count - 400) // 160))
    assert np.isfinite(columns).all()


def test_embeddings(network: SyncNetV2, faces: list[np.ndarray]) -> None:
    golden = golden_arrays("lse")
    sound = torch.from_numpy(mfcc(samples())).float()
    windows = torch.stack([sound[:, :20], sound[:, 4:24]])[:, None]
    sequence = torch.from_numpy(np.stack(faces[:6])).permute(3, 0, 1, 2).float()
    with torch.inference_mode():
        heard, seen = network(windows, sequence)
    assert seen.shape == (2, 1024)
    np.testing.assert_allclose(heard, golden["aud"], atol=1e-4)
    np.testing.assert_allclose(seen, golden["lip"], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("at_a_time", [40, 7])
def test_distances_and_what_follows(
    network: SyncNetV2, faces: list[np.ndarray], at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lse, "FACES_AT_A_TIME", at_a_time)
    golden = golden_arrays("lse")
    found = lip_sync_error(network, iter(faces), samples(), CPU)
    assert found is not None
    np.testing.assert_allclose(found.distances, golden["mean_distance"], rtol=2e-6)
    assert found.distance == pytest.approx(float(golden["lse_d"]), rel=2e-6)
    assert found.confidence == pytest.approx(float(golden["lse_c"]), abs=1e-3)
    assert found.late == -int(golden["offset"])


def test_too_little_is_no_number(network: SyncNetV2, faces: list[np.ndarray]) -> None:
    assert lip_sync_error(network, faces[:5], samples(), CPU) is None
    assert lip_sync_error(network, faces, samples()[: 5 * 640], CPU) is None
    assert lip_sync_error(network, [], samples(), CPU) is None
    assert lip_sync_error(network, faces[:6], samples(), CPU) is not None


def test_the_lag_of_embeddings_that_are_moved() -> None:
    numbers = torch.Generator().manual_seed(0)
    heard = torch.randn(60, 1024, generator=numbers)
    for late in (-6, 0, 9):
        seen = torch.roll(heard, -late, dims=0)  # window n sees what is heard at n + late
        assert compare(seen, heard).late == late


def test_the_published_file_is_opened_and_no_other(network: SyncNetV2, tmp_path: Path) -> None:
    path = tmp_path / "syncnet_v2.model"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    opened = open_syncnet_v2(path, CPU)
    assert not opened.training
    assert same_weights(opened.state_dict(), network.state_dict())
    other = tmp_path / "lipsync_expert.pth"
    torch.save({"face_encoder.0.conv_block.0.weight": torch.zeros(1)}, other)
    with pytest.raises(UserError, match="holds the lip-sync expert, the SyncNet v2 is wanted here"):
        open_syncnet_v2(other, CPU)
    with pytest.raises(UserError, match="no such file"):
        open_syncnet_v2(tmp_path / "none", CPU)
