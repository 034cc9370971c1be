"""Locks between processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.locks import LOCK, first_alone, folder_lock, is_in_use, mark_in_use

HOLD = """
import sys, time
from pathlib import Path
from wav2lip_npu.runtime.locks import folder_lock
with folder_lock(Path(sys.argv[1]), "train"):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen:
    """Another process that has locked ``tmp_path / "out"``."""
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "locked\n"
    yield other
    other.kill()
    other.wait()
    other.stdout.close()


def test_a_second_run_is_refused_and_told_who_is_there(
    tmp_path: Path, holder: subprocess.Popen, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    there = rf"another run works there \(train, process {holder.pid}"
    with pytest.raises(UserError, match=there), folder_lock(out, "preprocess"):
        pytest.fail("it is locked")
    holder.kill()
    holder.wait()
    caplog.set_level("INFO")
    with folder_lock(out, "preprocess"):  # the kernel has freed it; that it was killed is said
        assert f"an earlier run there was ended (train, process {holder.pid}" in caplog.text
    caplog.clear()
    with folder_lock(out, "preprocess"):  # the last one has ended as it should
        assert not caplog.text
    assert [path.name for path in out.iterdir()] == [LOCK]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = pytest.raises(UserError, match=r"file: cannot be written \(")
    with refused, folder_lock(tmp_path / "file", "train"):
        pytest.fail("a file is no folder")


def test_whatever_is_in_a_lock_file(tmp_path: Path) -> None:
    for content in (b"\xff\xfe", b"[]", b'{"pid": 1}', b"x" * 10_000):
        (tmp_path / LOCK).write_bytes(content)
        with folder_lock(tmp_path, "train"):
            pass


def test_files_in_use(tmp_path: Path) -> None:
    path = tmp_path / "train.crops"
    assert not is_in_use(path)
    path.touch()
    with mark_in_use(path), mark_in_use(path):
        assert is_in_use(path)
    assert not is_in_use(path)


ALONE = """
import sys, time
from pathlib import Path
from wav2lip_npu.runtime.locks import first_alone
folder = Path(sys.argv[1])
with first_alone(folder) as is_first:
    if is_first and not (folder / "built").exists():
        (folder / "begun").touch()
        time.sleep(0.5)
        (folder / "built").touch()
    print((folder / "built").exists())
"""


def test_one_process_goes_first_and_the_others_find_what_it_made(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALONE, str(tmp_path / "cache")]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [run.communicate(timeout=60)[0] for run in runs] == ["True\n"] * 3


def test_nobody_waits_where_no_lock_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with first_alone(tmp_path / "file") as is_first:
        assert is_first
    with folder_lock(tmp_path, "train"), first_alone(tmp_path) as is_first:  # one folder for both
        assert is_first
