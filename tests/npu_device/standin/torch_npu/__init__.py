"""Stands in for torch_npu: importing it brings the device, as importing the real one does."""

import torch
from npu_device import library

torch.ops.load_library(library())

from torch_npu import npu  # noqa: E402  uses what was loaded

torch.utils.rename_privateuse1_backend("npu")
torch._register_device_module("npu", npu)
torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
