"""What is trained: SyncNet, the generator, and the generator against a discriminator.

A task owns its networks and knows one step, one validation batch and one sheet of samples. The
loop that runs it is in ``trainer``, and is the same for all three.
"""

from wav2lip_npu.training.tasks.base import Metrics, Task
from wav2lip_npu.training.tasks.generator import AdversarialTask, GeneratorTask
from wav2lip_npu.training.tasks.syncnet import SyncNetTask

__all__ = ["AdversarialTask", "GeneratorTask", "Metrics", "SyncNetTask", "Task"]
