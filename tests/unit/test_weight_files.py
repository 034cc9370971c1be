"""Weights in the forms that people have, and what is said of files that hold none."""

import gzip
import io
import os
import pickle
import resource
import tarfile
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formula import fill
from helpers import Bomb, same_weights
from safetensors.torch import save_file
from torch import nn

from wav2lip_npu import checkpoint
from wav2lip_npu.errors import UserError
from wav2lip_npu.models import Generator, SyncNet, VisualQualityDiscriminator
from wav2lip_npu.runtime.files import WriteError
from wav2lip_npu.weight_files import WeightFileError, read_content, write_pth, write_safetensors

pytestmark = pytest.mark.usefixtures("thin")  # except for SyncNet, whose widths are few

Weights = dict[str, torch.Tensor]


def load(path: Path, network: nn.Module) -> Weights:
    """What a network holds after a file was read into it."""
    checkpoint.load_network(network, checkpoint.read(path, network))
    return network.state_dict()


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: value for name, value in weights.items()}


FORMS: dict[str, Callable[[Weights, Path], Any]] = {
    "bare": lambda w, path: torch.save(w, path),
    "legacy": lambda w, path: torch.save(w, path, _use_new_zipfile_serialization=False),
    "module": lambda w, path: torch.save({"state_dict": prefixed("module.", w)}, path),
    "compiled": lambda w, path: torch.save(prefixed("_orig_mod.module.", w), path),
    "model": lambda w, path: torch.save({"model": w, "epoch": 3}, path),
    "lightning": lambda w, path: torch.save({"state_dict": prefixed("generator.", w)}, path),
    "params_ema": lambda w, path: torch.save({"params_ema": w}, path),
    "nested": lambda w, path: torch.save({"nets": {"model": {"state_dict": w}}}, path),
    "pair": lambda w, path: torch.save(
        {"generator": w, "discriminator": VisualQualityDiscriminator().state_dict()}, path
    ),
    "safetensors": save_file,
    "safetensors module": lambda w, path: save_file(prefixed("module.", w), path),
    "bf16 safetensors": lambda w, path: save_file(
        {k: v.bfloat16() if v.is_floating_point() else v for k, v in w.items()}, path
    ),
    "half": lambda w, path: torch.save({k: v.half() for k, v in w.items()}, path),
    "no counters": lambda w, path: torch.save(
        {k: v for k, v in w.items() if not k.endswith("num_batches_tracked")}, path
    ),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ""])
@pytest.mark.parametrize("form", FORMS)
def test_weights_in_any_form(form: str, suffix: str, tmp_path: Path) -> None:
    expected = fill(Generator()).state_dict()
    path = tmp_path / f"weights{suffix}"
    FORMS[form](dict(expected), path)
    loaded = load(path, Generator())
    with torch.device("meta"):
        empty = Generator()
    assert same_weights(load(path, empty), loaded)
    assert all(value.dtype == expected[name].dtype for name, value in loaded.items())
    narrow = {"bf16 safetensors": torch.bfloat16, "half": torch.float16}.get(form)
    if narrow is not None:
        expected = {k: v.to(narrow).to(v.dtype) for k, v in expected.items()}
    assert same_weights(loaded, dict(expected))


def test_names_of_files(tmp_path: Path) -> None:
    """A name may be Chinese, in GBK too, or have a suffix that means something else."""
    weights = fill(VisualQualityDiscriminator()).state_dict()
    for name in ("生成器.pth", os.fsdecode("生成器.pth".encode("gbk")), "a b$(x).onnx", "-.mp4"):
        torch.save(weights, tmp_path / "plain.pth")
        (tmp_path / "plain.pth").rename(tmp_path / name)
        assert same_weights(load(tmp_path / name, VisualQualityDiscriminator()), dict(weights))


