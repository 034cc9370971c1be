"""A trained generator, run by torch or by ONNX Runtime: crops and mel chunks in, faces out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from wav2lip_npu import checkpoint
from wav2lip_npu.constants import FACE_SIZE
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.fusion import fold, fuse
from wav2lip_npu.models import Generator
from wav2lip_npu.models.inputs import generator_faces, to_float
from wav2lip_npu.onnx_session import open_session
from wav2lip_npu.runtime.batching import ShrinkingBatches
from wav2lip_npu.runtime.device import Device

ONNX = ".onnx"

log = logging.getLogger(__name__)


class Backend(Protocol):
    """Something that runs a generator."""

    def __call__(self, mel: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
        """(B, 1, 80, 16), (B, 6, 96, 96) → (B, 3, 96, 96), see ``Generator``; all float32."""
        ...


class GeneratorRunner:
    """Generates faces that speak."""

    def __init__(self, backend: Backend, device: Device) -> None:
        self._backend = backend
        self._device = device
        self._batches = ShrinkingBatches("frames", "--wav2lip_batch_size")

    def generate(self, crops: list[np.ndarray], chunks: list[np.ndarray]) -> np.ndarray:
        """Generate faces, each in the pose of its crop, speaking its mel chunk.

        Args:
            crops: (96, 96, 3) BGR uint8 each.
            chunks: float32 (80, 16) for each.

        Returns:
            uint8 (n, 96, 96, 3) BGR.
        """
        generated = self._batches.run(self._generate, [*zip(crops, chunks, strict=True)])
        return np.concatenate([np.zeros((0, FACE_SIZE, FACE_SIZE, 3), np.uint8), *generated])

    @torch.inference_mode()
    def _generate(self, batch: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        crops, chunks = (torch.from_numpy(np.stack(part)) for part in zip(*batch, strict=True))
        self._device.make_current()
        inputs = self._device.to_device({"faces": crops, "mel": chunks.unsqueeze(1)})
        faces = to_float(inputs["faces"])
        generated = self._backend(inputs["mel"], generator_faces(faces, faces))
        pixels = (generated.float() * 255).to(torch.uint8)  # truncated, as in the original
        return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def open_generator(path: Path, backend: str, device: Device) -> GeneratorRunner:
    """Load a generator.

    Args:
        path: a checkpoint, or a file of ``export``.
        backend: one of ``config.BACKENDS``. Torch takes the averaged weights of a checkpoint that
            has them, as ``export`` does.
        device: where it runs, and its arithmetic.

    Raises:
        UserError: no such file, not a generator's, or not for this backend.
    """
    if (path.suffix == ONNX) != (backend == "onnx"):
        wanted = f"an {ONNX} file, as export --onnx writes" if backend == "onnx" else "a checkpoint"
        raise UserError(f"{path}: --backend {backend} runs {wanted}")
    if backend == "onnx":
        return GeneratorRunner(OnnxBackend(path, device), device)
    with torch.device("meta"):  # no random weights, which the file's would replace
        generator = Generator()
    found = checkpoint.read(path, generator)
    chosen = found.for_inference()
    if chosen is not found:
        log.info("%s: averaged weights of step %d", path, found.global_step)
    checkpoint.load_network(generator, chosen)
    return GeneratorRunner(TorchBackend(generator.float(), device), device)


class TorchBackend:
    """A generator prepared for inference: batch norms folded in, weights in the precision."""

    def __init__(self, generator: Generator, device: Device) -> None:
        folded = fold(generator.eval().requires_grad_(False))
        self._dtype = device.dtype or torch.float32
        network = device.prepare(folded.to(self._dtype))
        self._network = fuse(network) if device.gains_from_fusion else network

    def __call__(self, mel: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
        """See ``Backend``."""
        generated: torch.Tensor = self._network(mel.to(self._dtype), faces.to(self._dtype))
        return generated


class OnnxBackend:
    """A generator in ONNX Runtime."""

    def __init__(self, path: Path, device: Device) -> None:
        """Open the file.

        Raises:
            UserError: ONNX Runtime is not installed, or cannot open it.
        """
        self._session = open_session(path, device, option="--backend onnx", what="generator")
        size = self._session.get_inputs()[0].shape[0]
        self._fixed_size = size if isinstance(size, int) else None  # of export --onnx_batch
        self._place = device.torch_device

    def __call__(self, mel: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
        """See ``Backend``."""
        size = self._fixed_size or len(mel)
        parts = zip(mel.cpu().split(size), faces.cpu().split(size), strict=True)
        generated = [self._run(mel.numpy(), faces.numpy(), size) for mel, faces in parts]
        return torch.from_numpy(np.concatenate(generated)).to(self._place)

    def _run(self, mel: np.ndarray, faces: np.ndarray, size: int) -> np.ndarray:
        """A batch of ``size``, filled up with copies of its last face if there are fewer."""
        fill = [(0, size - len(mel)), (0, 0), (0, 0), (0, 0)]
        given = {"mel": np.pad(mel, fill, "edge"), "faces": np.pad(faces, fill, "edge")}
        generated: np.ndarray = self._session.run(None, given)[0]
        return generated[: len(mel)]
