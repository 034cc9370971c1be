"""A generator for inference only, without what training needs."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from wav2lip_npu import checkpoint
from wav2lip_npu.config import ExportConfig
from wav2lip_npu.constants import FACE_SIZE
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.backends import ONNX, OnnxBackend
from wav2lip_npu.inference.fusion import fold
from wav2lip_npu.mel import MEL_BANDS, WINDOW_ROWS
from wav2lip_npu.models import Generator
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.files import atomic_write, check_writable

SUFFIXES = (".pth", checkpoint.SAFETENSORS)
OPSET = 17  # of ONNX: the oldest that all exporters of torch 2 write
COMPARED_BATCHES = (1, 3)  # sizes with which ONNX Runtime is compared with torch
MAX_PIXEL_DIFFERENCE = 1e-4  # between the two, of pixels in [0, 1]

log = logging.getLogger(__name__)


def export(config: ExportConfig) -> None:
    """Write the generator's weights twice: as the original reads them, and as safetensors.

    Raises:
        UserError: no generator in the checkpoint; no moving average where it is asked for; a file
            cannot be written; or ONNX Runtime computes other pixels than torch.
    """
    targets = output_files(config)
    generator = Generator()
    found = checkpoint.read(config.checkpoint_path, generator)
    chosen = found.for_inference(config.weights)
    checkpoint.load_network(generator, chosen)
    weights = {name: value.contiguous() for name, value in generator.state_dict().items()}
    about = {"step": str(found.global_step), "weights": "raw" if chosen is found else "ema"}
    content = {"state_dict": weights, "global_step": found.global_step, checkpoint.OUR_KEY: about}
    pth, tensors = (targets[suffix] for suffix in SUFFIXES)
    with atomic_write(pth) as partial:
        torch.save(content, partial)
    with atomic_write(tensors) as partial:
        save_file(weights, partial, metadata=about)
    log.info("%s weights of step %d: %s and %s", about["weights"], found.global_step, pth, tensors)
    if config.onnx:
        target = targets[ONNX]
        with atomic_write(target) as partial:
            _write_onnx(generator, partial)
        difference = _compare(generator, target)
        log.info("%s: within %.1e of torch, for batches of any size", target, difference)


def output_files(config: ExportConfig) -> dict[str, Path]:
    """The files to write, by suffix: ``--outfile`` without a suffix of ours, and each suffix.

    Other dots belong to the name: ``wav2lip-1.0`` gives ``wav2lip-1.0.pth``.

    Raises:
        UserError: one is the checkpoint, or a folder, or cannot be written.
    """
    outfile, suffixes = config.outfile, [*SUFFIXES, *([ONNX] if config.onnx else [])]
    if not outfile.name or outfile.is_dir():
        raise UserError(f"--outfile {outfile}: is a folder; name a file in it")
    stem = outfile.stem if outfile.suffix.lower() in (*SUFFIXES, ONNX) else outfile.name
    targets = {suffix: outfile.with_name(stem + suffix) for suffix in suffixes}
    for path in targets.values():
        if path.is_dir():
            raise UserError(f"{path}: is a folder; choose another --outfile")
        given = config.checkpoint_path
        if path.exists() and given.exists() and path.samefile(given):
            raise UserError(
                f"{path}: is --checkpoint_path, which would lose its optimizer and its averages; "
                "choose another --outfile"
            )
    check_writable(outfile.parent)
    return targets


def _write_onnx(generator: Generator, path: Path) -> None:
    """The generator with its batch norms folded in: ``mel``, ``faces`` → ``drawn``.

    Raises:
        UserError: onnx is not installed.
    """
    if importlib.util.find_spec("onnx") is None:
        raise UserError("--onnx: pip install onnx onnxruntime")
    network = fold(copy.deepcopy(generator).eval().requires_grad_(False))
    # The exporter by tracing, which every torch 2 has; the newer one needs onnxscript.
    known = inspect.signature(torch.onnx.export).parameters
    tracing: dict[str, Any] = {"dynamo": False} if "dynamo" in known else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        torch.onnx.export(
            network,
            _inputs(2),
            str(path),
            input_names=["mel", "faces"],
            output_names=["drawn"],
            dynamic_axes={name: {0: "batch"} for name in ("mel", "faces", "drawn")},
            opset_version=OPSET,
            **tracing,
        )


def _inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.Generator().manual_seed(batch)
    mel = torch.rand(batch, 1, MEL_BANDS, WINDOW_ROWS, generator=numbers) * 8 - 4
    return mel, torch.rand(batch, 6, FACE_SIZE, FACE_SIZE, generator=numbers)


@torch.inference_mode()
def _compare(generator: Generator, path: Path) -> float:
    """The largest difference between a pixel of ONNX Runtime's and torch's.

    Raises:
        UserError: it is too large; the file is removed.
    """
    run = OnnxBackend(path, Device.open("cpu"))
    network = generator.eval()
    worst = max(
        float((run(*given) - network(*given)).abs().max())
        for given in map(_inputs, COMPARED_BATCHES)
    )
    if not worst < MAX_PIXEL_DIFFERENCE:
        path.unlink()
        raise UserError(f"{path}: pixels differ by up to {worst:.1e} from torch's; not written")
    return worst
