"""What is done with a command: run, parsed, or left to a hand, by the first rule that fits."""

from __future__ import annotations

import re
from dataclasses import dataclass

from docs_commands.blocks import Line

RUN, SHELL, PARSED, BY_HAND = "run", "run by the shell", "parsed", "by hand"


@dataclass(frozen=True)
class Rule:
    """Commands that match the pattern are handled in this way."""

    way: str
    pattern: str
    why: str = ""


RULES = (
    # Needs what is not here, or minutes.
    Rule(BY_HAND, r"(\.venv/bin/)?(python3? -m )?pip install", "takes minutes and the network"),
    Rule(BY_HAND, r"python3(\.\d+)? -m venv|\. .*/activate", "an environment for pip install"),
    Rule(BY_HAND, r"wav2lip-npu demo", "takes five minutes; test_demo.py runs a short one"),
    Rule(BY_HAND, r"make (demo|test|lint|docs|fuzz|faults)", "takes minutes"),
    Rule(BY_HAND, r"make (aarch64|audit|licences)", "asks the package index"),
    Rule(BY_HAND, r"\.venv/bin/", "takes minutes; make test runs the checks"),
    Rule(BY_HAND, r"(npu-smi|atc|source /usr/local/Ascend|.*hccn_tool)", "an Ascend machine"),
    Rule(BY_HAND, r"(sudo |docker )", "changes the machine, or needs docker"),
    Rule(BY_HAND, r"scripts/run_ascend_container.sh", "docker; test_container.py reads it"),
    # Options are read by the real parser, and checked; nothing is done.
    Rule(PARSED, r"torchrun ", "several processes; test_distributed.py starts some"),
    Rule(PARSED, r"wav2lip-npu doctor --device (npu|cuda)", "needs that device"),
    Rule(PARSED, r"wav2lip-npu ui ", "serves until Ctrl-C; test_ui.py starts it"),
    Rule(PARSED, r"wav2lip-npu evaluate --videos results --outdir", "a face of two seconds"),
    Rule(PARSED, r"wav2lip-npu sync .*--syncnet_checkpoint_path", "slow; test_by_expert.py"),
    Rule(RUN, r"([A-Z0-9_]+=\S+ )?(nohup )?wav2lip-npu "),
    Rule(SHELL, r"(mkdir|mv|cp|export) "),
)


def rule_for(line: Line) -> Rule | None:
    """The rule for a command; None: it is in no class."""
    return next((rule for rule in RULES if re.match(rule.pattern, line.text)), None)
