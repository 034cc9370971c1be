"""Checkpoints in other forms, with other contents, and with code in them."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save_file

from fuzz.mutations import Change, Expected, Mutation

USED, REFUSED, ANY = Expected.USED, Expected.REFUSED, Expected.ANY

Content = dict[str, Any]


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "EXECUTED")

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (self.path,)


def _changed(change: Callable[[Content, Random], object]) -> Change:
    """A change of what the file holds; a file of weights alone is taken as its ``state_dict``."""

    def apply(path: Path, random: Random) -> None:
        content = torch.load(path, weights_only=True)
        is_bare = "state_dict" not in content
        content = {"state_dict": dict(content)} if is_bare else content
        new = change(content, random)
        content = content if new is None else new
        torch.save(content["state_dict"] if is_bare and new is None else content, path)

    return apply


def _state(content: Content) -> Content:
    return content["state_dict"]


def _a_weight(content: Content, random: Random) -> str:
    names = [name for name, value in _state(content).items() if value.ndim > 1]
    return random.choice(names)


def _set_weight(make: Callable[[torch.Tensor], object]) -> Callable[[Content, Random], None]:
    def change(content: Content, random: Random) -> None:
        name = _a_weight(content, random)
        _state(content)[name] = make(_state(content)[name])

    return change


def _all_weights(make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Content, Random], None]:
    def change(content: Content, random: Random) -> None:
        content["state_dict"] = {
            name: make(value) if value.is_floating_point() else value
            for name, value in _state(content).items()
        }

    return change


def _set(key: str, value: object) -> Callable[[Content, Random], None]:
    def change(content: Content, random: Random) -> None:
        content[key] = value

    return change


def _set_ours(key: str, value: object) -> Callable[[Content, Random], None]:
    def change(content: Content, random: Random) -> None:
        content.setdefault("wav2lip_npu", {})[key] = value

    return change


def _prefix(word: str) -> Callable[[Content, Random], None]:
    def change(content: Content, random: Random) -> None:
        content["state_dict"] = {word + name: v for name, v in _state(content).items()}

    return change


def _lose_weight(content: Content, random: Random) -> None:
    del _state(content)[_a_weight(content, random)]


def _add_weight(content: Content, random: Random) -> None:
    _state(content)["another.weight"] = torch.zeros(3)


def _bare(content: Content, random: Random) -> Content:
    return OrderedDict(_state(content))


def _sparse(value: torch.Tensor) -> torch.Tensor:
    return value.to_sparse()


ODD_NUMBERS = (-1, 2**40, 2**70, 1.5, float("nan"), float("inf"), "7", "x", None, [1], True)
NAN = _set_weight(lambda value: torch.full_like(value, float("nan")))
INF = _set_weight(lambda value: torch.full_like(value, float("inf")))
CONTENTS: tuple[tuple[str, Callable[[Content, Random], object], Expected], ...] = (
    ("weights alone", _bare, USED),
    ("module.", _prefix("module."), USED),
    ("module. twice", _prefix("module.module."), ANY),
    ("_orig_mod.", _prefix("_orig_mod."), ANY),
    ("half precision", _all_weights(torch.Tensor.half), ANY),
    ("bfloat16", _all_weights(torch.Tensor.bfloat16), ANY),
    ("double precision", _all_weights(torch.Tensor.double), USED),
    ("NaN weights", NAN, REFUSED),
    ("infinite weights", INF, REFUSED),
    ("integer weights", _set_weight(lambda v: v.to(torch.int8)), ANY),
    ("complex weights", _set_weight(lambda v: v.to(torch.complex64)), REFUSED),
    ("sparse weights", _set_weight(_sparse), ANY),
    ("a weight of another shape", _set_weight(lambda v: v[..., None]), REFUSED),
    ("a weight of no elements", _set_weight(lambda v: v[:0]), REFUSED),
    ("a weight that is a number", _set_weight(lambda v: 7), REFUSED),
    ("a weight that is a list", _set_weight(lambda v: v.tolist()), REFUSED),
    ("a weight that is None", _set_weight(lambda v: None), REFUSED),
    ("a weight on meta", _set_weight(lambda v: v.to("meta")), REFUSED),
    ("a weight that is a view", _set_weight(lambda v: v.mT.contiguous().mT), USED),
    ("a weight missing", _lose_weight, REFUSED),
    ("a weight too many", _add_weight, ANY),
    ("a key that is a number", lambda c, r: c["state_dict"].__setitem__(7, torch.zeros(1)), ANY),
    ("no weights", _set("state_dict", {}), REFUSED),
    ("weights in a list", _set("state_dict", [1, 2]), REFUSED),
    ("another network", _set("state_dict", {"fc.weight": torch.zeros(2, 2)}), REFUSED),
    ("a tensor", lambda c, r: torch.zeros(3), REFUSED),
    ("a list", lambda c, r: [c["state_dict"]], REFUSED),
    ("a number", lambda c, r: 7, REFUSED),
    *((f"global_step {n!r}", _set("global_step", n), ANY) for n in ODD_NUMBERS),
    *((f"global_epoch {n!r}", _set("global_epoch", n), ANY) for n in ("x", None, [1], 2**70)),
    *((f"optimizer {v!r:.20}", _set("optimizer", v), ANY)
      for v in ("x", 7, [], {}, {"state": 3, "param_groups": []}, {"state": {}},
                {"state": {0: {"exp_avg": "x"}}, "param_groups": [{"params": [0]}]},
                {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"params": [0]}]})),
    *((f"wav2lip_npu {v!r:.20}", _set("wav2lip_npu", v), ANY) for v in ("x", 7, [1], [[1, 2]])),
    *((f"{key} {v!r:.20}", _set_ours(key, v), ANY)
      for key in ("best", "published", "items", "config", "ema", "sync_weight", "spike_filter")
      for v in ("x", -1, float("nan"), [1, "x"], {"a": 1}, None, 2**70)),
)  # fmt: skip


def _pickled(make: Callable[[Path], object]) -> Change:
    """Weights, and with them an object that runs code when it is unpickled."""

    def apply(path: Path, random: Random) -> None:
        torch.save(make(path.parent), path)

    return apply


def _beside_weights(path: Path, random: Random) -> None:
    content = torch.load(path, weights_only=True)
    if not isinstance(content, dict):
        content = {}
    torch.save({**content, "extra": Touch(path.parent)}, path)


def _plain_pickle(path: Path, random: Random) -> None:
    path.write_bytes(pickle.dumps(Touch(path.parent)))


def _legacy_with_code(path: Path, random: Random) -> None:
    torch.save(
        {"state_dict": {}, "x": Touch(path.parent)}, path, _use_new_zipfile_serialization=False
    )


def _whole_module(path: Path, random: Random) -> None:
    torch.save(torch.nn.Linear(2, 2), path)


def _torchscript(path: Path, random: Random) -> None:
    """An archive of a small network: another one, saved as the published ones are."""
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


def _torchscript_of_weights(path: Path, random: Random) -> None:
    """The weights in an archive of TorchScript."""

    class Holder(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    content = torch.load(path, weights_only=True)
    root = Holder()
    for name, value in content["state_dict"].items():
        parent = root
        *folders, last = name.split(".")
        for folder in folders:
            if not hasattr(parent, folder):
                parent.add_module(folder, Holder())
            parent = getattr(parent, folder)
        parent.register_buffer(last, value)
    torch.jit.trace(root, torch.zeros(1)).save(str(path))


def _archive_with_code(path: Path, random: Random) -> None:
    """An archive of TorchScript whose data.pkl is replaced by one that makes a file."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(("data.pkl", "constants.pkl")):
                content = pickle.dumps(Touch(path.parent), protocol=2)
            new.writestr(name, content)


