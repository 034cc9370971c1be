"""Sound and faces compared by SyncNet, the lip-sync expert: each moment is embedded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from wav2lip_npu import checkpoint
from wav2lip_npu.alignment.embedded import Embedded
from wav2lip_npu.alignment.lags import LAGS
from wav2lip_npu.constants import LOWER_HALF, WINDOW_FRAMES
from wav2lip_npu.mel import WINDOW_ROWS, last_valid_start, syncnet_mel_start
from wav2lip_npu.models import SyncNet
from wav2lip_npu.models.inputs import to_float
from wav2lip_npu.runtime.device import Device

WINDOWS_AT_A_TIME = 128
EMBEDDING = 512


def open_expert(path: Path, device: Device) -> SyncNet:
    """An expert in evaluation mode, with the moving average of its weights if there is one.

    Raises:
        UserError: no such file, or it holds another network.
    """
    network = SyncNet()
    return checkpoint.load_frozen(network, checkpoint.read(path, network).for_inference(), device)


def embed(
    expert: SyncNet, faces: np.ndarray, known: np.ndarray, mel: np.ndarray, device: Device
) -> Embedded:
    """Embed a video; see ``embed_faces`` and ``embed_sound``. Row 0 of the mel is at frame 0."""
    return Embedded(
        faces=embed_faces(expert, faces, known, device), sound=embed_sound(expert, mel, device)
    )


@torch.inference_mode()
def embed_faces(
    expert: SyncNet, faces: np.ndarray, known: np.ndarray, device: Device
) -> torch.Tensor:
    """Embed the faces of a video.

    Args:
        expert: see ``open_expert``.
        faces: uint8 (frames, 96, 96, 3) BGR, 25 a second.
        known: bool (frames,) whether there is a face; what ``faces`` has elsewhere is not used.
        device: where the expert is.

    Returns:
        (frames - 4, 512), see ``Embedded``.
    """
    lower = torch.from_numpy(np.ascontiguousarray(faces[:, LOWER_HALF:]))
    starts = np.arange(max(0, len(faces) - WINDOW_FRAMES + 1))
    whole = np.array([known[start : start + WINDOW_FRAMES].all() for start in starts], bool)
    embedded = []
    for part in _parts(starts[whole]):
        windows = torch.stack([lower[start : start + WINDOW_FRAMES] for start in part])
        embedded.append(_run(expert.embed_face, to_float(windows).flatten(1, 2), device))
    of_whole = _joined(embedded)
    seen = torch.full((len(starts), of_whole.shape[1]), torch.nan)
    seen[starts[whole]] = of_whole
    return seen


@torch.inference_mode()
def embed_sound(expert: SyncNet, mel: np.ndarray, device: Device) -> torch.Tensor:
    """Embed the sound of a video.

    Args:
        expert: see ``open_expert``.
        mel: float32 (80, rows), see ``mel.melspectrogram``.
        device: where the expert is.

    Returns:
        (n, 512), of the 0.2 s from each frame on.
    """
    positions = np.arange(max(0, last_valid_start(mel.shape[1]) + 1))
    embedded = []
    for part in _parts(positions):
        rows = [mel[:, row : row + WINDOW_ROWS] for row in syncnet_mel_start(part).tolist()]
        windows = torch.from_numpy(np.stack(rows))[:, None]
        embedded.append(_run(expert.embed_audio, windows, device))
    return _joined(embedded)


def _parts(starts: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(starts), WINDOWS_AT_A_TIME):
        yield starts[first : first + WINDOWS_AT_A_TIME]


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, EMBEDDING)


def _run(
    encoder: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor, device: Device
) -> torch.Tensor:
    with device.autocast():
        embedded = encoder(batch.to(device.torch_device))
    return embedded.float().cpu()


def probabilities(embedded: Embedded) -> np.ndarray:
    """The expert's probability that sound and faces match, at each lag: the cosine.

    Args:
        embedded: n windows of faces, with sound at m places.

    Returns:
        float64 (n, 31), see ``LAGS``; NaN where there is no face, or no sound at that lag.
    """
    faces, sound = embedded.faces.double(), embedded.sound.double()
    found = np.full((len(faces), len(LAGS)), np.nan)
    for column, lag in enumerate(LAGS.tolist()):
        first, last = max(0, -lag), min(len(faces), len(sound) - lag)
        if first < last:
            products = faces[first:last] * sound[first + lag : last + lag]
            found[first:last, column] = products.sum(dim=1).numpy()
    return found
