"""LSE-D and LSE-C (Prajwal et al. 2020, §4.2): distances between sound and faces, by SyncNet v2.

The numbers are those of the field's scripts: sound as MFCC with their settings, faces from 0 to
255, embeddings that are not normalised, zeros where there is no sound.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from wav2lip_npu import checkpoint
from wav2lip_npu.alignment.lags import LAGS, MAX_LAG
from wav2lip_npu.constants import FPS, SAMPLE_RATE
from wav2lip_npu.models.syncnet_v2 import EMBEDDING, FRAMES, MFCC_COLUMNS, MFCC_COUNT, SyncNetV2

COLUMNS_PER_FRAME = 4  # of the MFCC, which has 100 a second
FACES_AT_A_TIME = 40
WINDOWS_AT_A_TIME = 1024  # of sound

# Of python_speech_features 0.6, with which the field computes the MFCC.
_FRAME, _STEP, _FFT = 400, 160, 512  # samples
_PREEMPHASIS = 0.97
_FILTERS = 26
_LIFTER = 22
_INT16 = 32768  # the scale of its samples


@dataclass(frozen=True, kw_only=True)
class LipSyncError:
    """What SyncNet v2 says of a video."""

    distance: float  # LSE-D: mean distance at the best lag; less is better
    confidence: float  # LSE-C: by how much that is less than the median over lags; more is better
    late: int  # the best lag: frames by which the sound comes late; the scripts print -late
    distances: np.ndarray  # (31,) at each of ``LAGS``


def open_syncnet_v2(path: Path, device: torch.device) -> SyncNetV2:
    """SyncNet v2 in evaluation mode, from the published ``syncnet_v2.model``.

    Raises:
        UserError: no such file, or it holds another network, as the lip-sync expert of Wav2Lip.
    """
    network = SyncNetV2()
    checkpoint.load_network(network, checkpoint.read(path, network))
    return network.to(device).requires_grad_(False).eval()


@torch.inference_mode()
def lip_sync_error(
    network: SyncNetV2, faces: Iterable[np.ndarray], samples: np.ndarray, device: torch.device
) -> LipSyncError | None:
    """Measure a video.

    Args:
        network: with the published weights, in evaluation mode, on ``device``.
        faces: a face for each frame, (224, 224, 3) BGR uint8, 25 per second.
        samples: its sound, float in [-1, 1], 16 kHz.
        device: where the network is.

    Returns:
        None if there are fewer than six frames with sound.
    """
    seen = embed_faces(network, faces, device)
    frames = min(len(seen) + FRAMES - 1, len(samples) * FPS // SAMPLE_RATE)
    count = frames - FRAMES  # of windows; one less than there are, as in the scripts
    if count < 1:
        return None
    return compare(seen[:count], _embed_columns(network, mfcc(samples), count, device))


@torch.inference_mode()
def embed_sound(network: SyncNetV2, samples: np.ndarray, device: torch.device) -> torch.Tensor:
    """All windows of a sound, one for each frame (n, 1024); see ``lip_sync_error``."""
    columns = mfcc(samples)
    count = (columns.shape[1] - MFCC_COLUMNS) // COLUMNS_PER_FRAME + 1
    if count < 1:
        return torch.zeros(0, EMBEDDING)
    return _embed_columns(network, columns, count, device)


def _embed_columns(
    network: SyncNetV2, mfccs: np.ndarray, count: int, device: torch.device
) -> torch.Tensor:
    """The first windows of the sound (count, 1024), one for each frame, some at a time."""
    columns = torch.from_numpy(mfccs).float()
    starts = range(0, count * COLUMNS_PER_FRAME, COLUMNS_PER_FRAME)
    windows = torch.stack([columns[:, start : start + MFCC_COLUMNS] for start in starts])
    parts = windows[:, None].split(WINDOWS_AT_A_TIME)
    return torch.cat([network.embed_audio(part.to(device)) for part in parts])


@torch.inference_mode()
def embed_faces(
    network: SyncNetV2, faces: Iterable[np.ndarray], device: torch.device
) -> torch.Tensor:
    """All windows of a sequence of faces (n, 1024), some frames at a time; see above."""
    embedded: list[torch.Tensor] = []
    block: list[np.ndarray] = []

    def embed() -> None:
        pixels = torch.from_numpy(np.stack(block)).to(device)
        embedded.append(network.embed_faces(pixels.permute(3, 0, 1, 2).float()))

    for face in faces:
        block.append(face)
        if len(block) == FACES_AT_A_TIME:
            embed()
            block = block[-(FRAMES - 1) :]  # with which the next window begins
    if len(block) >= FRAMES:
        embed()
    return torch.cat(embedded) if embedded else torch.zeros(0, EMBEDDING)


def compare(seen: torch.Tensor, heard: torch.Tensor) -> LipSyncError:
    """Distances of embeddings (n, 1024) each, at all lags."""
    padded = F.pad(heard, (0, 0, MAX_LAG, MAX_LAG))
    moved = (padded[MAX_LAG + lag : MAX_LAG + lag + len(seen)] for lag in LAGS)
    distances = torch.stack([F.pairwise_distance(seen, one).mean() for one in moved])
    best = int(distances.argmin())
    smallest = float(distances[best])
    return LipSyncError(
        distance=smallest,
        confidence=float(distances.median()) - smallest,
        late=int(LAGS[best]),
        distances=distances.cpu().numpy(),
    )


def mfcc(samples: np.ndarray) -> np.ndarray:
    """Mel-frequency cepstral coefficients as SyncNet v2 wants them.

    Args:
        samples: float in [-1, 1], 16 kHz mono; at least one.

    Returns:
        float64 (13, columns), 100 columns a second; the first row is the logarithm of the energy.
    """
    signal = np.round(samples.astype(np.float64) * _INT16)
    signal = np.concatenate([signal[:1], signal[1:] - _PREEMPHASIS * signal[:-1]])
    count = 1 + max(0, -(-(len(signal) - _FRAME) // _STEP))
    signal = np.pad(signal, (0, max(0, (count - 1) * _STEP + _FRAME - len(signal))))
    frames = np.lib.stride_tricks.sliding_window_view(signal, _FRAME)[::_STEP][:count]
    power = np.abs(np.fft.rfft(frames, _FFT)) ** 2 / _FFT
    energy = _positive(power.sum(axis=1))
    levels = np.log(_positive(power @ _filters().T))
    cepstrum = levels @ _dct().T
    order = np.arange(MFCC_COUNT)
    cepstrum *= 1 + _LIFTER / 2 * np.sin(np.pi * order / _LIFTER)
    cepstrum[:, 0] = np.log(energy)
    return np.asarray(cepstrum.T)


def _positive(values: np.ndarray) -> np.ndarray:
    return np.where(values == 0, np.finfo(np.float64).eps, values)


def _filters() -> np.ndarray:
    """Triangles between points that are equally far apart on the mel scale: (26, 257)."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, _FILTERS + 2) / 2595) - 1)
    points = np.floor((_FFT + 1) * hertz / SAMPLE_RATE)
    bins = np.arange(_FFT // 2 + 1)
    low, middle, high = points[:-2, None], points[1:-1, None], points[2:, None]
    rising = (bins - low) / (middle - low)
    falling = (high - bins) / (high - middle)
    inside = (bins >= low) & (bins < high)
    return np.where(inside, np.where(bins < middle, rising, falling), 0.0)


def _dct() -> np.ndarray:
    """The orthonormal discrete cosine transform of type 2: (13, 26)."""
    order, place = np.arange(MFCC_COUNT)[:, None], np.arange(_FILTERS)
    matrix = np.sqrt(2 / _FILTERS) * np.cos(np.pi * order * (2 * place + 1) / (2 * _FILTERS))
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix)
