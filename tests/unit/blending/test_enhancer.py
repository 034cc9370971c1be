"""Face restorers, by ONNX files of the same interface."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from face_detection.landmarks import LOWER_FACE, FaceLandmarks
from wav2lip_npu.blending import enhancer as module
from wav2lip_npu.blending.enhancer import Enhancer
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.device import Device

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

BOX = (60, 40, 190, 200)
FLOAT, HALF, DOUBLE = 1, 10, 11  # ONNX's numbers of these types


def restorer(
    path: Path, *, operator: str = "Identity", side: int | str = 128, kind: int = FLOAT,
    weight: int | None = None, channels: int = 3, outputs: int | None = None,
) -> Path:  # fmt: skip
    """A file whose network applies one operator to its picture."""
    make = onnx.helper
    shape = [1, channels, side, side]
    inputs = [make.make_tensor_value_info("input", kind, shape)]
    nodes = [make.make_node(operator, ["input"], ["output"])]
    if weight is not None:  # which CodeFormer takes; here it is added
        inputs.append(make.make_tensor_value_info("weight", weight, [1]))
        nodes = [
            make.make_node("Cast", ["weight"], ["cast"], to=kind),
            make.make_node("Add", ["input", "cast"], ["output"]),
        ]
    given = make.make_tensor_value_info("output", kind, None)
    graph = make.make_graph(nodes, "restorer", inputs, [given])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def points(face: np.ndarray) -> np.ndarray:
    return FaceLandmarks().detect(face, BOX)


def lower_face(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    outline = cv2.convexHull(np.rint(points[list(LOWER_FACE), :2]).astype(np.int32))
    return cv2.fillPoly(np.zeros(image.shape[:2], np.uint8), [outline], 1) > 0


@pytest.mark.parametrize("side", [128, 512, "N"])
@pytest.mark.parametrize("kind", [FLOAT, HALF])
def test_a_restorer_that_does_nothing_changes_nothing(
    tmp_path: Path, face: np.ndarray, points: np.ndarray, side: int | str, kind: int
) -> None:
    """But for sharpness: the picture comes back to where it was."""
    path = restorer(tmp_path / "identity.onnx", side=side, kind=kind)
    before = face.copy()
    result = Enhancer(path, Device.open("cpu")).enhance(face, BOX, points)
    np.testing.assert_array_equal(face, before)
    difference = np.abs(result.astype(int) - face).max(axis=2)
    inside = lower_face(face, points)
    outside = ~cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    assert not difference[outside].any()
    smooth = cv2.GaussianBlur(face, (0, 0), 1.5).astype(int)
    error = np.abs(cv2.GaussianBlur(result, (0, 0), 1.5) - smooth)[inside]
    assert error.mean() < 1.5
    if side == 512:
        assert error.mean() < 0.7


def test_what_it_restores_is_shown_within_the_lower_face(
    tmp_path: Path, face: np.ndarray, points: np.ndarray
) -> None:
    """A negative: colours are matched at the seam, but lips are lighter than skin then."""
    negative = restorer(tmp_path / "negative.onnx", operator="Neg", side=256)
    result = Enhancer(negative, Device.open("cpu")).enhance(face, BOX, points)
    change = np.abs(result.astype(int) - face).max(axis=2)
    middle = np.rint(points[[13, 14], :2].mean(axis=0)).astype(int)
    assert change[middle[1] - 3 : middle[1] + 4, middle[0] - 12 : middle[0] + 13].mean() > 20
    assert not change[: int(points[4, 1])].any()


def test_a_weight_is_given_by_its_own_kind(
    tmp_path: Path, face: np.ndarray, points: np.ndarray
) -> None:
    path = restorer(tmp_path / "codeformer.onnx", weight=DOUBLE)
    given = Enhancer(path, Device.open("cpu"))._restore(np.full((128, 128, 3), 100, np.uint8))
    np.testing.assert_allclose(given, 100 + module.FIDELITY * 127.5, atol=1)


def test_five_points_are_put_where_ffhq_has_them(points: np.ndarray) -> None:
    matrix = module._similarity(module._five_points(points), module.TEMPLATE * 512)
    scale = np.hypot(*matrix[:, 0])
    np.testing.assert_allclose(matrix[:, 0] @ matrix[:, 1], 0, atol=1e-9)  # no shear
    np.testing.assert_allclose(np.hypot(*matrix[:, 1]), scale)
    placed = module._five_points(points) @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(placed - module.TEMPLATE * 512).max() < 25  # another face than the mean one
    # Of points that were moved, turned and scaled it is the inverse.
    turn = cv2.getRotationMatrix2D((30, 40), 25, 1.7)
    moved = module.TEMPLATE * 512 @ turn[:, :2].T + turn[:, 2]
    found = module._similarity(moved, module.TEMPLATE * 512)
    np.testing.assert_allclose(found, cv2.invertAffineTransform(turn), atol=1e-6)


def test_files_that_are_no_restorer_are_refused(tmp_path: Path) -> None:
    device = Device.open("cpu")
    for words in ({"channels": 1}, {"kind": 7, "operator": "Identity"}):
        path = restorer(tmp_path / "other.onnx", **words)
        with pytest.raises(UserError, match=r"--enhance .*other.onnx: its inputs are input \[1"):
            Enhancer(path, device)
    with pytest.raises(UserError, match="no such file \\(face restorer\\)"):
        Enhancer(tmp_path / "none.onnx", device)
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(UserError, match="ONNX Runtime cannot open it"):
        Enhancer(tmp_path / "text.onnx", device)
    sizes = restorer(tmp_path / "shape.onnx", operator="GlobalAveragePool")
    with pytest.raises(UserError, match=r"gives \(1, 3, 1, 1\) for \(1, 3, 128, 128\)"):
        Enhancer(sizes, device)._restore(np.zeros((128, 128, 3), np.uint8))
