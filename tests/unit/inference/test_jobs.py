"""``--jobs``: what a list may look like; a job that fails in any way costs itself alone."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wav2lip_npu.config import InferConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference import jobs
from wav2lip_npu.inference.jobs import Job, infer_jobs, read_jobs
from wav2lip_npu.runtime.files import partial_path

HEADER = "face,audio,outfile\n"


def config(folder: Path, **options: object) -> InferConfig:
    common = {"checkpoint_path": folder / "g.pth", "jobs": folder / "jobs.csv"}
    return InferConfig(**common | options)


def read(
    folder: Path, content: str | bytes, **options: object
) -> tuple[list[tuple[str, str, str]], dict[str, str]]:
    text = content if isinstance(content, bytes) else content.encode()
    (folder / "jobs.csv").write_bytes(text)
    found, faults = read_jobs(config(folder, **options))
    return [(str(one.face), str(one.audio), str(one.outfile)) for one in found], faults


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("line", "job"),
    [
        ("a.mp4,b.wav,c.mp4", ("a.mp4", "b.wav", "c.mp4")),
        (" a.mp4 , b.wav ,c.mp4 ", ("a.mp4", "b.wav", "c.mp4")),
        ('"a, ""b"".mp4",b.wav,c.mp4', ('a, "b".mp4', "b.wav", "c.mp4")),
        ("视频.mp4,it's $(x).wav,-c.mp4", ("视频.mp4", "it's $(x).wav", "-c.mp4")),
        ("~/a.mp4,~b.wav,o/c.MKV", (str(Path.home() / "a.mp4"), "~b.wav", "o/c.MKV")),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n \n,,\n", ""])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_lines(tmp_path: Path, line: str, job: tuple[str, ...], end: str, start: str) -> None:
    content = start + HEADER.replace("\n", end or "\n") + line + end
    assert read(tmp_path, content) == ([job], {})


def test_columns_in_any_order(tmp_path: Path) -> None:
    found, _ = read(tmp_path, "outfile, face, audio\nc.mp4,a.mp4,b.wav\n")
    assert found == [("a.mp4", "b.wav", "c.mp4")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a,b", "face,audio,outfile are wanted, 2 fields are there"),
        ("a,b,c.mp4,d", "face,audio,outfile are wanted, 4 fields are there"),
        ("a,,c.mp4", "audio is missing"),
        ('"a.mp4,b.wav,c.mp4', "face,audio,outfile are wanted, 1 fields are there"),
        ("a" * 200_000 + ",b,c.mp4", "field larger than field limit"),
        ("a,b,c.gif", "c.gif: the suffix .gif cannot be written; choose one of .mp4"),
        ("a,b,folder/x.mp4/c.mp4", "folder/x.mp4/c.mp4: cannot be written"),
        ("a,b,first.mp4", "first.mp4: line 2 writes it already"),
        ("a,b,./folder/../first.mp4", "first.mp4: line 2 writes it already"),
        ("a,b,link/x.mp4", "link/x.mp4: is an input of line 2"),
        ("a,b,hard.mp4", "hard.mp4: is an input of line 2"),
        ("a,b,soft.mp4", "soft.mp4: is an input of line 2"),
        ("a,b,weights.mp4", "is also an input (weights.mp4)"),
    ],
)
def test_a_bad_line_costs_itself(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    face = tmp_path / "folder" / "x.mp4"
    face.write_bytes(b"x")
    (tmp_path / "weights.mp4").touch()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "soft.mp4").symlink_to(face)
    os.link(face, tmp_path / "hard.mp4")
    content = f"{HEADER}folder/x.mp4,b.wav,first.mp4\n{line}\nfolder/x.mp4,b.wav,last.mp4\n"
    found, faults = read(tmp_path, content, checkpoint_path=Path("weights.mp4"))
    assert [outfile for _, _, outfile in found] == ["first.mp4", "last.mp4"]
    assert [*faults] == ["line 3"] and reason in faults["line 3"]


def test_an_outfile_that_a_later_line_reads(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    found, faults = read(tmp_path, f"{HEADER}x.png,b.wav,a.mp4\na.mp4,b.wav,c.mp4\n")
    assert [outfile for _, _, outfile in found] == ["c.mp4"]
    assert faults == {"line 2": "a.mp4: is an input of line 3"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "jobs.csv: cannot be read"),
        ("", "its first line must be face,audio,outfile"),
        (b"\0\0\0", "is not text in UTF-8"),
        ("face;audio;outfile\na;b;c.mp4\n", "its first line must be face,audio,outfile"),
        ("face,audio\na,b\n", "its first line must be face,audio,outfile"),
        ("face,audio,outfile,crf\n", "its first line must be face,audio,outfile"),
        (HEADER, "has no jobs"),
        ("face,audio,outfile\n视频.mp4,b,c.mp4\n".encode("gbk"), "jobs.csv: is GBK"),
        ("face,audio,outfile\na,b,c.mp4\n".encode("utf-16"), "jobs.csv: is UTF-16"),
    ],
)
def test_lists_that_cannot_be_used(
    tmp_path: Path, content: str | bytes | None, reason: str
) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        read_jobs(config(tmp_path)) if content is None else read(tmp_path, content)
    assert "\n" not in str(caught.value)


class Worker:
    """Stands for ``JobWorker``: the name of the face says what happens."""

    def __init__(self, config: InferConfig, workers: int, card_offset: int) -> None:
        self.config = config

    def process(self, job: Job) -> None:
        options = job.options(self.config)
        with Path("log").open("a") as log:
            print(job.face, options.wav2lip_batch_size, options.face_det_batch_size, file=log)
        happens = job.face.stem
        if happens == "crash":
            partial_path(job.outfile).touch()
            os.kill(os.getpid(), signal.SIGSEGV)
        if happens == "memory" and options.wav2lip_batch_size > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
        if happens == "disk":
            raise OSError(28, "No space left on device", str(job.outfile))
        if happens == "fault":
            raise TypeError("no\nsense")
        if happens == "bad":
            raise UserError("bad.mp4: no such file")
        if happens == "wait":
            partial_path(job.outfile).touch()
            Path("started").touch()
            time.sleep(60)
        job.outfile.touch()


def test_a_job_that_fails_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a real process: a crash, too little memory, a full disk, a fault, a bad file."""
    monkeypatch.setattr(jobs, "JobWorker", Worker)
    names = ["one", "crash", "memory", "disk", "fault", "bad", "two"]
    lines = [f"{name}.mp4,a.wav,{name}.out.mp4\n" for name in names]
    (tmp_path / "jobs.csv").write_text(HEADER + "only,two\n" + "".join(lines))
    options = config(tmp_path, wav2lip_batch_size=5, face_det_batch_size=1)
    with caplog.at_level(logging.INFO), pytest.raises(UserError) as caught:
        infer_jobs(options)
    failed = "line 2, fault.out.mp4, bad.out.mp4, crash.out.mp4, disk.out.mp4"
    assert str(caught.value) == f"{tmp_path / 'jobs.csv'}: 5 of 8 jobs failed: {failed}"
    errors = [one.message for one in caplog.records if one.levelname == "ERROR"]
    assert errors == [
        "line 2: face,audio,outfile are wanted, 2 fields are there",
        "fault.out.mp4: TypeError: no sense",
        "bad.out.mp4: bad.mp4: no such file",
        "crash.out.mp4: the process that did it was ended by signal SIGSEGV",
        "disk.out.mp4: disk.out.mp4: No space left on device",
    ]
    first = [f"{name}.mp4 5 1" for name in names]
    again = [f"{name}.mp4 3 1" for name in ("crash", "memory", "disk")]  # with half of the batch
    assert (tmp_path / "log").read_text().splitlines() == first + again
    made = sorted(path.name for path in tmp_path.glob("*.out.mp4"))
    assert made == ["memory.out.mp4", "one.out.mp4", "two.out.mp4"]
    assert not list(tmp_path.glob(".*"))
    # Those that failed are tried again, the others not.
    (tmp_path / "log").unlink()
    (tmp_path / "jobs.csv").write_text(HEADER + "".join(lines[:3]))
    with pytest.raises(UserError, match=r"1 of 1 jobs failed: crash\.out\.mp4"):
        infer_jobs(config(tmp_path, resume=True))
    assert {line.split()[0] for line in (tmp_path / "log").read_text().splitlines()} == {
        "crash.mp4"
    }


