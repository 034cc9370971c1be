"""A case: by (seed, number) a scenario and a mutation; it is run, and judged, in a process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from random import Random

from av.codec.codec import UnknownCodecError

from fuzz import arguments, inputs, judge, measuring, scenarios, zygote
from fuzz.mutations import ANY_FILE, ODD_NAMES, Expected, Mutation, make_writable
from fuzz.scenarios import Rule, Scenario
from fuzz.specials import SPECIAL
from wav2lip_npu import cli

# Outcomes of a case.
USED, WARNED, LEFT_OUT, REFUSED, SKIPPED, UNEXPLAINED = (
    "used", "used, warned", "left out", "refused", "skipped", "unexplained",
)  # fmt: skip
OUTCOMES = (USED, WARNED, LEFT_OUT, REFUSED, SKIPPED, UNEXPLAINED)
REFERENCE = "expert_run"  # a training on good files, for its loss
PAIRS_A_TURN = 150  # of a scenario and a mutation: a kind that has more comes more often


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is run."""

    seed: int
    number: int
    scenario: Scenario
    mutation: Mutation

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.scenario.kind} / {self.scenario.command} / {self.mutation.name}"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a case."""

    number: int
    kind: str
    title: str
    outcome: str
    problems: list[str]
    seconds: float
    last_line: str  # of standard error


