"""Ascend NPUs: torch_npu, the driver and its cards, the container or host; CANN is in ``cann``.

What Ascend's programs print and where they put their files follows their public documentation.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from wav2lip_npu.config.base import NPU
from wav2lip_npu.doctor.cann import GUIDE, cann_home, check_cann, check_kernels
from wav2lip_npu.doctor.machine import (
    Finding,
    Machine,
    Status,
    one_line,
    remedy_for,
)
from wav2lip_npu.runtime import failures
from wav2lip_npu.runtime.device_choice import DRIVER, SET_ENV, driver_version

RUN_CONTAINER = "scripts/run_ascend_container.sh"

_MAX_FREE_CARD_USE = 0.5  # fraction of a card's memory; more means that another process has it

_DRIVER = str(DRIVER)
_MANAGER_FILES = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")
_MOUNTED_PATHS = (_DRIVER, "/usr/local/dcmi", "/etc/ascend_install.info")

_NPU_REMEDIES = (
    (
        r"-8020|-8005",
        "another container may use the card, or the driver was updated without a reboot: stop "
        "that container or use another card, else reboot the host",
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


def check_ascend(machine: Machine, works: bool, detail: str, *, asked: bool) -> list[Finding]:
    """Everything about Ascend, if there is a sign of it or it is asked for.

    Args:
        machine: the machine to examine.
        works: whether the probe could compute on an NPU.
        detail: the explanation of the probe.
        asked: whether ``--device`` names an NPU.
    """
    cards = card_files(machine)
    home = cann_home(machine)
    extension = machine.version("torch_npu")
    if not (asked or works or cards or home or extension):
        return [Finding.ok("NPU", "not used: no torch_npu, no CANN, no /dev/davinci*")]
    driver, found = check_driver(machine)
    models = sorted({card.name for card in found})
    findings = [
        check_torch_npu(extension, machine.version("torch")),
        check_cann(machine, home),
        *(check_kernels(machine, home, models) if home else []),
        driver,
        *([check_card_health(found)] if driver.status is Status.OK else []),
        check_card_files(machine, cards),
        *(check_mounts(machine) if machine.is_container else check_host(machine)),
    ]
    if not works:
        remedy = _npu_remedy(detail, "solve the problems above first")
        return [*findings, Finding.failed("NPU", detail, remedy)]
    for i, finding in enumerate(findings):
        if finding.status is Status.FAILED:  # unusual, but the NPU works
            findings[i] = replace(finding, status=Status.WARNING)
    return [*findings, Finding.ok("NPU", detail)]


def _npu_remedy(problem: str, default: str) -> str:
    for pattern, remedy in _NPU_REMEDIES:
        if re.search(pattern, problem):
            return remedy
    return failures.remedy(problem) or remedy_for(problem, default)


def check_torch_npu(extension: str | None, torch: str | None) -> Finding:
    """Whether torch_npu fits torch: its version is that of its torch, perhaps with a suffix."""
    wanted, installed = _number(extension), _number(torch)
    if extension is None:
        package = f"'torch_npu=={installed or 'X.Y.Z'}.*'"
        remedy = f"pip install {package}, the version that fits your CANN ({GUIDE})"
        return Finding.failed("torch_npu", "not installed", remedy)
    if wanted != installed:
        remedy = f"pip install torch=={wanted}, for which this torch_npu is built"
        return Finding.failed(
            "torch_npu",
            f"{extension} is for torch {wanted}, installed is {torch or 'none'}",
            remedy,
        )
    return Finding.ok("torch_npu", f"{extension}, for torch {wanted}")


def _number(version: str | None) -> str | None:
    found = re.match(r"\d+\.\d+\.\d+", version or "")
    return found[0] if found else None


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
    """The chips in the output of ``npu-smi info``, two lines each."""
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


def check_driver(machine: Machine) -> tuple[Finding, list[Card]]:
    """The driver, and the cards that ``npu-smi info`` shows."""
    version = driver_version(machine.path(_DRIVER))
    installed = f"driver {version}" if version else "no driver"
    programs = ("npu-smi", "/usr/local/bin/npu-smi", "/usr/local/sbin/npu-smi")
    outputs = (machine.run([program, "info"]) for program in programs)
    output = next((output for output in outputs if output is not None), None)
    if output is None:
        detail = f"no npu-smi; {installed}"
        if machine.is_container:
            return Finding.warning("driver", detail, f"start the container by {RUN_CONTAINER}"), []
        return Finding.failed("driver", detail, f"install driver and firmware ({GUIDE})"), []
    header = re.search(r"\bnpu-smi\s+\S+\s+Version:\s*(\S+)", output.stdout)
    if not header:
        problem = one_line(f"{output.stdout} {output.stderr}")[:300] or "npu-smi printed nothing"
        remedy = _npu_remedy(problem, f"install the driver again, and reboot ({GUIDE})")
        return Finding.failed("driver", f"npu-smi: {problem}; {installed}", remedy), []
    return Finding.ok("driver", f"{header[1]}, by npu-smi"), read_cards(output.stdout)


def check_card_health(cards: list[Card]) -> Finding:
    """Whether there are cards, and all are healthy and free."""
    if not cards:
        remedy = f"pass cards to the container ({RUN_CONTAINER}); on a host, see dmesg"
        return Finding.failed("cards", "npu-smi shows none", remedy)
    models = sorted({card.name for card in cards})
    detail = f"{len(cards)}: {', '.join(models)}"
    unhealthy = [card for card in cards if card.health != "OK"]
    if unhealthy:
        only_warnings = all(card.health == "Warning" for card in unhealthy)
        status = Status.WARNING if only_warnings else Status.FAILED
        which = ", ".join(f"{card} {card.health}" for card in unhealthy)
        remedy = f"npu-smi info -t health -i {unhealthy[0].number}; use another card meanwhile"
        return Finding("cards", status, f"{detail}; health: {which}", remedy)
    busy = [card for card in cards if card.memory_used > _MAX_FREE_CARD_USE * card.memory]
    if busy:
        which = ", ".join(f"{card} {card.memory_used} of {card.memory} MB" for card in busy)
        remedy = f"another process uses them: wait, or use another card, as in --device {NPU}:1"
        return Finding.warning("cards", f"{detail}; memory in use: {which}", remedy)
    return Finding.ok("cards", f"{detail}, all OK")


def card_files(machine: Machine) -> list[str]:
    """The device files of cards: /dev/davinci0 and so on."""
    names = [path.name for path in machine.path("/dev").glob("davinci[0-9]*")]
    return [f"/dev/{name}" for name in sorted(names, key=lambda name: (len(name), name))]


def check_card_files(machine: Machine, cards: list[str]) -> Finding:
    """Whether the device files of the cards and the driver exist, with access to them."""
    missing = [name for name in _MANAGER_FILES if not machine.has(name)]
    if not cards:
        missing.insert(0, "/dev/davinci0 (or another card)")
    if missing:
        remedy = (
            f"start the container by {RUN_CONTAINER}, which passes them"
            if machine.is_container
            else f"install the driver, or load it by a reboot ({GUIDE})"
        )
        return Finding.failed("device files", f"missing: {', '.join(missing)}", remedy)
    denied = [name for name in (*cards, *_MANAGER_FILES)
              if not os.access(machine.path(name), os.R_OK | os.W_OK)]  # fmt: skip
    if denied:
        remedy = "sudo usermod -aG HwHiAiUser $USER, and log in again"
        return Finding.failed("device files", f"no access to {', '.join(denied)}", remedy)
    return Finding.ok("device files", ", ".join((*cards, *_MANAGER_FILES)))


def check_mounts(machine: Machine) -> list[Finding]:
    """Whether the container has the files of the host's driver."""
    missing = [name for name in _MOUNTED_PATHS if not machine.has(name)]
    if not missing:
        return [Finding.ok("mounts", ", ".join(_MOUNTED_PATHS))]
    remedy = f"start the container by {RUN_CONTAINER}, which mounts them"
    status = Status.FAILED if _DRIVER in missing else Status.WARNING
    detail = f"missing in this container: {', '.join(missing)}"
    return [Finding("mounts", status, detail, remedy)]


def check_host(machine: Machine) -> list[Finding]:
    """Whether the host can run the container and give it a network."""
    docker = machine.run(["docker", "info", "--format", "{{.ServerVersion}}"])
    if docker is None:
        found = Finding.warning("docker", "not installed", "install it to work in a container")
    elif docker.code != 0:
        found = Finding.warning("docker", docker.last_line, "systemctl start docker, or use sudo")
    else:
        found = Finding.ok("docker", docker.stdout.strip())
    forward = machine.read("/proc/sys/net/ipv4/ip_forward").strip()
    if forward == "1":
        return [found, Finding.ok("ip_forward", "1")]
    remedy = "sudo sysctl -w net.ipv4.ip_forward=1, and the same line in /etc/sysctl.conf"
    detail = f"net.ipv4.ip_forward is {forward or 'unknown'}: containers have no network"
    return [found, Finding.warning("ip_forward", detail, remedy)]
