"""FID: the distance against its formula, and weights that cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from wav2lip_npu.errors import UserError
from wav2lip_npu.evaluation import fid
from wav2lip_npu.runtime.device import Device


def test_moments_are_those_of_all_files_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fid, "FEATURES", 6)
    features = np.random.default_rng(0).normal(3, 2, (30, 6)).astype(np.float32)
    moments = fid._Moments()
    for part in (features[:11], features[11:11], features[11:]):
        moments.add(part)
    found = moments.statistics()
    np.testing.assert_allclose(found["mu"], features.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found["sigma"], np.cov(features, rowvar=False), rtol=1e-4)


def test_the_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch_fidelity", exc_type=Exception)
    monkeypatch.setattr(fid, "FEATURES", 6)
    random = np.random.default_rng(1)
    one, other = (random.normal(m, s, (40, 6)).astype(np.float32) for m, s in ((0, 1), (1, 2)))
    for number in range(2):
        part = slice(20 * number, 20 * number + 20)
        fid.save_features(tmp_path / f"{number}.npz", one[part], other[part])
    value, *counts = fid.frechet_distance(sorted(tmp_path.glob("*.npz")))
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    expected = ((one.mean(axis=0) - other.mean(axis=0)) ** 2).sum()
    expected += np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    assert value == pytest.approx(expected, rel=1e-4)
    assert counts == [40, 40]


def test_one_face_has_no_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fid, "FEATURES", 6)
    fid.save_features(tmp_path / "a.npz", np.zeros((1, 6)), np.zeros((5, 6)))
    assert fid.frechet_distance([tmp_path / "a.npz"]) == (None, 1, 5)


def test_files_of_other_names_do_not_meet(tmp_path: Path) -> None:
    names = ("a/b.mp4", "a_b.mp4", "视频.mp4", "\udcff.mp4")
    assert len({fid.features_path(tmp_path, name) for name in names}) == 4


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    content = {"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 3, 3), "fc.bias": torch.zeros(1008)}
    torch.save(content, tmp_path / "inception.pth")
    return tmp_path / "inception.pth"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"<!doctype html>", "is a web page"),
        ({"face_encoder.0.conv_block.0.weight": torch.zeros(1)}, "are not the weights of torch-fi"),
        (
            {"Conv2d_1a_3x3.conv.weight": torch.zeros(1), "fc.bias": torch.zeros(1000)},
            "are not the",
        ),
    ],
)
def test_files_that_hold_other_weights(tmp_path: Path, content: object, reason: str) -> None:
    path = tmp_path / "x.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=reason):
        fid.open_inception(path, Device.open("cpu"))


def test_without_the_library_the_error_says_how_to_install_it(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(UserError, match=r"pip install \"wav2lip-npu\[fid\]\""):
        fid.open_inception(weights, Device.open("cpu"))


def test_a_library_that_does_not_load_is_explained(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch_fidelity.py").write_text("raise RuntimeError('no operator nms')")
    monkeypatch.delitem(sys.modules, "torch_fidelity", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"RuntimeError: no operator nms\); torchvision must be"):
        fid.open_inception(weights, Device.open("cpu"))