def _plain_zip(path: Path, random: Random) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../EXECUTED", "x")
        file.writestr("archive/data.pkl", pickle.dumps(Touch(path.parent)))
        file.writestr("archive/version", "3\n")


def _zip_bomb(path: Path, random: Random) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/version", "3\n")
        with file.open("archive/data.pkl", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(1 << 20))


def _safetensors(change: Callable[[Content], None] | None = None, **metadata: str) -> Change:
    def apply(path: Path, random: Random) -> Path:
        state = dict(torch.load(path, weights_only=True)["state_dict"])
        if change is not None:
            change(state)
        path.unlink()
        target = path.with_suffix(".safetensors")
        save_file({k: v.contiguous() for k, v in state.items()}, target, metadata=metadata or None)
        return target

    return apply


def _header(make: Callable[[dict[str, Any]], object], length: int | None = None) -> Change:
    """Safetensors with another header."""

    def apply(path: Path, random: Random) -> Path:
        target = _safetensors()(path, random)
        assert target is not None
        data = target.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        text = json.dumps(make(header)).encode()
        count = len(text) if length is None else length
        target.write_bytes(struct.pack("<Q", count) + text + data[8 + size :])
        return target

    return apply


def _first(header: dict[str, Any], **entry: object) -> dict[str, Any]:
    name = next(iter(header))
    return {**header, name: {**header[name], **entry}}


