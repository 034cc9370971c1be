"""Why a device can be used or not: what its driver, its libraries and the container say.

The diagnosing half of ``device``, and with it the only module that names devices. What Ascend's
programs print and where they put their files follows their public documentation.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from wav2lip_npu.config_base import CPU, CUDA, DEVICE_NAMES, NPU
from wav2lip_npu.doctor.machine import (
    Finding,
    Machine,
    Output,
    Status,
    failed,
    ok,
    one_line,
    remedy_for,
    warning,
)
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.device import (
    SET_ENV,
    Device,
    disable_torch_npu_autoload,
    usable_cores,
)

KINDS = DEVICE_NAMES[1:]  # in the order in which auto asks
GUIDE = "docs/ascend.md"
RUN_CONTAINER = "scripts/run_ascend_container.sh"

_MARK = "wav2lip-npu probe:"  # before our lines of the probe's output; libraries print there too
_HEALTHY_USE = 0.5  # of a card's memory: more than that is another process

# Where CANN installs itself, newest last: each names its folder in a variable when sourced.
_CANN_VARIABLES = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")
_CANN_FOLDERS = (
    "/usr/local/Ascend/ascend-toolkit/latest",
    "/usr/local/Ascend/cann",
    "/usr/local/Ascend/latest",
)
_DRIVER = "/usr/local/Ascend/driver"
_MANAGERS = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")
_MOUNTS = (_DRIVER, "/usr/local/dcmi", "/etc/ascend_install.info")

_NPU_REMEDIES = (
    (
        r"-8020|-8005",
        "another container may hold the card, or the driver was updated without a reboot: stop "
        "that container or take another card, else reboot the host",
    ),
    (
        r"libascend_hal|libdrvdsmi|libdcmi",
        f"mount {_DRIVER} and /usr/local/dcmi into the container ({RUN_CONTAINER} does), and "
        f"export LD_LIBRARY_PATH={_DRIVER}/lib64/driver:{_DRIVER}/lib64/common:$LD_LIBRARY_PATH",
    ),
    (r"CANN is missing", f"source {SET_ENV}, or install CANN ({GUIDE})"),
    (
        r"Two accelerators",
        "install the CPU build of torch: "
        "pip install torch --index-url https://download.pytorch.org/whl/cpu",
    ),
)


@dataclass(frozen=True)
class Attempt:
    """What became of loading torch, or of computing on one kind of device."""

    works: bool
    detail: str


@dataclass(frozen=True)
class DeviceReport:
    """All about devices."""

    used: str  # the kind that the commands would use
    findings: list[Finding]


def examine(machine: Machine, asked: str) -> DeviceReport:
    """Look at torch and at every kind of device.

    Args:
        machine: where to look.
        asked: a value of ``--device``; what it asks for and is not there is a failure.
    """
    attempts = attempt(machine, asked)
    kind = asked.partition(":")[0]
    used = next((k for k in KINDS if attempts[k].works), CPU) if kind == "auto" else kind
    by_kind = {
        NPU: check_ascend(machine, attempts[NPU], asked=kind == NPU),
        CUDA: check_nvidia(machine, attempts[CUDA], asked=kind == CUDA),
        CPU: [check_cpu(attempts[CPU])],
    }
    findings = [replace(one, device=each) for each, found in by_kind.items() for one in found]
    return DeviceReport(used, [check_torch(attempts["torch"]), *findings])


# --- torch, and what computes with it ------------------------------------------------------------


def attempt(machine: Machine, asked: str) -> dict[str, Attempt]:
    """Load torch and compute on every kind of device, in a process that may die of it."""
    folder = str(Path(__file__).parents[2])
    code = (
        f"import sys; sys.path.append({folder!r}); from wav2lip_npu.doctor.devices import probe; "
        f"probe({asked!r})"
    )
    return read_attempts(machine.run([sys.executable, "-c", code]))


def probe(asked: str) -> None:
    """What that process does: print a line for torch, and one for each kind of device."""
    disable_torch_npu_autoload()
    try:
        import torch
    except Exception as error:
        _tell("torch", Attempt(False, one_line(error)))
        return
    _tell("torch", Attempt(True, torch.__version__))
    for kind in reversed(KINDS):  # the CPU first: it cannot end the process
        _tell(kind, _compute(asked if asked.partition(":")[0] == kind else kind))


def _tell(name: str, result: Attempt) -> None:
    print(_MARK, json.dumps([name, result.works, result.detail]), flush=True)


def _compute(name: str) -> Attempt:
    """Run a small convolution as the networks do."""
    try:
        import numpy as np
        import torch

        device = Device.open(name, "auto")
        image = torch.from_numpy(np.ones((1, 1, 8, 8), np.float32)).to(device.torch_device)
        with device.autocast():
            result = torch.nn.functional.conv2d(image, image[:, :, :3, :3])
        if result.float().sum().item() != 324:
            return Attempt(False, "computes wrong numbers")
    except UserError as error:
        return Attempt(False, str(error).removeprefix(f"--device {name}: "))
    except Exception as error:  # of a driver, of a library: anything
        return Attempt(False, one_line(error)[:300])
    return Attempt(True, device.reason)


def read_attempts(output: Output | None) -> dict[str, Attempt]:
    """The probe's results, with an explanation for those that it did not live to tell."""
    output = output or Output(1, stderr="Python cannot be started")
    told: dict[str, Attempt] = {}
    for line in output.stdout.splitlines():
        if line.startswith(_MARK):
            name, works, detail = json.loads(line.removeprefix(_MARK))
            told[name] = Attempt(works, detail)
    end = output.last_words
    if output.code < 0:
        end = f"the process was ended by {signal.Signals(-output.code).name} ({end})"
    torch = told.setdefault("torch", Attempt(False, end))
    for kind in KINDS:
        told.setdefault(kind, Attempt(False, end if torch.works else "torch cannot be loaded"))
    return told


