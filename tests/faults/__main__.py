"""Inject faults: ``PYTHONPATH=. python -m faults --moments 20``, in the folder ``tests``."""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from fuzz import inputs, zygote

import wav2lip_npu
from faults import commands, injections, peers
from faults.injections import Place, Row

SIGNALLED = ("preprocess", "train", "train-syncnet", "infer")
LOCKED = ("preprocess", "train")
FAULTS = ("disk", "folder", "clock", "second", "worker", "peer", "signals")
DISK_SHARES = (0.0, 0.2, 0.5, 0.8, 0.97)  # of what a command writes


def main(arguments: Sequence[str] | None = None) -> int:
    """Inject all faults and print the table; 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the moments (default: another each time)")
    parser.add_argument("--moments", type=int, default=20, help="for each signal and command")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        help="for these alone: " + ", ".join(FAULTS),
        choices=FAULTS,
    )
    parser.add_argument("--command", action="append", default=[], help="for these alone")
    parser.add_argument(
        "--share", type=float, action="append", help="of its output that a disk holds"
    )
    options = parser.parse_args(arguments)
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    print(f"seed {seed}, {Path(wav2lip_npu.__file__).parent}", flush=True)
    zygote.prepare()
    rows = []
    with zygote.temporary_folder("faults-") as temporary:
        base = inputs.make_in(temporary, ())
        for command in commands.COMMANDS:
            if options.command and command.name not in options.command:
                continue
            place = injections.observe(command, base, temporary / "place")
            print(
                f"{command.name}: {place.seconds:.1f} s, {place.size / 1e6:.1f} MB, "
                f"{len(place.expected)} files", flush=True,
            )  # fmt: skip
            random, shares = Random(f"{seed} {command.name}"), options.share or DISK_SHARES
            for row in inject(place, options.fault, shares, options.moments, random):
                rows.append(row)
                print(line(row), flush=True)
    wrong = [row for row in rows if row.problems]
    print(f"\n{len(rows)} faults, {len(wrong)} not as documented; seed {seed}")
    return 1 if wrong else 0


def inject(
    place: Place, faults: Sequence[str], shares: Sequence[float], moments: int, random: Random
) -> Iterator[Row]:
    """All faults that fit a command."""
    name = place.command.name

    def wanted(fault: str) -> bool:
        return not faults or fault in faults

    if wanted("disk"):
        for share in shares:
            try:
                yield injections.full_disk(place, share)
            except PermissionError as error:
                print(f"skipped: a full disk ({error})")
                break
    if wanted("folder"):
        yield injections.read_only(place)
    if wanted("clock"):
        yield injections.jumping_clock(place, random)
    if wanted("second") and name in LOCKED:
        yield injections.second_run(place)
    if wanted("peer") and name == "train-syncnet":
        yield peers.lost_peer(place, random)
    if wanted("worker") and name == "preprocess":
        for _ in range(moments):
            yield injections.killed_worker(place, random)
    if wanted("signals") and name in SIGNALLED:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for group in (False, True):
                for _ in range(moments):
                    yield injections.signalled(place, number, random, group=group)


def line(row: Row) -> str:
    """A row of the table."""
    cells = (row.command, row.fault, row.ending, row.left, row.rerun)
    text = " | ".join(
        f"{cell:<{width}}" for cell, width in zip(cells, (18, 28, 5, 20, 8), strict=True)
    )
    return text + "".join(f"\n    WRONG: {problem}" for problem in row.problems)


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(code)
