"""A generator for inference only."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from wav2lip_npu import checkpoint
from wav2lip_npu.cli import main
from wav2lip_npu.config import ExportConfig
from wav2lip_npu.inference.export import output_files
from wav2lip_npu.models import Generator

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


@pytest.mark.parametrize(
    ("outfile", "stem"),
    [
        ("wav2lip-1.0", "wav2lip-1.0"), ("g.pth", "g"), ("g.SafeTensors", "g"), ("g.onnx", "g"),
        ("口型 v2.5.pth", "口型 v2.5"), ("g", "g"), (".pth", ".pth"),
    ],
)  # fmt: skip
def test_names_of_the_files(outfile: str, stem: str, saved: Path, tmp_path: Path) -> None:
    config = ExportConfig(checkpoint_path=saved, outfile=tmp_path / "to" / outfile)
    names = {path.name for path in output_files(config).values()}
    assert names == {f"{stem}.pth", f"{stem}.safetensors"}


@pytest.mark.parametrize("outfile", ["g.pth", "g", "g.safetensors", "link.pth"])
def test_the_checkpoint_is_not_written_over(outfile: str, saved: Path, tmp_path: Path) -> None:
    own = saved.rename(tmp_path / "g.pth")
    (tmp_path / "link.pth").symlink_to("g.pth")
    before = own.read_bytes()
    words = ["export", "--checkpoint_path", str(own), "--outfile", str(tmp_path / outfile)]
    assert main(words) == 2
    assert own.read_bytes() == before


@pytest.mark.parametrize("outfile", [".", "folder", "taken", "file/g"])
def test_places_that_cannot_be_written(
    outfile: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told before anything is read or computed."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken.safetensors").mkdir()
    (tmp_path / "file").touch()
    saved.write_bytes(b"")  # reading it would be another error
    words = ["export", "--checkpoint_path", str(saved), "--outfile", str(tmp_path / outfile)]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "is a folder" in error or "cannot be written" in error
