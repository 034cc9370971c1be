"""FID (Heusel et al. 2017): generated faces against the sources', by torch-fidelity's Inception."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import atomic_write
from wav2lip_npu.weight_files import WeightFileError, read_content

FEATURES = 2048  # of a face: what comes before Inception's last layer
INPUT_SIDE = 299  # pixels
FACES_AT_A_TIME = 25
MIN_FACES = 2  # of which there is a covariance
SIGNATURE = "Conv2d_1a_3x3.conv.weight"  # a parameter of the file
CLASSES = 1008  # of the network of 2015; torchvision's has 1000, and other features

Extractor = Callable[[Sequence[np.ndarray]], np.ndarray]


def open_inception(path: Path, device: Device) -> Extractor:
    """The features of faces.

    Args:
        path: of torch-fidelity's ``weights-inception-2015-12-05-6726825d.pth``.
        device: where the network runs.

    Returns:
        A function of one batch: crops (h, w, 3) BGR uint8, at least one → float32 (n, 2048).

    Raises:
        UserError: torch-fidelity is not there, or the file holds other weights.
    """
    weights = _read_weights(path)
    try:
        from torch_fidelity import FeatureExtractorInceptionV3
    except ModuleNotFoundError as error:
        raise UserError(
            f'--inception: needs {error.name}; pip install "wav2lip-npu[fid]"'
        ) from error
    except Exception as error:  # of any kind, where torchvision was built for another torch
        raise UserError(
            f"--inception: torch-fidelity cannot be loaded ({reason(error)}); torchvision must be "
            "of torch's version and build"
        ) from error
    file = io.BytesIO()  # not the path: torch-fidelity would run code that a file may carry
    torch.save(weights, file)
    file.seek(0)
    network = FeatureExtractorInceptionV3("inception", [str(FEATURES)], file)
    network = network.to(device.torch_device)

    @torch.inference_mode()
    def extract(crops: Sequence[np.ndarray]) -> np.ndarray:
        faces = [cv2.resize(crop, (INPUT_SIDE, INPUT_SIDE))[..., ::-1] for crop in crops]
        batch = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2)
        features: np.ndarray = network(batch.to(device.torch_device))[0].float().cpu().numpy()
        return features

    return extract


def _read_weights(path: Path) -> dict[str, Any]:
    """The weights in a file, without running what it may carry.

    Raises:
        UserError: they are others.
    """
    content = read_content(path)
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    last = content.get("fc.bias")
    if SIGNATURE not in content or last is None or tuple(last.shape) != (CLASSES,):
        raise WeightFileError(
            f"--inception {path}: are not the weights of torch-fidelity's InceptionV3 "
            "(weights-inception-2015-12-05-6726825d.pth)"
        )
    return dict(content)


def features_path(folder: Path, name: str) -> Path:
    """Where the features of a video are kept, for the next run."""
    digest = blake2b(name.encode(errors="surrogateescape"), digest_size=8).hexdigest()
    return folder / f"{digest}.npz"


def save_features(path: Path, generated: np.ndarray, source: np.ndarray) -> None:
    """Keep the features of the faces of a video and of its source.

    Raises:
        WriteError: the file cannot be written.
    """
    with atomic_write(path) as partial:
        np.savez(partial, generated=generated, source=source)


def frechet_distance(paths: Iterable[Path]) -> tuple[float | None, int, int]:
    """FID of all faces whose features are kept in these files.

    Returns:
        The distance, None if there are too few; the number of generated faces, and of the sources'.

    Raises:
        OSError: a file cannot be read.
    """
    generated, source = _Moments(), _Moments()
    for path in paths:
        with np.load(path, allow_pickle=False) as content:
            generated.add(content["generated"])
            source.add(content["source"])
    if min(generated.count, source.count) < MIN_FACES:
        return None, generated.count, source.count
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    found = fid_statistics_to_metric(generated.statistics(), source.statistics(), False)
    # Of the same faces rounding gives a little more or less than 0.
    return max(0.0, float(found[KEY_METRIC_FID])), generated.count, source.count


class _Moments:
    """Mean and covariance of features that come file by file."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = np.zeros(FEATURES)
        self._products = np.zeros((FEATURES, FEATURES))

    def add(self, features: np.ndarray) -> None:
        features = features.astype(np.float64)
        self.count += len(features)
        self._sum += features.sum(axis=0)
        self._products += features.T @ features

    def statistics(self) -> dict[str, np.ndarray]:
        """As torch-fidelity has them."""
        mean = self._sum / self.count
        scatter = self._products - self.count * np.outer(mean, mean)
        return {"mu": mean, "sigma": scatter / (self.count - 1)}
