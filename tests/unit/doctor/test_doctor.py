"""The doctor on simulated machines: each finding right, and the exit code.

No Ascend machine was at hand. The outputs in ``machines`` are written after those that manuals and
bug reports show, as are the files of driver and CANN below.
"""

import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from face_detection import weights
from wav2lip_npu import cli
from wav2lip_npu.config import DoctorConfig
from wav2lip_npu.doctor import command as doctor
from wav2lip_npu.doctor import devices as device_report
from wav2lip_npu.doctor.machine import Finding, Machine, Output, run_command

ROOT = Path(__file__).parents[3]
RECORDED = Path(__file__).parent / "machines"
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
NO_CANN = (
    "no NPU (CANN is missing or its environment is not set: libhccl.so: cannot open shared object "
    f"file: No such file or directory; source {TOOLKIT}/set_env.sh)"
)


def recorded(name: str) -> Output:
    return Output(0, (RECORDED / f"{name}.txt").read_text())


def probed(code: int = 0, stderr: str = "", **told: tuple[bool, str]) -> Output:
    """What the process that tries torch leaves; libraries print there as well."""
    lines = ["Warning: a library has something to say."]
    lines += [
        f"{device_report._MARK} {json.dumps([name, *result])}" for name, result in told.items()
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
        return self.outputs.get("torch" if words[0] == sys.executable else words[0])

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
    return machine


def test_plain_machine(plain: Simulated) -> None:
    found = plain.examine()
    assert statuses(found) == {
        **dict.fromkeys(("Python", "torch", "NPU", "CUDA", "CPU", "/dev/shm"), "ok"),
        **{"PyAV": "ok", "OpenCV": "ok", "S3FD": "warning", "CenterFace": "ok"},
        **{"expert": "warning", "disk": "ok"},
    }
    assert found["Python"].detail == "3.10.12, glibc 2.35"
    assert found["NPU"].detail == "not used: no torch_npu, no CANN, no /dev/davinci*"
    assert found["CPU"].detail.endswith("cores; fp32, as this processor has no native bf16")
    assert [plain.exit_code(name) for name in ("auto", "cpu", "cuda", "npu")] == [0, 0, 1, 1]


def test_plain_machine_asked_for_an_npu(plain: Simulated) -> None:
    found = plain.examine("npu:1")
    wrong = ("torch_npu", "CANN", "driver", "device files", "NPU")
    assert {name for name in found if found[name].status == "failed"} == set(wrong)
    assert found["torch_npu"].remedy.startswith("pip install 'torch_npu==2.13.0.*'")
    assert found["ip_forward"].detail.startswith("net.ipv4.ip_forward is 0")
    assert found["docker"].detail == "not installed"
    assert found["NPU"].detail == "no NPU (torch_npu is not installed)"


def test_ascend_container(container: Simulated) -> None:
    found = container.examine("npu")
    assert {name for name in found if found[name].status != "ok"} == {"S3FD", "expert"}
    details = {name: finding.detail for name, finding in found.items()}
    assert details["torch_npu"] == "2.1.0.post3, for torch 2.1.0"
    assert details["CANN"] == f"7.0.1, {TOOLKIT}/latest"
    assert details["driver"] == "23.0.6, by npu-smi"
    assert details["cards"] == "1: 910B3, all OK"
    assert details["device files"].startswith("/dev/davinci0, /dev/davinci_manager")
    assert details["/dev/shm"].startswith("32.0 GiB")
    assert details["NPU"] == "NPU available; bf16"
    assert "docker" not in found  # that is about hosts
    assert [container.exit_code(name) for name in ("auto", "npu", "cpu", "cuda")] == [0, 0, 0, 1]


def test_mismatched_torch_npu(container: Simulated) -> None:
    container.packages["torch"] = "2.13.0+cpu"
    problem = "no NPU (torch_npu cannot be loaded: undefined symbol: _ZN2at4_ops5zeros4callE)"
    container.outputs["torch"] = probed(**{**WITH_NPU, "npu": (False, problem)})
    found = container.examine("npu")
    assert {name for name in found if found[name].status == "failed"} == {"torch_npu", "NPU"}
    assert found["torch_npu"].detail == "2.1.0.post3 is for torch 2.1.0, here is 2.13.0+cpu"
    assert found["torch_npu"].remedy.startswith("pip install torch==2.1.0")
    assert found["NPU"].remedy == "see to the lines above first"
    assert [container.exit_code(name) for name in ("npu", "auto", "cpu")] == [1, 0, 0]


@pytest.mark.parametrize(
    ("extension", "torch", "fits"),
    [
        ("2.1.0", "2.1.0", True),
        ("2.7.1.post11", "2.7.1+cpu", True),
        ("2.13.0rc1", "2.13.0", True),
        ("2.1.0.post13", "2.1.1", False),
        ("2.5.1", "2.5.1.post1", True),
        ("2.13.0", None, False),
    ],
)
def test_the_torch_that_a_torch_npu_wants(extension: str, torch: str | None, fits: bool) -> None:
    finding = device_report.check_torch_npu(extension, torch)
    assert finding.status == ("ok" if fits else "failed")


def test_missing_cann(container: Simulated) -> None:
    container.remove(TOOLKIT)
    container.environment.clear()
    container.outputs["torch"] = probed(**{**WITH_NPU, "npu": (False, NO_CANN)})
    found = container.examine("npu")
    assert {name for name in found if found[name].status == "failed"} == {"CANN", "NPU"}
    assert found["CANN"].detail == "not found"
    assert found["NPU"].remedy.startswith(f"source {TOOLKIT}/set_env.sh, or install CANN")
    assert container.exit_code("npu") == 1


def test_cann_that_is_not_sourced(container: Simulated) -> None:
    container.environment.clear()
    container.outputs["torch"] = probed(**{**WITH_NPU, "npu": (False, NO_CANN)})
    cann = container.examine("npu")["CANN"]
    assert cann.detail == f"7.0.1, {TOOLKIT}/latest; its environment is not set"
    assert cann.remedy == f"source {TOOLKIT}/set_env.sh"


def test_cann_that_was_replaced(container: Simulated) -> None:
    container.environment["ASCEND_TOOLKIT_HOME"] = f"{TOOLKIT}/6.3.RC2"
    container.outputs["torch"] = probed(**CPU_ONLY)
    cann = container.examine("npu")["CANN"]
    assert cann.detail.endswith(f"latest; ASCEND_TOOLKIT_HOME={TOOLKIT}/6.3.RC2 is no folder")


@pytest.mark.parametrize(
    ("file", "text", "version"),
    [
        ("x86_64-linux/ascend_toolkit_install.info", "version=8.0.RC3\n", "8.0.RC3"),
        ("version.cfg", "# version: 1.0\ntoolkit_running_version=[7.6.0.1.220:8.0.0]\n", "8.0.0"),
        ("opp/version.info", "Version=8.5.0.2.220\nversion_dir=8.5.0\n", "8.5.0.2.220"),
        ("else.txt", "version=1\n", None),
    ],
)
def test_where_cann_keeps_its_version(
    plain: Simulated, file: str, text: str, version: str | None
) -> None:
    plain.write(f"/usr/local/Ascend/cann/{file}", text)
    machine = plain.machine()
    assert device_report.cann_home(machine) == "/usr/local/Ascend/cann"
    assert device_report.cann_version(machine, "/usr/local/Ascend/cann") == version


@pytest.mark.parametrize(
    ("recording", "cards"),
    [
        ("npu_smi_910b_container", ["0 (910B3) OK 3379/65536"]),
        (
            "npu_smi_a3_host",
            [f"{n} (Ascend910) OK {m}/65536" for n in (0, 1) for m in (3416, 3195)],
        ),
        ("npu_smi_held_by_another", []),
    ],
)
def test_cards_are_read(recording: str, cards: list[str]) -> None:
    found = device_report.read_cards(recorded(recording).stdout)
    assert [f"{c} {c.health} {c.memory_used}/{c.memory}" for c in found] == cards


@pytest.mark.parametrize(
    ("recording", "name", "status", "detail", "remedy"),
    [
        (
            *("npu_smi_910b_host_busy", "cards", "warning"),
            *("8: 910B3; memory in use: 2 (910B3) 61852 of 65536 MB", "another process"),
        ),
        (
            *("npu_smi_910b_host_alarm", "cards", "failed"),
            *("8: 910B3; health: 5 (910B3) Alarm", "npu-smi info -t health -i 5"),
        ),
        (
            *("npu_smi_held_by_another", "driver", "failed"),
            *("because the device is used. ret is -8020; driver 23.0.6", "another container"),
        ),
        (
            *("npu_smi_no_driver_library", "driver", "failed"),
            *("libdrvdsmi_host.so", "mount /usr/local/Ascend/driver"),
        ),
    ],
)
def test_cards_and_driver_in_trouble(
    container: Simulated, recording: str, name: str, status: str, detail: str, remedy: str
) -> None:
    container.outputs["npu-smi"] = recorded(recording)
    container.outputs["torch"] = probed(**CPU_ONLY)
    finding = container.examine("npu")[name]
    assert finding.status == status
    assert detail in finding.detail
    assert finding.remedy.startswith(remedy)


def test_container_started_without_the_guides_parameters(container: Simulated) -> None:
    container.outputs = {"torch": probed(**CPU_ONLY)}
    container.shared_memory = 64 << 20
    for path in ("/dev/davinci0", "/dev/hisi_hdc", "/usr/local/Ascend/driver", "/usr/local/dcmi"):
        container.remove(path)
    found = container.examine("npu")
    assert found["device files"].status == found["mounts"].status == "failed"
    assert found["device files"].detail == "missing: /dev/davinci0 (or another card), /dev/hisi_hdc"
    assert found["mounts"].detail.endswith("/usr/local/Ascend/driver, /usr/local/dcmi")
    assert found["driver"].detail == "no npu-smi; no driver"
    assert found["/dev/shm"].detail.startswith("64 MiB")
    for name in ("device files", "mounts", "driver"):
        assert "scripts/run_ascend_container.sh" in found[name].remedy
    assert "--shm-size 32g" in found["/dev/shm"].remedy


def test_device_files_that_may_not_be_used(
    container: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "davinci0")
    finding = device_report.check_card_files(container.machine(), ["/dev/davinci0"])
    assert finding.detail == "no access to /dev/davinci0"
    assert "HwHiAiUser" in finding.remedy


def test_what_looks_wrong_is_no_failure_where_the_npu_computes(container: Simulated) -> None:
    container.packages["torch"] = "2.2.0"
    container.environment.clear()
    found = container.examine("npu")
    assert found["torch_npu"].status == found["CANN"].status == "warning"
    assert container.exit_code("npu") == 0


def test_host(container: Simulated) -> None:
    container.remove("/.dockerenv")
    container.write("/proc/1/cgroup", "0::/init.scope\n")
    container.write("/proc/sys/net/ipv4/ip_forward", "1\n")
    container.outputs["docker"] = Output(0, "24.0.7\n")
    found = container.examine()
    assert (found["docker"].detail, found["ip_forward"].detail) == ("24.0.7", "1")
    assert "mounts" not in found

    container.write("/proc/sys/net/ipv4/ip_forward", "0\n")
    refused = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
    container.outputs["docker"] = Output(1, "", f"{refused}\n")
    found = container.examine()
    assert (found["docker"].status, found["docker"].detail) == ("warning", refused)
    assert "net.ipv4.ip_forward=1" in found["ip_forward"].remedy


def test_what_a_user_may_not_read(plain: Simulated) -> None:
    machine = plain.machine()
    assert not machine.has("/proc/" + "x" * 300)  # the system refuses such a name
    assert machine.read("/proc") == ""


def test_kubernetes_is_a_container(plain: Simulated) -> None:
    plain.write("/proc/1/cgroup", "1:name=systemd:/kubepods/burstable/pod1/abc\n")
    assert plain.machine().is_container


@pytest.mark.parametrize(
    ("output", "torch", "npu", "remedy"),
    [
        (
            probed(torch=(False, "libm.so.6: version `GLIBC_2.34' not found (required by x.so)")),
            *("libm.so.6: version `GLIBC_2.34' not found (required by x.so)",),
            *("torch cannot be loaded", "this Python, or the file named, was built on a newer"),
        ),
        (
            probed(torch=(False, "No module named 'torch'")),
            *("No module named 'torch'", "torch cannot be loaded", "pip install -e ."),
        ),
        (
            probed(-6, "terminate called after throwing an instance of 'c10::Error'\n"),
            "the process was ended by SIGABRT (terminate called after throwing an instance of "
            "'c10::Error')",
            *("torch cannot be loaded", "pip install torch"),
        ),
        (
            probed(-11, torch=(True, "2.1.0"), cpu=(True, "fp32"), cuda=(False, "none")),
            "2.1.0",
            "the process was ended by SIGSEGV (Warning: a library has something to say.)",
            "",
        ),
        (None, "Python cannot be started", "torch cannot be loaded", "pip install torch"),
    ],
)
def test_torch_that_does_not_load(output: Output | None, torch: str, npu: str, remedy: str) -> None:
    if output is not None and output.code == -11:  # as it is printed, after the last result
        output = replace(output, stderr="Warning: a library has something to say.")
    attempts = device_report.read_attempts(output)
    finding = device_report.check_torch(attempts["torch"])
    assert finding.detail == torch
    assert finding.remedy.startswith(remedy)
    assert attempts["npu"].detail == npu
    assert attempts["cpu"].works == (torch == "2.1.0")


def test_python_and_glibc() -> None:
    assert doctor.check_python((3, 10, 0), "2.27").status == "warning"
    assert doctor.check_python((3, 10, 0), None).status == "warning"
    assert doctor.check_python((3, 13, 1), "2.28").status == "ok"


def media(missing: str = "") -> Any:
    def encoder(name: str, mode: str) -> None:
        assert mode == "w"
        if name == missing:
            raise ValueError(name)

    modules = {
        "av": SimpleNamespace(__version__="15.0.0"),
        "av.codec": SimpleNamespace(Codec=encoder),
        "cv2": SimpleNamespace(__version__="4.11.0"),
    }
    return modules.__getitem__


def test_media_libraries() -> None:
    assert doctor.check_av(media()).detail == "15.0.0, with libx264, aac"
    assert doctor.check_av(media("libx264")).detail == "15.0.0, without libx264"
    assert doctor.check_opencv(media()).detail == "4.11.0"

    def broken(name: str) -> Any:
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    assert doctor.check_opencv(broken).remedy.startswith("apt-get install libgl1")
    assert doctor.check_av(broken).status == "failed"


def test_encoders_of_the_installed_pyav() -> None:
    assert doctor.check_av(importlib.import_module).status == "ok"


def test_detector_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s3fd.pth"
    assert [f.status for f in doctor.check_detectors(path)] == ["failed", "ok"]
    path.write_bytes(b"weights")
    s3fd, _ = doctor.check_detectors(path)
    digest = hashlib.sha256(b"weights").hexdigest()[:10]
    wrong = (
        f"{path}, SHA-256 {digest}... instead of 619a316812...: broken, or not the published file"
    )
    assert s3fd.detail == wrong
    monkeypatch.setattr(weights, "S3FD_HASH", digest)
    assert doctor.check_detectors(path)[0].detail == f"{path}, SHA-256 {digest}..."


def test_no_detector_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert [f.status for f in doctor.check_detectors(None)] == ["failed", "warning"]


def test_expert_weights(tmp_path: Path) -> None:
    path = tmp_path / "expert.pth"
    assert doctor.check_expert(None).status == "warning"
    assert doctor.check_expert(path).status == "failed"
    path.write_text("<!doctype html>")
    assert doctor.check_expert(path).detail.endswith("not a checkpoint file")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"")
    assert doctor.check_expert(path).detail.startswith(f"{path}, SHA-256 ")


