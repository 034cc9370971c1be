"""The three networks, with the parameter names of the published checkpoints."""

from wav2lip_npu.models.discriminator import QualityDiscriminator
from wav2lip_npu.models.generator import Generator
from wav2lip_npu.models.syncnet import SyncExpert

__all__ = ["Generator", "QualityDiscriminator", "SyncExpert"]
