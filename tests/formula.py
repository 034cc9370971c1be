"""Weights and inputs by formula, as the golden numbers were made from; and the golden files."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden"


def golden_arrays(name: str) -> Mapping[str, np.ndarray]:
    return np.load(GOLDEN / f"{name}.npz")


def golden_json(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def _random(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    n = torch.from_numpy(np.asarray(_random(name).standard_normal(shape).astype(np.float32)))
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_var"):
        return 1 + 0.1 * n.abs()
    if name.endswith("running_mean"):
        return 0.1 * n
    if len(shape) == 1:
        return 1 + 0.1 * n if name.endswith("weight") else 0.1 * n
    return n * math.sqrt(1 / math.prod(shape[1:]))


def fill(network: torch.nn.Module) -> torch.nn.Module:
    """Give a network its formula weights."""
    state = network.state_dict()
    network.load_state_dict({name: weight(name, tuple(v.shape)) for name, v in state.items()})
    return network


def image(key: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(_random(key).random(shape, dtype=np.float32))


def mel(key: str, *shape: int) -> torch.Tensor:
    return image(key, *shape) * 8 - 4


def norm(network: torch.nn.Module) -> float:
    return math.sqrt(sum(float((p.detach().double() ** 2).sum()) for p in network.parameters()))
