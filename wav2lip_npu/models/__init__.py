"""The three networks, with the parameter names of the published checkpoints."""

from wav2lip_npu.models.discriminator import VisualQualityDiscriminator
from wav2lip_npu.models.generator import Generator
from wav2lip_npu.models.syncnet import SyncNet

__all__ = ["Generator", "SyncNet", "VisualQualityDiscriminator"]
