"""What ``test_distributed`` has each of two processes do: one step, and a record of it.

Also the step of one process on the joined batch, where it is started alone.
"""

from __future__ import annotations

import pickle
import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import thin_networks
from torch import nn

from wav2lip_npu import distributed
from wav2lip_npu.config import GeneratorConfig
from wav2lip_npu.device import Device, seed
from wav2lip_npu.tasks import AdversarialTask
from wav2lip_npu.training import Trainer


def one_step(config: GeneratorConfig, out: Path) -> None:
    """Train on the first batch; write what it was, the gradients and the new parameters."""
    device = Device.open(config.device, config.precision)
    with distributed.join(device) as world:
        seed(config.seed + world.rank)  # the processes must agree though they begin differently
        task = AdversarialTask(config, device, world)
        trainer = Trainer(config, task)
        task.sync_weight = 0.03
        task.set_training(True)
        for trained in task.trained.values():
            for module in trained.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()  # else each process has the statistics of its own share
        batch = next(trainer._train_batches(threading.Event()))
        means = world.mean({name: float(value) for name, value in task.step(batch).items()})
        networks = {prefix: trained.network for prefix, trained in task.trained.items()}
        record = {
            "batch": batch,
            "means": means,
            "gradients": {p: [w.grad for w in n.parameters()] for p, n in networks.items()},
            "parameters": {p: list(n.parameters()) for p, n in networks.items()},
        }
        torch.save(record, out / f"{world.rank}_of_{world.size}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    thin_networks(pytest.MonkeyPatch())
    one_step(pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]))
