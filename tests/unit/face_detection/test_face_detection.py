"""Both detectors: S3FD against the original's numbers, CenterFace against known faces."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from formula import golden_arrays, golden_json
from skimage import data as pictures

from face_detection import (
    FaceDetectionError,
    choose_detector,
    open_detector,
    s3fd,
    weights,
)
from face_detection.nms import best_first, suppress
from face_detection.s3fd_network import S3FDNetwork
from wav2lip_npu.runtime.files import sha256

ROOT = Path(__file__).parents[3]


def test_suppression_keeps_what_the_original_keeps() -> None:
    golden = golden_arrays("nms")
    order = np.argsort(-golden["dets"][:, 4], kind="stable")
    sorted_boxes = golden["dets"][order]
    # Twice in a batch, the second padded: each image's answer must be its own.
    boxes = np.stack([sorted_boxes[:, :4]] * 2)
    scores = np.stack([sorted_boxes[:, 4]] * 2)
    scores[1, 10:] = -np.inf
    keep = suppress(boxes, scores, 0.3)
    assert order[keep[0]].tolist() == golden["keep"].tolist()
    assert order[keep[1]].tolist() == [i for i in golden["keep"] if i in order[:10]]


def test_boxes_that_are_no_numbers_are_no_faces() -> None:
    boxes = np.array([[[0, 0, 9, 9], [0, np.nan, 9, 9], [50, 50, np.inf, 60]]], np.float32)
    (found,) = best_first(boxes, np.array([[0.5, 0.9, 0.8]]), min_score=0.1, max_overlap=0.3)
    assert found.tolist() == [[0, 0, 9, 9, 0.5]]


def test_s3fd_in_bf16_finds_the_same(s3fd_weights: Path) -> None:
    images = list(golden_arrays("s3fd")["images"])
    half = open_detector("s3fd", s3fd_weights=s3fd_weights, dtype=torch.bfloat16)
    types = set()
    half.network.conv1_1.register_forward_hook(lambda _, __, output: types.add(output.dtype))
    for ours, whole in zip(
        half.detect(images),
        open_detector("s3fd", s3fd_weights=s3fd_weights).detect(images),
        strict=True,
    ):
        assert np.abs(ours[0, :4] - whole[0, :4]).max() <= 2
    assert types == {torch.bfloat16}


def test_s3fd_maps_candidates_and_final_boxes(s3fd_weights: Path) -> None:
    golden = golden_arrays("s3fd")
    detector = open_detector("s3fd", s3fd_weights=s3fd_weights)
    assert isinstance(detector, s3fd.S3FD)
    images = golden["images"]
    with torch.inference_mode():
        centred = torch.from_numpy(images).float() - torch.tensor(s3fd.MEAN_BGR)
        maps = detector.network(centred.permute(0, 3, 1, 2))
        boxes, scores = s3fd.decode(maps)
    for i, values in enumerate(maps):
        sums = values.double().sum((2, 3))
        np.testing.assert_allclose(sums, golden[f"map{i}_sum"], atol=1e-3)
    # The golden list has a line for each cell and image above 0.05, map by map.
    lines = []
    detections = torch.cat([boxes, scores[..., None]], dim=2)
    for part in detections.split([m[0, 0].numel() for m in maps[::2]], dim=1):
        cells = torch.nonzero(part[..., 4] > 0.05)[:, 1]
        lines.append(part[:, cells].transpose(0, 1))
    np.testing.assert_allclose(torch.cat(lines), golden["candidates"], atol=1e-3)
    for i, found in enumerate(detector.detect(list(images))):
        assert len(found) == golden_json("numbers")["steps"]["s3fd"]["final"][i]
        np.testing.assert_allclose(found, golden[f"final{i}"], atol=1e-3)


def test_the_network_of_s3fd_is_the_published_one() -> None:
    shapes = {name: list(value.shape) for name, value in S3FDNetwork().state_dict().items()}
    assert shapes == golden_json("state_dict_names")["s3fd"]


def test_the_network_of_centerface_is_the_published_one() -> None:
    assert sha256(weights.CENTERFACE) in weights.CENTERFACE.with_name("NOTICE").read_text()


def test_centerface_finds_the_astronaut() -> None:
    image = np.ascontiguousarray(pictures.astronaut()[..., ::-1])  # 512 × 512, one face
    (found,) = open_detector("centerface").detect([image])
    assert len(found) == 1
    # Measured by eye in the picture: hairline to chin, ear to ear.
    assert np.abs(found[0, :4] - [175, 65, 270, 190]).max() < 20


def test_centerface_finds_nothing_in_a_texture() -> None:
    image = np.repeat(pictures.brick()[..., None], 3, axis=2)
    (found,) = open_detector("centerface").detect([image])
    assert found.shape == (0, 5)


def test_auto_takes_s3fd_only_where_its_weights_are(
    s3fd_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    assert open_detector("auto").name == "centerface"
    assert open_detector("auto", s3fd_weights=s3fd_weights).name == "s3fd"
    target = tmp_path / weights.GUIDE_PATH
    target.parent.mkdir(parents=True)
    target.write_bytes(s3fd_weights.read_bytes())
    assert open_detector("auto").name == "s3fd"


def test_missing_and_broken_weights_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    with pytest.raises(FaceDetectionError, match="no such file"):
        open_detector("s3fd", s3fd_weights=tmp_path / "absent.pth")
    broken = tmp_path / "broken.pth"
    broken.write_text("<html>")
    with pytest.raises(FaceDetectionError, match="not S3FD's weights"):
        open_detector("s3fd", s3fd_weights=broken)
    spoilt = S3FDNetwork().state_dict()
    spoilt["conv1_1.weight"][0] = torch.inf
    torch.save(spoilt, broken)
    with pytest.raises(FaceDetectionError, match=r"not S3FD's weights .*no finite numbers"):
        open_detector("s3fd", s3fd_weights=broken)
    monkeypatch.setattr(weights, "S3FD_URL", (tmp_path / "nowhere.pth").as_uri())
    with pytest.raises(
        FaceDetectionError, match=r"put .* at face_detection/detection/sfd/s3fd\.pth"
    ):
        open_detector("s3fd")


def test_a_download_with_the_wrong_hash_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    (tmp_path / "served.pth").write_bytes(b"something else")
    monkeypatch.setattr(weights, "S3FD_URL", (tmp_path / "served.pth").as_uri())
    with pytest.raises(FaceDetectionError, match="hash"):
        open_detector("s3fd")
    assert weights.find_s3fd() is None


def test_a_download_is_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    served = tmp_path / "s3fd-served.pth"
    served.write_bytes(b"weights" * 1000)
    monkeypatch.setattr(weights, "S3FD_URL", served.as_uri())
    monkeypatch.setattr(weights, "S3FD_HASH", hashlib.sha256(served.read_bytes()).hexdigest()[:10])
    expected = tmp_path / "hub" / "hub" / "checkpoints" / served.name
    assert choose_detector("auto")[0] == "centerface"  # which downloads nothing
    assert choose_detector("s3fd") == ("s3fd", expected)
    assert expected.read_bytes() == served.read_bytes()
    assert [path.name for path in expected.parent.iterdir()] == [served.name]
    assert choose_detector("auto") == ("s3fd", expected)


def test_choosing_a_detector_loads_nothing_heavy(s3fd_weights: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from face_detection import choose_detector
assert choose_detector("s3fd", Path({str(s3fd_weights)!r}))[0] == "s3fd"
assert choose_detector("centerface")[1].name == "centerface.onnx"
assert not {{"torch", "cv2", "numpy", "wav2lip_npu"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("detector", ["centerface", "s3fd"])
def test_images_of_any_size(detector: str, s3fd_weights: Path) -> None:
    network = open_detector(detector, s3fd_weights=s3fd_weights)
    long = 30_000 if detector == "centerface" else 300
    for shape in ((1, 1), (2, 2), (16, 16), (1, long), (long, 2), (31, 33)):
        (found,) = network.detect([np.full((*shape, 3), 90, np.uint8)])
        assert found.shape[1:] == (5,) and np.isfinite(found).all()


def test_small_images_keep_their_boxes(s3fd_weights: Path) -> None:
    """Padding of S3FD's small images does not move what it finds in others."""
    image = golden_arrays("s3fd")["images"][0]
    network = open_detector("s3fd", s3fd_weights=s3fd_weights)
    (whole,) = network.detect([image])
    seen = []
    network.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2:]))
    network.detect([image])
    network.detect([image[:20, :40]])
    assert seen == [image.shape[:2], (32, 40)]
    assert len(whole)


def test_centerface_keeps_few_networks() -> None:
    """Each input size has a network of its own; thousands of videos must not fill the memory."""
    network = open_detector("centerface")
    for width in range(32, 32 * 12, 32):
        network.detect([np.zeros((32, width, 3), np.uint8)])
        assert len(network._networks) <= 4
