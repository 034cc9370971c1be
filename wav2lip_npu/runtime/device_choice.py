"""Which device there is, what it can compute, and why not: for ``Device.open``.

It imports torch only when a device is opened, as ``device`` does.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from wav2lip_npu.config.base import CPU, CUDA, NPU
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.threads import local_processes

if TYPE_CHECKING:
    import torch

# CANN's script sets these variables to its folder, by default this one.
CANN_VARIABLES = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")
ASCEND_HOME = "/usr/local/Ascend/ascend-toolkit/latest"
SET_ENV = "/usr/local/Ascend/ascend-toolkit/set_env.sh"
DRIVER = Path("/usr/local/Ascend/driver")
CPU_FLAGS_FILE = Path("/proc/cpuinfo")


def choose(name: str, card_offset: int = 0) -> tuple[str, str]:
    """The name of a device for torch, and the reason for the choice.

    Args:
        name: see ``check_device_name``.
        card_offset: how many cards after the one of ``name``.

    Raises:
        UserError: it cannot be used here.
    """
    import torch

    kind = name.partition(":")[0]
    missing: list[str] = []
    if kind in ("auto", NPU):
        problem = _npu_problem()
        if problem is None:
            card = _with_index(name, NPU, torch.npu.device_count(), card_offset)  # type: ignore[attr-defined]
            torch.npu.set_device(card)  # type: ignore[attr-defined]
            name = torch.npu.get_device_name(card)  # type: ignore[attr-defined]
            return card, f"{name}, {_ascend_versions()}"
        missing.append(f"no NPU ({problem})")
    if kind in ("auto", CUDA):
        if torch.cuda.is_available():
            card = _with_index(name, CUDA, torch.cuda.device_count(), card_offset)
            return card, f"{torch.cuda.get_device_name(card)}, CUDA {torch.version.cuda}"
        reason = "" if torch.version.cuda else " (this torch is built without)"
        missing.append(f"no CUDA device{reason}")
    if kind in ("auto", CPU):
        return CPU, "asked for" if kind == CPU else ", ".join(missing)
    raise UserError(f"--device {name}: {missing[0]}")


def _with_index(name: str, kind: str, count: int, card_offset: int) -> str:
    """A card's name with its index: the one asked for, else this process's local rank.

    Raises:
        UserError: the machine has no such card, or several processes ask for the same one.
    """
    asked, rank = name.partition(":")[2], os.environ.get("LOCAL_RANK", "0")
    if asked and local_processes() > 1:
        raise UserError(f"--device {name}: each process uses its own card; leave the index out")
    index = int(asked or rank) + card_offset
    if index >= count:
        cards = f"the cards here are {kind}:0 to {kind}:{count - 1}"
        raise UserError(f"--device {name}: {cards}" + ("" if asked else f", not {kind}:{index}"))
    return f"{kind}:{index}"


def _ascend_versions() -> str:
    """Of CANN and the driver, for the log."""
    home = next(filter(None, map(os.environ.get, CANN_VARIABLES)), ASCEND_HOME)
    versions = {"CANN": cann_version(Path(home)), "driver": driver_version(DRIVER)}
    return ", ".join(f"{what} {version or 'unknown'}" for what, version in versions.items())


def cann_version(home: Path) -> str | None:
    """CANN's version, from the files in its folder; which has it changed over the years."""
    for pattern, line in (
        ("*-linux/ascend_toolkit_install.info", r"^version=(.+)$"),
        ("version.cfg", r"^(?:toolkit|runtime)_running_version=\[[^:\]]*:([^\]]+)\]"),
        ("version.info", r"^(?:version_dir|[Vv]ersion)=(.+)$"),
        ("*/version.info", r"^(?:version_dir|[Vv]ersion)=(.+)$"),
    ):
        for file in sorted(home.glob(pattern)):
            found = _search(line, file)
            if found:
                return found
    return None


def driver_version(folder: Path) -> str | None:
    """The version of the driver in ``folder``."""
    return _search(r"^Version=(\S+)", folder / "version.info")


def _search(pattern: str, file: Path) -> str | None:
    """The first group of ``pattern`` in a text file; None too if that cannot be read."""
    try:
        found = re.search(pattern, file.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        return None
    return found[1].strip() if found else None


def _npu_problem() -> str | None:
    """Why no NPU can be used; None if one can."""
    import torch

    try:
        import torch_npu  # noqa: F401
    except Exception as error:  # any kind: it raises plain ones where CANN is incomplete
        return _explain_import_error(error)
    return None if torch.npu.is_available() else "torch_npu sees no card"  # type: ignore[attr-defined]


def _explain_import_error(error: Exception) -> str:
    """What torch_npu lacks, and what to do, in one line."""
    if isinstance(error, ModuleNotFoundError) and error.name == "torch_npu":
        return "torch_npu is not installed"
    text = " ".join(str(error).partition(". ")[0].split())  # without the advice that may follow
    if re.search(r"lib(?!ascend_hal)\w+\.so|ASCEND_\w+", text):
        return f"CANN is missing or its environment is not set: {text}; source {SET_ENV}"
    return f"torch_npu cannot be loaded: {text}"


def choose_dtype(kind: str, precision: str) -> tuple[torch.dtype | None, str]:
    """The autocast type (None: fp32) and why."""
    import torch

    if precision == "fp32":
        return None, "fp32"
    if kind == CPU and precision == "fp16":
        raise UserError("--precision fp16: only works on accelerators; use bf16 or fp32 on a CPU")
    if precision == "bf16" and not _has_bf16(kind):
        if kind == NPU:
            name = torch.npu.get_device_name()  # type: ignore[attr-defined]
            raise UserError(f"--precision bf16: {name} has no bf16; use fp16, or auto")
        # Measured on a CPU with AVX2: 100 times as slow as fp32.
        return torch.bfloat16, "bf16, which this device only emulates: much slower than auto"
    if precision != "auto":
        return (torch.bfloat16 if precision == "bf16" else torch.float16), precision
    if _has_bf16(kind):
        return torch.bfloat16, "bf16, which this device supports natively"
    if kind == CPU:
        return None, "fp32, as this processor has no native bf16"
    return torch.float16, "fp16 with scaled gradients, as this device has no native bf16"


def has_fp32_cube() -> bool:
    """Whether an NPU's matrix unit takes fp32: from Atlas A2 (910B) on, which have bf16 as well."""
    return _has_bf16(NPU)


def _has_bf16(kind: str) -> bool:
    """Whether a device computes in bf16 natively; of cards, the one of this process."""
    import torch

    if kind == NPU:
        return bool(torch.npu.is_bf16_supported())  # type: ignore[attr-defined]
    if kind == CUDA:
        return torch.cuda.get_device_capability()[0] >= 8  # Ampere; older cards only emulate it
    flags = CPU_FLAGS_FILE.read_text().split() if CPU_FLAGS_FILE.exists() else []
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)
