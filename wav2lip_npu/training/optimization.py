"""How a network learns: gradients that are gathered, judged, clipped and followed; its average."""

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

# A gradient's norm may be so many times the highest that is remembered; more is a fault of the data
# or of the arithmetic. Generators on GRID stayed within 2.3 times their geometric mean over 60
# steps. But a discriminator that begins to tell pictures apart went from 0.0001 to 34 in 25 steps,
# by a factor of 38 over what it had been at the most: hence the highest and not the mean.
FAR_ABOVE = 30.0
KNOWN_AFTER = 100  # norms that make a history
FORGOTTEN = 0.01  # share of the highest norm that each step forgets
YIELDED = 1.1  # factor by which each step that is skipped raises it: a lasting change passes
TOO_MANY = 50  # steps skipped in a row, after which a run ends


class GradientSpikeFilter:
    """Tells, on the device and without asking it, which steps should be skipped.

    A norm that is not finite is a fault, and so is one far above the highest of those before it:
    accelerators that saturate give the largest number instead of infinity.
    """

    def __init__(self, device: Device) -> None:
        zero = torch.zeros((), device=device.torch_device)
        self._highest = zero - math.inf  # logarithm of the highest norm that is remembered
        self._known = zero.clone()  # norms so far
        self._skipped = zero.clone()  # steps, in all
        self._in_a_row = zero.clone()  # steps, up to now

    def judge(self, norm: torch.Tensor) -> torch.Tensor:
        """1 if the step of this gradient norm should be skipped, else 0; a scalar."""
        size = norm.clamp_min(torch.finfo(torch.float32).tiny).log()
        finite = size.isfinite()
        far = (self._known >= KNOWN_AFTER) & (size > self._highest + math.log(FAR_ABOVE))
        skip = (far | ~finite).float()
        remembered = torch.maximum(size, self._highest + math.log(1 - FORGOTTEN))
        remembered = torch.where(far, self._highest + math.log(YIELDED), remembered)
        self._highest = torch.where(finite, remembered, self._highest)
        self._known = self._known + finite
        self._skipped = self._skipped + skip
        self._in_a_row = (self._in_a_row + skip) * skip
        return skip

    def skipped(self) -> tuple[int, int]:
        """Steps skipped in all, and in a row up to now; waits for the device."""
        return int(self._skipped), int(self._in_a_row)

    def state(self) -> dict[str, torch.Tensor]:
        """For the checkpoint."""
        return {name.removeprefix("_"): value for name, value in vars(self).items()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take up what ``state`` gave."""
        for name, value in state.items():
            own = getattr(self, f"_{name}")
            setattr(self, f"_{name}", value.to(own.device))


class Average:
    """A moving average of a network's weights and running statistics.

    Torch's ``AveragedModel`` would do, but for asking the device at each step how many there were.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.count = 0  # steps followed
        self._decay = decay

    def follow(self, network: nn.Module) -> None:
        """Take in the weights after a step.

        Early on it forgets faster, so that the first weights do not linger.
        """
        kept = min(self._decay, self.count / (10 + self.count))
        averages, values = self._floats(self.network), self._floats(network)
        with torch.no_grad():
            torch._foreach_lerp_(averages, values, 1 - kept)
        self.count += 1

    @staticmethod
    def _floats(network: nn.Module) -> list[torch.Tensor]:
        tensors = (*network.parameters(), *network.buffers())
        return [tensor for tensor in tensors if tensor.is_floating_point()]  # without counters


class TrainableNetwork:
    """A network in training, with all that belongs to it; saved in a file of its own."""

    def __init__(
        self,
        network: nn.Module,
        config: TrainConfig,
        betas: tuple[float, float],
        device: Device,
        world: World,
        *,
        average: bool,
    ) -> None:
        """Take a network into training.

        Args:
            network: is moved to the device.
            config: learning rate and what else is asked for.
            betas: Adam's.
            device: where it is trained.
            world: the processes that share its gradients.
            average: keep the moving average of its weights, if the options ask for one.
        """
        self.network = device.prepare(network)
        self.shared = world.wrap_ddp(network)  # the same, to be called in training
        if config.compile:
            self.shared = torch.compile(self.shared)  # type: ignore[assignment]
        self.optimizer = torch.optim.Adam(
            network.parameters(), lr=config.learning_rate, betas=betas, fused=device.has_fused_adam
        )
        self.scaler = device.scaler()
        self.watch = GradientSpikeFilter(device)
        self.average = None
        if average and config.ema is not None:
            self.average = Average(self.network, config.ema)
        self._accumulate = config.accumulate
        self._clip = config.clip_grad_norm
        self._note_statistics()

    def called(self) -> nn.Module:
        """The network as it is to be called, in training and in evaluation mode."""
        return self.shared if self.network.training else self.network

    def networks(self) -> list[nn.Module]:
        """The network, and its average if it is kept."""
        return [self.network, *([self.average.network] if self.average is not None else [])]

    def gathering(self) -> AbstractContextManager[Any]:
        """The context of batches whose gradients processes need not exchange yet."""
        whole = getattr(self.shared, "_orig_mod", self.shared)
        return whole.no_sync() if isinstance(whole, DistributedDataParallel) else nullcontext()

    def forget_gradients(self) -> None:
        """Begin to gather anew."""
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a batch's loss, which is one of ``--accumulate``."""
        self.scaler.scale(loss / self._accumulate).backward()

    def descend(self, learning_rate: float) -> torch.Tensor:
        """One step of the optimiser on the gradients gathered; their norm, before clipping."""
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if self.scaler.is_enabled():
            norm = norm / self.scaler.scale(torch.ones_like(norm))
        skip = self.watch.judge(norm)
        if self.scaler.is_enabled():
            # A card that saturates hides its overflows from the scaler; it is told so.
            gradients[0].mul_(torch.where(skip > 0, torch.nan, 1.0))
            self.scaler.unscale_(self.optimizer)
        if self._clip is not None:
            nn.utils.clip_grad_norm_(parameters, self._clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self._step_unless(skip)
        self.scaler.update()
        if self.average is not None:
            self.average.follow(self.network)
        return norm

    def _step_unless(self, skip: torch.Tensor) -> None:
        if self.optimizer.defaults["fused"]:  # looks at this on the device, for gradient scalers
            self.optimizer.grad_scale, self.optimizer.found_inf = None, skip  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not skip:
            self.optimizer.step()

    def check(self) -> tuple[int, int]:
        """Steps skipped in all, and in a row up to now; waits for the device.

        What a batch that was not finite did to the running statistics is undone. While training
        nothing reads them, so this must only come before they are used or saved.
        """
        for network in self.networks():
            for buffer, sound in zip(network.buffers(), self._sound_statistics, strict=True):
                if not buffer.isfinite().all():
                    buffer.copy_(sound)
        self._note_statistics()
        return self.watch.skipped()

    def _note_statistics(self) -> None:
        self._sound_statistics = [buffer.clone() for buffer in self.network.buffers()]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Have ``called`` give the average instead, which must be there, in evaluation mode."""
        assert self.average is not None
        own, self.network = self.network, self.average.network
        try:
            yield
        finally:
            self.network = own

    def state(self) -> dict[str, Any]:
        """What a resumed run must know besides network and optimiser."""
        state: dict[str, Any] = {"scaler": self.scaler.state_dict(), "watch": self.watch.state()}
        if self.average is not None:
            state["ema"] = self.average.network.state_dict()
            state["averaged"] = self.average.count
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the state of an earlier run; a published checkpoint has none."""
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        self.watch.restore(state.get("watch", {}))
        if self.average is not None:
            self.average.network.load_state_dict(state.get("ema", self.network.state_dict()))
            self.average.count = state.get("averaged", 0)
        self._note_statistics()


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of a step, counted from 0: a linear warm-up, then constant or a falling cosine.

    Of the step alone, so that a resumed run goes on where it was.
    """
    rate = config.learning_rate
    if step < config.warmup_steps:
        return rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return rate
    assert config.max_steps is not None  # the options see to it
    length = max(1, config.max_steps - config.warmup_steps)
    return rate * (1 + math.cos(math.pi * min(1.0, (step - config.warmup_steps) / length))) / 2