def check_torch(torch: Attempt) -> Finding:
    """Whether torch loads."""
    if torch.works:
        return ok("torch", torch.detail)
    return failed("torch", torch.detail, remedy_for(torch.detail, "pip install torch"))


# --- CPU and CUDA --------------------------------------------------------------------------------


def check_cpu(cpu: Attempt) -> Finding:
    """Whether torch computes on the processor."""
    if cpu.works:
        return ok("CPU", f"{usable_cores()} cores; {cpu.detail.removeprefix('asked for; ')}")
    return failed("CPU", cpu.detail, remedy_for(cpu.detail, "see to torch first"))


def check_nvidia(machine: Machine, attempt: Attempt, *, asked: bool) -> list[Finding]:
    """Whether torch computes on a CUDA device, where there is one or one is asked for."""
    if attempt.works:
        return [ok("CUDA", attempt.detail)]
    if asked or machine.has("/dev/nvidia0"):
        remedy = "install NVIDIA's driver, and a torch that is built with CUDA"
        return [failed("CUDA", attempt.detail, remedy_for(attempt.detail, remedy))]
    return [ok("CUDA", f"not used: {attempt.detail}")]


# --- Ascend --------------------------------------------------------------------------------------


def check_ascend(machine: Machine, attempt: Attempt, *, asked: bool) -> list[Finding]:
    """Everything about Ascend, where there is a sign of it or it is asked for."""
    cards = card_files(machine)
    home = cann_home(machine)
    extension = machine.version("torch_npu")
    if not (asked or attempt.works or cards or home or extension):
        return [ok("NPU", "not used: no torch_npu, no CANN, no /dev/davinci*")]
    findings = [
        check_torch_npu(extension, machine.version("torch")),
        check_cann(machine, home),
        *check_cards(machine),
        check_card_files(machine, cards),
        *(check_mounts(machine) if machine.is_container else check_host(machine)),
    ]
    if not attempt.works:
        remedy = _npu_remedy(attempt.detail, "see to the lines above first")
        return [*findings, failed("NPU", attempt.detail, remedy)]
    for i, finding in enumerate(findings):
        if finding.status is Status.FAILED:  # odd, but not in the way
            findings[i] = replace(finding, status=Status.WARNING)
    return [*findings, ok("NPU", attempt.detail)]


def _npu_remedy(problem: str, default: str) -> str:
    for pattern, remedy in _NPU_REMEDIES:
        if re.search(pattern, problem):
            return remedy
    return remedy_for(problem, default)


