"""A generator for inference only, without what training needs."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import logging
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from wav2lip_npu import checkpoint
from wav2lip_npu.config import ExportConfig
from wav2lip_npu.constants import FACE_SIZE
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.backends import ONNX, OnnxBackend
from wav2lip_npu.inference.fusion import fold
from wav2lip_npu.mel import MEL_BANDS, WINDOW_ROWS
from wav2lip_npu.models import Generator
from wav2lip_npu.run_options import options_path_beside, write_options
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.files import atomic_write
from wav2lip_npu.weight_files import check_is_file, write_pth, write_safetensors

SUFFIXES = (".pth", checkpoint.SAFETENSORS)
INPUT_NAMES, OUTPUT_NAME = ("mel", "faces"), "generated"  # in the ONNX file
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
    check_is_file(config.checkpoint_path)
    try:
        pth, tensors, onnx = _targets(config)
    except OSError as error:
        raise UserError(f"--outfile {config.outfile}: {error.strerror}") from error
    generator = Generator()
    found = checkpoint.read(config.checkpoint_path, generator)
    chosen = found.for_inference(config.weights)
    checkpoint.load_network(generator, chosen)
    weights = {name: value.contiguous() for name, value in generator.state_dict().items()}
    kind = "raw" if chosen is found else "ema"
    about = {"step": str(found.global_step), "weights": kind}
    content = {"state_dict": weights, "global_step": found.global_step, checkpoint.OUR_KEY: about}
    write_pth(pth, content)
    write_safetensors(tensors, weights, about)
    write_options(options_path_beside(pth), config)
    log.info("%s weights of step %d: %s and %s", kind, found.global_step, pth, tensors)
    if config.onnx:
        with atomic_write(onnx) as partial:
            _write_onnx(generator, partial, config.onnx_batch)
            difference = _compare(generator, partial, onnx)
        size = "any size" if config.onnx_batch is None else f"{config.onnx_batch} faces"
        log.info("%s: within %.1e of torch, for batches of %s", onnx, difference, size)


def _targets(config: ExportConfig) -> tuple[Path, Path, Path]:
    """The files to write: .pth, .safetensors and .onnx, after a look at whether that is possible.

    Raises:
        UserError: it is not, or it would replace the checkpoint that is read.
        OSError: a name cannot be looked up.
    """
    outfile = config.outfile
    if outfile.is_dir() or not outfile.name:
        raise UserError(f"--outfile {outfile}: is a folder; name a file in it")
    suffix = outfile.suffix.lower()
    # What follows a point may be part of the name: wav2lip-1.0.
    if suffix not in (*SUFFIXES, ONNX) and re.fullmatch(r"\.[a-z]+\d?", suffix):
        raise UserError(
            f"--outfile {outfile}: {suffix} is not written here, but {', '.join(SUFFIXES)} and, "
            f"with --onnx, {ONNX}; let the name end in .pth"
        )
    name = outfile.stem if suffix in (*SUFFIXES, ONNX) else outfile.name
    pth, tensors, onnx = (outfile.with_name(name + suffix) for suffix in (*SUFFIXES, ONNX))
    for path in (pth, tensors, onnx) if config.onnx else (pth, tensors):
        if path.exists() and not path.is_file():
            raise UserError(
                f"{path}: is to be written, and is not a file; choose another --outfile"
            )
        if path.exists() and path.samefile(config.checkpoint_path):
            raise UserError(
                f"{path}: is the checkpoint that is read, and would lose what export leaves out; "
                "choose another --outfile"
            )
    folder = next(folder for folder in pth.absolute().parents if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{pth}: cannot be written (in {folder})")
    if config.onnx and not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        raise UserError("--onnx: pip install onnx onnxruntime")
    return pth, tensors, onnx


def _write_onnx(generator: Generator, path: Path, batch: int | None) -> None:
    """The generator with its batch norms folded in: ``mel``, ``faces`` → ``generated``.

    Args:
        generator: its weights.
        path: the file to write.
        batch: the one size of its batches; None: any.
    """
    network = fold(copy.deepcopy(generator).eval().requires_grad_(False))
    # The exporter by tracing, which every torch 2 has; the newer one needs onnxscript.
    known = inspect.signature(torch.onnx.export).parameters
    options: dict[str, Any] = {"dynamo": False} if "dynamo" in known else {}
    if batch is None:
        options["dynamic_axes"] = {name: {0: "batch"} for name in (*INPUT_NAMES, OUTPUT_NAME)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        torch.onnx.export(
            network,
            _inputs(batch or 2),
            str(path),
            input_names=[*INPUT_NAMES],
            output_names=[OUTPUT_NAME],
            opset_version=OPSET,
            **options,
        )


def _inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.Generator().manual_seed(batch)
    mel = torch.rand(batch, 1, MEL_BANDS, WINDOW_ROWS, generator=numbers) * 8 - 4
    return mel, torch.rand(batch, 6, FACE_SIZE, FACE_SIZE, generator=numbers)


@torch.inference_mode()
def _compare(generator: Generator, written: Path, path: Path) -> float:
    """The largest difference between a pixel of ONNX Runtime's and torch's.

    Raises:
        UserError: it is too large; ``path`` is the name that the file will not get.
    """
    run = OnnxBackend(written, Device.open("cpu"))
    network = generator.eval()
    worst = max(
        float((run(*given) - network(*given)).abs().max())
        for given in map(_inputs, COMPARED_BATCHES)
    )
    if not worst < MAX_PIXEL_DIFFERENCE:
        raise UserError(f"{path}: pixels differ by up to {worst:.1e} from torch's; not written")
    return worst
