"""The tensors of a TorchScript archive, read without running anything that it holds.

``torch.jit.load`` compiles the archive's code. Here only its pickle is read, in which every module
becomes an object without methods; a tensor's name is the path of attributes that leads to it.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from typing import Any

import torch

CONSTANTS = "constants.pkl"  # beside ``data.pkl``; only TorchScript archives have it
CODE = "code/"
MAX_TENSORS = 100_000  # modules can be shared, so a small file can name very many

# What torch writes into such a pickle. Others could allocate memory without bound.
_OPCODES = {
    *("PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2"),
    *("LONG1", "BINFLOAT", "BINUNICODE", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "POP"),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "BINPERSID"),
}
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_tensors(archive: zipfile.ZipFile, root: str) -> dict[str, torch.Tensor]:
    """All tensors of an archive by name, as ``torch.jit.load(…).state_dict()`` names them.

    Args:
        archive: its entries are not compressed, and not larger than the file in all.
        root: the folder of ``data.pkl`` in it, with a slash at its end.

    Raises:
        ValueError: the pickle is not one that torch writes.
        zipfile.BadZipFile: an entry is damaged.
    """
    content = archive.read(f"{root}data.pkl")
    for opcode, argument, _ in pickletools.genops(content):
        too_far = opcode.name == "LONG_BINPUT" and int(argument or 0) > len(content)
        if opcode.name not in _OPCODES or too_far:
            raise ValueError(f"operation {opcode.name} in it")
    try:
        module = _Unpickler(content, archive, root).load()
    except (zipfile.BadZipFile, ValueError):
        raise
    except Exception as error:  # the unpickler raises a dozen kinds for a wrong order of operations
        raise ValueError(f"{type(error).__name__} in its pickle") from error
    return _named_tensors(module)


class _Module:
    """A module of the archive: its attributes, and nothing that could run."""

    attributes: Any = None

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


class _Unpickler(pickle.Unpickler):
    """Knows tensors, lists and dictionaries; refuses everything else but modules."""

    def __init__(self, content: bytes, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(content))
        self._archive = archive
        self._root = root
        self._storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle stands for."""
        if module.split(".")[0] == "__torch__":
            return _Module
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._first,
            ("collections", "OrderedDict"): dict,
        }
        if module == "torch.jit._pickle" and name.startswith(("build_", "restore_type_tag")):
            return self._first
        if (module, name) not in known:
            raise ValueError(f"it needs {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """The storage with this identifier, as a tensor of one dimension."""
        _, dtype, key, *_ = pid
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._root}data/{key}"))
            empty = torch.empty(0, dtype=dtype)
            self._storages[key] = torch.frombuffer(content, dtype=dtype) if content else empty
        return self._storages[key]

    def _tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any, **__: Any
    ) -> torch.Tensor:
        count, last = 1, offset
        for length, step in zip(size, stride, strict=True):
            count, last = count * length, last + (length - 1) * step
        within = offset >= 0 and min((0, *size, *stride)) >= 0 and count <= len(storage)
        if not within or (count and last >= len(storage)):
            raise ValueError("a tensor is larger than its storage")
        return torch.as_strided(storage, size, stride, offset)

    def _first(self, value: Any, *_: Any) -> Any:
        return value


def _named_tensors(module: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    waiting = [("", module)]
    while waiting:
        prefix, value = waiting.pop()
        if not isinstance(value, _Module) or not isinstance(value.attributes, dict):
            continue
        for name, attribute in value.attributes.items():
            if isinstance(attribute, torch.Tensor):
                found[f"{prefix}{name}"] = attribute
            else:
                waiting.append((f"{prefix}{name}.", attribute))
        if len(found) + len(waiting) > MAX_TENSORS:
            raise ValueError("a module contains itself, or far too many others")
    return found
