"""A process of torchrun that is killed: the other one ends, clearly and soon."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from helpers import THIN_CLI

from faults.commands import OUT, left
from faults.injections import Place, Row

START_SECONDS = 120.0  # until the first checkpoint: two processes import torch
END_SECONDS = 60.0  # within which the other process must end
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def lost_peer(place: Place, random: Random) -> Row:
    """SIGKILL to one of two processes, some steps after the first checkpoint.

    Raises:
        RuntimeError: the training does not start.
    """
    case = place.new_case()
    process, log = _start(place, case, steps=10**6)
    first = case / OUT / "checkpoint_step000000001.pth"
    deadline = time.monotonic() + START_SECONDS
    while not first.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    if not first.is_file():
        _end(process)
        raise RuntimeError(f"torchrun: no first step\n{log.read_text()[-2000:]}")
    time.sleep(random.uniform(0, 2))
    os.kill(random.choice(_ranks(process.pid)), signal.SIGKILL)
    problems, killed = [], time.monotonic()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        problems.append(f"not ended after {END_SECONDS:.0f} s")
    _end(process)
    text = log.read_text(errors="replace")
    ours = [line for line in text.splitlines() if line.startswith("wav2lip-npu: ")]
    if process.returncode == 0:
        problems.append("exit code 0")
    if not ours:
        problems.append("the other process says nothing")
    ending = f"{time.monotonic() - killed:.0f} s"
    remains = left(case)
    newest = max(int(path.stem[-9:]) for path in (case / OUT).glob("checkpoint_step*.pth"))
    again, log = _start(place, case, steps=newest + 2)
    try:
        code = again.wait(START_SECONDS)
    except subprocess.TimeoutExpired:
        code = None
    _end(again)
    rerun = "goes on" if code == 0 else f"exit code {code}"
    if code != 0:
        problems.append(f"the rerun: {rerun}, {log.read_text(errors='replace')[-300:]}")
    fault = f"lost peer: {(ours or ['-'])[-1][13:60]}"
    return Row(
        fault=fault, command=place.command.name, ending=ending, left=remains, rerun=rerun,
        problems=problems,
    )  # fmt: skip


def _start(place: Place, case: Path, *, steps: int) -> tuple[subprocess.Popen[bytes], Path]:
    """The command under torchrun; the last ``--max_steps`` counts."""
    log = place.folder / "torchrun"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *TORCHRUN, THIN_CLI, *place.command.words, "--max_steps", str(steps)],
            cwd=case, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    return process, log


def _ranks(pid: int) -> list[int]:
    """The processes that torchrun has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if str(THIN_CLI).encode() in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
