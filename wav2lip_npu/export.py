"""A generator for inference only, without what training needs."""

from __future__ import annotations

import logging

import torch
from safetensors.torch import save_file

from wav2lip_npu import checkpoint
from wav2lip_npu.config import ExportConfig
from wav2lip_npu.models import Generator

SUFFIXES = (".pth", ".safetensors")

log = logging.getLogger(__name__)


def export(config: ExportConfig) -> None:
    """Write the generator's weights twice: as the original reads them, and as safetensors.

    Raises:
        UserError: no generator in the checkpoint, or no average where it is asked for, or the disk
            failed.
    """
    found = checkpoint.read(config.checkpoint_path)
    averaged = config.weights == "ema" or (config.weights == "auto" and "ema" in found.extra)
    chosen = found.averaged() if averaged else found
    generator = Generator()
    checkpoint.load_network(generator, chosen)
    weights = {name: value.contiguous() for name, value in generator.state_dict().items()}
    about = {"step": str(found.global_step), "weights": "ema" if averaged else "raw"}
    content = {"state_dict": weights, "global_step": found.global_step, checkpoint.OUR_KEY: about}
    pth, tensors = (config.outfile.with_suffix(suffix) for suffix in SUFFIXES)
    checkpoint.write(pth, lambda path: torch.save(content, path))
    checkpoint.write(tensors, lambda path: save_file(weights, path, metadata=about))
    log.info("%s weights of step %d: %s and %s", about["weights"], found.global_step, pth, tensors)
