"""The networks that can embed a clip: a lip-sync expert of Wav2Lip, or SyncNet v2."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch

from wav2lip_npu import checkpoint
from wav2lip_npu.alignment import lse
from wav2lip_npu.alignment.expert import embed_faces, embed_sound, open_expert
from wav2lip_npu.constants import FACE_SIZE
from wav2lip_npu.data.clips import AUDIO, list_crops, load_mel, readable_crops
from wav2lip_npu.data.mouths import MAX_FRAMES
from wav2lip_npu.media.audio import load_audio
from wav2lip_npu.models import SyncNet
from wav2lip_npu.models.syncnet_v2 import FACE_SIDE, FRAMES
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.state_dicts import SYNCNET_V2, identify

# SyncNet v2 was trained on faces with a fifth of their size more on each side, and two fifths more
# below (Chung and Zisserman 2016 and their scripts). A crop has no more: it is grey there.
BESIDE = 0.2
GREY = 110


class Embedder(Protocol):
    """A network that embeds sound and faces; see ``Embedded`` for what it returns."""

    def embed_faces(self, folder: Path) -> torch.Tensor:
        """Embed the faces of a clip.

        Raises:
            UserError: it has no crops that can be read.
        """
        ...

    def embed_sound(self, folder: Path) -> torch.Tensor:
        """Embed the sound of a clip.

        Raises:
            UserError: it has none that can be read.
        """
        ...


def open_embedder(path: Path, device: Device) -> Embedder:
    """The network that a file holds.

    Raises:
        UserError: no such file, or it holds another network.
    """
    found = checkpoint.read(path, SyncNet())  # of several networks, the expert is meant
    if identify(found.state_dict) == SYNCNET_V2:
        return _SyncNetV2Embedder(path, device)
    return _ExpertEmbedder(path, device)


class _ExpertEmbedder:
    def __init__(self, path: Path, device: Device) -> None:
        self._expert, self._device = open_expert(path, device), device

    def embed_faces(self, folder: Path) -> torch.Tensor:
        crops = {n: cv2.resize(crop, (FACE_SIZE, FACE_SIZE)) for n, crop in _crops(folder)}
        frames = max(crops) + 1
        nobody = np.zeros((FACE_SIZE, FACE_SIZE, 3), np.uint8)
        faces = np.stack([crops.get(n, nobody) for n in range(frames)])
        known = np.isin(np.arange(frames), [*crops])
        return embed_faces(self._expert, faces, known, self._device)

    def embed_sound(self, folder: Path) -> torch.Tensor:
        mel = load_mel(folder)
        load_mel.cache_clear()  # each clip is read once
        return embed_sound(self._expert, mel, self._device)


class _SyncNetV2Embedder:
    def __init__(self, path: Path, device: Device) -> None:
        self._device = device.torch_device
        self._network = lse.open_syncnet_v2(path, self._device)

    def embed_faces(self, folder: Path) -> torch.Tensor:
        known: list[int] = []
        faces = _framed_faces(folder, known)
        seen = lse.embed_faces(self._network, faces, self._device).cpu()
        first = np.arange(len(seen))[:, None]  # frames of each window
        is_whole = np.isin(first + np.arange(FRAMES), known).all(axis=1)
        return torch.where(torch.from_numpy(is_whole)[:, None], seen, torch.nan)

    def embed_sound(self, folder: Path) -> torch.Tensor:
        return lse.embed_sound(self._network, load_audio(folder / AUDIO), self._device).cpu()


def _framed_faces(folder: Path, known: list[int]) -> Iterator[np.ndarray]:
    """A face for each frame, grey where there is no crop; the others are added to ``known``."""
    nobody = np.full((FACE_SIDE, FACE_SIDE, 3), GREY, np.uint8)
    following = 0
    for number, crop in _crops(folder):
        yield from repeat(nobody, number - following)
        yield _with_margin(crop)
        known.append(number)
        following = number + 1


def _with_margin(crop: np.ndarray) -> np.ndarray:
    """A crop in a frame like those that SyncNet v2 knows, uint8 (224, 224, 3) BGR."""
    height, width = crop.shape[:2]
    side = round((1 + 2 * BESIDE) * max(height, width))
    framed = np.full((side, side, 3), GREY, np.uint8)
    left = (side - width) // 2
    framed[:height, left : left + width] = crop
    return cv2.resize(framed, (FACE_SIDE, FACE_SIDE))


def _crops(folder: Path) -> Iterator[tuple[int, np.ndarray]]:
    """See ``readable_crops``; of the frames that are looked at."""
    numbers = [number for number in list_crops(folder) if number < MAX_FRAMES]
    return readable_crops(folder, numbers)
