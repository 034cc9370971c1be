"""An Ascend card made of a CPU: the real torch_npu, over a CANN whose kernels compute.

See README.md. ``environment`` gives what a process needs to find such cards.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

HERE = Path(__file__).parent
SOURCES = HERE / "cann"
CACHE = HERE.parents[1] / "build" / "ascend"
TORCH = importlib.metadata.version("torch").partition("+")[0]

# The libraries of CANN that torch_npu links or opens. All code is in the first one.
MAIN_LIBRARY = "ascendcl"
EMPTY_LIBRARIES = (
    *("opapi", "hccl", "acl_op_compiler", "ge_runner", "graph", "runtime", "acl_tdt_channel"),
    *("ascend_ml", "profapi", "msprofiler", "error_manager"),
)
# Names that torch_npu takes from CANN: plain C, and before 2.7.1 some C++ of the namespace ge.
CANN_NAME = re.compile(r"(acl|rt|Hccl|hccl|Msprof)[A-Z]\w*|acl[a-z]+[A-Z]\w*|_ZNK?2ge\w*")
KERNEL_NAME = re.compile(rb"(?<=\0)(aclnn[A-Z]\w*?)(?:GetWorkspaceSize)?(?=\0)")
FIRST_CXX20_TORCH = (2, 11)  # whose headers need C++20; those before are written for C++17


class Unavailable(Exception):
    """The emulated cards cannot be had on this machine; the text says why."""


def wheel() -> Path:
    """The folder of a torch_npu for the installed torch; downloaded at the first call.

    Raises:
        Unavailable: there is none, or no network.
    """
    folder = CACHE / TORCH / "wheel"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "torch_npu").is_dir():
            words = [
                *("install", "--quiet", "--disable-pip-version-check", "--retries=1"),
                *("--no-deps", "--only-binary=:all:"),  # compiled, as it is imported often
                *(f"--target={folder}", f"torch_npu=={TORCH}.*"),
            ]
            done = subprocess.run(
                [sys.executable, "-m", "pip", *words], capture_output=True, text=True
            )
            if done.returncode != 0:
                reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
                raise Unavailable(f"no torch_npu for torch {TORCH} can be had: {reason}")
    return folder


def libraries() -> Path:
    """The folder of the emulated CANN's libraries; compiled at the first call.

    Raises:
        Unavailable: there is no torch_npu or no compiler.
        subprocess.CalledProcessError: a source does not compile.
    """
    if shutil.which("g++") is None or shutil.which("nm") is None:
        raise Unavailable("g++ and nm are needed to compile the emulated CANN")
    sources = sorted(SOURCES.iterdir())
    digest = hashlib.sha256(b"".join(map(Path.read_bytes, (*sources, Path(__file__)))))
    folder = CACHE / TORCH / digest.hexdigest()[:12]
    package = wheel()
    with FileLock(CACHE / TORCH / "build.lock"):  # tests side by side build it once
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            _compile(package, partial)
            partial.rename(folder)
    return folder


def environment(*, cards: int = 2, soc: str = "Ascend910B2", **others: str) -> dict[str, str]:
    """The environment of a process that finds the emulated cards.

    Args:
        cards: how many there are.
        soc: name of the chip, which decides what it can: see ``soc`` in cann/cards.cpp.
        others: more variables.

    Raises:
        Unavailable: see ``libraries``.
    """
    if (
        importlib.util.find_spec("torch_npu") is not None
        and "EMULATED_CANN_CARDS" not in os.environ
    ):
        raise Unavailable("torch_npu is installed here, perhaps with a real CANN")
    folder, package = libraries(), wheel()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TORCH_", "ASCEND_"))}
    paths = [str(package), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "LD_LIBRARY_PATH": str(folder),
        "ASCEND_HOME_PATH": str(folder / "home"),
        "ASCEND_TOOLKIT_HOME": str(folder / "home"),
        "ASCEND_OPP_PATH": str(folder / "home" / "opp"),
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
        "TORCH_NPU_FALLBACK_CPU_DISABLE": "1",  # an operator without a kernel is an error
        "EMULATED_CANN_CARDS": str(cards),
        "EMULATED_CANN_SOC": soc,
        **others,
    }


# -------------------------------------------------------------------------------------- compiling


def _compile(package: Path, folder: Path) -> None:
    import torch

    home = Path(torch.__file__).parent
    for name in ("runtime", "compiler", "opp"):
        (folder / "home" / name).mkdir(parents=True)
    new = tuple(map(int, TORCH.split(".")[:2])) >= FIRST_CXX20_TORCH
    flags = [
        *("-O0", "-w", "-fPIC", "-std=c++20" if new else "-std=c++17"),
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}",
        *("-isystem", str(home / "include"), f"-I{SOURCES}"),
    ]
    sources = sorted(SOURCES.glob("*.cpp"))
    objects = [folder / f"{source.stem}.o" for source in sources]
    running = [
        subprocess.Popen(["g++", *flags, "-c", str(source), "-o", str(made)])
        for source, made in zip(sources, objects, strict=True)
    ]
    for process in running:
        if process.wait() != 0:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    rest = folder / "rest.c"
    rest.write_text(_functions_that_refuse(package, home, objects))
    # On the loader's path as well: torch_npu opens some of them by name.
    _link(folder, MAIN_LIBRARY, *map(str, objects), "-x", "c++", str(rest), "-x", "none",
          *(f"-L{home / 'lib'}", "-ltorch_cpu", "-lc10", "-lpthread", "-lrt"),
          f"-Wl,-rpath,{home / 'lib'}")  # fmt: skip
    for name in EMPTY_LIBRARIES:
        _link(folder, name, f"-L{folder}", "-Wl,--no-as-needed", f"-l{MAIN_LIBRARY}")
    for path in (*objects, rest):
        path.unlink()
    (folder / "home" / "lib64").mkdir()  # where CANN has them
    (folder / "home" / "lib64" / "libopapi.so").symlink_to(f"../../lib{MAIN_LIBRARY}.so")


def _link(folder: Path, name: str, *words: str) -> None:
    made = f"lib{name}.so"
    flags = ("-w", "-shared", "-fPIC", f"-Wl,-soname,{made}", "-o", str(folder / made))
    subprocess.run(["g++", *flags, *words], check=True)


def _functions_that_refuse(package: Path, home: Path, objects: list[Path]) -> str:
    """Source of all that torch_npu asks of CANN and that is not emulated: each call is an error."""
    own = sorted((package / "torch_npu").rglob("*.so"))
    kernels = {
        name.decode() + suffix
        for name in KERNEL_NAME.findall((package / "torch_npu/lib/libtorch_npu.so").read_bytes())
        for suffix in ("", "GetWorkspaceSize")
    }
    asked = {name for name in _symbols("--undefined-only", own) if CANN_NAME.fullmatch(name)}
    there = _symbols("--defined-only", [*own, *(home / "lib").glob("*.so")])
    there |= _symbols("--defined-only", objects, dynamic=False)
    lines = ["int emulated_cann_refuse(const char*);", 'extern "C" {']
    for name in sorted((asked | kernels) - there):
        called = name.removesuffix("GetWorkspaceSize")
        lines.append(f'int {name}() {{ return emulated_cann_refuse("{called}"); }}')
    return "\n".join([*lines, "}"])


def _symbols(which: str, files: list[Path], *, dynamic: bool = True) -> set[str]:
    words = ["nm", *(["-D"] if dynamic else []), which, "--format=posix", *map(str, files)]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return {line.split()[0].partition("@")[0] for line in text.splitlines() if " " in line}


# ---------------------------------------------------------------------------------------- counting


@contextmanager
def recorded(log: Path) -> Iterator[Counter[str]]:
    """Count what this process asks of its cards within the block.

    The keys are the lines of the log without their numbers: "kernel aclnnAdd",
    "copy host-to-device queued", "copy device-to-host blocking", "synchronize stream",
    "collective HcclAllReduce", "operator NPUGetFloatStatus" …

    Args:
        log: a file to write, which must not exist.
    """
    import torch

    cann = ctypes.CDLL(f"lib{MAIN_LIBRARY}.so")
    counts: Counter[str] = Counter()
    torch.npu.synchronize()  # what came before the block is not of it
    cann.emulated_cann_log(str(log).encode())
    try:
        yield counts
        torch.npu.synchronize()
    finally:
        cann.emulated_cann_log(None)
    counts.update(re.sub(r"( \w+)? \d+$", r"\1", line) for line in log.read_text().splitlines())
    counts["synchronize card"] -= 1  # of the block's end