def check_torch_npu(extension: str | None, torch: str | None) -> Finding:
    """Whether torch_npu, whose number is its torch's and perhaps a suffix, has that torch."""
    wanted, there = _number(extension), _number(torch)
    if extension is None:
        remedy = f"pip install 'torch_npu=={there or 'X.Y.Z'}.*', as your CANN wants it ({GUIDE})"
        return failed("torch_npu", "not installed", remedy)
    if wanted != there:
        remedy = f"pip install torch=={wanted}, which is the torch that it is built for"
        return failed(
            "torch_npu", f"{extension} is for torch {wanted}, here is {torch or 'none'}", remedy
        )
    return ok("torch_npu", f"{extension}, for torch {wanted}")


def _number(version: str | None) -> str | None:
    found = re.match(r"\d+\.\d+\.\d+", version or "")
    return found[0] if found else None


def cann_home(machine: Machine) -> str | None:
    """The folder of CANN, of the environment first, or None."""
    named = [machine.environment[name] for name in _CANN_VARIABLES if name in machine.environment]
    for folder in (*named, *_CANN_FOLDERS):
        if machine.has(folder):
            return folder
    return None


def check_cann(machine: Machine, home: str | None) -> Finding:
    """CANN's version and place, and whether its environment is set."""
    named = [(name, machine.environment[name]) for name in _CANN_VARIABLES
             if name in machine.environment]  # fmt: skip
    stale = "".join(f"{name}={value} is no folder" for name, value in named[:1] if value != home)
    if home is None:
        remedy = f"install it, or use an image that has it ({GUIDE})"
        return failed("CANN", stale or "not found", remedy)
    detail = f"{cann_version(machine, home) or 'of unknown version'}, {home}"
    if named and not stale:
        return ok("CANN", detail)
    problem = stale or "its environment is not set"
    return failed("CANN", f"{detail}; {problem}", f"source {_set_env(machine, home)}")


def cann_version(machine: Machine, home: str) -> str | None:
    """CANN's version, by the files that it has had for that over the years."""
    for pattern, line in (
        ("*-linux/ascend_toolkit_install.info", r"^version=(.+)$"),
        ("version.cfg", r"^(?:toolkit|runtime)_running_version=\[[^:\]]*:([^\]]+)\]"),
        ("version.info", r"^(?:version_dir|[Vv]ersion)=(.+)$"),
        ("*/version.info", r"^(?:version_dir|[Vv]ersion)=(.+)$"),
    ):
        for file in sorted(machine.path(home).glob(pattern)):
            text = machine.read(str(file.relative_to(machine.root)))
            found = re.search(line, text, re.MULTILINE)
            if found:
                return found[1].strip()
    return None


def _set_env(machine: Machine, home: str) -> str:
    """The script beside or in CANN's folder that sets its environment."""
    places = (f"{home}/set_env.sh", f"{Path(home).parent}/set_env.sh")
    return next((place for place in places if machine.has(place)), SET_ENV)


@dataclass(frozen=True)
class Card:
    """A chip in the table of ``npu-smi info``."""

    number: int
    name: str
    health: str
    memory_used: int = 0  # MB
    memory: int = 0

    def __str__(self) -> str:
        return f"{self.number} ({self.name})"


def read_cards(table: str) -> list[Card]:
    """The chips in the output of ``npu-smi info``, each of two lines."""
    cards: list[Card] = []
    for line in table.splitlines():
        first = re.match(r"\|\s*(\d+)\s+([\w-]+)\s*\|\s*([A-Za-z]+)\s*\|", line)
        second = re.match(
            r"\|.*\|\s*[\da-fA-F]{4}:[\da-fA-F:.]+\s*\|.*?(\d+)\s*/\s*(\d+)\s*\|$", line
        )
        if first:
            cards.append(Card(int(first[1]), first[2], first[3]))
        elif second and cards:
            used, memory = int(second[1]), int(second[2])
            cards[-1] = replace(cards[-1], memory_used=used, memory=memory)
    return cards


def check_cards(machine: Machine) -> list[Finding]:
    """The driver and the cards, as ``npu-smi info`` shows them."""
    version = re.search(r"^Version=(\S+)", machine.read(f"{_DRIVER}/version.info"), re.MULTILINE)
    installed = f"driver {version[1]}" if version else "no driver"
    programs = ("npu-smi", "/usr/local/bin/npu-smi", "/usr/local/sbin/npu-smi")
    outputs = (machine.run([program, "info"]) for program in programs)
    output = next((output for output in outputs if output is not None), None)
    if output is None:
        detail = f"no npu-smi; {installed}"
        if machine.is_container:
            return [warning("driver", detail, f"start the container by {RUN_CONTAINER}")]
        return [failed("driver", detail, f"install driver and firmware ({GUIDE})")]
    header = re.search(r"\bnpu-smi\s+\S+\s+Version:\s*(\S+)", output.stdout)
    if not header:
        problem = one_line(f"{output.stdout} {output.stderr}")[:300] or "npu-smi printed nothing"
        remedy = _npu_remedy(problem, f"install the driver again, and reboot ({GUIDE})")
        return [failed("driver", f"npu-smi: {problem}; {installed}", remedy)]
    return [ok("driver", f"{header[1]}, by npu-smi"), judge_cards(read_cards(output.stdout))]


