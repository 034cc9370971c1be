"""A simulated machine for the tests of ``doctor``: files, packages, outputs of commands.

No Ascend machine was available. The outputs in ``unit/doctor/machines`` follow manuals and bug
reports, as do the files of driver and CANN below.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from wav2lip_npu.config import DoctorConfig
from wav2lip_npu.doctor import command as doctor
from wav2lip_npu.doctor import devices
from wav2lip_npu.doctor.machine import Finding, Machine, Output

RECORDED = Path(__file__).parent / "unit" / "doctor" / "machines"
GIB = 1 << 30
TOOLKIT = "/usr/local/Ascend/ascend-toolkit"
DRIVER_INFO = """Version=23.0.6
ascendhal_version=7.35.19
Innerversion=V100R001C15SPC006B220
compatible_version=[V100R001C13],[V100R001C15]
package_version=23.0.6
"""
TOOLKIT_INFO = """package_name=Ascend-cann-toolkit
version=7.0.1
innerversion=V100R001C15SPC004B222
arch=aarch64
os=linux
path=/usr/local/Ascend/ascend-toolkit/7.0.1/aarch64-linux
"""
KERNELS_OF_CHIPS = "opp/built-in/op_impl/ai_core/tbe/kernel/config"
NO_CANN = (
    "no NPU (CANN is missing or its environment is not set: libhccl.so: cannot open shared object "
    f"file: No such file or directory; source {TOOLKIT}/set_env.sh)"
)


def recorded(name: str) -> Output:
    return Output(0, (RECORDED / f"{name}.txt").read_text())


def library(names: Sequence[str]) -> str:
    """The part of a library that has the names of its functions."""
    return "\0".join(["ELF", *(f"{name}\0{name}GetWorkspaceSize" for name in names), ""])


def probed(
    code: int = 0, stderr: str = "", **results: tuple[bool, str] | tuple[bool, str, int]
) -> Output:
    """The output of the process that tries torch; libraries print there too."""
    lines = ["Warning: a library has something to say."]
    lines += [
        f"{devices._LINE_MARK} {json.dumps([name, *result])}" for name, result in results.items()
    ]
    return Output(code, "\n".join(lines), stderr)


CPU_ONLY = {
    "torch": (True, "2.13.0+cpu"),
    "cpu": (True, "asked for; fp32, as this processor has no native bf16"),
    "cuda": (False, "no CUDA device (this torch is built without)"),
    "npu": (False, "no NPU (torch_npu is not installed)"),
}
WITH_NPU = {**CPU_ONLY, "torch": (True, "2.1.0"), "npu": (True, "NPU available; bf16")}


@dataclass
class Simulated:
    """A machine in a folder: its files, its packages, and what its commands print."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, Output] = field(default_factory=dict)  # by program
    shared_memory: int = 32 * GIB

    def write(self, path: str, text: str = "") -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def remove(self, path: str) -> None:
        file = self.root / path.lstrip("/")
        shutil.rmtree(file) if file.is_dir() else file.unlink()

    def run(self, words: Sequence[str]) -> Output | None:
        if words[0] != sys.executable:
            return self.outputs.get(words[0])
        return self.outputs.get("links" if "torch.distributed.run" in words else "torch")

    def disk_usage(self, path: Path) -> Any:
        size = self.shared_memory if path.name == "shm" else 500 * GIB
        return SimpleNamespace(total=size, free=size)

    def examine(self, device: str = "auto") -> dict[str, Finding]:
        _, findings = doctor.examine(DoctorConfig(device=device), self.machine())
        by_name = {finding.name: finding for finding in findings}
        assert len(by_name) == len(findings)
        for finding in findings:
            assert bool(finding.remedy) == (finding.status != "ok"), finding
            assert "\n" not in finding.detail + finding.remedy
        return by_name

    def exit_code(self, device: str) -> int:
        return doctor.diagnose(DoctorConfig(device=device), self.machine())

    def machine(self) -> Machine:
        return Machine(
            root=self.root, environment=self.environment, python=(3, 10, 12), glibc="2.35",
            run=self.run, version=self.packages.get, disk_usage=self.disk_usage,
        )  # fmt: skip


def statuses(findings: Mapping[str, Finding]) -> dict[str, str]:
    return {name: finding.status.value for name, finding in findings.items()}
