"""The script that starts an Ascend container, tested by the command that it would run."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "run_ascend_container.sh"


def run(*words: str, cwd: Path, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *words], cwd=cwd, env={"PATH": path}, capture_output=True, text=True
    )


def dry_run(*words: str, cwd: Path) -> list[str]:
    done = run("--dry-run", *words, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return shlex.split(done.stdout)


def expected(cards: list[int], work: str, *rest: str) -> list[str]:
    """The guide's command, word for word."""
    devices = [*(f"davinci{card}" for card in cards), "davinci_manager", "devmm_svm", "hisi_hdc"]
    return [
        *("docker", "run", "-itd"),
        *(f"--device=/dev/{name}" for name in devices),
        *("-v", "/usr/local/bin/npu-smi:/usr/local/bin/npu-smi"),
        *("-v", "/usr/local/dcmi:/usr/local/dcmi"),
        *("-v", "/etc/ascend_install.info:/etc/ascend_install.info"),
        *("-v", "/sys/fs/cgroup:/sys/fs/cgroup:ro"),
        *("-v", "/usr/local/Ascend/driver:/usr/local/Ascend/driver"),
        *("--shm-size", "32g", "--net=bridge", "-v", work, *rest),
    ]


def test_the_guides_command(tmp_path: Path) -> None:
    wanted = expected([0], f"{tmp_path}:/workspace", "-w", "/workspace", "--name", "wav2lip-npu")
    assert dry_run("image", cwd=tmp_path) == [*wanted, "image", "bash"]


@pytest.mark.parametrize(
    ("cards", "numbers"),
    [("3", [3]), ("0,2", [0, 2]), ("0-3", [0, 1, 2, 3]), ("7,0-1", [7, 0, 1]), ("08", [8])],
)
def test_cards_by_number(cards: str, numbers: list[int], tmp_path: Path) -> None:
    work = f"{tmp_path}:/workspace"
    wanted = expected(numbers, work, "-w", "/workspace", "--name", "wav2lip-npu", "image", "bash")
    assert dry_run("--cards", cards, "image", cwd=tmp_path) == wanted
    assert dry_run(f"--cards={cards}", "image", cwd=tmp_path) == wanted


def test_names_with_spaces(tmp_path: Path) -> None:
    work = tmp_path / "my work's folder"
    work.mkdir()
    wanted = expected(
        [0], f"{work}:/home/a b", "-v", "/data/LRS 2:/data", "-w", "/home/a b", "--name", "a-b",
        "registry/image:1", "python", "-c", "print('two  words')",
    )  # fmt: skip
    options = ("--work-dir", work.name, "--container-work-dir", "/home/a b", "--name", "a-b")
    command = ("registry/image:1", "python", "-c", "print('two  words')")
    assert dry_run(*options, "--volume", "/data/LRS 2:/data", *command, cwd=tmp_path) == wanted


def test_what_the_shell_runs_is_what_was_printed(tmp_path: Path) -> None:
    """A fake docker prints its arguments; it is run with the printed command."""
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    docker.chmod(0o755)
    line = run("--dry-run", "--volume", "/a b:/c$d", "image", cwd=tmp_path).stdout
    path = f"{tmp_path}{os.pathsep}/usr/bin:/bin"
    words = subprocess.run(
        ["bash", "-c", line], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    assert words.stdout.splitlines() == shlex.split(line)[1:]


def test_npu_smi_is_mounted_from_where_it_is(tmp_path: Path) -> None:
    program = tmp_path / "npu-smi"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    done = run("--dry-run", "image", cwd=tmp_path, path=f"{tmp_path}{os.pathsep}/usr/bin:/bin")
    assert f"{program}:{program}" in shlex.split(done.stdout)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "no IMAGE given"),
        (["--cards", "a", "image"], "--cards a: must be indices"),
        (["--cards", "3-1", "image"], "--cards 3-1: 3-1 is in descending order"),
        (["--cards", "", "image"], "--cards: needs at least one card"),
        (["--cards"], "--cards: needs a value"),
        (["--gpus", "all", "image"], "--gpus: no such option"),
        (["--work-dir", "no where", "image"], "--work-dir no where: no such folder"),
        (["--container-work-dir", "/a:b", "image"], "docker cannot mount a path with a colon"),
        (["--cards", "0", "image"], "/dev/davinci0: not on this host"),
    ],
)
def test_mistakes_get_one_line(words: list[str], reason: str, tmp_path: Path) -> None:
    if Path("/dev/davinci0").exists() and "not on this host" in reason:
        pytest.skip("this host has Ascend cards")
    done = run(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"run_ascend_container\.sh: error: .*\n", done.stderr)
    assert reason in done.stderr


def test_help(tmp_path: Path) -> None:
    text = run("--help", cwd=tmp_path).stdout
    assert text.startswith("usage: run_ascend_container.sh ")
    assert "169.254.169.254" in text


def test_the_images_versions_go_together() -> None:
    """The Dockerfile's versions are one line of the table in the docs."""
    dockerfile = (ROOT / "docker" / "Dockerfile.ascend").read_text()
    arguments = dict(re.findall(r"^ARG (\w+)=(.+)$", dockerfile, re.MULTILINE))
    cann = re.search(r"/cann:([\d.]+)-", arguments["CANN_IMAGE"])
    assert cann is not None
    row = rf"\| {arguments['TORCH']} \| {arguments['TORCH_NPU']} \| {cann[1]} \|"
    assert re.search(row, (ROOT / "docs" / "ascend.md").read_text())
