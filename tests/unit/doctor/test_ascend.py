"""Findings about Ascend on simulated containers and hosts, and the exit code."""

import os

import pytest
from simulated_machine import (
    CPU_ONLY,
    NO_CANN,
    TOOLKIT,
    WITH_NPU,
    Simulated,
    probed,
    recorded,
)

from wav2lip_npu.doctor import ascend
from wav2lip_npu.doctor.machine import Output


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
    assert found["torch_npu"].detail == "2.1.0.post3 is for torch 2.1.0, installed is 2.13.0+cpu"
    assert found["torch_npu"].remedy.startswith("pip install torch==2.1.0")
    assert found["NPU"].remedy == "solve the problems above first"
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
    finding = ascend.check_torch_npu(extension, torch)
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
    assert ascend.cann_home(machine) == "/usr/local/Ascend/cann"
    assert ascend.cann_version(machine, "/usr/local/Ascend/cann") == version


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
    found = ascend.read_cards(recorded(recording).stdout)
    assert [f"{c} {c.health} {c.memory_used}/{c.memory}" for c in found] == cards


@pytest.mark.parametrize(
    ("recording", "name", "status", "detail", "remedy"),
    [
        (
            *("npu_smi_910b_host_busy", "cards", "warning"),
            *("8: 910B3; memory in use: 2 (910B3) 61852 of 65536 MB", "another process uses"),
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
    finding = ascend.check_card_files(container.machine(), ["/dev/davinci0"])
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
