"""wav2lip-npu: train and run Wav2Lip on Ascend NPUs, CUDA GPUs and CPUs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wav2lip_npu.constants import VERSION as __version__
from wav2lip_npu.errors import UserError

if TYPE_CHECKING:
    from wav2lip_npu.inference.lip_sync import LipSync
    from wav2lip_npu.media.audio import load_audio

__all__ = ["LipSync", "UserError", "__version__", "load_audio"]

_LAZY_NAMES = {"LipSync": "inference.lip_sync", "load_audio": "media.audio"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds to import."""
    if name not in _LAZY_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY_NAMES[name]}"), name)
