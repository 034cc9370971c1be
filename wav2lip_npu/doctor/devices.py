"""Which devices can be used: what torch, the processor, CUDA and Ascend report.

Everything about Ascend's driver, CANN and containers is in ``ascend``.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from wav2lip_npu.config.base import CPU, CUDA, DEVICE_NAMES, NPU
from wav2lip_npu.doctor.ascend import check_ascend
from wav2lip_npu.doctor.machine import Finding, Machine, Output, one_line, remedy_for
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import failures
from wav2lip_npu.runtime.device import Device, disable_torch_npu_autoload
from wav2lip_npu.runtime.threads import usable_cores

KINDS = DEVICE_NAMES[1:]  # in the order in which --device auto tries them

COLLECTIVE_CARDS = 2  # of the test of their links
COLLECTIVE_DONE = "added up"

_ERROR_LINE = re.compile(r"(\[rank\d\]: *)?\w*(Error|Exception): ")  # the end of a traceback
_LINE_MARK = "wav2lip-npu probe:"  # begins the probe's lines; libraries print to stdout too


@dataclass(frozen=True)
class ProbeResult:
    """Whether torch could be loaded, or could compute on one kind of device."""

    works: bool
    detail: str
    cards: int = 0  # how many of them there are


@dataclass(frozen=True)
class DeviceReport:
    """The findings about all devices."""

    used: str  # the kind of device that the commands would use
    findings: list[Finding]


def examine(machine: Machine, asked: str) -> DeviceReport:
    """Check torch and every kind of device.

    Args:
        machine: the machine to examine.
        asked: a value of ``--device``; a device that is asked for and missing is a failure.
    """
    results = run_probe(machine, asked)
    kind = asked.partition(":")[0]
    used = next((k for k in KINDS if results[k].works), CPU) if kind == "auto" else kind
    by_kind = {
        NPU: [
            *check_ascend(machine, results[NPU].works, results[NPU].detail, asked=kind == NPU),
            *check_collective(machine, NPU, results[NPU]),
        ],
        CUDA: [
            *check_cuda(machine, results[CUDA], asked=kind == CUDA),
            *check_collective(machine, CUDA, results[CUDA]),
        ],
        CPU: [check_cpu(results[CPU])],
    }
    findings = [replace(one, device=each) for each, found in by_kind.items() for one in found]
    return DeviceReport(used, [check_torch(results["torch"]), *findings])


# --- torch, and what it can compute on -----------------------------------------------------------


def run_probe(machine: Machine, asked: str) -> dict[str, ProbeResult]:
    """Load torch and compute on every kind of device, in a process that may crash."""
    folder = str(Path(__file__).parents[2])
    code = (
        f"import sys; sys.path.append({folder!r}); from wav2lip_npu.doctor.devices import probe; "
        f"probe({asked!r})"
    )
    return read_results(machine.run([sys.executable, "-c", code]))


def probe(asked: str) -> None:
    """The work of that process: print a line for torch, and one for each kind of device."""
    disable_torch_npu_autoload()
    try:
        import torch
    except Exception as error:
        _print_result("torch", ProbeResult(False, one_line(error)))
        return
    _print_result("torch", ProbeResult(True, torch.__version__))
    for kind in reversed(KINDS):  # the CPU first: it does not crash
        _print_result(kind, _compute(asked if asked.partition(":")[0] == kind else kind))


def _print_result(name: str, result: ProbeResult) -> None:
    print_line(json.dumps([name, *astuple(result)]))


def print_line(text: str) -> None:
    """Tell the doctor's process something, between what libraries print."""
    print(_LINE_MARK, text, flush=True)