def judge_cards(cards: list[Card]) -> Finding:
    """Whether there are cards, in good health, and free."""
    if not cards:
        remedy = f"pass cards to the container ({RUN_CONTAINER}); on a host, look at dmesg"
        return failed("cards", "npu-smi shows none", remedy)
    models = sorted({card.name for card in cards})
    detail = f"{len(cards)}: {', '.join(models)}"
    ill = [card for card in cards if card.health != "OK"]
    if ill:
        judge = warning if {card.health for card in ill} == {"Warning"} else failed
        which = ", ".join(f"{card} {card.health}" for card in ill)
        remedy = f"npu-smi info -t health -i {ill[0].number}; take another card meanwhile"
        return judge("cards", f"{detail}; health: {which}", remedy)
    full = [card for card in cards if card.memory_used > _HEALTHY_USE * card.memory]
    if full:
        which = ", ".join(f"{card} {card.memory_used} of {card.memory} MB" for card in full)
        remedy = f"another process has them: wait, or take another card, as in --device {NPU}:1"
        return warning("cards", f"{detail}; memory in use: {which}", remedy)
    return ok("cards", f"{detail}, all OK")


def card_files(machine: Machine) -> list[str]:
    """The device files of cards: /dev/davinci0 and so on."""
    names = [path.name for path in machine.path("/dev").glob("davinci[0-9]*")]
    return [f"/dev/{name}" for name in sorted(names, key=lambda name: (len(name), name))]


def check_card_files(machine: Machine, cards: list[str]) -> Finding:
    """Whether the device files of cards and of the driver are there, and may be used."""
    missing = [name for name in _MANAGERS if not machine.has(name)]
    if not cards:
        missing.insert(0, "/dev/davinci0 (or another card)")
    if missing:
        remedy = (
            f"start the container by {RUN_CONTAINER}, which passes them"
            if machine.is_container
            else f"install the driver, or load it by a reboot ({GUIDE})"
        )
        return failed("device files", f"missing: {', '.join(missing)}", remedy)
    closed = [name for name in (*cards, *_MANAGERS)
              if not os.access(machine.path(name), os.R_OK | os.W_OK)]  # fmt: skip
    if closed:
        remedy = "sudo usermod -aG HwHiAiUser $USER, and log in again"
        return failed("device files", f"no access to {', '.join(closed)}", remedy)
    return ok("device files", ", ".join((*cards, *_MANAGERS)))


def check_mounts(machine: Machine) -> list[Finding]:
    """Whether a container has what it needs of the host's driver."""
    missing = [name for name in _MOUNTS if not machine.has(name)]
    if not missing:
        return [ok("mounts", ", ".join(_MOUNTS))]
    remedy = f"start the container by {RUN_CONTAINER}, which mounts them"
    judge = failed if _DRIVER in missing else warning
    return [judge("mounts", f"missing in this container: {', '.join(missing)}", remedy)]


def check_host(machine: Machine) -> list[Finding]:
    """Whether a host can run the container, and let it reach the network."""
    docker = machine.run(["docker", "info", "--format", "{{.ServerVersion}}"])
    if docker is None:
        found = warning("docker", "not installed", "install it, to work in a container")
    elif docker.code != 0:
        found = warning("docker", docker.last_words, "systemctl start docker, or use sudo")
    else:
        found = ok("docker", docker.stdout.strip())
    forward = machine.read("/proc/sys/net/ipv4/ip_forward").strip()
    if forward == "1":
        return [found, ok("ip_forward", "1")]
    remedy = "sudo sysctl -w net.ipv4.ip_forward=1, and the same line in /etc/sysctl.conf"
    detail = f"net.ipv4.ip_forward is {forward or 'unknown'}: containers have no network"
    return [found, warning("ip_forward", detail, remedy)]
