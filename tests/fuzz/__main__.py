"""Run cases: ``PYTHONPATH=. python -m fuzz --seed 7 --cases 1000``, in the folder ``tests``."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import wav2lip_npu
from fuzz import cases, inputs, zygote
from fuzz.cases import OUTCOMES, UNEXPLAINED, Case, Result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run cases and print what came of them; 1 if one is unexplained."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the cases (default: another each time)")
    parser.add_argument("--cases", type=int, default=1000, help="how many")
    parser.add_argument("--kind", action="append", default=[], help="of file, for these alone")
    parser.add_argument("--case", help="this case alone, with the random numbers of --number")
    parser.add_argument("--number", type=int, default=0, help="of that case")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="at a time")
    parser.add_argument("--seconds", type=float, default=60, help="after which a command hangs")
    parser.add_argument(
        "--folder", type=Path, help="where files are kept (default: a temporary one)"
    )
    options = parser.parse_args(arguments)
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    print(f"seed {seed}, {Path(wav2lip_npu.__file__).parent}", flush=True)
    zygote.prepare()
    if options.case is None:
        todo = cases.cases(seed, options.kind, options.cases)
    else:
        todo = [cases.named_case(seed, options.number, options.case)]
    with zygote.temporary_folder("fuzz-") as temporary:
        folder = options.folder or temporary
        results = run_all(todo, jobs=options.jobs, seconds=options.seconds, folder=folder)
    return report(seed, results)


def run_all(todo: Sequence[Case], *, jobs: int, seconds: float, folder: Path) -> list[Result]:
    """Run cases in forked processes, ``jobs`` at a time."""
    names = {name for case in todo for name in case.scenario.base}
    base = inputs.make_in(folder, names | {cases.REFERENCE})
    waiting = [*todo][::-1]
    running: dict[int, tuple[Case, Path]] = {}
    results = []
    while waiting or running:
        while waiting and len(running) < jobs:
            case = waiting.pop()
            place = folder / f"{case.seed}-{case.number}"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            running[_start(case, base, place, seconds)] = case, place
        pid, status = os.wait()
        case, place = running.pop(pid)
        if (place / "result").is_file():
            result = cases.read(place / "result")
        else:
            result = cases.Result(
                number=case.number, kind=case.scenario.kind, title=case.title,
                outcome=cases.UNEXPLAINED, seconds=0.0,
                problems=[f"the judge failed ({os.waitstatus_to_exitcode(status)})"],
                last_line=_last_line(place / "judgeerr"),
            )  # fmt: skip
        results.append(result)
        if result.outcome == cases.UNEXPLAINED:
            print(describe(case, result), flush=True)
        else:
            shutil.rmtree(place, ignore_errors=True)
    return results


def _start(case: Case, base: Path, place: Path, seconds: float) -> int:
    def judged() -> int:
        cases.write(cases.run(case, base, place / "run", seconds), place / "result")
        return 0

    (place / "here").mkdir()
    return zygote.fork(judged, place / "here", None, name="judge", confine=False)


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").rstrip().splitlines() if path.is_file() else []
    return lines[-1] if lines else ""


def describe(case: Case, result: Result) -> str:
    """An unexplained case, and how to run it again."""
    again = f"--seed {case.seed} --number {case.number} --case {shlex.quote(case.title)}"
    return f"{case.title}: {'; '.join(result.problems)}\n    {result.last_line}\n    {again}"


def report(seed: int, results: list[Result]) -> int:
    """Print the table; returns the exit code."""
    counts = Counter((result.kind, result.outcome) for result in results)
    kinds = sorted({result.kind for result in results})
    print("\n" + "".join(f"{title:>14}" for title in ("kind", *OUTCOMES, "all")))
    for kind in kinds:
        row = [counts[kind, outcome] for outcome in OUTCOMES]
        print(f"{kind:>14}" + "".join(f"{n:>14}" for n in (*row, sum(row))))
    row = [sum(counts[kind, outcome] for kind in kinds) for outcome in OUTCOMES]
    print(f"{'all':>14}" + "".join(f"{n:>14}" for n in (*row, sum(row))))
    print("\nseconds a case, by scenario:")
    times: dict[str, list[float]] = {}
    for result in results:
        times.setdefault(result.title.rsplit(" / ", 1)[0], []).append(result.seconds)
    for name, values in sorted(times.items(), key=lambda item: -sum(item[1])):
        print(f"{sum(values) / len(values):8.2f} x {len(values):3}  {name}")
    slowest = max(results, key=lambda result: result.seconds)
    print(f"\nslowest: {slowest.seconds} s, {slowest.title}; seed {seed}")
    return 1 if any(result.outcome == UNEXPLAINED for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
