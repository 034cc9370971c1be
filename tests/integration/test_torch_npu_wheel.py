"""The real torch_npu beside the package, on a machine without CANN.

torch_npu's wheel (44 MB for torch 2.13) is downloaded from the package index into a folder that
only the processes of these tests use.
"""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TORCH = importlib.metadata.version("torch").partition("+")[0]
SET_ENV = "/usr/local/Ascend/ascend-toolkit/set_env.sh"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that finds torch_npu, and in which torch may load it."""
    if importlib.util.find_spec("torch_npu") is not None:
        pytest.skip("torch_npu is installed here, perhaps with CANN")
    folder = tmp_path_factory.mktemp("torch_npu")
    words = [
        *("pip", "install", "--quiet", "--disable-pip-version-check", "--retries=1"),
        *("--no-deps", "--no-compile", "--only-binary=:all:"),
        *(f"--target={folder}", f"torch_npu=={TORCH}.*"),
    ]
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        pytest.skip(f"no torch_npu for torch {TORCH} available: {reason}")
    path = os.pathsep.join((str(folder), str(ROOT)))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TORCH_", "ASCEND_"))}
    return {**kept, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def run(
    environment: dict[str, str], *words: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], env=environment, cwd=cwd, capture_output=True, text=True
    )


@pytest.mark.skipif(
    tuple(map(int, TORCH.split(".")[:2])) < (2, 5), reason="torch loads extensions from 2.5 on"
)
def test_torch_alone_does_not_load(environment: dict[str, str]) -> None:
    done = run(environment, "-c", "import torch")
    assert done.returncode == 1
    assert "Failed to load the backend extension: torch_npu" in done.stderr


def test_the_cpu_works_and_auto_takes_it(environment: dict[str, str]) -> None:
    code = """
from wav2lip_npu.runtime.device import Device, disable_torch_npu_autoload
disable_torch_npu_autoload()
import torch
for name in ("cpu", "auto"):
    device = Device.open(name)
    network = device.prepare(torch.nn.Conv2d(3, 3, 3))
    batch = device.to_device({"x": torch.ones(1, 3, 8, 8)})
    network(batch["x"]).sum().backward()
    print(device.torch_device, device.reason)
"""
    done = run(environment, "-c", code)
    assert done.returncode == 0, done.stderr
    cpu, auto = done.stdout.splitlines()[-2:]
    assert cpu.startswith("cpu asked for")
    assert auto.startswith("cpu no NPU (CANN is missing")


def test_an_npu_asked_for_is_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    words = ("preprocess", "--data_root", ".", "--preprocessed_root", "out", "--device", "npu")
    done = run(environment, "-m", "wav2lip_npu", *words, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if "error" in line)
    assert line.startswith("wav2lip-npu: error: --device npu: no NPU (CANN is missing or ")
    assert f"source {SET_ENV}" in line
    assert "Traceback" not in done.stderr


def test_doctor(environment: dict[str, str]) -> None:
    done = run(environment, "-m", "wav2lip_npu", "doctor", "--device", "cpu", "--json")
    answer = json.loads(done.stdout)
    found = {finding["name"]: finding for finding in answer["findings"]}
    assert (done.returncode, answer["ready"]) == (0, True)
    assert found["torch_npu"]["status"] == "ok"
    assert found["torch_npu"]["detail"].endswith(f"for torch {TORCH}")
    assert found["CANN"]["status"] == found["NPU"]["status"] == "failed"
    assert "CANN is missing" in found["NPU"]["detail"]
    assert SET_ENV in found["NPU"]["remedy"]
