"""The machine that is examined: its files, environment, commands, libraries; and ``Finding``.

The checks access a machine only through this module, so that tests can simulate one.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

COMMAND_TIMEOUT_SECONDS = 120  # a hanging driver must not hang the diagnosis


class Status(str, Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"  # worth knowing; the commands run
    FAILED = "failed"  # the commands cannot run


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis."""

    name: str
    status: Status
    detail: str
    remedy: str = ""
    device: str = ""  # the kind of device that it concerns; empty: all

    @classmethod
    def ok(cls, name: str, detail: str) -> Finding:
        """A finding without a problem."""
        return cls(name, Status.OK, detail)

    @classmethod
    def warning(cls, name: str, detail: str, remedy: str) -> Finding:
        """A problem that does not keep the commands from running."""
        return cls(name, Status.WARNING, detail, remedy)

    @classmethod
    def failed(cls, name: str, detail: str, remedy: str) -> Finding:
        """A problem that keeps the commands from running."""
        return cls(name, Status.FAILED, detail, remedy)


@dataclass(frozen=True)
class Output:
    """The exit code and output of a command."""

    code: int  # negative: the signal that ended it
    stdout: str = ""
    stderr: str = ""

    @property
    def last_line(self) -> str:
        """The last line of stderr, or of stdout if that is empty: it usually has the error."""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return lines[-1].strip() if lines else "it printed nothing"


def run_command(words: Sequence[str]) -> Output | None:
    """Run a command; None if there is no such command."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=COMMAND_TIMEOUT_SECONDS
        )
    except OSError:
        return None
    except subprocess.TimeoutExpired as error:
        printed = error.stdout or ""  # bytes, in spite of text=True
        text = printed.decode(errors="replace") if isinstance(printed, bytes) else str(printed)
        return Output(1, text, f"no answer within {COMMAND_TIMEOUT_SECONDS} s")
    return Output(done.returncode, done.stdout, done.stderr)


def installed_version(package: str) -> str | None:
    """The version of an installed package, without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _glibc() -> str | None:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, ValueError, OSError):  # another C library or system
        return None
    return version if name == "glibc" else None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """This machine by default; tests replace its fields."""

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    python: tuple[int, ...] = tuple(sys.version_info[:3])
    glibc: str | None = field(default_factory=_glibc)
    run: Callable[[Sequence[str]], Output | None] = run_command
    version: Callable[[str], str | None] = installed_version
    load: Callable[[str], Any] = importlib.import_module
    disk_usage: Callable[[Path], Any] = shutil.disk_usage  # total, used, free in bytes

    def path(self, absolute: str) -> Path:
        """The path of a file or folder of this machine."""
        return self.root / absolute.lstrip("/")

    def has(self, absolute: str) -> bool:
        """Whether this file or folder exists and this user may see it."""
        try:
            return self.path(absolute).exists()
        except OSError:
            return False

    def read(self, absolute: str) -> str:
        """The content of a small text file; empty if it cannot be read."""
        try:
            return self.path(absolute).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    @property
    def is_container(self) -> bool:
        """Whether this runs in docker, podman or Kubernetes."""
        marks = ("/.dockerenv", "/run/.containerenv")
        if any(map(self.has, marks)):
            return True
        return bool(re.search("docker|kubepods|containerd", self.read("/proc/1/cgroup")))


# What helps if a library does not load, by the text of its error.
_REMEDIES = (
    (
        r"`GLIBC_[\d.]+' not found",
        "this Python, or the file named, was built on a newer system than this one: use a Python "
        "of this system (the image's own, or conda create -n wav2lip python=3.10) and reinstall",
    ),
    (
        r"`(GLIBCXX|CXXABI)_[\d.]+' not found",
        "the C++ library that was found first is too old: conda install -c conda-forge "
        "libstdcxx-ng, or remove its folder from LD_LIBRARY_PATH",
    ),
    (r"static TLS", "export LD_PRELOAD=FILE, with the file that the message names"),
    (r"lib(GL|gthread)[\w.-]*\.so", "apt-get install libgl1 libglib2.0-0 (yum: mesa-libGL glib2)"),
    (r"TORCH_DEVICE_BACKEND_AUTOLOAD", "export TORCH_DEVICE_BACKEND_AUTOLOAD=0"),
    (r"Numpy is not available|compiled using NumPy 1", "pip install 'numpy<2'"),
    (r"No module named '(torch|numpy|av|cv2)'", "pip install -e ., in the project's folder"),
    (r"No module named 'yaml'", "pip install pyyaml"),
    (r"No module named '(\w+)", r"pip install \1"),
)


def remedy_for(problem: str, default: str) -> str:
    """What to do about an error's text; ``default`` for an unknown one."""
    for pattern, remedy in _REMEDIES:
        found = re.search(pattern, problem)
        if found:
            return found.expand(remedy)
    return default


def one_line(error: BaseException | str) -> str:
    """An error's text in one line; its class if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
