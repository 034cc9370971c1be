"""The command line: fast help, options in both spellings, errors in one line."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import numbered, write_video

from wav2lip_npu import cli
from wav2lip_npu.cli import parser
from wav2lip_npu.config import GeneratorConfig, InferConfig, PlotConfig
from wav2lip_npu.errors import UserError

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numpy", "cv2", "av", "librosa", "matplotlib")


def parse(*words: str) -> dict[str, object]:
    return dict(parser.parse(words, "x").options)


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = f"""
import sys
from wav2lip_npu.cli import main
try:
    main({words!r})
finally:
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "usage: wav2lip-npu" in done.stdout


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_shows_every_default(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # one line per option
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    text = capsys.readouterr().out.partition("options:")[2]
    texts = dict(re.findall(r"^  (--\w+)((?:.*\n)(?:    .*\n)*)", text, re.MULTILINE))
    options = dataclasses.fields(cli.COMMANDS[command].config)
    for option in (item for item in options if not item.metadata["positional"]):
        text = texts[f"--{option.name}"].strip()
        if option.default is dataclasses.MISSING:
            assert "default" not in text
        elif option.default in (None, ()):  # its text says what happens without it
            assert re.search(r"\(default: [^)]+\)|required without --jobs", text)
            assert text.count("(default: ") < 2
        else:
            values = option.default if isinstance(option.default, tuple) else (option.default,)
            assert text.endswith(f"(default: {' '.join(map(str, values))})")


def test_importing_the_package_changes_nothing_else() -> None:
    """Environment, garbage collector and signals of a program that imports it stay as they are."""
    code = """
import gc, os, signal
state = lambda: (dict(os.environ), gc.isenabled(), gc.get_freeze_count(), gc.get_threshold(),
                 signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
before = state()
import wav2lip_npu
assert state() == before
import av, cv2, soxr, torch  # OpenCV itself sets LD_LIBRARY_PATH
before = state()
for name in wav2lip_npu.__all__:
    getattr(wav2lip_npu, name)
from wav2lip_npu import LipSync, UserError, load_audio
assert state() == before
"""
    environment = {**os.environ}
    environment.pop("TORCH_DEVICE_BACKEND_AUTOLOAD", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_the_command_line_keeps_torch_from_loading_extensions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Set before torch is imported, and inherited by worker processes."""
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD", raising=False)
    (tmp_path / "torch.py").write_text(
        "import os; raise SystemExit(os.environ['TORCH_DEVICE_BACKEND_AUTOLOAD'])"
    )
    words = ["-m", "wav2lip_npu", "export", "--checkpoint_path", "a", "--outfile", "b"]
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "0\n")


def test_both_spellings() -> None:
    required = ("--checkpoint-path", "c", "--face", "a-b", "--audio=d--e")
    options = parse("infer", *required, "--face-det-batch-size=4", "--wav2lip_batch_size", "8")
    config = InferConfig(**options)
    assert (config.checkpoint_path, config.face) == (Path("c"), Path("a-b"))
    assert config.audio == Path("d--e")  # values are left alone
    assert (config.face_det_batch_size, config.wav2lip_batch_size) == (4, 8)


@pytest.mark.parametrize(
    ("words", "static"), [([], False), (["--static"], True), (["--static", "False"], False)]
)
def test_static_false_is_false(words: list[str], static: bool) -> None:
    options = parse("infer", "--checkpoint_path", "c", "--face", "f", "--audio", "a", *words)
    assert InferConfig(**options).static is static


def test_negative_and_grouped_numbers() -> None:
    options = parse(
        *("infer", "--checkpoint_path", "c", "--face", "f", "--audio", "a"),
        *("--box", "-1", "-1", "-1", "-1", "--pads", "0", "20", "0", "0"),
    )
    config = InferConfig(**options)
    assert (config.box, config.pads) == ((-1, -1, -1, -1), (0, 20, 0, 0))


def plot_options(*words: str) -> PlotConfig:
    return PlotConfig(**parse("plot", *words))


def test_options_of_any_number_of_values() -> None:
    config = plot_options("--runs", "a", "~/b", "c d", "--labels", "1", "2", "3", "--metrics", "l1")
    assert config.runs == (Path("a"), Path.home() / "b", Path("c d"))
    assert (config.labels, config.metrics) == (("1", "2", "3"), ("l1",))
    # Given twice nothing is lost, though the words of other options have fixed numbers.
    again = plot_options("--runs", "a", "--metrics", "x", "--runs", "b", "c", "--metrics", "y")
    assert again.runs == (Path("a"), Path("b"), Path("c"))
    assert again.metrics == ("x", "y")
    alone = plot_options("--runs", "a")
    assert (alone.labels, alone.metrics, alone.outdir) == (None, None, Path("plots"))
    for words in (("--runs",), ()):
        with pytest.raises(UserError, match="needs"):
            plot_options(*words)


def test_train_wav2lip_is_train() -> None:
    words = ("--data_root", "d", "--checkpoint_dir", "c", "--syncnet_checkpoint_path", "s")
    assert parse("train-wav2lip", *words) == parse("train", *words)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"batch_size": 0}, "--batch_size 0: must be 1 or more"),
        ({"batch_size": 10**9}, "--batch_size 1000000000: must be 65536 or less"),
        ({"device": "gpu"}, "--device gpu: choose from auto"),
        ({"precision": "int8"}, "--precision int8: choose from"),
        ({"learning_rate": 0.0}, "--learning_rate 0.0: must be above 0"),
        ({"disc_checkpoint_path": Path("x")}, "no effect without --disc"),
    ],
)
def test_options_are_validated(changes: dict[str, object], reason: str) -> None:
    given = {"data_root": Path(), "checkpoint_dir": Path(), "syncnet_checkpoint_path": Path()}
    with pytest.raises(UserError, match=reason):
        GeneratorConfig(**{**given, **changes})


@pytest.fixture
def bad_inputs(tmp_path: Path, speech: Path, face: np.ndarray) -> Path:
    write_video(tmp_path / "mute.mp4", numbered(5))
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "html.pth").write_text("<!doctype html>")
    (tmp_path / "folder").mkdir()
    wrong = {"state_dict": {"binary_pred.0.weight": torch.zeros(1)}, "global_step": 1}
    torch.save(wrong, tmp_path / "wrong.pth")
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("train.txt", "val.txt"):
        (lists / name).write_text("gone/1\ngone/2\n")
    write_video(tmp_path / "face.mp4", [face] * 5, audio=speech)
    return tmp_path


INFER = ("infer", "--checkpoint_path")
BAD = {
    "missing face": ([*INFER, "wrong.pth", "--face", "no.mp4", "--audio", "speech.wav"], "no.mp4"),
    "missing audio": ([*INFER, "wrong.pth", "--face", "face.mp4", "--audio", "no.wav"], "no.wav"),
    "text as video": (
        [*INFER, "wrong.pth", "--face", "text.mp4", "--audio", "speech.wav"],
        "media",
    ),
    "mute video": ([*INFER, "wrong.pth", "--face", "face.mp4", "--audio", "mute.mp4"], "no audio"),
    "wrong network": (
        [*INFER, "wrong.pth", "--face", "face.mp4", "--audio", "speech.wav"],
        "holds the visual quality discriminator, the generator is wanted",
    ),
    "web page": ([*INFER, "html.pth", "--face", "face.mp4", "--audio", "speech.wav"], "web page"),
    "no checkpoint": ([*INFER, "no.pth", "--face", "face.mp4", "--audio", "speech.wav"], "no.pth"),
    "empty folder": (
        ["preprocess", "--data_root", "folder", "--preprocessed_root", "o"],
        "no video",
    ),
    "no folder": (["preprocess", "--data_root", "nowhere", "--preprocessed_root", "o"], "nowhere"),
    "absent clips": (
        ["train-syncnet", "--data_root", ".", "--checkpoint_dir", "o", "--filelists", "lists"],
        "none of its 2 clips is usable",
    ),
    "no list": (
        ["train-syncnet", "--data_root", ".", "--checkpoint_dir", "o", "--filelists", "folder"],
        "train.txt: no such file",
    ),
    "no expert": (
        [
            *("train", "--data_root", ".", "--checkpoint_dir", "o", "--filelists", "lists"),
            *("--syncnet_checkpoint_path", "html.pth"),
        ],
        "web page",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line(
    case: str,
    bad_inputs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(bad_inputs)
    words, reason = BAD[case]
    assert cli.main([*words, "--device", "cpu"]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert errors[0].startswith("wav2lip-npu: error: ")
    assert reason in errors[0]
    with pytest.raises(UserError):
        cli.main([*words, "--device", "cpu", "--debug"])


def test_paths() -> None:
    common = ("infer", "--checkpoint_path", "~/c", "--face=~/a b.mp4", "--audio")
    options = parse(*common, "~x.wav")
    assert options["checkpoint_path"] == Path.home() / "c"
    assert (options["face"], options["audio"]) == (Path.home() / "a b.mp4", Path("~x.wav"))


def test_an_empty_path_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["infer", "--checkpoint_path", "c", "--face", "", "--audio", "a"]) == 2
    assert '--face "": must be a name, and is empty.' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("a\nb\udcff: bad"), 2, r"error: a\nb\udcff: bad"),
        (
            RuntimeError("EI0004: The ranktable is invalid"),
            2,
            "error: RuntimeError: EI0004: The ranktable is invalid; HCCL's rank table is wrong; "
            "torchrun needs none: unset RANK_TABLE_FILE",
        ),
        (
            TypeError("no\nsense"),
            1,
            "error: unexpected error (TypeError: no sense); this is a fault of wav2lip-npu; "
            "--debug shows the traceback",
        ),
        (OSError(28, "No space left on device", "a/b"), 2, "error: a/b: No space left on device"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            2,
            "error: out of memory; with smaller batches less is needed (--wav2lip_batch_size, "
            "--face_det_batch_size)",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_any_error_is_one_line(
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(config: InferConfig) -> None:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "infer", cli.Command(InferConfig, fail))
    words = ["infer", "--checkpoint_path", "c", "--face", "f", "--audio", "a"]
    assert cli.main(words) == code
    assert capsys.readouterr().err == f"wav2lip-npu: {line}\n"
    if code in (1, 2):
        with pytest.raises(type(error)):
            cli.main([*words, "--debug"])


CLOSED_STDERR = """
import os, sys
from wav2lip_npu import cli
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, {number})
sys.exit(cli.main({words}))
"""


@pytest.mark.parametrize(
    ("number", "words", "code"),
    [
        (2, ["infer", "--checkpoint_path", "c", "--face", "no", "--audio", "a"], 2),
        (1, ["doctor", "--device", "cpu"], 2),
    ],
)
def test_output_that_nobody_reads(number: int, words: list[str], code: int) -> None:
    script = CLOSED_STDERR.format(number=number, words=words)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == code
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("script", "command"),
    [
        ("preprocess", "preprocess"),
        ("color_syncnet_train", "train-syncnet"),
        ("wav2lip_train", "train"),
        ("hq_wav2lip_train", "train"),
        ("inference", "infer"),
    ],
)
def test_the_guides_scripts(script: str, command: str, tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), "--help"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"usage: {script}.py {command}" in done.stdout
