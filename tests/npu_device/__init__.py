"""The device ``npu`` without its hardware, for tests.

``device.cpp`` is the device, and ``standin`` a torch_npu that brings it: with that folder on the
path, everything that asks for an NPU finds one, here or in another process.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock

OLDEST_TORCH = (2, 6)  # that device.cpp is written for

_HERE = Path(__file__).parent
_SOURCE = _HERE / "device.cpp"
_STANDIN = _HERE / "standin"
_CACHE = _HERE.parents[1] / "build" / "npu_device"


def why_not() -> str | None:
    """Why the device cannot be had here, or None."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH:
        wanted = ".".join(map(str, OLDEST_TORCH))
        return f"the test device needs torch {wanted} or newer, this is {torch.__version__}"
    if shutil.which("g++") is None:
        return "the test device is built with g++, which is not installed"
    return None


def library() -> Path:
    """The compiled device, built at the first call for this torch and this source.

    Raises:
        subprocess.CalledProcessError: it does not compile.
    """
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]
    built = _CACHE / f"{torch.__version__}-{digest}" / "device.so"
    built.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(built.with_suffix(".lock")):  # tests side by side build it once
        if not built.is_file():
            _compile(built)
    return built


def _compile(built: Path) -> None:
    partial = built.with_suffix(".partial")
    home = Path(torch.__file__).parent
    subprocess.run(
        [
            *("g++", "-std=c++20", "-O0", "-w", "-shared", "-fPIC", str(_SOURCE)),
            *("-isystem", str(home / "include")),
            *("-o", str(partial), f"-L{home / 'lib'}", "-ltorch_cpu", "-lc10"),
        ],
        check=True,
    )
    partial.replace(built)


def environment() -> dict[str, str]:
    """The environment of a process that is to find the device."""
    paths = [str(_STANDIN), str(_HERE.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@contextmanager
def installed() -> Iterator[None]:
    """Let this process find the device; afterwards torch_npu is gone again."""
    library()
    sys.path.insert(0, str(_STANDIN))
    sys.modules.update(_modules)
    try:
        import torch_npu  # noqa: F401

        yield
    finally:
        sys.path.remove(str(_STANDIN))
        names = [name for name in sys.modules if name.partition(".")[0] == "torch_npu"]
        _modules.update({name: sys.modules.pop(name) for name in names})


_modules = {}  # of torch_npu, once imported: a device can be registered only once
