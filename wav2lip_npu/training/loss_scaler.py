"""Scales the loss so that small gradients do not vanish in fp16 (Micikevicius et al. 2018, §3.2).

Torch's own scaler tells an overflow by Inf and NaN, which cards that saturate never have; there
torch_npu reports it without unscaling, and the step would be taken with gradients 65,536 times too
large. Here the caller decides, and everything stays on the device.
"""

from __future__ import annotations

from typing import Any

import torch

from wav2lip_npu.runtime.device import Device

FIRST_SCALE = 2.0**16
GROWTH, BACKOFF = 2.0, 0.5  # powers of two: a scaled gradient has the bits of the unscaled one
GROWTH_INTERVAL = 2000  # steps without overflow after which the scale grows
# Keys in checkpoints, those of torch.amp.GradScaler.
SCALE_KEY, GOOD_STEPS_KEY = "scale", "_growth_tracker"


class LossScaler:
    """The factor of the loss; 1 unless the precision is fp16."""

    def __init__(self, device: Device) -> None:
        self.is_enabled = device.dtype is torch.float16
        one = torch.ones((), device=device.torch_device)
        self._scale = one * FIRST_SCALE if self.is_enabled else one
        self._good_steps = torch.zeros_like(one)  # since the scale has changed

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to call ``backward`` on; a scalar."""
        return loss * self._scale if self.is_enabled else loss

    def unscale_factor(self) -> torch.Tensor:
        """What gradients are to be multiplied by; a scalar on the device."""
        return self._scale.reciprocal()

    def update(self, skipped: torch.Tensor) -> None:
        """Halve the scale after a step that was skipped, double it after many that were not.

        Args:
            skipped: 1 if so, else 0; a scalar on the device.
        """
        if not self.is_enabled:
            return
        good_steps = (self._good_steps + 1) * (1 - skipped)
        grow = good_steps >= GROWTH_INTERVAL
        factor = torch.where(grow, GROWTH, 1.0) * (1 - (1 - BACKOFF) * skipped)
        self._scale = self._scale * factor
        self._good_steps = torch.where(grow, 0.0, good_steps)

    def state(self) -> dict[str, float]:
        """For the checkpoint; waits for the device."""
        if not self.is_enabled:
            return {}
        return {SCALE_KEY: float(self._scale), GOOD_STEPS_KEY: int(self._good_steps)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` gave, or torch's own scaler in an earlier version."""
        if self.is_enabled and SCALE_KEY in state:
            self._scale = self._scale.new_tensor(float(state[SCALE_KEY]))
            self._good_steps = self._scale.new_tensor(float(state.get(GOOD_STEPS_KEY, 0)))
