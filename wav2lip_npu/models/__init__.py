"""The three networks, with the parameter names of the published checkpoints."""

from wav2lip_npu.models.discriminator import QualityDiscriminator
from wav2lip_npu.models.expert import SyncExpert
from wav2lip_npu.models.generator import Generator

__all__ = ["Generator", "QualityDiscriminator", "SyncExpert"]
