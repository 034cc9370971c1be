"""Which network's weights a mapping of tensors holds, and whether they fit a network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wav2lip_npu.errors import UserError
from wav2lip_npu.weight_files import WeightFileError

UNKNOWN = "weights of an unknown network"
MAX_NESTING = 3  # of containers in which weights are looked for
COUNTER = ".num_batches_tracked"

SYNCNET_V2 = "SyncNet v2"

# A parameter that only this network has → the network's name.
_NETWORKS = {
    "face_encoder.0.conv_block.0.weight": "lip-sync expert",
    "face_decoder_blocks.0.0.conv_block.0.weight": "generator",
    "binary_pred.0.weight": "visual quality discriminator",
    "conv3_3_norm.weight": "S3FD face detector",
    "netcnnlip.0.weight": SYNCNET_V2,
    "stylegan_decoder.constant_input.weight": "face restoration network GFPGAN",
}


def identify(state_dict: Mapping[str, Any]) -> str:
    """The name of the network that has these parameters."""
    for name, network in _NETWORKS.items():
        if name in state_dict:
            return network
    return UNKNOWN


def find_weights(
    path: Path, content: Mapping[Any, Any], wanted: str | None
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None]:
    """The weights of a network in what a file holds, and a moving average of them beside them.

    Args:
        path: of the file, for messages.
        content: with weights in it at any place, their names with any prefix: ``{"state_dict"}``,
            ``{"generator", "discriminator"}``, ``{"model", "model_ema"}`` …
        wanted: the network's name as ``identify`` gives it; None takes the only one.

    Raises:
        WeightFileError: there are none.
        UserError: there are several to choose from.
    """
    found = [*_networks(content)]
    if not found:
        weights = content.get("state_dict", content)
        tensors = _tensors(weights) if isinstance(weights, Mapping) else {}
        if not tensors:
            raise WeightFileError(f"{path}: holds no weights of a network")
        return tensors, None
    kinds = {one.network for one in found}
    if wanted is None or wanted not in kinds:
        if len(kinds) > 1:
            raise UserError(f"{path}: holds several networks: {', '.join(sorted(kinds))}")
        (wanted,) = kinds
    of_kind = [one for one in found if one.network == wanted]
    averaged = [one for one in of_kind if one.averaged]
    plain = [one for one in of_kind if not one.averaged]
    if not plain:  # the average alone
        plain, averaged = averaged, []
    # Where there are more, those of the original's key, and of ours, are meant.
    plain = [one for one in plain if one.place.startswith("state_dict.")] or plain
    averaged = [one for one in averaged if one.place.startswith("wav2lip_npu.ema.")] or averaged
    if len(plain) > 1 or len(averaged) > 1:
        places = ", ".join(one.place.rstrip(".") for one in (*plain, *averaged))
        raise UserError(f"{path}: holds the {wanted} several times ({places}); keep one of them")
    return plain[0].weights, averaged[0].weights if averaged else None


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Weights of a network somewhere in a file."""

    network: str  # as in ``_NETWORKS``
    place: str  # the keys that lead there
    weights: dict[str, torch.Tensor]

    @property
    def averaged(self) -> bool:
        """Whether the keys say so: "ema", "state_dict_ema", "params_ema", "netG_EMA"."""
        return re.search(r"(?<![a-z])ema(?![a-z])", self.place.lower()) is not None


def _networks(content: Mapping[Any, Any], place: str = "", depth: int = 0) -> Iterator[_Found]:
    """The networks of known kinds in a nested mapping."""
    tensors = _tensors(content)
    for signature, network in _NETWORKS.items():
        for name in tensors:
            # Before the names may stand "module." (DataParallel), "_orig_mod." (torch.compile) …
            if name == signature or name.endswith(f".{signature}"):
                start = len(name) - len(signature)
                weights = {
                    key[start:]: value
                    for key, value in tensors.items()
                    if key.startswith(name[:start])
                }
                yield _Found(network=network, place=f"{place}{name[:start]}", weights=weights)
    for key, value in content.items():
        if isinstance(value, Mapping) and key != "optimizer" and depth < MAX_NESTING:
            yield from _networks(value, f"{place}{key}.", depth + 1)


def _tensors(content: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    return {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, torch.Tensor)
    }


def misfit(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> str | None:
    """What keeps weights from a network, if anything does."""
    for name, wanted in own.items():
        if (value := given.get(name)) is None:
            continue
        if value.shape != wanted.shape:
            return f"{name} is {_size(value)}, {_size(wanted)} is wanted; it is another version"
        plain = value.layout == torch.strided and value.device.type == "cpu"
        plain = plain and not value.is_quantized and not value.is_complex()
        if not plain or (wanted.is_floating_point() and not value.is_floating_point()):
            return f"{name} has no plain floats, but {value.dtype}, {value.layout}, {value.device}"
    for names, what in ((own.keys() - given.keys(), "lacks"), (given.keys() - own.keys(), "adds")):
        if names:
            return f"it {what} {len(names)} tensors, as {min(names)}; it is another version"
    return None


def _size(value: torch.Tensor) -> str:
    return " × ".join(map(str, value.shape)) or "a number"
