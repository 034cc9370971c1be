"""Findings about Ascend on simulated containers and hosts, and the exit code."""

import os

import pytest
from simulated_machine import (
    CPU_ONLY,
    KERNELS_OF_CHIPS,
    NO_CANN,
    TOOLKIT,
    WITH_NPU,
    Simulated,
    library,
    probed,
    recorded,
)

from wav2lip_npu.doctor import ascend, cann
from wav2lip_npu.doctor.kernel_names import KERNEL_NAMES
from wav2lip_npu.doctor.machine import Output
from wav2lip_npu.runtime import failures
from wav2lip_npu.runtime.device_choice import cann_version


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
    found = container.examine("npu")["CANN"]
    assert found.detail == f"7.0.1, {TOOLKIT}/latest; its environment is not set"
    assert found.remedy == f"source {TOOLKIT}/set_env.sh"


def test_cann_that_was_replaced(container: Simulated) -> None:
    container.environment["ASCEND_TOOLKIT_HOME"] = f"{TOOLKIT}/6.3.RC2"
    container.outputs["torch"] = probed(**CPU_ONLY)
    found = container.examine("npu")["CANN"]
    assert found.detail.endswith(f"latest; ASCEND_TOOLKIT_HOME={TOOLKIT}/6.3.RC2 is no folder")


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
    assert cann.cann_home(machine) == "/usr/local/Ascend/cann"
    assert cann_version(machine.path("/usr/local/Ascend/cann")) == version


def test_kernels_of_another_chip(container: Simulated) -> None:
    folder = f"{TOOLKIT}/latest/{KERNELS_OF_CHIPS}"
    container.remove(f"{folder}/ascend910b")
    container.write(f"{folder}/ascend910/add.json")
    container.outputs["torch"] = probed(**{**WITH_NPU, "npu": (False, "no")})
    kernels = container.examine("npu")["kernels"]
    assert kernels.status == "failed"
    assert kernels.detail == f"none for 910B3: no {folder}/ascend910b"
    assert "Ascend-cann-kernels-910b" in kernels.remedy
    assert "Ascend-cann-910b-ops" in kernels.remedy


@pytest.mark.parametrize(
    ("recording", "folder"),
    [("npu_smi_910b_host_busy", "ascend910b"), ("npu_smi_a3_host", "ascend910_93")],
)
def test_the_folder_of_a_chips_kernels(container: Simulated, recording: str, folder: str) -> None:
    models = {card.name for card in ascend.read_cards(recorded(recording).stdout)}
    home = f"{TOOLKIT}/latest"
    container.remove(f"{home}/{KERNELS_OF_CHIPS}/ascend910b")
    machine = container.machine()
    assert [found.status for found in cann.check_kernels(machine, home, models)] == ["failed"]
    container.write(f"{home}/{KERNELS_OF_CHIPS}/{folder}/add.json")
    assert [found.status for found in cann.check_kernels(machine, home, models)] == ["ok"]


def test_kernels_that_cann_lacks(container: Simulated) -> None:
    """In one library or in several; the first version of a kernel will do."""
    lib64 = f"{TOOLKIT}/latest/lib64"
    container.remove(f"{lib64}/libopapi.so")
    assert container.examine("npu")["kernels"].detail == f"no {lib64}/libopapi*.so"

    half = len(KERNEL_NAMES) // 2
    first = [name.removesuffix("V2") for name in KERNEL_NAMES[:half]]
    container.write(f"{lib64}/libopapi_math.so", library(first))
    container.write(f"{lib64}/libopapi_nn.so", library(KERNEL_NAMES[half:]))
    container.write(f"{lib64}/libopapi_empty.so")
    assert container.examine("npu")["kernels"].detail.startswith("all 84 that are used")

    rest = [name for name in KERNEL_NAMES[half:] if name != "aclnnMul"]  # aclnnMuls is another
    container.write(f"{lib64}/libopapi_nn.so", library(rest))
    kernels = container.examine("npu")["kernels"]
    assert (kernels.status, kernels.detail) == ("warning", "missing in CANN: aclnnMul")
    container.write(f"{lib64}/libopapi_nn.so", library(rest[:1]))
    assert container.examine("npu")["kernels"].detail.endswith(f" and {len(rest) - 5} more")


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


def test_shared_memory_that_may_not_be_written(
    container: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, access = container.root / "dev/shm", os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != shared and access(path, mode))
    found = container.examine("npu")["/dev/shm"]
    assert found.status == "warning" and found.detail.startswith("cannot be written")
    assert "--num_workers 0" in found.remedy


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


def test_links_between_cards(container: Simulated) -> None:
    """Tried where there are two cards; their failure costs training on several cards alone."""
    eight = {**WITH_NPU, "npu": (True, "NPU available; bf16", 8)}
    container.outputs["torch"] = probed(**eight)
    container.outputs["links"] = Output(0, "wav2lip-npu probe: added up\n")
    assert container.examine("npu")["NPU links"].detail == "two of 8 cards add up a tensor"

    report = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\n=====\n"
    error = "RuntimeError: HcclAllreduce, error code is 6\n EI0006: Getting socket times out\n"
    container.outputs["links"] = Output(1, "", f"Traceback\n[rank1]: {error}{report}")
    links = container.examine("npu")["NPU links"]
    assert links.status == "warning"
    assert links.detail == "[rank1]: RuntimeError: HcclAllreduce, error code is 6"
    assert "HCCL_CONNECT_TIMEOUT" in links.remedy
    assert container.exit_code("npu") == 0

    container.outputs["links"] = Output(0, "nothing\n")
    assert container.examine("npu")["NPU links"].status == "warning"


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (
            "aclnnCat or aclnnCatGetWorkspaceSize not in libopapi.so, or libopapi.so not found.",
            "install versions of one line of the table",
        ),
        (
            "EZ1001: Get path and read binary_info_config.json failed, please check if the "
            "opp_kernel package is installed!",
            "install the package of kernels",
        ),
        ("EZ1001: Tensor self not implemented for DT_BFLOAT16", "--precision fp16"),
        ("NPU function error: AclrtSynchronizeStream, error code is 107002", "no card is set"),
        ("ACL stream synchronize failed, error code:507015", "npu-smi info -t health"),
        ("EI0002: The wait execution of the Notify register times out", "HCCL_EXEC_TIMEOUT"),
        ("EI0004: The ranktable is invalid", "unset RANK_TABLE_FILE"),
        ("EJ0003: Failed to bind the IP port", "HCCL_IF_BASE_PORT"),
        ("error code is 1075070", None),
    ],
)
def test_what_to_do_about_error_codes(text: str, advice: str | None) -> None:
    remedy = failures.remedy(RuntimeError(text))
    assert (advice is None) == (remedy is None)
    assert advice is None or advice in remedy
