"""wav2lip-npu: train and run Wav2Lip on Ascend NPUs, CUDA GPUs and CPUs."""

from wav2lip_npu import device as _device

__version__ = "0.1.0"

# Before anything of the package can import torch: see device.prepare_environment.
_device.prepare_environment()
