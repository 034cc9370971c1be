"""Findings about everything but Ascend, the table, and the command itself."""

import hashlib
import importlib
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from simulated_machine import (
    GIB,
    Simulated,
    probed,
    statuses,
)

from face_detection import weights
from wav2lip_npu import cli
from wav2lip_npu.doctor import command as doctor
from wav2lip_npu.doctor import devices
from wav2lip_npu.doctor.machine import Output, run_command

ROOT = Path(__file__).parents[3]


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
    results = devices.read_results(output)
    finding = devices.check_torch(results["torch"])
    assert finding.detail == torch
    assert finding.remedy.startswith(remedy)
    assert results["npu"].detail == npu
    assert results["cpu"].works == (torch == "2.1.0")


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
    alone = {"opencv-python": "4.11.0.86"}
    assert doctor.check_opencv(media(), alone.get).detail == "4.11.0"
    assert doctor.check_opencv(media(), {}.get).status == "ok"  # built from source

    def broken(name: str) -> Any:
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    assert doctor.check_opencv(broken, alone.get).remedy.startswith("apt-get install libgl1")
    assert doctor.check_av(broken).status == "failed"


def test_two_packages_that_bring_opencv() -> None:
    """Files of the one that was installed last lie over the other's."""
    both = {"opencv-python": "4.11.0.86", "opencv-python-headless": "5.0.0.93"}
    found = doctor.check_opencv(media(), both.get)
    assert found.status == "warning"
    names = "opencv-python-headless opencv-python"
    assert found.remedy == f"pip uninstall -y {names}; pip install opencv-python-headless"
    both["opencv-python"] = "5.0.0.93"
    assert doctor.check_opencv(media(), both.get).status == "ok"  # the same files


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
    monkeypatch.setattr(weights, "CENTERFACE", Path("absent.onnx"))
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
    monkeypatch.setattr("wav2lip_npu.doctor.machine.COMMAND_TIMEOUT_SECONDS", 0.5)
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
    ("name", "module", "detail"),
    [
        ("torch", 'raise ImportError("libc.so.6: version `GLIBC_2.34\' not found")', "GLIBC_2.34"),
        ("torch", "import os; os.abort()", "ended by SIGABRT"),
        ("OpenCV", 'raise ImportError("libGL.so.1: cannot open shared object file")', "libGL.so"),
    ],
)
def test_command_line_where_a_library_does_not_load(
    name: str, module: str, detail: str, tmp_path: Path
) -> None:
    (tmp_path / ("cv2.py" if name == "OpenCV" else "torch.py")).write_text(module)
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "wav2lip_npu", "doctor", "--json"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found[name]["status"] == "failed"
    assert detail in found[name]["detail"]
