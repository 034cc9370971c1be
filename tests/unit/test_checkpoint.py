"""The checkpoint format: the original's both ways, and what is not one."""

from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest
import torch
from formula import fill, golden_json, weight

from wav2lip_npu import checkpoint
from wav2lip_npu.errors import UserError
from wav2lip_npu.models import Generator, SyncNet, VisualQualityDiscriminator
from wav2lip_npu.runtime.files import partial_path
from wav2lip_npu.training.saving import remove_partial

PUBLISHED_KEYS = {"state_dict", "optimizer", "global_step", "global_epoch"}


def published(path: Path, name: str, prefix: str = "") -> Path:
    """A file as the authors publish it: of the golden names, not of our networks."""
    shapes = golden_json("state_dict_names")[name]
    state = {prefix + key: weight(key, tuple(shape)) for key, shape in shapes.items()}
    content = {"state_dict": state, "optimizer": None, "global_step": 7, "global_epoch": 2}
    torch.save(content, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    ("name", "network"),
    [("syncnet", SyncNet), ("wav2lip", Generator), ("disc_qual", VisualQualityDiscriminator)],
)
def test_published_files_load_strictly(
    tmp_path: Path, name: str, network: type, prefix: str
) -> None:
    loaded = checkpoint.read(published(tmp_path / "a.pth", name, prefix))
    net = network()
    checkpoint.load_network(net, loaded)
    assert (loaded.global_step, loaded.global_epoch, loaded.extra) == (7, 2, {})
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, weight(key, tuple(value.shape)), rtol=0, atol=0)


def test_ours_has_the_originals_keys_and_round_trips(tmp_path: Path) -> None:
    net = fill(VisualQualityDiscriminator()).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    net(torch.rand(1, 3, 1, 96, 96)).sum().backward()
    optimizer.step()
    path = tmp_path / "new" / checkpoint.file_name(30)
    checkpoint.save(path, net, optimizer, step=30, epoch=1, extra={"items": 480})
    assert path.name == "checkpoint_step000000030.pth"
    raw = torch.load(path, weights_only=True)
    assert raw.keys() == PUBLISHED_KEYS | {"wav2lip_npu"}
    assert raw["state_dict"].keys() == golden_json("state_dict_names")["disc_qual"].keys()
    assert all(value.is_contiguous() for value in raw["state_dict"].values())
    loaded = checkpoint.read(path)
    assert (loaded.global_step, loaded.global_epoch, loaded.extra) == (30, 1, {"items": 480})
    other = VisualQualityDiscriminator()
    checkpoint.load_network(other, loaded)
    second = torch.optim.Adam(other.parameters(), lr=5e-5, betas=(0.5, 0.999))
    checkpoint.load_optimizer(second, loaded)
    for mine, theirs in zip(optimizer.state.values(), second.state.values(), strict=True):
        torch.testing.assert_close(mine["exp_avg_sq"], theirs["exp_avg_sq"], rtol=0, atol=0)
    assert second.param_groups[0]["lr"] == 5e-5  # the options win over the file
    assert second.param_groups[0]["betas"] == (0.5, 0.999)


def test_the_newest_is_found(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "absent") is None
    for name in (
        "checkpoint_step000000009.pth",
        "checkpoint_step000000100.pth",
        "checkpoint_step1000000000.pth",
        "disc_checkpoint_step000009000.pth",
        ".checkpoint_step000009000.pth.partial",
        "checkpoint_step9.pth",
    ):
        (tmp_path / name).touch()
    assert checkpoint.newest(tmp_path) == tmp_path / "checkpoint_step1000000000.pth"


def test_moments_that_do_not_fit_are_told(tmp_path: Path) -> None:
    net = fill(VisualQualityDiscriminator())
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.rand(1, 3, 1, 96, 96)).sum().backward()
    optimizer.step()
    path = tmp_path / "a.pth"
    checkpoint.save(path, net, optimizer, step=1, epoch=0, extra={})
    loaded = checkpoint.read(path)
    state = loaded.optimizer["state"]
    other = {**state[0], "exp_avg": torch.zeros(5)}
    fresh = torch.optim.Adam(net.parameters())
    for wrong in (7, [1], {"a": {}}, {0: 3}, {0: other}, {10**6: state[0]}, {0: {"step": "x"}}):
        given = replace(loaded, optimizer={"state": wrong, "param_groups": "?"})
        with pytest.raises(UserError, match="moments do not fit"):
            checkpoint.load_optimizer(fresh, given)
        assert not fresh.state
    for nothing in (None, {}, {"state": {}}):
        checkpoint.load_optimizer(fresh, replace(loaded, optimizer=nothing))
        assert not fresh.state


def test_the_wrong_network_is_named(tmp_path: Path) -> None:
    expert = checkpoint.read(published(tmp_path / "expert.pth", "syncnet"))
    with pytest.raises(UserError, match="holds the lip-sync expert, the generator is wanted"):
        checkpoint.load_network(Generator(), expert)
    s3fd = checkpoint.read(published(tmp_path / "s3fd.pth", "s3fd"))
    with pytest.raises(UserError, match="holds the S3FD face detector"):
        checkpoint.load_network(SyncNet(), s3fd)
    expert.state_dict.pop("audio_encoder.0.conv_block.0.bias")
    with pytest.raises(UserError, match="does not fit the lip-sync expert") as caught:
        checkpoint.load_network(SyncNet(), expert)
    assert "\n" not in str(caught.value)


def test_an_older_file_survives_a_failed_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = VisualQualityDiscriminator()
    optimizer = torch.optim.Adam(net.parameters())
    path = tmp_path / "a.pth"
    checkpoint.save(path, net, optimizer, step=1, epoch=0, extra={})
    before = path.read_bytes()

    def full(content: object, file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space left on device"):
        checkpoint.save(path, net, optimizer, step=2, epoch=0, extra={})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_best_has_a_second_name(tmp_path: Path) -> None:
    first, second = tmp_path / "checkpoint_1.pth", tmp_path / "checkpoint_2.pth"
    first.write_bytes(b"one")
    second.write_bytes(b"two")
    for path in (first, second, second):
        checkpoint.name_best(path, "best.pth")
        assert (tmp_path / "best.pth").samefile(path)
    first.unlink()
    second.unlink()
    assert (tmp_path / "best.pth").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["best.pth"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    whole = tmp_path / checkpoint.file_name(3)
    names = (
        checkpoint.file_name(4),
        "disc_" + checkpoint.file_name(4),
        "best.pth",
        "disc_best.pth",
    )
    images = ("samples_step000000004.png", "film_strip.png", "curves.png", "data_check.png")
    left = [partial_path(tmp_path / name) for name in (*names, *images)]
    left += [tmp_path / f".{name}.partial" for name in names]  # of version 0.1
    kept = [whole, tmp_path / ".mine.pth.partial", partial_path(tmp_path / "mine.pth")]
    kept += [partial_path(tmp_path / "mine.png"), tmp_path / "curves.png"]
    for path in (*left, *kept):
        path.write_bytes(b"content")
    remove_partial(tmp_path)
    assert set(tmp_path.iterdir()) == set(kept)
    assert checkpoint.newest(tmp_path) == whole