def _compute(name: str) -> ProbeResult:
    """Run a small convolution as the networks do."""
    try:
        import numpy as np
        import torch

        device = Device.open(name, "auto")
        image = torch.from_numpy(np.ones((1, 1, 8, 8), np.float32)).to(device.torch_device)
        with device.autocast():
            result = torch.nn.functional.conv2d(image, image[:, :, :3, :3])
        if result.float().sum().item() != 324:
            return ProbeResult(False, "computes wrong numbers")
    except UserError as error:
        return ProbeResult(False, str(error).removeprefix(f"--device {name}: "))
    except Exception as error:  # drivers and libraries raise any kind
        return ProbeResult(False, one_line(error)[:300])
    if device.torch_device.type == CPU:
        return ProbeResult(True, device.reason)
    in_fp32 = Device.open(name, "fp32").reason.rpartition("; ")[2]
    return ProbeResult(True, f"{device.reason}; {in_fp32}", device.card_count())


def read_results(output: Output | None) -> dict[str, ProbeResult]:
    """The probe's results, with an explanation for those missing because it crashed."""
    output = output or Output(1, stderr="Python cannot be started")
    results: dict[str, ProbeResult] = {}
    for line in output.stdout.splitlines():
        if line.startswith(_LINE_MARK):
            name, *values = json.loads(line.removeprefix(_LINE_MARK))
            results[name] = ProbeResult(*values)
    problem = output.last_line
    if output.code < 0:
        problem = f"the process was ended by {signal.Signals(-output.code).name} ({problem})"
    torch = results.setdefault("torch", ProbeResult(False, problem))
    for kind in KINDS:
        results.setdefault(
            kind, ProbeResult(False, problem if torch.works else "torch cannot be loaded")
        )
    return results


def check_torch(torch: ProbeResult) -> Finding:
    """Whether torch loads."""
    if torch.works:
        return Finding.ok("torch", torch.detail)
    return Finding.failed("torch", torch.detail, remedy_for(torch.detail, "pip install torch"))


# --- two cards -----------------------------------------------------------------------------------


def check_collective(machine: Machine, kind: str, result: ProbeResult) -> list[Finding]:
    """Whether two processes, a card each, can add up a tensor; nothing if there is one card."""
    if not result.works or result.cards < COLLECTIVE_CARDS:
        return []
    name = f"{kind.upper()} links"
    words = ("torch.distributed.run", "--standalone", f"--nproc_per_node={COLLECTIVE_CARDS}", "-m")
    output = machine.run([sys.executable, "-m", *words, "wav2lip_npu.doctor.collective", kind])
    output = output or Output(1, stderr="Python cannot be started")
    if output.code == 0 and f"{_LINE_MARK} {COLLECTIVE_DONE}" in output.stdout:
        return [Finding.ok(name, f"two of {result.cards} cards add up a tensor")]
    problem = failed_process(output)
    remedy = failures.remedy(f"{output.stdout} {output.stderr}") or "train on one card meanwhile"
    return [Finding.warning(name, problem, remedy)]


def failed_process(output: Output) -> str:
    """What one of torchrun's processes said, whose own report comes last."""
    lines = [line.strip() for line in output.stderr.splitlines() if _ERROR_LINE.match(line.strip())]
    return (lines[0] if lines else output.last_line)[:300]


# --- CPU and CUDA --------------------------------------------------------------------------------


def check_cpu(cpu: ProbeResult) -> Finding:
    """Whether torch computes on the processor."""
    if cpu.works:
        return Finding.ok(
            "CPU", f"{usable_cores()} cores; {cpu.detail.removeprefix('asked for; ')}"
        )
    return Finding.failed(
        "CPU", cpu.detail, remedy_for(cpu.detail, "solve the problem of torch first")
    )


def check_cuda(machine: Machine, result: ProbeResult, *, asked: bool) -> list[Finding]:
    """Whether torch computes on a CUDA device, if there is one or one is asked for."""
    if result.works:
        return [Finding.ok("CUDA", result.detail)]
    if asked or machine.has("/dev/nvidia0"):
        remedy = "install NVIDIA's driver, and a torch that is built with CUDA"
        return [Finding.failed("CUDA", result.detail, remedy_for(result.detail, remedy))]
    return [Finding.ok("CUDA", f"not used: {result.detail}")]
