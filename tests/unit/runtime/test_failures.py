"""What is said of an exception, and whether it is tried again."""

import errno
import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime import failures


def raised(action: object) -> BaseException:
    with pytest.raises(Exception) as caught:
        action()  # type: ignore[operator]
    return caught.value


def test_a_reason_is_one_line_of_any_exception(tmp_path: Path) -> None:
    missing = raised(lambda: (tmp_path / "a\nb").read_text())
    assert failures.reason(missing) == f"{tmp_path}/a b: No such file or directory"
    assert failures.reason(UserError("clip: no face")) == "clip: no face"
    assert failures.reason(ValueError()) == "ValueError"
    assert failures.reason(KeyError("a")) == "KeyError: 'a'"
    long = failures.reason(RuntimeError("torch\n" * 500))
    assert "\n" not in long
    assert len(long) < 400


def test_out_of_memory_is_known_whoever_says_it() -> None:
    # Torch's own error, OpenCV's, Python's and the system's.
    too_large = raised(lambda: torch.empty(2**60, dtype=torch.uint8))
    opencv = cv2.error("OpenCV(5.0) alloc.cpp: error: (-4:Insufficient memory) Failed to allocate")
    for error in (
        too_large, opencv, MemoryError(), OSError(errno.ENOMEM, "x"),
        RuntimeError("NPU out of memory. Tried to allocate 2.00 GiB"),
    ):  # fmt: skip
        assert failures.is_out_of_memory(error)
        assert failures.may_pass(error)
        assert failures.reason(error) == "out of memory"
    assert not failures.is_out_of_memory(UserError("memory.mp4: no such file"))
    assert not failures.is_out_of_memory(raised(lambda: np.zeros(2)[5]))


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (TimeoutError(), True),
        (FileNotFoundError(errno.ENOENT, "no"), False),
        (PermissionError(errno.EACCES, "no"), False),
        (ValueError("a bug"), False),
        (UserError("no face"), False),
    ],
)
def test_what_may_pass(error: Exception, passes: bool) -> None:
    assert failures.may_pass(error) is passes
    wrapped = UserError("file: cannot be read")
    wrapped.__cause__ = error
    assert failures.may_pass(wrapped) is passes
    assert failures.is_disk_full(wrapped) is (getattr(error, "errno", 0) == errno.ENOSPC)


def test_what_ffmpeg_says_of_a_bad_file_does_not_pass(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(os.urandom(1000))
    error = raised(lambda: av.open(str(tmp_path / "bad.mp4")))
    assert isinstance(error, av.FFmpegError)
    assert not failures.may_pass(error)


def test_how_a_process_ended() -> None:
    assert failures.describe_exit(3) == "exited with code 3"
    assert failures.describe_exit(-11) == "was ended by signal SIGSEGV"
    assert failures.describe_exit(-9) == "was ended by signal SIGKILL, possibly out of memory"
