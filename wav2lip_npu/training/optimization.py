"""A network in training: gradients and their filter, the optimizer step, the weights' average."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wav2lip_npu.config import TrainConfig
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.distributed import World
from wav2lip_npu.training.loss_scaler import LossScaler

# A gradient's norm may be so many times the highest that is remembered; more is a fault of the data
# or of the arithmetic. Generators on GRID stayed within 2.3 times their geometric mean over 60
# steps. But a discriminator that begins to separate images went from 0.0001 to 34 in 25 steps, 38
# times what it had been at the most: hence the highest and not the mean.
MAX_NORM_RATIO = 30.0
MIN_NORM_HISTORY = 100  # norms before any is compared
NORM_DECAY = 0.01  # share of the highest norm that each step forgets
NORM_GROWTH_PER_SKIP = 1.1  # factor by which a skipped step raises it: a lasting change passes
EARLY_STEPS = 10  # of an average, while its decay rises: the first weights are forgotten sooner
MAX_SKIPPED_STEPS = 50  # in a row, after which a run ends


class GradientSpikeFilter:
    """Decides which steps are skipped, on the device and without waiting for it.

    A norm that is not finite is a fault, and so is one far above the highest of those before it:
    accelerators that saturate give the largest number instead of infinity.
    """

    def __init__(self, device: Device) -> None:
        zero = torch.zeros((), device=device.torch_device)
        self._highest = zero - math.inf  # logarithm of the highest norm that is remembered
        self._known = zero.clone()  # norms so far
        self._skipped = zero.clone()  # steps, in all
        self._in_a_row = zero.clone()  # steps skipped up to now

    def should_skip(self, norm: torch.Tensor, overflow: torch.Tensor | None = None) -> torch.Tensor:
        """1 if the step of this gradient norm should be skipped, else 0; a scalar.

        Args:
            norm: of all gradients, a scalar.
            overflow: 1 if an overflow is known that the norm does not show, else 0; a scalar.
        """
        log_norm = norm.clamp_min(torch.finfo(torch.float32).tiny).log()
        finite = log_norm.isfinite()
        if overflow is not None:
            finite = finite & (overflow == 0)
        limit = self._highest + math.log(MAX_NORM_RATIO)
        far = (self._known >= MIN_NORM_HISTORY) & (log_norm > limit)
        skip = (far | ~finite).float()
        remembered = torch.maximum(log_norm, self._highest + math.log(1 - NORM_DECAY))
        remembered = torch.where(far, self._highest + math.log(NORM_GROWTH_PER_SKIP), remembered)
        self._highest = torch.where(finite, remembered, self._highest)
        self._known = self._known + finite
        self._skipped = self._skipped + skip
        self._in_a_row = (self._in_a_row + skip) * skip
        return skip

    def skipped_steps(self) -> tuple[int, int]:
        """Steps skipped in all, and in a row up to now; waits for the device."""
        return int(self._skipped), int(self._in_a_row)

    def state(self) -> dict[str, torch.Tensor]:
        """For the checkpoint."""
        return {
            "highest": self._highest,
            "known": self._known,
            "skipped": self._skipped,
            "in_a_row": self._in_a_row,
        }

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take up what ``state`` gave."""
        device = self._known.device
        self._highest = state["highest"].to(device)
        self._known = state["known"].to(device)
        self._skipped = state["skipped"].to(device)
        self._in_a_row = state["in_a_row"].to(device)


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


