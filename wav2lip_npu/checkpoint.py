"""The checkpoint format: the original's file, with a key of ours beside its own.

``{"state_dict", "optimizer", "global_step", "global_epoch", "wav2lip_npu"}``. The last holds what
the original does not save; the original ignores it.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.runtime.files import WriteError, atomic_write
from wav2lip_npu.state_dicts import COUNTER, find_weights, identify, misfit
from wav2lip_npu.weight_files import WeightFileError, read_content, write_pth

OUR_KEY = "wav2lip_npu"
SAFETENSORS = ".safetensors"  # of weights alone
DISC_PREFIX = "disc_"
BEST_NAME = "best.pth"  # a second name of the checkpoint with the best validation
_NAME = re.compile(r"checkpoint_step(\d{9,})\.pth")

TORCH_ALIGNMENT = 64  # bytes, of the memory that torch allocates
MAX_COUNT = 10**12  # steps; more is no number of steps

Network = TypeVar("Network", bound=nn.Module)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint file's content, on the CPU."""

    path: Path
    state_dict: dict[str, torch.Tensor]  # without the "module." that DataParallel adds
    optimizer: dict[str, Any] | None
    global_step: int
    global_epoch: int
    extra: dict[str, Any]  # of our key; empty in a published file

    def averaged(self) -> Checkpoint:
        """The same with the moving average of the weights instead of the weights.

        Raises:
            UserError: it has none.
        """
        if "ema" not in self.extra:
            raise UserError(f"{self.path}: has no moving average of its weights (train --ema)")
        return replace(self, state_dict=self.extra["ema"])

    def for_inference(self, weights: str = "auto") -> Checkpoint:
        """The same with the weights that inference and export use.

        Args:
            weights: one of ``EXPORTED_WEIGHTS``; auto: the moving average if there is one.

        Raises:
            UserError: the moving average is asked for, and there is none.
        """
        take_average = weights == "ema" or (weights == "auto" and "ema" in self.extra)
        return self.averaged() if take_average else self


def file_name(step: int) -> str:
    """The original's name for the checkpoint of a step."""
    return f"checkpoint_step{step:09d}.pth"


def newest(folder: Path) -> Path | None:
    """The checkpoint of the highest step in a folder, or None."""
    return next(iter(newest_first(folder)), None)


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints of a folder, by falling steps."""
    found = [path for path in folder.glob("checkpoint_step*.pth") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (len(path.name), path.name), reverse=True)


def read(path: Path, network: nn.Module | None = None) -> Checkpoint:
    """Read a checkpoint, or weights alone, without running any code that the file may carry.

    Known are checkpoints of ours and of the original, state dicts alone or in a container of any
    names, TorchScript archives, and safetensors.

    Args:
        path: the file.
        network: whose weights are wanted; needed for files that hold several networks.

    Raises:
        WeightFileError: no such file, or none with weights; the message says what it is.
        UserError: it holds several networks, and not one of the kind that is wanted.
    """
    content = read_content(path)
    if not isinstance(content, Mapping):
        raise WeightFileError(f"{path}: holds a {type(content).__name__}, not weights of a network")
    wanted = None if network is None else identify(network.state_dict())
    weights, averages = find_weights(path, content, wanted)
    ours = content.get(OUR_KEY)
    extra = {str(key): value for key, value in ours.items()} if isinstance(ours, Mapping) else {}
    extra.pop("ema", None)
    if averages is not None:
        extra["ema"] = averages
    optimizer, metadata = content.get("optimizer"), content.get("metadata")
    about = metadata if isinstance(metadata, Mapping) else {}
    return Checkpoint(
        path=path,
        state_dict=weights,
        optimizer=dict(optimizer) if isinstance(optimizer, Mapping) else None,
        global_step=count(content.get("global_step", about.get("step"))),
        global_epoch=count(content.get("global_epoch")),
        extra=extra,
    )


def count(value: Any) -> int:
    """A number of steps from a file that may hold anything; 0 if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return 0
    return int(number) if 0 <= number <= MAX_COUNT else 0


