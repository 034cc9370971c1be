"""Ctrl-C and SIGTERM: how the command line ends."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wav2lip_npu import cli
from wav2lip_npu.config import InferConfig

INTERRUPTED = """
import os, signal, sys, threading, time
from pathlib import Path
from wav2lip_npu import cli
from wav2lip_npu.config import InferConfig

def wait(config):
    try:
        print("started", flush=True)
        time.sleep(60)
    finally:
        Path(sys.argv[1]).touch()
        {after}

cli.COMMANDS["infer"] = cli.Command(InferConfig, wait)
sys.exit(cli.main(["infer", "--checkpoint_path", "c", "--face", "f", "--audio", "a"]))
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("after", ["pass", "time.sleep(60)", "raise ValueError"])
def test_an_interrupted_run_cleans_up_and_ends_soon(
    number: str, after: str, tmp_path: Path
) -> None:
    script = INTERRUPTED.format(after=after)
    words = [sys.executable, "-c", script, str(tmp_path / "cleaned")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "started\n"
        run.send_signal(getattr(signal, number))
        assert run.wait(timeout=30) == 130  # of the minute that it would take
        assert run.stderr.read() == "wav2lip-npu: interrupted\n"
    assert (tmp_path / "cleaned").exists()


def test_an_interrupt_within_a_destructor_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def run(config: InferConfig) -> None:
        kept = [Interrupted()]
        kept.clear()
        time.sleep(1)
        raise AssertionError("not interrupted")

    monkeypatch.setitem(cli.COMMANDS, "infer", cli.Command(InferConfig, run))
    assert cli.main(["infer", "--checkpoint_path", "c", "--face", "f", "--audio", "a"]) == 130
    assert capsys.readouterr().err == "wav2lip-npu: interrupted\n"


IMPORTING = """
import builtins, os, signal, sys
import numpy
from wav2lip_npu import cli
from wav2lip_npu.config import InferConfig

def import_module(name, *others, **options):
    if name.endswith("_multiarray_umath"):
        signal.raise_signal(signal.SIGTERM)
    return original(name, *others, **options)

def run(config):
    builtins.__import__ = import_module
    import cv2

original = builtins.__import__
cli.COMMANDS["infer"] = cli.Command(InferConfig, run)
sys.exit(cli.main(["infer", "--checkpoint_path", "c", "--face", "f", "--audio", "a"]))
"""


def test_an_interrupt_while_c_code_imports_numpy() -> None:
    """NumPy prints the interrupt and raises ImportError instead."""
    words = [sys.executable, "-c", IMPORTING]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "wav2lip-npu: interrupted\n")
