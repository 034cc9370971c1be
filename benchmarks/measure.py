"""What the benchmarks share: rounds in turn, medians, a table, and the machine's own limits."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from wav2lip_npu.runtime.threads import usable_cores


@dataclass(frozen=True, kw_only=True)
class Round:
    """One measured run of one contender."""

    seconds: float
    count: int  # items or frames
    extra: dict[str, float] = field(default_factory=dict)  # what else it measured

    @property
    def rate(self) -> float:
        """Items or frames a second."""
        return self.count / self.seconds


Contender = Callable[[], Round]


def take_turns(contenders: dict[str, Contender], rounds: int) -> dict[str, list[Round]]:
    """Measure all contenders, in turn, so that whatever else the machine does slows all alike.

    A first round of each is for warming up and does not count.
    """
    measured: dict[str, list[Round]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            title = f"round {number} of {rounds}" if number else "warm-up"
            print(f"{title}: {name}", file=sys.stderr)
            measured[name].append(contender())
    return {name: results[1:] for name, results in measured.items()}


def middle(results: Sequence[Round]) -> Round:
    """The round with the median rate."""
    return sorted(results, key=lambda result: result.rate)[len(results) // 2]


def spread(results: Sequence[Round], digits: int) -> str:
    """The slowest and the fastest round, in items or frames a second."""
    rates = [result.rate for result in results]
    return f"{min(rates):.{digits}f}–{max(rates):.{digits}f}"


def print_results(
    results: dict[str, list[Round]],
    unit: str,
    digits: int,
    more: dict[str, Callable[[str, Round], str]],
) -> None:
    """A row for each contender: its median round, with its ratio to the first one's.

    Args:
        results: of ``take_turns``.
        unit: what is counted, as in "frames/s".
        digits: of its figures.
        more: titles of further columns, and what they show of a contender's name and median round.
    """
    first, *_ = results
    base = middle(results[first])
    rows = []
    for name, rounds in results.items():
        result = middle(rounds)
        row = [name, f"{result.rate:.{digits}f}", spread(rounds, digits)]
        row.append(f"{result.rate / base.rate:.2f}")
        rows.append([*row, *(show(name, result) for show in more.values())])
    print_table(("", unit, "of rounds", f"× {first}", *more), rows)


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns, the first one aligned to the left."""
    lines = [list(titles), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *cells in lines:
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print("  ".join([name.ljust(widths[0]), *numbers]))


def data_parser(
    description: str | None, *, tasks: Iterable[str], threads: int
) -> argparse.ArgumentParser:
    """The options of benchmarks that read preprocessed clips."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    add = parser.add_argument
    add("--data_root", type=Path, required=True, help="folder of the preprocessed clips")
    add("--filelists", type=Path, default=Path("filelists"), help="folder of train.txt, val.txt")
    add("--original", type=Path, help="a checkout of the original Wav2Lip, measured too")
    add("--task", choices=(*tasks, "both"), default="both")
    add("--rounds", type=int, default=3, help="rounds that count, after one that does not")
    add("--device", default="auto", help="where the networks and the data on the device are")
    add("--threads", type=int, default=threads, help="of each contender")
    return parser


def limit_threads(threads: int) -> None:
    """What the in-process contenders compute with."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def describe_machine(threads: int) -> str:
    """One line: the versions that decide the speed, the cores, and how busy they are."""
    return (
        f"{platform.machine()}, {usable_cores()} cores, load {os.getloadavg()[0]:.1f}, "
        f"threads {threads}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"OpenCV {cv2.__version__}, NumPy {np.__version__}"
    )


def copy_rate(size: int = 2**28) -> float:
    """Bytes a second that NumPy copies in memory; the best of five, each page touched before."""
    source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return size / best


def read_rate(files: Sequence[Path], *, from_disk: bool) -> float:
    """Bytes a second of reading whole files, one after the other.

    Args:
        files: what to read; all of it is in the system's cache afterwards.
        from_disk: ask the system to forget the files first. A host below may still remember them.
    """
    if from_disk and hasattr(os, "posix_fadvise"):
        for path in files:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    size = sum(len(path.read_bytes()) for path in files)
    return size / (time.perf_counter() - start)


def add_video_options(parser: argparse.ArgumentParser, outdir: str) -> None:
    """The options of benchmarks that lip-sync a folder of videos; pictures go to ``outdir``."""
    add = parser.add_argument
    add("--checkpoint_path", type=Path, required=True, help="generator")
    add("--videos", type=Path, required=True, help="folder of videos of one person")
    add("--audio", type=Path, required=True, help="what they are made to say")
    add("--outdir", type=Path, default=Path(outdir), help="folder of the pictures")
    add("--device", default="auto")
    add("--threads", type=int, default=usable_cores())