def test_free_disk() -> None:
    found = [doctor.check_disk(Path(), size) for size in (GIB - 1, 19 * GIB, 21 * GIB)]
    assert [finding.status for finding in found] == ["failed", "warning", "ok"]


def test_commands_are_run() -> None:
    assert run_command([sys.executable, "-c", "print('a'); raise SystemExit(3)"]) == Output(
        3, "a\n"
    )
    assert run_command(["no-such-command-here"]) is None


def test_a_command_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wav2lip_npu.doctor.machine.COMMAND_SECONDS", 0.5)
    code = "import time; print('a', flush=True); time.sleep(60)"
    assert run_command([sys.executable, "-c", code]) == Output(1, "a\n", "no answer within 0.5 s")


def test_table(plain: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert plain.exit_code("cuda") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok       Python      3.10.12, glibc 2.35"
    assert "failed   CUDA        no CUDA device (this torch is built without)" in lines
    assert lines[-1] == "--device cuda (cuda): not ready: CUDA"


def test_command_line(capfd: pytest.CaptureFixture[str]) -> None:
    """On the machine of this test, where torch computes on the CPU."""
    assert cli.main(["doctor", "--device", "cpu", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert (answer["device"], answer["used"], answer["ready"]) == ("cpu", "cpu", True)
    found = {finding["name"]: finding for finding in answer["findings"]}
    assert found["torch"]["status"] == found["CPU"]["status"] == "ok"
    assert found["CPU"]["device"] == "cpu"


@pytest.mark.parametrize(
    ("module", "detail"),
    [
        ('raise ImportError("libc.so.6: version `GLIBC_2.34\' not found")', "GLIBC_2.34"),
        ("import os; os.abort()", "ended by SIGABRT"),
    ],
)
def test_command_line_where_torch_does_not_load(module: str, detail: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(module)
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "wav2lip_npu", "doctor", "--json"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found["torch"]["status"] == "failed"
    assert detail in found["torch"]["detail"]