def _module_names(state: Content) -> None:
    for name in [*state]:
        state[f"module.{name}"] = state.pop(name)


CHECKPOINT = (
    *(
        Mutation(name=name, apply=_changed(change), expected=expected)
        for name, change, expected in CONTENTS
    ),
    Mutation(name="code beside the weights", apply=_beside_weights),
    Mutation(name="code alone", apply=_pickled(Touch), expected=REFUSED),
    Mutation(name="a plain pickle with code", apply=_plain_pickle, expected=REFUSED),
    Mutation(name="the legacy format with code", apply=_legacy_with_code, expected=REFUSED),
    Mutation(name="a pickled module", apply=_whole_module, expected=REFUSED),
    Mutation(name="TorchScript of another network", apply=_torchscript, expected=REFUSED),
    Mutation(name="TorchScript", apply=_torchscript_of_weights, expected=USED),
    Mutation(name="TorchScript with code", apply=_archive_with_code, expected=REFUSED),
    Mutation(name="a zip archive with code", apply=_plain_zip, expected=REFUSED),
    Mutation(name="a zip bomb", apply=_zip_bomb, expected=REFUSED),
    Mutation(name="safetensors", apply=_safetensors(), expected=USED),
    Mutation(name="safetensors, module.", apply=_safetensors(_module_names), expected=USED),
    *(
        Mutation(name=f"safetensors, step {step}", apply=_safetensors(step=step))
        for step in ("x", "-1", "1.5", "9" * 30, "")
    ),
    Mutation(
        name="safetensors, header of 2^62 bytes",
        apply=_header(lambda header: header, length=2**62),
        expected=REFUSED,
    ),
    Mutation(
        name="safetensors, offsets that fall",
        apply=_header(lambda header: _first(header, data_offsets=[8, 0])),
        expected=REFUSED,
    ),
    Mutation(
        name="safetensors, offsets beyond the end",
        apply=_header(lambda header: _first(header, data_offsets=[0, 2**60])),
        expected=REFUSED,
    ),
    Mutation(
        name="safetensors, a huge shape",
        apply=_header(lambda header: _first(header, shape=[2**31, 2**31])),
        expected=REFUSED,
    ),
    Mutation(
        name="safetensors, a list as header", apply=_header(lambda header: [1]), expected=REFUSED
    ),
)

# Of what a published file has, S3FD's has nothing but weights.
S3FD = tuple(
    Mutation(name=name, apply=_changed(change), expected=ANY)
    for name, change, _ in CONTENTS
    if "optimizer" not in name and "global" not in name and "wav2lip_npu" not in name
)[:28] + tuple(
    Mutation(name=mutation.name, apply=mutation.apply)
    for mutation in CHECKPOINT
    if mutation.apply
    in (_beside_weights, _plain_pickle, _legacy_with_code, _whole_module, _archive_with_code)
)