INTERRUPTED = """
import sys
from pathlib import Path
from wav2lip_npu import cli
from wav2lip_npu.inference import jobs
import test_jobs

if __name__ == "__main__":
    jobs.JobWorker = test_jobs.Worker
    sys.exit(cli.main(["infer", "--checkpoint_path", "g.pth", "--jobs", "jobs.csv"]))
"""


@pytest.mark.parametrize("to_group", [False, True])
def test_an_interrupted_list_leaves_no_half_file(tmp_path: Path, to_group: bool) -> None:
    (tmp_path / "jobs.csv").write_text(f"{HEADER}wait.mp4,a.wav,o.mp4\nnext.mp4,a.wav,p.mp4\n")
    (tmp_path / "o.mp4").write_text("former")
    (tmp_path / "run.py").write_text(INTERRUPTED)
    paths = [str(Path(__file__).parent), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    words = [sys.executable, "run.py"]
    with subprocess.Popen(
        words, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        deadline = time.monotonic() + 60
        while not (tmp_path / "started").exists():
            assert time.monotonic() < deadline and run.poll() is None, run.stderr.read()
            time.sleep(0.05)
        kill = os.killpg if to_group else os.kill
        kill(run.pid, signal.SIGTERM)
        assert run.wait(timeout=30) == 130
        assert "Traceback" not in run.stderr.read()
    assert sorted(path.name for path in tmp_path.iterdir() if "partial" in path.name) == []
    assert (tmp_path / "o.mp4").read_text() == "former"
