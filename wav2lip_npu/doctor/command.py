"""The command ``doctor``: what this machine has, what it lacks, and what to do about it.

Each check returns one line of the table or several; those of devices are in ``devices``.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from face_detection import weights
from wav2lip_npu.config import DoctorConfig
from wav2lip_npu.doctor import devices
from wav2lip_npu.doctor.machine import Finding, Machine, Status, one_line, remedy_for
from wav2lip_npu.runtime.files import sha256

NOT_READY_CODE = 1  # exit code
MIN_GLIBC = (2, 28)  # of the wheels that are published today
MIN_SHARED_MEMORY_BYTES = 1 << 30  # the batches of 16 loading processes need about 300 MB
MIN_FREE_DISK_BYTES = 1 << 30  # below it is a failure
LOW_FREE_DISK_BYTES = 20 << 30  # below it is a warning: a checkpoint of all networks has 0.6 GB
OPENCV_PACKAGES = ("opencv-python-headless", "opencv-python")  # both install the module cv2
CODECS = ("libx264", "aac")  # of the videos that infer writes
DEFAULT_EXPERT = Path("checkpoints/lipsync_expert.pth")


def diagnose(config: DoctorConfig, machine: Machine | None = None) -> int:
    """Print the table, or JSON.

    Returns:
        The exit code: 0 if nothing failed that the chosen device needs, else NOT_READY_CODE.
    """
    used, findings = examine(config, machine or Machine())
    blocking = [
        finding.name
        for finding in findings
        if finding.status is Status.FAILED and finding.device in ("", used)
    ]
    if config.json:
        answer = {"device": config.device, "used": used, "ready": not blocking}
        print(json.dumps({**answer, "findings": [asdict(each) for each in findings]}, indent=2))
    else:
        print(table(findings))
        verdict = f"not ready: {', '.join(blocking)}" if blocking else "ready"
        print(f"\n--device {config.device} ({used}): {verdict}")
    return NOT_READY_CODE if blocking else 0


def examine(config: DoctorConfig, machine: Machine) -> tuple[str, list[Finding]]:
    """The kind of device that the commands would use, and all findings."""
    report = devices.examine(machine, config.device)
    findings = [
        check_python(machine.python, machine.glibc),
        *report.findings,
        *check_shared_memory(machine),
        check_av(machine.load),
        check_opencv(machine.load, machine.version),
        *check_detectors(config.s3fd),
        check_expert(config.syncnet_checkpoint_path),
        check_disk(Path.cwd(), machine.disk_usage(Path.cwd()).free),
    ]
    return report.used, findings


def table(findings: Sequence[Finding]) -> str:
    """One line per finding, and one for its remedy."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status.value:<8} {finding.name:<{width}}  {finding.detail}")
        if finding.remedy:
            lines.append(f"{'':<8} {'':<{width}}  -> {finding.remedy}")
    return "\n".join(lines)


def check_python(python: Sequence[int], glibc: str | None) -> Finding:
    """The versions of Python and of the C library."""
    detail = f"{'.'.join(map(str, python))}, glibc {glibc or 'none'}"
    if glibc is None or tuple(map(int, glibc.split(".")[:2])) < MIN_GLIBC:
        remedy = "today's wheels need glibc 2.28: use Ubuntu 20.04, openEuler 22.03 or newer"
        return Finding.warning("Python", detail, remedy)
    return Finding.ok("Python", detail)


def check_shared_memory(machine: Machine) -> list[Finding]:
    """The size of /dev/shm, where loading processes put their batches."""
    if not machine.has("/dev/shm"):  # not Linux
        return []
    if not os.access(machine.path("/dev/shm"), os.W_OK):
        detail = "cannot be written: processes that load batches cannot be started"
        remedy = "chmod 1777 /dev/shm as root, or train with --num_workers 0"
        return [Finding.warning("/dev/shm", detail, remedy)]
    size = machine.disk_usage(machine.path("/dev/shm")).total
    detail = f"{_size(size)} (the guide's container has 32 GB)"
    if size < MIN_SHARED_MEMORY_BYTES:
        remedy = "start the container with --shm-size 32g, or train with --num_workers 0"
        return [Finding.warning("/dev/shm", detail, remedy)]
    return [Finding.ok("/dev/shm", detail)]


