"""Devices: code for a kind of device stays in one module; batches, names, cores."""

import os
import re
import tokenize
from pathlib import Path

import pytest
import torch

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import device_choice, threads
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.machine_memory import free_machine_memory

ROOT = Path(__file__).parents[3]
# runtime/device.py runs code for a kind of device, runtime/device_choice.py chooses it, and
# config/base.py defines the names. Others, such as doctor, take the constants NPU and CUDA there.
NAMED_IN = {
    "wav2lip_npu/runtime/device.py",
    "wav2lip_npu/runtime/device_choice.py",
    "wav2lip_npu/config/base.py",
}
NAME = re.compile(r"(?<![\w-])(cuda|npu)(?![\w-])")  # but not wav2lip_npu, torch_npu or npu-smi


def device_names(path: Path) -> list[str]:
    """The places in a module's code that name a device: strings and identifiers, no comments."""
    with path.open("rb") as file:
        found = [
            f"{path.name}:{token.start[0]}: {token.line.strip()}"
            for token in tokenize.tokenize(file.readline)
            if token.type != tokenize.COMMENT and NAME.search(token.string)
        ]
    return found


def test_devices_are_named_in_one_place() -> None:
    modules = {
        path.relative_to(ROOT).as_posix(): path
        for package in ("wav2lip_npu", "face_detection")
        for path in (ROOT / package).rglob("*.py")
    }
    assert set(modules) > NAMED_IN
    naming = {name: found for name, path in modules.items() if (found := device_names(path))}
    assert naming.keys() == NAMED_IN, naming


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ('torch.device("cuda:0")', True),
        ("torch.npu.synchronize()", True),
        ("if kind == 'npu': pass", True),
        ("x = torch.cuda", True),
        ("import torch_npu", False),
        ('command = "npu-smi"', False),
        ("from wav2lip_npu import LipSync", False),
        ("x = 1  # on cuda", False),
    ],
)
def test_which_code_names_a_device(code: str, names: bool, tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(f"{code}\n")
    assert bool(device_names(module)) is names


def test_prefetch_keeps_the_order_and_asks_for_one_batch_ahead() -> None:
    taken = []

    def batches() -> list[dict[str, torch.Tensor]]:
        for number in range(4):
            taken.append(number)
            yield {"x": torch.tensor(number)}

    cpu = Device.open("cpu")
    meta = Device(torch_device=torch.device("meta"), dtype=None, reason="a test")
    assert [int(batch["x"]) for batch in cpu.prefetch(batches())] == [0, 1, 2, 3]
    taken.clear()
    stream = meta.prefetch(batches())
    assert next(stream)["x"].device.type == "meta"
    assert taken == [0, 1]
    assert len(list(stream)) == 3


def test_a_cpu_has_no_cards_to_choose_from() -> None:
    cpu = Device.open("cpu", card_offset=3, strict_fp32=True)
    assert cpu.torch_device == torch.device("cpu")
    cpu.make_current()
    assert cpu.pin_options == {}
    assert cpu.onnx_provider == ("CPUExecutionProvider", {})
    with pytest.raises(UserError, match="--strict_fp32: needs --precision fp32, not bf16"):
        Device.open("cpu", "bf16", strict_fp32=True)


def test_what_a_cpu_cannot_do() -> None:
    with pytest.raises(UserError, match="--precision fp16"):
        Device.open("cpu", "fp16")
    with pytest.raises(UserError, match="--device tpu: choose from"):
        Device.open("tpu")


def test_cores_are_shared_by_processes_and_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)), raising=False)
    assert threads.share_of_cores() == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert threads.share_of_cores(3) == 2
    assert threads.share_of_cores(100) == 1


def test_free_memory_is_the_containers(tmp_path: Path) -> None:
    """A container's limit, by either version of cgroups, where it is below the machine's memory."""

    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert free_machine_memory(tmp_path) is None
    write("proc/meminfo", "MemTotal: 90000 kB\nMemAvailable:   8000 kB\n")
    assert free_machine_memory(tmp_path) == 8000 * 1024
    write("sys/fs/cgroup/memory.current", "1000000\n")
    write("sys/fs/cgroup/memory.max", "max\n")
    assert free_machine_memory(tmp_path) == 8000 * 1024
    write("sys/fs/cgroup/memory.max", "3000000\n")
    assert free_machine_memory(tmp_path) == 2_000_000
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "500000")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "600000")
    assert free_machine_memory(tmp_path) == 0
    here = free_machine_memory()
    assert here is not None
    assert 0 < here < 2**45


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu sse4_2 avx512f avx512_bf16 avx512_fp16", torch.bfloat16),
        ("flags : fpu amx_tile amx_bf16 amx_int8", torch.bfloat16),
        ("Features : fp asimd i8mm bf16 sve", torch.bfloat16),  # aarch64
        ("flags : fpu sse4_2 avx2 avx512f not_bf16", None),
        (None, None),  # no Linux
    ],
)
def test_auto_is_bf16_where_the_processor_has_it(
    flags: str | None, expected: torch.dtype | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_choice, "CPU_FLAGS_FILE", tmp_path / "cpuinfo")
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    assert Device.open("cpu", "auto").dtype is expected
    is_slow = "only emulates" in Device.open("cpu", "bf16").reason
    assert is_slow == (expected is None)