def load_network(network: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's parameters and buffers into a network; every name must fit.

    A network on torch's device "meta", which has shapes only, takes the tensors themselves.

    Raises:
        UserError: the checkpoint holds another network, which is named, or values that are not
            finite.
    """
    weights = fitting_weights(network, checkpoint)
    shapes_only = next(network.parameters()).is_meta
    network.load_state_dict(weights, assign=shapes_only)


def load_frozen(network: Network, checkpoint: Checkpoint, device: Device) -> Network:
    """Load a network that is not trained: in evaluation mode, on its device.

    Raises:
        UserError: as ``load_network``.
    """
    load_network(network, checkpoint)
    device.prepare(network)
    return network.requires_grad_(False).eval()


def fitting_weights(network: nn.Module, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """A checkpoint's weights in the data types of a network.

    Raises:
        UserError: as ``load_network``; WeightFileError if they are not finite.
    """
    path, own, given = checkpoint.path, network.state_dict(), checkpoint.state_dict
    wanted, found = identify(own), identify(given)
    if found != wanted:
        raise UserError(f"{path}: holds the {found}, the {wanted} is wanted here")
    # Torch before 0.4.1 did not count batches.
    counters = {name: torch.zeros((), dtype=torch.int64) for name in own if name.endswith(COUNTER)}
    given = {**counters, **given}
    if difference := misfit(own, given):
        raise UserError(f"{path}: does not fit the {wanted}: {difference}")
    weights = {name: _aligned(given[name].to(value.dtype)) for name, value in own.items()}
    # A sum is a hundred times faster than looking at each number, and is finite if all are.
    spoilt = [name for name, value in weights.items() if not value.sum().isfinite()]
    spoilt = [name for name in spoilt if not weights[name].isfinite().all()]
    if spoilt:
        raise WeightFileError(
            f"{path}: {len(spoilt)} of its {len(weights)} tensors are not finite, as {spoilt[0]}: "
            "a training that failed, or a damaged file; take an earlier one"
        )
    return weights


def _aligned(value: torch.Tensor) -> torch.Tensor:
    """The tensor, copied if its memory begins at an odd place, as it can in a file.

    The last bits of what torch computes depend on that: the same weights would give other pixels.
    """
    is_aligned = value.is_contiguous() and value.data_ptr() % TORCH_ALIGNMENT == 0
    return value if is_aligned else value.clone(memory_format=torch.contiguous_format)


def load_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Take up an optimizer's moments, if the checkpoint has them; its settings stay ours.

    Raises:
        UserError: they are not those of this network; the optimizer is as it was.
    """
    state = (checkpoint.optimizer or {}).get("state")
    if not state:
        return
    groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not isinstance(state, Mapping) or not all(
        isinstance(number, int)
        and 0 <= number < len(parameters)
        and _are_moments(moments, parameters[number])
        for number, moments in state.items()
    ):
        raise UserError(f"{checkpoint.path}: its optimizer's moments do not fit the network")
    optimizer.load_state_dict({"state": dict(state), "param_groups": groups})
    _match_strides(optimizer)


def _are_moments(moments: Any, parameter: torch.Tensor) -> bool:
    """Whether this is Adam's state of a parameter."""
    if not isinstance(moments, Mapping) or moments.keys() != {"step", "exp_avg", "exp_avg_sq"}:
        return False
    steps, *averages = (moments[name] for name in ("step", "exp_avg", "exp_avg_sq"))
    return count(steps) > 0 and all(
        isinstance(value, torch.Tensor)
        and value.shape == parameter.shape
        and value.is_floating_point()
        for value in averages
    )


def _match_strides(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the strides of their parameters, which fused optimizers rely on."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)


def save(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    epoch: int,
    extra: dict[str, Any],
) -> None:
    """Write a checkpoint.

    Raises:
        WriteError: it cannot be written; an older file of this name stays as it was.
    """
    moments = optimizer.state_dict()
    # Not whether this machine fuses the step: others may not be able to.
    groups = [{**group, "fused": None} for group in moments["param_groups"]]
    content = {
        "state_dict": network.state_dict(),
        "optimizer": {**moments, "param_groups": groups},
        "global_step": step,
        "global_epoch": epoch,
        OUR_KEY: extra,
    }
    write_pth(path, _portable(content))


def name_best(path: Path, name: str) -> None:
    """Give a checkpoint a second name beside it; the file that had that name loses it.

    Raises:
        WriteError: the disk does not allow it.
    """
    with atomic_write(path.with_name(name)) as partial:
        try:
            partial.hardlink_to(path)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, partial)


def set_aside(path: Path) -> None:
    """Give a file of another training, if there is one, another name, such as ``best_1.pth``.

    Raises:
        WriteError: the disk does not allow it.
    """
    number = 1
    while (other := path.with_stem(f"{path.stem}_{number}")).exists():
        number += 1
    try:
        path.rename(other)
    except FileNotFoundError:
        return
    except OSError as error:
        raise WriteError(f"{path}: cannot be renamed ({reason(error)})") from error
    log.info("%s is of another training or metric: it is now %s", path, other.name)


def _portable(value: Any) -> Any:
    """The same with every tensor on the CPU and contiguous, to load on any machine."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().contiguous()
    if isinstance(value, Mapping):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_portable(item) for item in value)
    return value