def check_av(load: Callable[[str], Any]) -> Finding:
    """PyAV and the encoders of its FFmpeg."""
    reinstall = "pip install --force-reinstall --only-binary av av"
    try:
        av = load("av")
        encoders = load("av.codec")
    except Exception as error:  # ImportError, or whatever a library raises
        return Finding.failed("PyAV", one_line(error), remedy_for(str(error), reinstall))
    missing = []
    for codec in CODECS:
        try:
            encoders.Codec(codec, "w")
        except ValueError:  # PyAV's UnknownCodecError is one
            missing.append(codec)
    if missing:
        return Finding.failed("PyAV", f"{av.__version__}, without {', '.join(missing)}", reinstall)
    return Finding.ok("PyAV", f"{av.__version__}, with {', '.join(CODECS)}")


def check_opencv(load: Callable[[str], Any], version: Callable[[str], str | None]) -> Finding:
    """The version of OpenCV, and whether only one package brings it."""
    ours = OPENCV_PACKAGES[0]
    try:
        detail = load("cv2").__version__
    except Exception as error:
        reinstall = f"pip install --force-reinstall {ours}"
        return Finding.failed("OpenCV", one_line(error), remedy_for(str(error), reinstall))
    installed = {name: version(name) for name in OPENCV_PACKAGES if version(name)}
    if len(set(installed.values())) > 1:
        both = ", ".join(f"{name} {number}" for name, number in installed.items())
        remedy = f"pip uninstall -y {' '.join(installed)}; pip install {ours}"
        return Finding.warning("OpenCV", f"{detail}, of several packages: {both}", remedy)
    return Finding.ok("OpenCV", detail)


def check_detectors(given: Path | None) -> list[Finding]:
    """The weights of both face detectors; one of them is enough."""
    path = given or weights.find_s3fd()
    centerface = Finding.ok("CenterFace", str(weights.CENTERFACE))
    if not weights.CENTERFACE.is_file():
        missing = f"{weights.CENTERFACE}: no such file"
        centerface = Finding.warning("CenterFace", missing, "install wav2lip-npu again")
    fetch = f"put {weights.S3FD_URL} at {weights.GUIDE_PATH}, or name the file with --s3fd"
    if path is None:
        if centerface.status is not Status.OK:
            return [
                Finding.failed("S3FD", "no weights, and no CenterFace either", fetch),
                centerface,
            ]
        detail = "no weights: preprocess and infer use CenterFace"
        return [Finding.warning("S3FD", detail, fetch), centerface]
    if not path.is_file():
        return [Finding.failed("S3FD", f"{path}: no such file", fetch), centerface]
    digest = sha256(path)
    file = f"{path}, SHA-256 {digest[:10]}..."
    if not digest.startswith(weights.S3FD_HASH):
        detail = f"{file} instead of {weights.S3FD_HASH}...: broken, or not the published file"
        return [
            Finding.failed("S3FD", detail, f"{fetch}; or use --detector centerface"),
            centerface,
        ]
    return [Finding.ok("S3FD", file), centerface]


def check_expert(given: Path | None) -> Finding:
    """The checkpoint of the lip-sync expert, which the training of the generator needs."""
    path = given or DEFAULT_EXPERT
    if not path.is_file():
        status = Status.FAILED if given else Status.WARNING
        remedy = "put it there, or wav2lip-npu train-syncnet"
        return Finding("expert", status, f"{path}: no such file", remedy)
    detail = f"{path}, SHA-256 {sha256(path)[:10]}..."
    with path.open("rb") as file:
        start = file.read(2)
    if not zipfile.is_zipfile(path) and start != b"\x80\x02":  # torch's formats, new and old
        return Finding.failed(
            "expert", f"{detail}: not a checkpoint file", "download the file itself"
        )
    return Finding.ok("expert", detail)


def check_disk(folder: Path, free: int) -> Finding:
    """Free space for checkpoints and preprocessed clips in the working folder."""
    detail = f"{_size(free)} free in {folder}"
    if free < MIN_FREE_DISK_BYTES:
        return Finding.failed("disk", detail, "free some space, or work in another folder")
    if free < LOW_FREE_DISK_BYTES:
        return Finding.warning(
            "disk", detail, "little for training: each checkpoint has up to 0.6 GB"
        )
    return Finding.ok("disk", detail)


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"
