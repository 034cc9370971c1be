"""CANN: its version and environment, and whether it has the kernels that this project uses.

Kernels are looked up by name; none runs.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from wav2lip_npu.doctor.kernel_names import KERNEL_NAMES
from wav2lip_npu.doctor.machine import Finding, Machine
from wav2lip_npu.runtime import device_choice

GUIDE = "docs/ascend.md"

# CANN's folders over the years.
_CANN_FOLDERS = (device_choice.ASCEND_HOME, "/usr/local/Ascend/cann", "/usr/local/Ascend/latest")
_KERNEL_LIBRARIES = "lib64/libopapi*.so"  # one, from CANN 8.5 on several
_KERNELS_OF_CHIPS = "opp/built-in/op_impl/ai_core/tbe/kernel/config"
# A chip's name in npu-smi; its folder of kernels; their package, to CANN 8.3 and from 8.5 on.
_CHIPS = (
    (r"910B\d", "ascend910b", "Ascend-cann-kernels-910b", "Ascend-cann-910b-ops"),
    (r"Ascend910|910_93", "ascend910_93", "Atlas-A3-cann-kernels", "Ascend-cann-A3-ops"),
    (r"910", "ascend910", "Ascend-cann-kernels-910", "Ascend-cann-910-ops"),
    (r"310P", "ascend310p", "Ascend-cann-kernels-310p", "Ascend-cann-310p-ops"),
)
_SHOWN_NAMES = 5


def cann_home(machine: Machine) -> str | None:
    """The folder of CANN, or None; the environment's variables are tried first."""
    named = [value for _, value in _named_folders(machine)]
    return next(filter(machine.has, (*named, *_CANN_FOLDERS)), None)


def _named_folders(machine: Machine) -> list[tuple[str, str]]:
    """The environment's variables with CANN's folder that are set."""
    found = ((name, machine.environment.get(name)) for name in device_choice.CANN_VARIABLES)
    return [(name, value) for name, value in found if value]


def check_cann(machine: Machine, home: str | None) -> Finding:
    """CANN's version and folder, and whether its environment is set."""
    named = _named_folders(machine)
    stale = "".join(f"{name}={value} is no folder" for name, value in named[:1] if value != home)
    if home is None:
        remedy = f"install it, or use an image that has it ({GUIDE})"
        return Finding.failed("CANN", stale or "not found", remedy)
    version = device_choice.cann_version(machine.path(home))
    detail = f"{version or 'of unknown version'}, {home}"
    if named and not stale:
        return Finding.ok("CANN", detail)
    problem = stale or "its environment is not set"
    return Finding.failed("CANN", f"{detail}; {problem}", f"source {_set_env(machine, home)}")


def _set_env(machine: Machine, home: str) -> str:
    """The script that sets CANN's environment, in its folder or beside it."""
    places = (f"{home}/set_env.sh", f"{Path(home).parent}/set_env.sh")
    return next(filter(machine.has, places), device_choice.SET_ENV)


def check_kernels(machine: Machine, home: str, models: Iterable[str]) -> list[Finding]:
    """Whether CANN has compiled kernels for these chips, and every kernel that is used.

    Args:
        machine: the machine to examine.
        home: CANN's folder.
        models: names of chips, as npu-smi prints them.
    """
    folder = f"{home}/{_KERNELS_OF_CHIPS}"
    for model in models:
        chip = next((chip for chip in _CHIPS if re.search(chip[0], model)), None)
        if chip is None or machine.has(f"{folder}/{chip[1]}"):
            continue
        _, name, package, newer_package = chip
        remedy = f"install {package} (from CANN 8.5 on: {newer_package}) of the version of CANN"
        return [Finding.failed("kernels", f"none for {model}: no {folder}/{name}", remedy)]
    libraries = sorted(machine.path(home).glob(_KERNEL_LIBRARIES))
    if not libraries:
        detail = f"no {home}/{_KERNEL_LIBRARIES}"
        return [Finding.warning("kernels", detail, f"install CANN again ({GUIDE})")]
    missing = missing_kernels(libraries)
    if not missing:
        used = f"all {len(KERNEL_NAMES)} that are used"
        return [Finding.ok("kernels", f"{used}, in {home}/{_KERNEL_LIBRARIES}")]
    more = f" and {len(missing) - _SHOWN_NAMES} more" if len(missing) > _SHOWN_NAMES else ""
    detail = f"missing in CANN: {', '.join(missing[:_SHOWN_NAMES])}{more}"
    remedy = (
        f"install a CANN that fits torch_npu ({GUIDE}); without them torch_npu is slow or fails"
    )
    return [Finding.warning("kernels", detail, remedy)]


def missing_kernels(libraries: Iterable[Path]) -> list[str]:
    """The kernels that are used and that none of these libraries exports.

    Args:
        libraries: CANN's ``libopapi*.so``.
    """
    exported: set[str] = set()
    for path in libraries:
        with suppress(OSError, ValueError), path.open("rb") as file:  # ValueError: it is empty
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                # The table of symbols has their names, each between two zero bytes.
                found = re.findall(rb"(?<=\0)aclnn[A-Z]\w*(?=\0)", content)
            exported.update(name.decode() for name in found)
    # Of a second version of a kernel, torch_npu also takes the first.
    return [
        name for name in KERNEL_NAMES
        if name not in exported and name.removesuffix("V2") not in exported
    ]  # fmt: skip
