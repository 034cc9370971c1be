"""docs/messages.md has every message of the code, and no other; printed ones are found there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from messages import SHORT, Message, collect, look_up, rows

from wav2lip_npu import cli
from wav2lip_npu.cli.ending import USER_ERROR_CODE
from wav2lip_npu.errors import UserError

ROOT = Path(__file__).parents[2]
PAGE, CHINESE = ROOT / "docs/messages.md", ROOT / "docs/zh/messages.md"
# Where a new row goes, by the folder of the code; the first that fits.
SECTIONS = (
    (r"cli/|console/|config/|run_options", "The command line"),
    (r"doctor/", "What the doctor finds"),
    (r"face_detection/|runtime/device|demo/speech|demo/talking", "Devices and installation"),
    (r"demo/", "The demo"),
    (r"ui/", "The page in the browser"),
    (r"media/(audio|mix|sound)|mel\.", "Sound"),
    (r"media/|tracking/|preprocessing/clip", "Videos, pictures and faces"),
    (r"data/|preprocessing/", "Data and lists"),
    (r"training/", "Training"),
    (r"checkpoint|weight_files|state_dicts|torchscript", "Checkpoints and weights"),
    (r"inference/|blending/|export|onnx", "Inference and export"),
    (r"sync/|alignment/|evaluation/|plotting/", "Sync, evaluation and charts"),
    (r"", "Disk, memory and processes"),
)


def section_of(file: str) -> str:
    return next(title for pattern, title in SECTIONS if re.search(pattern, file))


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return collect()


def listed() -> list[str]:
    return [text for row in rows(PAGE) for text in row.messages]


def test_every_message_is_on_the_page(messages: list[Message]) -> None:
    known = {*listed()}
    lacking = [
        f"section “{section_of(message.file)}” ({message.file}:{message.line}):\n"
        f"| `{message.text}` | what it means | what to do |"
        for message in messages
        if message.text not in known
    ]
    assert not lacking, (
        f"{len(lacking)} messages have no row. Add these, with your words, to docs/messages.md and "
        "in the same order to docs/zh/messages.md, in Chinese. A part of "
        "a message that says nothing alone goes into NO_MESSAGES of tests/messages.py.\n"
        + "\n".join(lacking)
    )


def test_the_page_has_no_message_that_the_code_does_not_have(messages: list[Message]) -> None:
    made = {message.text for message in messages} | {*SHORT}
    stale = [text for text in listed() if text not in made]
    assert not stale, "remove from docs/messages.md and docs/zh/messages.md:\n" + "\n".join(stale)
    assert len(listed()) == len({*listed()}), "a message has two rows"


def test_every_section_of_the_rules_is_on_the_page() -> None:
    titles = {row.section for row in rows(PAGE)}
    assert {title for _, title in SECTIONS} - titles <= {"The page in the browser"}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Files with which commands fail."""
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html></html>")
    (tmp_path / "text.mp4").write_text("no video " * 40)
    (tmp_path / "jobs.csv").write_text("a,b\n1,2\n")
    (tmp_path / "lists").mkdir()
    for name in ("train.txt", "val.txt"):
        (tmp_path / "lists" / name).write_bytes("说话人/00001\n".encode("gbk"))
    return tmp_path


INFER = "infer --checkpoint_path {0}/page.pth"
TRAIN = "train-syncnet --data_root {0} --checkpoint_dir {0}/out --device cpu"


@pytest.mark.parametrize(
    ("command", "template"),
    [
        ("infer", "needs …"),
        ("infr", "there is no command … All commands: … --help"),
        ("doctor --devise cpu", "there is no option --… for … All options: …"),
        ("doctor cpu", "belongs to no option of …; quote values that have spaces"),
        ("doctor --device", "needs a value; one that begins with - is given as in …=-1"),
        (f"{INFER} --fps fast", "must be a number"),
        (f"{INFER} --blend glue", "--…: choose from …"),
        (f"{INFER} --pads 1 2", "needs … values"),
        ("plot --runs", "needs one value or more"),
        (f"{INFER} --static maybe", "must be true or false"),
        (f"{INFER} --pads 0 -1 0 0 --face a --audio b", "--pads …: must not be negative"),
        (f"{INFER} --face a", "--audio: is required, or --voices with a list of them, or --jobs"),
        (f"{INFER} --jobs {{0}}/jobs.csv", "its first line must be …, and may have … besides"),
        (f"{INFER} --face {{0}}/text.mp4 --audio {{0}}/text.mp4", "cannot be read as media (…)"),
        (
            "export --checkpoint_path {0}/page.pth --outfile {0}/a.pth",
            "is a web page, not a checkpoint; download the file itself",
        ),
        (
            "preprocess --data_root {0}/none --preprocessed_root {0}/clips",
            "--data_root …: no such folder",
        ),
        (
            "preprocess --data_root {0}/lists --preprocessed_root {0}/clips",
            "no video in it, at any depth (…)",
        ),
        (f"{TRAIN} --filelists {{0}}/lists", "is …, it seems; save it as UTF-8"),
        (
            f"{TRAIN} --filelists {{0}}/none",
            "no such file; wav2lip-npu filelists writes it, or list there a clip's folder a line, "
            "relative to --data_root",
        ),
        (f"{TRAIN} --device tpu", "--device …: choose from …, or one card as in npu:1"),
    ],
)
def test_what_a_command_prints_is_found_on_the_page(
    command: str, template: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = cli.main(command.format(files).split())
    except SystemExit as exit:  # argparse's way
        code = exit.code
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == USER_ERROR_CODE
    found = look_up(PAGE, line)
    assert found is not None, line
    assert found == template, line


def test_a_message_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Nothing is left out in silence."""
    package = tmp_path / "wav2lip_npu"
    package.mkdir()
    (package / "a.py").write_text("def f(x: dict) -> None:\n    raise UserError(x['fault'])\n")
    with pytest.raises(UserError, match=r"a\.py:2: UserError\(x\['fault'\]\)"):
        collect(tmp_path)


def test_texts_are_followed(tmp_path: Path) -> None:
    """Through helpers, parameters, variables, tables, fields and parts of messages."""
    package = tmp_path / "wav2lip_npu"
    package.mkdir()
    (package / "a.py").write_text(SOURCE)
    found = {message.text for message in collect(tmp_path)}
    assert found == {
        "is of a wrong kind",
        "is much too large",
        "is much too small",
        "was given by keyword",
        "has … lines, and the last is cut off",
        "disk: … free in …",
        "a table's first text",
        "a table's second text",
        "the reason of a field",
        "left out: …",
        "… of … files are odd",
    }


SOURCE = """
TABLE = ((1, "a table's first text"), (2, "a table's second text"))

class BadFile(UserError):
    pass

def kind(path):
    return BadFile(f"{path}: is of a wrong kind")

def fault(size) -> str | None:
    if size > 9:
        return "is much too large"
    return None if size else "is much too small"

def check(path, size):
    raise kind(path)
    if (problem := fault(size)) is not None:
        raise UserError(f"{path}: {problem}")

def complain(text: str) -> None:
    raise UserError(text)

def run(path, lines, job):
    complain(text="was given by keyword")
    tail = ", and the last is cut off"
    raise UserError(f"{path}: has {len(lines)} lines" + tail)
    for _, text in TABLE:
        log.warning("%s: %s", path, text)
    log.warning("%d of %d files are odd", 1, 2)
    log.warning("left out: %s", job.reason)

def make():
    return Job(reason="the reason of a field")

def diagnose(folder, size):
    return Finding.warning("disk", f"{size} free in {folder}", "free some")
"""
