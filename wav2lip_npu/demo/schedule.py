"""How many steps of both trainings fit into the demo's minutes, on the machine it runs on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from wav2lip_npu.models import Generator, SyncNet
from wav2lip_npu.runtime.device import Device

EXPERT_BATCH, GENERATOR_BATCH = 24, 8  # windows; of the generator one frame of each
# The expert's batches are small for the sake of more steps: a network begins with running variances
# of 1, of which 1 % is left after 43 steps. Its own are smaller, and validation was at chance.
# Steps after which the marks are reached or nearly so, and those after which more show nothing new.
NEEDED_EXPERT_STEPS, NEEDED_GENERATOR_STEPS = 60, 220
MAX_EXPERT_STEPS, MAX_GENERATOR_STEPS = 150, 1500
MIN_STEPS = 10  # of each training, however slow a machine is
EXPERT_SHARE = 0.16  # of the time for both trainings
# Seconds of what is no training step, as shares of the seconds in which the videos were made and
# preprocessed: both depend on the machine alike. Measured on two cores.
START_SHARE = 0.6  # of one training: its process, the data check and the validations
ENDING_SHARE = 2.3  # infer, evaluate and the pictures
RESERVE = 0.12  # of the time for steps: machines that others use too become slower for a while
TIMED_STEPS = 3  # after one that is not timed


@dataclass(frozen=True, kw_only=True)
class StepSeconds:
    """Seconds of a training step on this machine."""

    expert: float
    generator: float


def measure_step_seconds(device: Device) -> StepSeconds:
    """Train both networks for a few steps, on noise."""
    return StepSeconds(expert=_expert_seconds(device), generator=_generator_seconds(device))


def _expert_seconds(device: Device) -> float:
    batch = device.to_device(
        {"mel": torch.rand(EXPERT_BATCH, 1, 80, 16), "faces": torch.rand(EXPERT_BATCH, 15, 48, 96)}
    )
    network = device.prepare(SyncNet())

    def loss() -> torch.Tensor:
        audio, face = network(batch["mel"], batch["faces"])
        return (audio * face).sum()

    return _step_seconds(device, network, loss)


def _generator_seconds(device: Device) -> float:
    batch = device.to_device(
        {
            "mel": torch.rand(GENERATOR_BATCH, 1, 80, 16),
            "faces": torch.rand(GENERATOR_BATCH, 6, 96, 96),
        }
    )
    network = device.prepare(Generator())

    def loss() -> torch.Tensor:
        generated = network(batch["mel"], batch["faces"])
        return (generated.float() - batch["faces"][:, :3]).abs().mean()

    return _step_seconds(device, network, loss)


def _step_seconds(
    device: Device, network: torch.nn.Module, loss: Callable[[], torch.Tensor]
) -> float:
    """The shortest of a few steps: what else a machine does only makes them longer."""
    optimizer = torch.optim.Adam(network.parameters(), **device.adam_options)  # type: ignore[arg-type]
    seconds = []
    for _ in range(1 + TIMED_STEPS):
        started = time.perf_counter()
        with device.autocast():
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        device.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Plans the trainings from what the machine was measured to do."""

    total_seconds: float  # of the whole demo
    data_seconds: float  # in which the videos were made and preprocessed
    step: StepSeconds

    def measured_again(self, device: Device) -> Schedule:
        """With the generator's step as it is now: other work may have slowed the first measure."""
        return replace(self, step=replace(self.step, generator=_generator_seconds(device)))

    def expert_steps(self, elapsed: float) -> int:
        """Steps of the expert, planned when so many seconds of the demo have passed."""
        seconds = self._for_steps(elapsed, trainings=2)
        return _within(EXPERT_SHARE * seconds / self.step.expert, MAX_EXPERT_STEPS)

    def generator_steps(self, elapsed: float) -> int:
        """Steps of the generator, planned likewise when the expert is trained."""
        seconds = self._for_steps(elapsed, trainings=1)
        return _within(seconds / self.step.generator, MAX_GENERATOR_STEPS)

    def needed_seconds(self, elapsed: float) -> float:
        """Seconds that the demo would take with the steps that its marks need."""
        expert = NEEDED_EXPERT_STEPS * self.step.expert
        generator = NEEDED_GENERATOR_STEPS * self.step.generator
        return elapsed + self._others(trainings=2) + (expert + generator) / (1 - RESERVE)

    def _for_steps(self, elapsed: float, *, trainings: int) -> float:
        """Seconds that are left for the steps of so many trainings."""
        return (1 - RESERVE) * (self.total_seconds - elapsed - self._others(trainings=trainings))

    def _others(self, *, trainings: int) -> float:
        return (trainings * START_SHARE + ENDING_SHARE) * self.data_seconds


def _within(steps: float, most: int) -> int:
    return min(max(int(steps), MIN_STEPS), most)
