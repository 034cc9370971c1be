"""wav2lip-npu: train and run Wav2Lip on Ascend NPUs, CUDA GPUs and CPUs."""

from typing import TYPE_CHECKING, Any

from wav2lip_npu.runtime import device as _device

if TYPE_CHECKING:
    from wav2lip_npu.inference.lip_sync import LipSync

__version__ = "0.1.0"
__all__ = ["LipSync"]

# Before anything of the package can import torch: see device.disable_torch_npu_autoload.
_device.disable_torch_npu_autoload()


def __getattr__(name: str) -> Any:
    """``LipSync``, imported when it is asked for: it needs torch, which takes seconds."""
    if name == "LipSync":
        from wav2lip_npu.inference.lip_sync import LipSync

        return LipSync
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
