"""The scripts with which shells complete, in the shells that this machine has."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wav2lip_npu import cli
from wav2lip_npu.config.machine import SHELLS

# Completes the words that it is given, as bash does when one types Tab.
BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function=$(complete -p wav2lip-npu | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
"$function" wav2lip-npu "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script of each shell, as the command prints it."""
    folder = tmp_path_factory.mktemp("scripts")
    found = {}
    for shell in SHELLS:
        found[shell] = folder / f"wav2lip-npu.{shell}"
        words = [sys.executable, "-m", "wav2lip_npu", "completion", shell]
        found[shell].write_bytes(subprocess.run(words, capture_output=True, check=True).stdout)
    return found


def installed(shell: str) -> str:
    """The path of a shell; skips the test where it is not installed."""
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"no {shell} here")
    return path


@pytest.mark.parametrize("shell", SHELLS)
def test_the_syntax(shell: str, scripts: dict[str, Path]) -> None:
    words = [installed(shell), "-n", str(scripts[shell])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", SHELLS)
def test_all_commands_and_options_are_there(shell: str, scripts: dict[str, Path]) -> None:
    text = scripts[shell].read_text(encoding="utf-8")
    dashes = "(?:--|-l ['\"]?)"  # fish has them without
    for name in (*cli.COMMANDS, "train-wav2lip"):
        assert re.search(rf"\b{name}\b", text), name
    for name in ("checkpoint_path", "wav2lip_batch_size", "log_file", "syncnet_v2", "pingpong"):
        assert re.search(rf"{dashes}?{name}\b", text), name


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["inf"], {"infer"}),
        (["train"], {"train", "train-syncnet", "train-wav2lip"}),
        (["infer", "--checkpoint_p"], {"--checkpoint_path"}),
        (["infer", "--face_"], {"--face_cache", "--face_det_batch_size", "--face_select"}),
        (["infer", "--crf", "3", "--log_f"], {"--log_file"}),
        (["infer", "--loop", "p"], {"pingpong"}),
        (["completion", "z"], {"zsh"}),
        (["preprocess", "--audio"], set()),
    ],
)
def test_bash_completes(words: list[str], found: set[str], scripts: dict[str, Path]) -> None:
    command = [installed("bash"), "-c", BASH, "bash", str(scripts["bash"]), "wav2lip-npu", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {*done.stdout.split()} == found, done.stderr


def test_bash_completes_files(scripts: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "video.mp4").touch()
    words = ["wav2lip-npu", "infer", "--face", "vid"]
    command = [installed("bash"), "-c", BASH, "bash", str(scripts["bash"]), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "video.mp4\n"


@pytest.mark.parametrize(
    ("line", "found"),
    [("inf", {"infer"}), ("infer --checkpoint_p", {"--checkpoint_path"})],
)
def test_fish_completes(line: str, found: set[str], scripts: dict[str, Path]) -> None:
    script = f"source {scripts['fish']}; complete -C 'wav2lip-npu {line}'"
    words = [installed("fish"), "--no-config", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert {row.split("\t")[0] for row in done.stdout.splitlines()} == found


def test_it_needs_no_torch() -> None:
    code = """
import sys
from wav2lip_npu.cli import main
assert main(["completion", "bash"]) == 0
loaded = {"torch", "numpy", "cv2", "av"} & {*sys.modules}
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
