"""The checkpoint format: the original's file, with a key of ours beside its own.

``{"state_dict", "optimizer", "global_step", "global_epoch", "wav2lip_npu"}``. The last holds what
the original does not save; the original ignores it.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.files import PARTIAL_PATTERN, atomic_write

OUR_KEY = "wav2lip_npu"
SAFETENSORS = ".safetensors"  # of weights alone
DISC_PREFIX = "disc_"
BEST_NAME = "best.pth"  # a second name of the checkpoint with the best validation
_NAME = re.compile(r"checkpoint_step(\d{9,})\.pth")
# Of ``atomic_write``, and of versions before 0.2.
_PARTIAL_NAME = re.compile(
    rf"\.(disc_)?(checkpoint_step\d+|best)\.({PARTIAL_PATTERN}\.pth|pth\.partial)"
)

# A parameter that only this network has → the network's name.
_NETWORKS = {
    "face_encoder.0.conv_block.0.weight": "lip-sync expert",
    "face_decoder_blocks.0.0.conv_block.0.weight": "generator",
    "binary_pred.0.weight": "visual quality discriminator",
    "conv3_3_norm.weight": "S3FD face detector",
}


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


def file_name(step: int) -> str:
    """The original's name for the checkpoint of a step."""
    return f"checkpoint_step{step:09d}.pth"


def newest(folder: Path) -> Path | None:
    """The checkpoint of the highest step in a folder, or None."""
    found = [path for path in folder.glob("checkpoint_step*.pth") if _NAME.fullmatch(path.name)]
    return max(found, key=lambda path: (len(path.name), path.name), default=None)


def read(path: Path) -> Checkpoint:
    """Read a checkpoint without running any code that it may carry.

    Raises:
        UserError: no such file, or not a checkpoint of this format.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file (checkpoint)")
    with path.open("rb") as file:
        if file.read(64).lstrip()[:1] == b"<":
            raise UserError(f"{path}: is a web page, not a checkpoint; download the file itself")
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
    try:
        # With a memory map the optimizer's moments are read only if they are used. Files from
        # before torch 1.6 are no archives and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises a dozen kinds for a file that is no checkpoint
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read as a checkpoint ({reason})") from error
    if not isinstance(content, Mapping) or not isinstance(content.get("state_dict"), Mapping):
        raise UserError(f"{path}: not a checkpoint of Wav2Lip, it has no state_dict")
    return Checkpoint(
        path=path,
        state_dict={k.removeprefix("module."): v for k, v in content["state_dict"].items()},
        optimizer=content.get("optimizer"),
        global_step=int(content.get("global_step") or 0),
        global_epoch=int(content.get("global_epoch") or 0),
        extra=dict(content.get(OUR_KEY) or {}),
    )


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error})") from error
    return Checkpoint(
        path=path,
        state_dict=weights,
        optimizer=None,
        global_step=int(about.get("step", 0)),
        global_epoch=0,
        extra={},
    )


def load_network(network: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's parameters and buffers into a network; every name must fit.

    A network on torch's device "meta", which has shapes only, takes the tensors themselves.

    Raises:
        UserError: the checkpoint holds another network, which is named.
    """
    wanted, found = _identify(network.state_dict()), _identify(checkpoint.state_dict)
    if found != wanted:
        raise UserError(f"{checkpoint.path}: holds the {found}, the {wanted} is wanted here")
    try:
        shapes_only = next(network.parameters()).is_meta
        network.load_state_dict(checkpoint.state_dict, assign=shapes_only)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{checkpoint.path}: does not fit the {wanted} ({reason})") from error


def load_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Take up an optimizer's moments, if the checkpoint has them; its settings stay ours.

    Raises:
        UserError: they are not those of this network.
    """
    if checkpoint.optimizer is None:
        return
    ours = optimizer.state_dict()["param_groups"]
    try:
        optimizer.load_state_dict({"state": checkpoint.optimizer["state"], "param_groups": ours})
        _match_strides(optimizer)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{checkpoint.path}: its optimizer does not fit ({error})") from error


def _match_strides(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the strides of their parameters, which fused optimizers rely on."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)


def _identify(state_dict: Mapping[str, Any]) -> str:
    for name, network in _NETWORKS.items():
        if name in state_dict:
            return network
    return "weights of an unknown network"


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
    with atomic_write(path) as partial:
        torch.save(_portable(content), partial)


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


def remove_partial(folder: Path) -> None:
    """Remove what a process that was killed while it saved has left."""
    for path in folder.glob(".*"):
        if _PARTIAL_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _portable(value: Any) -> Any:
    """The same with every tensor on the CPU and contiguous, to load on any machine."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().contiguous()
    if isinstance(value, Mapping):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_portable(item) for item in value)
    return value
