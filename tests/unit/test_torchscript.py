"""TorchScript archives, as the published checkpoints are: read, and never run."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from formula import fill
from helpers import Bomb, same_weights
from torch import nn

from wav2lip_npu import checkpoint
from wav2lip_npu.models import Generator, SyncNet
from wav2lip_npu.weight_files import WeightFileError, read_content

pytestmark = pytest.mark.usefixtures("thin")  # except for SyncNet, whose widths are few

INPUTS = {
    Generator: (torch.zeros(1, 1, 80, 16), torch.zeros(1, 6, 96, 96)),
    SyncNet: (torch.zeros(1, 1, 80, 16), torch.zeros(1, 15, 48, 96)),
}


@pytest.mark.parametrize("kind", [Generator, SyncNet])
@pytest.mark.parametrize(
    ("how", "dtype"),
    [("traced", torch.float32), ("traced", torch.float16), ("scripted", torch.float32)],
)
def test_torchscript_archives(
    how: str, kind: type[nn.Module], dtype: torch.dtype, tmp_path: Path
) -> None:
    """As the published Wav2Lip-SD-GAN.pt; torch's own loader, which runs it, is the reference."""
    network = fill(kind()).eval().to(dtype)
    path = tmp_path / "network.pt"
    if how == "traced":
        inputs = tuple(part.to(dtype) for part in INPUTS[kind])
        archive = torch.jit.trace(network, inputs, check_trace=False)
    else:
        archive = torch.jit.script(network)
    archive.save(path)
    read = read_content(path)["state_dict"]
    expected = torch.jit.load(path).state_dict()
    assert same_weights(read, dict(expected))
    assert all(read[name].dtype == value.dtype for name, value in expected.items())
    network = kind()
    checkpoint.load_network(network, checkpoint.read(path, network))
    whole = {k: v.float() if v.is_floating_point() else v for k, v in read.items()}
    assert same_weights(network.state_dict(), whole)


def rewrite(path: Path, change: Callable[[str, bytes], bytes], **options: Any) -> None:
    """The same archive with other content."""
    with zipfile.ZipFile(path) as archive:
        content = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in content.items():
            archive.writestr(name, change(name, data))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "small.pt"
    torch.jit.script(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))).save(path)
    return path


@pytest.mark.parametrize("version", [b"1\n", b"2\n", b"3\n"])
def test_torchscript_of_older_torch(version: bytes, archive: Path) -> None:
    """Versions differ in the code; the pickle is the same."""
    expected = dict(torch.jit.load(archive).state_dict())
    rewrite(archive, lambda name, data: version if name.endswith("/version") else data)
    assert same_weights(read_content(archive)["state_dict"], expected)


def memo_bomb(data: bytes) -> bytes:
    return b"\x80\x02}r" + (2**31).to_bytes(4, "little") + b"."


def larger_tensor(data: bytes) -> bytes:
    assert b"K\x02K\x03\x86" in data or b"K\x02K\x03t" in data
    return data.replace(b"K\x02K\x03", b"K\x7fK\x7f", 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: pickle.dumps(Bomb(), protocol=2), "builtin.*print"),
        (lambda data: pickle.dumps(Bomb(), protocol=4), "operation (FRAME|SHORT_BINUNICODE)"),
        (memo_bomb, "operation LONG_BINPUT"),
        (larger_tensor, "larger than its storage"),
        (lambda data: data[:-20], "cannot be read"),
        (lambda data: b"\x80\x02R.", "cannot be read"),
        (lambda data: b"\x80\x02}.", "without named weights"),
    ],
)
def test_nothing_in_an_archive_is_executed(
    change: Callable[[bytes], bytes],
    reason: str,
    archive: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    rewrite(archive, lambda name, data: change(data) if name.endswith("/data.pkl") else data)
    with pytest.raises(WeightFileError, match=reason) as caught:
        read_content(archive)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_archive_that_grows_is_refused(archive: Path) -> None:
    rewrite(archive, lambda name, data: data + bytes(10**6), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightFileError, match="packed again"):
        read_content(archive)
