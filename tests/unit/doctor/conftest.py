"""Machines that the tests of ``doctor`` examine."""

from pathlib import Path

import pytest
from simulated_machine import (
    CPU_ONLY,
    DRIVER_INFO,
    KERNELS_OF_CHIPS,
    TOOLKIT,
    TOOLKIT_INFO,
    WITH_NPU,
    Simulated,
    library,
    probed,
    recorded,
)

from face_detection import weights
from wav2lip_npu.doctor.kernel_names import KERNEL_NAMES


@pytest.fixture(autouse=True)
def no_weights_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(weights, "find_s3fd", lambda: None)


@pytest.fixture
def plain(tmp_path: Path) -> Simulated:
    """A developer's machine."""
    machine = Simulated(tmp_path / "root", packages={"torch": "2.13.0+cpu"})
    machine.outputs["torch"] = probed(**CPU_ONLY)
    machine.write("/proc/sys/net/ipv4/ip_forward", "0\n")
    (machine.root / "dev/shm").mkdir(parents=True)
    return machine


@pytest.fixture
def container(tmp_path: Path) -> Simulated:
    """The guide's container, of one card."""
    machine = Simulated(tmp_path / "root", packages={"torch": "2.1.0", "torch_npu": "2.1.0.post3"})
    machine.outputs["torch"] = probed(**WITH_NPU)
    machine.outputs["npu-smi"] = recorded("npu_smi_910b_container")
    machine.environment["ASCEND_TOOLKIT_HOME"] = f"{TOOLKIT}/latest"
    for name in ("davinci0", "davinci_manager", "devmm_svm", "hisi_hdc"):
        machine.write(f"/dev/{name}")
    (machine.root / "dev/shm").mkdir()
    machine.write("/.dockerenv")
    machine.write("/usr/local/Ascend/driver/version.info", DRIVER_INFO)
    machine.write("/usr/local/dcmi/libdcmi.so")
    machine.write("/etc/ascend_install.info", "Driver_Install_Path_Param=/usr/local/Ascend\n")
    machine.write(f"{TOOLKIT}/set_env.sh")
    machine.write(f"{TOOLKIT}/latest/aarch64-linux/ascend_toolkit_install.info", TOOLKIT_INFO)
    machine.write(f"{TOOLKIT}/latest/lib64/libopapi.so", library(KERNEL_NAMES))
    machine.write(f"{TOOLKIT}/latest/{KERNELS_OF_CHIPS}/ascend910b/add.json")
    return machine
