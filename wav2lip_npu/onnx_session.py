"""Networks in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.device import Device

if TYPE_CHECKING:
    import onnxruntime


def open_session(
    path: Path, device: Device, *, option: str, what: str
) -> onnxruntime.InferenceSession:
    """Open an ONNX file.

    Args:
        path: the file.
        device: where it runs.
        option: of the command line, that asks for it.
        what: the file is, for errors.

    Raises:
        UserError: ONNX Runtime is not installed, or cannot open it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{option}: pip install onnxruntime") from error
    if not path.is_file():
        raise UserError(f"{path}: no such file ({what})")
    provider = device.onnx_provider
    if provider[0] not in onnxruntime.get_available_providers():
        raise UserError(
            f"--device {device.torch_device}: this ONNX Runtime has no {provider[0]}; install "
            "the one of this device, or use --device cpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        model = path.read_bytes()  # by way of bytes: it cannot open names in GBK
        return onnxruntime.InferenceSession(model, options, providers=[provider])
    except Exception as error:  # it raises a dozen kinds of its own
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: ONNX Runtime cannot open it ({reason})") from error
