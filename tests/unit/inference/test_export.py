"""A generator for inference only."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from wav2lip_npu import checkpoint
from wav2lip_npu.cli import main
from wav2lip_npu.inference.backends import open_generator
from wav2lip_npu.models import Generator
from wav2lip_npu.runtime.device import Device

pytestmark = pytest.mark.usefixtures("thin")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint with an average that is not the weights."""
    torch.manual_seed(0)
    raw, ema = Generator(), Generator()
    path = tmp_path / checkpoint.file_name(40)
    optimizer = torch.optim.Adam(raw.parameters())
    checkpoint.save(path, raw, optimizer, step=40, epoch=1, extra={"ema": ema.state_dict()})
    return path


@pytest.mark.parametrize(("weights", "kind"), [("auto", "ema"), ("ema", "ema"), ("raw", "raw")])
def test_weights_are_those_asked_for(weights: str, kind: str, saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "to" / "generator.pth"
    words = ["export", "--checkpoint-path", str(saved), "--outfile", str(out)]
    assert main([*words, "--weights", weights]) == 0
    content = torch.load(saved, weights_only=True)
    expected = content["wav2lip_npu"]["ema"] if kind == "ema" else content["state_dict"]
    exported = checkpoint.read(out)
    assert (exported.optimizer, exported.global_step) == (None, 40)
    network = Generator()
    checkpoint.load_network(network, exported)
    tensors = load_file(out.with_suffix(".safetensors"))
    for name, value in expected.items():
        assert torch.equal(exported.state_dict[name], value)
        assert torch.equal(tensors[name], value)
    assert tensors.keys() == expected.keys()
    with safe_open(out.with_suffix(".safetensors"), "pt") as file:
        assert file.metadata() == {"step": "40", "weights": kind}
    assert out.stat().st_size < saved.stat().st_size / 1.5


def test_what_cannot_be_exported(
    saved: Path, expert_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "a.pth")
    assert main(["export", "--checkpoint_path", str(expert_file), "--outfile", out]) == 2
    assert "holds the lip-sync expert, the generator is wanted" in capsys.readouterr().err
    plain = tmp_path / "plain.pth"
    content = torch.load(saved, weights_only=True)
    torch.save({"state_dict": content["state_dict"]}, plain)
    words = ["export", "--checkpoint_path", str(plain), "--outfile", out]
    assert main([*words, "--weights", "ema"]) == 2
    assert "has no moving average" in capsys.readouterr().err
    assert not Path(out).exists()
    assert main(words) == 0


def test_the_checkpoint_is_never_replaced(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, linked = saved.read_bytes(), tmp_path / "best.pth"
    linked.hardlink_to(saved)
    for outfile in (saved, saved.with_suffix(""), saved.with_suffix(".onnx"), linked):
        words = ["export", "--checkpoint_path", str(saved), "--outfile", str(outfile)]
        assert main(words) == 2
        assert "is the checkpoint that is read" in capsys.readouterr().err
    assert saved.read_bytes() == before
    assert linked.samefile(saved)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("wav2lip-1.0", "wav2lip-1.0.pth"),
        ("v1.2.safetensors", "v1.2.pth"),
        ("plain", "plain.pth"),
        ("UPPER.PTH", "UPPER.pth"),
    ],
)
def test_names_of_what_is_written(name: str, written: str, saved: Path, tmp_path: Path) -> None:
    words = ["--checkpoint_path", str(saved), "--outfile", str(tmp_path / "new" / name)]
    assert main(["export", *words]) == 0
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {written, f"{written[:-4]}.safetensors", f"{written}.yaml"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".", "is a folder"),
        ("folder", "is a folder"),
        ("taken", "taken.pth: is to be written, and is not a file"),
        ("video.mp4", ".mp4 is not written here"),
        ("weights.pt", ".pt is not written here"),
        ("a file/g.pth", "cannot be written"),
        ("n" * 300, "File name too long"),
    ],
)
def test_outfiles_that_cannot_be(
    name: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are told before the checkpoint is read."""
    monkeypatch.setattr("wav2lip_npu.export.checkpoint.read", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken.pth").mkdir()
    (tmp_path / "a file").touch()
    (tmp_path / "wav2lip.pth").touch()
    assert main(["export", "--checkpoint_path", "wav2lip.pth", "--outfile", name]) == 2
    assert reason in capsys.readouterr().err


def test_every_form_of_weights_exports_and_generates_alike(saved: Path, tmp_path: Path) -> None:
    """A training checkpoint with averages, its export, and both wrapped as others do."""
    network = Generator().eval()
    checkpoint.load_network(network, checkpoint.read(saved).averaged())
    inputs = torch.zeros(1, 1, 80, 16), torch.zeros(1, 6, 96, 96)
    torch.jit.trace(network, inputs, check_trace=False).save(tmp_path / "traced.pt")
    torch.save(network.state_dict(), tmp_path / "bare.pth")
    named = {f"module.{name}": value for name, value in network.state_dict().items()}
    save_file(named, tmp_path / "module.safetensors")
    device, random = Device.open("cpu"), np.random.default_rng(0)
    crops = [random.integers(0, 256, (96, 96, 3), np.uint8)]
    chunks = [random.normal(size=(80, 16)).astype(np.float32)]
    drawn = []
    others = [tmp_path / name for name in ("traced.pt", "bare.pth", "module.safetensors")]
    for number, path in enumerate([saved, *others]):
        out = tmp_path / f"exported{number}.pth"
        assert main(["export", "--checkpoint_path", str(path), "--outfile", str(out)]) == 0
        for file in (path, out, out.with_suffix(".safetensors")):
            drawn.append(open_generator(file, "torch", device).generate(crops, chunks))
    assert all(np.array_equal(one, drawn[0]) for one in drawn)
    raw = tmp_path / "raw.pth"
    words = ["--checkpoint_path", str(saved), "--outfile", str(raw), "--weights", "raw"]
    assert main(["export", *words]) == 0
    other = open_generator(raw, "torch", device).generate(crops, chunks)
    assert not np.array_equal(other, drawn[0])
