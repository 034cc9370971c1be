"""An exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

EARLY_STEPS = 10  # while the decay rises: the first weights are forgotten sooner


class EMA:
    """A moving average of a network's weights and running statistics.

    Torch's ``AveragedModel`` would do, but it reads a counter from the device at each step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.updates = 0
        self._decay = decay

    def update(self, network: nn.Module) -> None:
        """Take in the weights after a step."""
        decay = min(self._decay, self.updates / (EARLY_STEPS + self.updates))
        averages, values = _floats(self.network), _floats(network)
        with torch.no_grad():
            torch._foreach_lerp_(averages, values, 1 - decay)
        self.updates += 1


def _floats(network: nn.Module) -> list[torch.Tensor]:
    tensors = (*network.parameters(), *network.buffers())
    return [tensor for tensor in tensors if tensor.is_floating_point()]  # without counters
