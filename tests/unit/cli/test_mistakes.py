"""What is wrong with a command line is told in one line, with what was probably meant."""

import subprocess
import sys
from pathlib import Path

import pytest

from wav2lip_npu import cli
from wav2lip_npu.cli.mistakes import nearest

ROOT = Path(__file__).parents[3]
INFER = "All options: wav2lip-npu infer --help"
COMMANDS = "All commands: wav2lip-npu --help"
MISTAKES = {
    "infre": f"there is no command infre. Did you mean infer? {COMMANDS}",
    "train_syncnet --seed 1": (
        f"there is no command train_syncnet. Did you mean train-syncnet? {COMMANDS}"
    ),
    "xyz": f"there is no command xyz. {COMMANDS}",
    "infer --chekpoint_path x": (
        f"there is no option --chekpoint_path for infer. Did you mean --checkpoint_path? {INFER}"
    ),
    "infer --checkpoint-pth=x": (
        f"there is no option --checkpoint_pth for infer. Did you mean --checkpoint_path? {INFER}"
    ),
    "infer --wav2lip 4": (
        f"there is no option --wav2lip for infer. Did you mean --wav2lip_batch_size? {INFER}"
    ),
    "infer --no-static": (
        f"there is no option --no_static for infer. Did you mean --static false? {INFER}"
    ),
    "infer --preprocessed_root x": (
        f"there is no option --preprocessed_root for infer. preprocess has it. {INFER}"
    ),
    "infer --xyzzy": f"there is no option --xyzzy for infer. {INFER}",
    "infer --face f": f"infer needs --checkpoint_path. {INFER}",
    "train --seed 1": (
        "train needs --data_root, --checkpoint_dir and --syncnet_checkpoint_path. All options: "
        "wav2lip-npu train --help"
    ),
    "infer --face": (
        f"--face: needs a value; one that begins with - is given as in --face=-1. {INFER}"
    ),
    "infer --box 1 2": f"--box: needs 4 values. {INFER}",
    "plot --runs": "--runs: needs one value or more. All options: wav2lip-npu plot --help",
    "infer --crf many": f"--crf many: must be a whole number. {INFER}",
    "infer --start 1:30": f"--start 1:30: must be a number. {INFER}",
    "infer --static maybe": f"--static maybe: must be true or false. {INFER}",
    "infer --loop twice": f"--loop twice: choose from repeat, pingpong, hold, cut. {INFER}",
    "infer --checkpoint_path a b c": (
        f"b c: belongs to no option of infer; quote values that have spaces. {INFER}"
    ),
    "--device cpu infer": (
        "--device comes before the command. Options follow it, as in: wav2lip-npu infer --device"
    ),
    "--device cpu": f"--device without a command. {COMMANDS}",
    "completion tcsh": (
        "shell tcsh: choose from bash, zsh, fish. All options: wav2lip-npu completion --help"
    ),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_one_line(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words.split()) == 2
    told = capsys.readouterr()
    assert told.err == f"wav2lip-npu: {MISTAKES[words]}\n"
    assert told.out == ""


def test_of_a_script_of_the_guide(tmp_path: Path) -> None:
    """Its command is in it: the help is asked for without."""
    words = [sys.executable, str(ROOT / "scripts" / "inference.py"), "--adio", "x"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "inference.py: there is no option --adio for infer. Did you mean --audio? All options: "
        "inference.py --help\n"
    )


def test_nothing_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    alone = capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    assert capsys.readouterr().out == alone
    assert all(f"    {name}" in alone for name in cli.COMMANDS)


def test_the_help_comes_before_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["infer", "--xyzzy", "--config", "none.yaml", "--help"])
    assert capsys.readouterr().out.startswith("usage: wav2lip-npu infer ")


def test_nearest() -> None:
    words = ("data_root", "device", "devices", "detector", "no_face")
    assert nearest("devcie", words) == "device"
    assert nearest("det", words) == "detector"  # the only one that begins so
    assert nearest("de", words) is None
    assert nearest("", words) is None