class TrainableNetwork:
    """A network in training, with all that belongs to it; saved in a file of its own."""

    def __init__(
        self,
        network: nn.Module,
        config: TrainConfig,
        beta1: float,
        device: Device,
        world: World,
        *,
        ema: bool,
    ) -> None:
        """Prepare a network for training.

        Args:
            network: is moved to the device.
            config: learning rate and the other options.
            beta1: of Adam, the decay of averaged gradients.
            device: where it is trained.
            world: the processes that average its gradients.
            ema: keep a moving average of its weights, if the options ask for one.
        """
        self.network = device.prepare(network)
        self.ddp = world.wrap_ddp(network)  # the same network, as it is called in training
        if config.compile:
            self.ddp = torch.compile(self.ddp)  # type: ignore[assignment]
        self.optimizer = torch.optim.Adam(
            network.parameters(),
            lr=config.learning_rate,
            betas=(beta1, config.adam_beta2),
            **device.adam_options,
        )
        self.scaler = LossScaler(device)
        self.spike_filter = GradientSpikeFilter(device)
        self._device, self._world = device, world
        self.ema = EMA(self.network, config.ema) if ema and config.ema is not None else None
        self._accumulate = config.accumulate
        self._max_norm = config.clip_grad_norm
        self._keep_statistics()

    def forward_module(self) -> nn.Module:
        """The network as it is to be called, in training and in evaluation mode."""
        return self.ddp if self.network.training else self.network

    def networks(self) -> list[nn.Module]:
        """The network, and its moving average if there is one."""
        return [self.network, *([self.ema.network] if self.ema is not None else [])]

    def no_sync(self) -> AbstractContextManager[Any]:
        """The context of batches after which processes need not average gradients yet."""
        wrapped = getattr(self.ddp, "_orig_mod", self.ddp)
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.scaler.is_enabled:
            self._device.clear_overflow()

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a batch's loss, which is one of ``--accumulate``."""
        share = loss if self._accumulate == 1 else loss / self._accumulate
        self.scaler.scale(share).backward()

    def optimizer_step(self, learning_rate: float) -> torch.Tensor:
        """One step with the gradients there are, unless they are a spike.

        Returns:
            The norm of the gradients before clipping, a scalar on the device.
        """
        overflow = self._overflow()  # before anything else is computed
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        factor = None  # what the gradients are still to be multiplied by
        if self.scaler.is_enabled:
            factor = self.scaler.unscale_factor()
            norm = norm * factor
        skip = self.spike_filter.should_skip(norm, overflow)
        if self._max_norm is not None:  # as torch.nn.utils.clip_grad_norm_ does
            clipping = (self._max_norm / (norm + 1e-6)).clamp(max=1.0)
            factor = clipping if factor is None else factor * clipping
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self._step_unless(skip, gradients, factor)
        self.scaler.update(skip)
        if self.ema is not None:
            self.ema.update(self.network)
        return norm

    def _overflow(self) -> torch.Tensor | None:
        """1 if a gradient of any process has overflowed, where only the card can tell."""
        if not self.scaler.is_enabled:
            return None
        overflow = self._device.overflow()
        return None if overflow is None else self._world.device_max(overflow)

    def _step_unless(
        self, skip: torch.Tensor, gradients: list[torch.Tensor], factor: torch.Tensor | None
    ) -> None:
        """Multiply the gradients and step; a fused optimizer reads on the device whether to."""
        if self.optimizer.defaults["fused"]:
            if factor is not None:
                torch._foreach_mul_(gradients, factor)
            self.optimizer.grad_scale, self.optimizer.found_inf = None, skip  # type: ignore[attr-defined]
            self.optimizer.step()
            return
        # The one wait for the device in a step.
        if factor is None:
            is_skipped = skip.item()
        else:  # a list is multiplied in fewer kernels by a number of the CPU
            is_skipped, number = torch.stack([skip, factor]).tolist()
            if not is_skipped and number != 1:
                torch._foreach_mul_(gradients, number)
        if not is_skipped:
            self.optimizer.step()

    def repair_statistics(self) -> None:
        """Undo what a batch that was not finite did to the running statistics.

        Waits for the device, once. Training does not read them, so this is only needed before they
        are used or saved.
        """
        buffers = [buffer for network in self.networks() for buffer in network.buffers()]
        if not buffers:
            return
        finite = torch.stack([buffer.isfinite().all() for buffer in buffers]).tolist()
        known = self._finite_statistics * len(self.networks())
        for buffer, is_finite, last_finite in zip(buffers, finite, known, strict=True):
            if not is_finite:
                buffer.copy_(last_finite)
        self._keep_statistics()

    def _keep_statistics(self) -> None:
        self._finite_statistics = [buffer.clone() for buffer in self.network.buffers()]

    @contextmanager
    def use_ema(self) -> Iterator[None]:
        """Let ``forward_module`` give the moving average, which must be there."""
        assert self.ema is not None
        own, self.network = self.network, self.ema.network
        try:
            yield
        finally:
            self.network = own

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides network and optimizer."""
        state: dict[str, Any] = {
            "scaler": self.scaler.state(),
            "watch": self.spike_filter.state(),
        }
        if self.ema is not None:
            state["ema"] = self.ema.network.state_dict()
            state["averaged"] = self.ema.updates
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the state of an earlier run; a published checkpoint has none."""
        if state.get("scaler"):
            self.scaler.restore(state["scaler"])
        if state.get("watch"):
            self.spike_filter.restore(state["watch"])
        if self.ema is not None:
            self.ema.network.load_state_dict(state.get("ema", self.network.state_dict()))
            self.ema.updates = state.get("averaged", 0)
        self._keep_statistics()


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step, counted from 0: linear warm-up, then constant or cosine.

    A function of the step alone, so that a resumed run continues with the same rate.
    """
    rate = config.learning_rate
    if step < config.warmup_steps:
        return rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return rate
    assert config.max_steps is not None  # the options see to it
    length = max(1, config.max_steps - config.warmup_steps)
    return rate * (1 + math.cos(math.pi * min(1.0, (step - config.warmup_steps) / length))) / 2