def cases(seed: int, kinds: Sequence[str], wanted: int) -> list[Case]:
    """The first cases of these kinds (none: all), kind by kind in turn.

    Each scenario meets each of its mutations before one comes again, with other random numbers.
    """
    by_kind = _pairs()
    for kind, pairs in by_kind.items():
        Random(f"{seed} {kind}").shuffle(pairs)
    turns = [kind for kind, pairs in by_kind.items() for _ in range(1 + len(pairs) // PAIRS_A_TURN)]
    Random(seed).shuffle(turns)
    endless = {kind: cycle(pairs) for kind, pairs in by_kind.items()}
    numbered = enumerate((kind, *next(endless[kind])) for kind in cycle(turns))
    chosen = (entry for entry in numbered if not kinds or entry[1][0] in kinds)
    return [
        Case(seed=seed, number=number, scenario=scenario, mutation=mutation)
        for number, (_, scenario, mutation) in islice(chosen, wanted)
    ]


def named_case(seed: int, number: int, title: str) -> Case:
    """A case by its title, with the random numbers of (seed, number).

    Raises:
        KeyError: none has this title.
    """
    for pairs in _pairs().values():
        for scenario, mutation in pairs:
            case = Case(seed=seed, number=number, scenario=scenario, mutation=mutation)
            if case.title == title:
                return case
    raise KeyError(title)


def _pairs() -> dict[str, list[tuple[Scenario, Mutation]]]:
    """By the kind of file: each command, and all that may happen to its file."""
    by_kind: dict[str, list[tuple[Scenario, Mutation]]] = {}
    for scenario in (*scenarios.ALL, *measuring.ALL, *arguments.ALL):
        pairs = by_kind.setdefault(scenario.kind, [])
        pairs += [(scenario, mutation) for mutation in mutations_of(scenario)]
    return by_kind


def mutations_of(scenario: Scenario) -> list[Mutation]:
    """All that may happen to the file of a scenario."""
    if scenario.kind == arguments.KIND:
        return [Mutation(name="as it is", apply=lambda path, random: None)]
    named = ODD_NAMES if scenario.renamed else ()
    return [*ANY_FILE, *named, *SPECIAL.get(scenario.kind, ())]


def run(case: Case, base: Path, folder: Path, seconds: float) -> Result:
    """Make the files of a case in a new folder, run its command in a child, and judge."""
    root = folder / "case"
    root.mkdir(parents=True)
    scenario, random = case.scenario, Random(f"{case.seed} {case.number}")
    (root / "out").mkdir()
    inputs.bring(base, root, scenario.base)
    for pattern in scenario.removed:
        for path in root.glob(pattern):
            path.unlink()
    (target,) = sorted(root.glob(scenario.target))
    try:
        changed = case.mutation.apply(target, random) or target
    except UnknownCodecError as error:  # FFmpeg is built in many ways
        return Result(
            number=case.number, kind=scenario.kind, title=case.title, outcome=SKIPPED,
            problems=[str(error)], seconds=0.0, last_line="",
        )  # fmt: skip
    if scenario.rule is not Rule.JOB:
        target = changed
    elif changed != target:  # the list of jobs has the name
        changed.rename(target)
    words = scenario.words(target.relative_to(root).as_posix())
    before = judge.snapshot(root)
    (folder / "command").write_text(json.dumps([*words]))
    peak = zygote.resident_bytes()
    ending = zygote.run(
        lambda: command_line(words, curves=scenario.kind == "metrics"), root,
        zygote.Limits(seconds=seconds),
    )  # fmt: skip
    make_writable(root)
    output, errors, warnings = (
        (folder / f"std{end}").read_text(errors="replace")
        if (folder / f"std{end}").is_file() else ""
        for end in ("out", "err", "warnings")
    )  # fmt: skip
    problems = judge.ending_problems(ending, output, errors, peak, scenario.codes)
    problems += judge.disk_problems(before, judge.snapshot(root), scenario.outputs)
    named = _is_named(target.relative_to(root), errors)
    outcome = _outcome(ending.code, warnings, named)
    if not problems:
        problems = _result_problems(case, root, base, ending.code, named)
    return Result(
        number=case.number,
        kind=scenario.kind,
        title=case.title,
        outcome=UNEXPLAINED if problems else outcome,
        problems=problems,
        seconds=round(ending.seconds, 2),
        last_line=(errors.rstrip().splitlines() or [""])[-1][-300:],
    )


def command_line(words: Sequence[str], *, curves: bool) -> int:
    """The command, without what takes seconds and is not judged."""
    zygote.leave_out_what_is_slow(curves=curves)
    return cli.main(words)


def _is_named(target: Path, errors: str) -> bool:
    """Whether messages name a file, or the clip that it is in."""
    name, parent = target.name, target.parent.as_posix()
    return any(word in errors for word in (name, repr(name)[1:-1], f"{parent}:"))


def _outcome(code: int, warnings: str, named: bool) -> str:
    if code != 0:
        return REFUSED
    return LEFT_OUT if warnings and named else WARNED if warnings else USED


def _result_problems(case: Case, root: Path, base: Path, code: int, named: bool) -> list[str]:
    scenario, expected, problems = case.scenario, case.mutation.expected, []
    right = expected is Expected.USED
    whole_folder = case.mutation.name == "read-only folder"
    if scenario.companion is not None and not whole_folder:
        problems += scenario.companion(root, base, True)
    if scenario.rule in (Rule.ITEM, Rule.DERIVED) and code != 0 and not whole_folder:
        problems.append(f"refused as a whole, though it is {scenario.rule.name.lower()}")
    if scenario.rule in (Rule.INPUT, Rule.JOB) and judge.NOT_READY not in scenario.codes:
        if right and code != 0:
            problems.append("refused, though it is good")
        if expected is Expected.REFUSED and code == 0:
            problems.append("accepted, though it cannot be used")
    must_be_named = expected is Expected.REFUSED and case.mutation.name != "missing"
    if scenario.rule is Rule.ITEM and must_be_named and not named:
        problems.append("left out without being named")
    if code == 0:
        right = right or (scenario.rule is Rule.DERIVED and expected is Expected.REFUSED)
        problems += scenario.check(root, base, right)
    return problems


def write(result: Result, path: Path) -> None:
    """Keep a result for the process that started this one."""
    path.write_text(json.dumps(asdict(result)))


def read(path: Path) -> Result:
    """What ``write`` kept."""
    return Result(**json.loads(path.read_text()))