def test_weights_are_aligned_as_torch_aligns_them(tmp_path: Path) -> None:
    """Else the last bits of what is computed with them would differ from run to run."""
    network = fill(VisualQualityDiscriminator())
    traced = torch.jit.trace(network, torch.zeros(1, 3, 5, 96, 96), check_trace=False)
    traced.save(tmp_path / "d.pt")
    save_file(network.state_dict(), tmp_path / "d.safetensors")
    for name in ("d.pt", "d.safetensors"):
        with torch.device("meta"):
            empty = VisualQualityDiscriminator()
        loaded = load(tmp_path / name, empty)
        assert all(value.data_ptr() % 64 == 0 for value in loaded.values() if value.numel())


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_the_disk_says_is_passed_on(tmp_path: Path, name: str) -> None:
    weights = {"a": torch.zeros(10**6)}
    path = tmp_path / name
    path.write_text("former")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, hard))
    try:
        with pytest.raises(WriteError, match=rf"{name}: cannot be written \(.*File too large"):
            if path.suffix == ".pth":
                write_pth(path, weights)
            else:
                write_safetensors(path, weights, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [(name, "former")]


def test_averages_in_foreign_containers(tmp_path: Path) -> None:
    plain, averaged = (fill(Generator()).state_dict() for _ in range(2))
    averaged = {name: value / 2 for name, value in averaged.items()}
    path = tmp_path / "timm.pth"
    torch.save({"state_dict": plain, "state_dict_ema": prefixed("module.", averaged)}, path)
    found = checkpoint.read(path)
    assert same_weights(found.state_dict, dict(plain))
    assert same_weights(found.for_inference().state_dict, averaged)
    assert same_weights(found.for_inference("raw").state_dict, dict(plain))


def test_several_networks_of_a_kind_are_refused(tmp_path: Path) -> None:
    weights = fill(Generator()).state_dict()
    path = tmp_path / "two.pth"
    torch.save({"one": weights, "two": weights}, path)
    with pytest.raises(UserError, match=r"holds the generator several times \(one, two\)"):
        checkpoint.read(path)
    torch.save({"g": weights, "d": VisualQualityDiscriminator().state_dict()}, path)
    with pytest.raises(UserError, match="holds several networks: generator, visual"):
        checkpoint.read(path)
    with pytest.raises(UserError, match="several networks"):
        checkpoint.read(path, SyncNet())


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("wav2lip.pth", b"content")


def tarred(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("wav2lip.pth"), io.BytesIO())


def cut(path: Path, *, legacy: bool = False, share: float = 0.5) -> None:
    torch.save(fill(Generator()).state_dict(), path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def cut_safetensors(path: Path, share: float = 0.5) -> None:
    save_file(fill(Generator()).state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip(path: Path) -> None:
    torch.save(fill(Generator()).state_dict(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 435801865\n"
OTHER_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nothing": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "link loop": (lambda path: path.symlink_to(path.name), "given"),
    "pipe": (lambda path: os.mkfifo(path), "not a regular file"),
    "broken link": (lambda path: path.symlink_to("../blobs/1"), r"a link to \.\./blobs/1"),
    "empty": (lambda path: path.touch(), "is empty"),
    "git-lfs": (lambda path: path.write_text(POINTER), "pointer of git-lfs"),
    "web page": (lambda path: path.write_text("\n <!DOCTYPE html><html>"), "web page"),
    "text": (lambda path: path.write_text("Quota exceeded é" * 99), "text file .*'Quota"),
    "zeros": (lambda path: path.write_bytes(bytes(9999)), "zeros, as an unfinished download"),
    "noise": (lambda path: path.write_bytes(bytes(range(255, 0, -1))), "format is not known"),
    "zip": (zipped, "a ZIP archive of wav2lip.pth, .* unpack it"),
    "empty zip": (lambda path: zipfile.ZipFile(path, "w").close(), "ZIP"),
    "tar": (tarred, "an archive .tar"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"x")), "an archive .gzip"),
    "7z": (lambda path: path.write_bytes(b"7z\xbc\xaf\x27\x1c\x00\x04"), "an archive .7z"),
    "rar": (lambda path: path.write_bytes(b"Rar!\x1a\x07\x01\x00"), "an archive .RAR"),
    "npy": (lambda path: np.save(path.open("wb"), np.zeros(3)), "NumPy array"),
    "npz": (lambda path: np.savez(path.open("wb"), a=np.zeros(3)), "NumPy arrays"),
    "onnx": (lambda path: path.write_bytes(b"\x08\x07\x12\x07pytorch\x1a"), "ONNX file"),
    "half a download": (cut, "is cut off"),
    "all but the end": (lambda path: cut(path, share=0.99999), "is cut off"),
    "legacy cut": (lambda path: cut(path, legacy=True), "is cut off or damaged"),
    "legacy cut early": (lambda path: cut(path, legacy=True, share=0.0002), "cut off or damaged"),
    "safetensors cut": (cut_safetensors, "is cut off"),
    "safetensors cut early": (lambda path: cut_safetensors(path, 0.001), "is cut off"),
    "flipped bit": (flip, "is damaged .*CRC"),
    "pickled network": (lambda path: torch.save(nn.Linear(2, 2), path), r"network .*Linear.*save"),
    "network in it": (
        lambda path: torch.save({"model": nn.Linear(2, 2)}, path), r"network .*Linear.*save",
    ),
    "legacy network": (
        lambda path: torch.save(nn.ReLU(), path, _use_new_zipfile_serialization=False),
        r"network .*ReLU.*save",
    ),
    "objects": (
        lambda path: torch.save({"args": Namespace(a=1), "w": torch.ones(2)}, path),
        "objects of argparse.Namespace",
    ),
    "code": (lambda path: torch.save({"state_dict": Bomb()}, path), "objects of .*print"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": Bomb()})), "could run code"),
    "a list": (lambda path: torch.save([torch.zeros(1)], path), "holds a list"),
    "a tensor": (lambda path: torch.save(torch.zeros(1), path), "holds a Tensor"),
    "no weights": (lambda path: torch.save({"state_dict": {}}, path), "no weights"),
    "words": (lambda path: torch.save({"state_dict": {"a": "b"}}, path), "no weights"),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("case", OTHER_FILES)
def test_what_a_file_is_instead(
    case: str, suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, reason = OTHER_FILES[case]
    path = tmp_path / f"given{suffix}"
    make(path)
    with pytest.raises(WeightFileError, match=reason) as caught:
        checkpoint.read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < len(str(path)) + 250
    assert not any(word in message for word in ("weights_only", "trust", "unsafe"))
    assert "executed" not in capfd.readouterr().out


def test_a_file_cut_anywhere_is_named(tmp_path: Path) -> None:
    """Also where the cut leaves what looks whole."""
    whole = io.BytesIO()
    torch.save({"state_dict": {"binary_pred.0.weight": torch.arange(64.0)}}, whole)
    old = io.BytesIO()
    torch.save({"a": torch.arange(64.0)}, old, _use_new_zipfile_serialization=False)
    path = tmp_path / "cut.pth"
    for content in (whole.getvalue(), old.getvalue()):
        for length in range(0, len(content), 7):
            path.write_bytes(content[:length])
            with pytest.raises(WeightFileError):
                checkpoint.read(path)


ODD_VALUES = [
    "3",
    "three",
    float("nan"),
    -1,
    1e30,
    True,
    None,
    [1],
    {"a": 1},
    torch.zeros(3),
    10**400,
]


def test_a_flipped_bit_is_named_or_does_no_harm(tmp_path: Path) -> None:
    path, weights = tmp_path / "w.pth", {"a": torch.arange(10.0)}
    torch.save(weights, path)
    good, refused = path.read_bytes(), 0
    for place in range(0, len(good), 5):
        damaged = bytearray(good)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert same_weights(read_content(path), weights)
        except WeightFileError:
            refused += 1
    assert refused > len(good) // 20


@pytest.mark.parametrize("value", ODD_VALUES)
def test_wrong_types_inside_are_no_traceback(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    weights = fill(VisualQualityDiscriminator()).state_dict()
    for key in ("global_step", "global_epoch", "optimizer", checkpoint.OUR_KEY):
        torch.save({"state_dict": weights, key: value}, path)
        found = checkpoint.read(path)
        expected = {"3": 3, "True": 1}.get(str(value), 0)
        for name in ("global_step", "global_epoch"):
            assert getattr(found, name) == (expected if key == name else 0)
        assert found.optimizer is None or isinstance(found.optimizer, dict)
        assert isinstance(found.extra, dict)
    torch.save({"state_dict": weights, checkpoint.OUR_KEY: {"ema": value}}, path)
    with pytest.raises(UserError, match="has no moving average"):
        checkpoint.read(path).averaged()


def test_weights_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    network = VisualQualityDiscriminator()
    weights = dict(fill(network).state_dict())
    name = "binary_pred.0.weight"
    for change, reason in (
        ({name: torch.zeros(3, 2)}, rf"{name} is 3 × 2, 1 × \d+ × 1 × 1 is wanted"),
        ({name: weights[name].to(torch.int8)}, r"no plain floats, but torch.int8"),
        ({name: weights[name].to_sparse()}, r"no plain floats, but .*sparse"),
        ({name: weights[name] * torch.nan}, rf"1 of its \d+ tensors are not finite, as {name}"),
        ({name: weights[name] * torch.inf}, "not finite"),
        ({"more": torch.zeros(1)}, "it adds 1 tensors, as more"),
    ):
        torch.save({**weights, **change}, path)
        with pytest.raises(UserError, match=reason) as caught:
            load(path, network)
        assert "\n" not in str(caught.value)
    large = {**weights, name: torch.full_like(weights[name], 3e38)}  # a finite sum is no condition
    torch.save(large, path)
    load(path, network)
