"""Where a training begins: at weights, at the newest whole checkpoint; names that are wrong."""

import dataclasses
from pathlib import Path

import pytest
import torch
from formula import fill
from helpers import generator_config, syncnet_config, trainer

from wav2lip_npu import checkpoint
from wav2lip_npu.errors import UserError
from wav2lip_npu.models import Generator, VisualQualityDiscriminator
from wav2lip_npu.runtime.locks import folder_lock
from wav2lip_npu.training.metrics import MetricsFile
from wav2lip_npu.training.trainer import train_generator, train_syncnet

pytestmark = pytest.mark.usefixtures("thin")  # the loop does not care how large networks are


def published(path: Path, expert_file: Path, **changes: object) -> Path:
    """An expert as the authors publish it."""
    content = torch.load(expert_file, weights_only=True)
    del content["wav2lip_npu"]
    content |= {"global_step": 100, "global_epoch": 3, "optimizer": None}
    content["state_dict"] = {f"module.{k}": v for k, v in content["state_dict"].items()}
    torch.save({**content, **changes}, path)
    return path


def test_weights_start_a_new_training_which_is_then_resumed(
    clips: Path, expert_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foreign, out = published(tmp_path / "lipsync_expert.pth", expert_file), tmp_path / "out"
    config = syncnet_config(clips, out, checkpoint_path=foreign, ema=0.9, max_steps=2)
    run = trainer(config)
    assert (run.step, run.samples, run.best, run.files.published) == (0, 0, None, [])
    expected = checkpoint.read(foreign).state_dict
    for network in run.task.trained[""].networks():  # the averages begin with these weights too
        assert all(torch.equal(v, expected[k]) for k, v in network.state_dict().items())
    assert run.task.trained[""].ema.updates == 0
    with caplog.at_level("INFO"):
        run.run()
    assert "data check:" in caplog.text
    # The same command goes on from what it has done …
    caplog.clear()
    with caplog.at_level("INFO"):
        assert trainer(config).step == 2
    assert "lipsync_expert.pth: not used" in caplog.text
    foreign.unlink()
    assert trainer(config).step == 2
    # … even if it names an older step of the folder.
    own = dataclasses.replace(config, checkpoint_path=out / checkpoint.file_name(1))
    caplog.clear()
    assert trainer(own).step == 2
    assert "is newer and is resumed" in caplog.text
    with pytest.raises(UserError, match="2 steps are done already"):
        trainer(config).run()


def test_a_training_started_from_another_has_a_state_of_its_own(
    clips: Path, expert_file: Path, tmp_path: Path
) -> None:
    first = generator_config(
        clips, tmp_path / "first", expert_file, ema=0.9, disc=True, max_steps=1
    )
    trainer(first).run()
    path = tmp_path / "first" / checkpoint.file_name(1)
    for prefix in ("", "disc_"):
        place = path.with_name(prefix + path.name)
        content = torch.load(place, weights_only=True)
        content["wav2lip_npu"] |= {"sync_weight": 0.03, "best": {"metric": "ema_sync", "value": -9}}
        torch.save(content, place)
    config = dataclasses.replace(
        first, checkpoint_dir=tmp_path / "second", checkpoint_path=path, warmup_steps=2
    )
    run = trainer(config)
    assert (run.step, run.samples, run.best, run.task.sync_weight) == (0, 0, None, 0)
    assert all(one.spike_filter.skipped_steps() == (0, 0) for one in run.task.trained.values())
    for prefix, trained in run.task.trained.items():
        found = checkpoint.read(path.with_name(prefix + path.name))
        state = trained.network.state_dict()
        assert all(torch.equal(state[name], value) for name, value in found.state_dict.items())
        moments = trained.optimizer.state_dict()["state"]
        expected = found.optimizer["state"]
        assert len(moments) == len(expected)
        assert all(torch.equal(moments[n]["exp_avg"], v["exp_avg"]) for n, v in expected.items())
    fresh = trainer(dataclasses.replace(config, reset_optimizer=True))
    assert not any(trained.optimizer.state for trained in fresh.task.trained.values())
    run.run()
    assert MetricsFile(tmp_path / "second").read()["learning_rate", "train"] == {1: 5e-5}
    assert (tmp_path / "second" / "best.pth").is_file()


def test_moments_of_another_optimizer_are_left_out(
    clips: Path, expert_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    momentum = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []}
    foreign = published(tmp_path / "sgd.pth", expert_file, optimizer=momentum)
    run = trainer(syncnet_config(clips, tmp_path / "out", checkpoint_path=foreign))
    assert not run.task.trained[""].optimizer.state
    assert "sgd.pth: its optimizer's moments do not fit" in caplog.text


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    for place in range(middle, middle + 200):  # more than the padding between two tensors
        content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("prefix", ["", "disc_"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_resumed(
    prefix: str,
    clips: Path,
    expert_file: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    config = generator_config(
        clips, out, expert_file, disc=True, max_steps=3, checkpoint_interval=1, eval_interval=9
    )
    trainer(config).run()
    damage(out / (prefix + checkpoint.file_name(3)))
    run = trainer(config)
    assert run.step == 2
    assert f"{prefix}{checkpoint.file_name(3)}: is damaged" in caplog.text
    assert {path.name for path in out.glob("*step*.pth")} >= {checkpoint.file_name(3)}
    (out / checkpoint.file_name(2)).write_bytes(b"")
    assert trainer(config).step == 1
    (out / checkpoint.file_name(1)).write_bytes((out / checkpoint.file_name(3)).read_bytes()[:999])
    if not prefix:
        with pytest.raises(UserError, match="none of its 3 checkpoints can be used"):
            trainer(config)


def test_another_network_in_the_folder_is_an_error(
    clips: Path, expert_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / checkpoint.file_name(5)).write_bytes(expert_file.read_bytes())
    with pytest.raises(UserError, match="holds the lip-sync expert, the generator is wanted"):
        trainer(generator_config(clips, out, expert_file))


def test_odd_states_are_no_traceback(clips: Path, expert_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    content = torch.load(expert_file, weights_only=True)
    path = out / checkpoint.file_name(3)
    for key, value in (("items", "x"), ("best", "x"), ("published", 3), ("config", [])):
        torch.save({**content, "wav2lip_npu": {key: value}}, path)
        run = trainer(syncnet_config(clips, out))
        assert (run.samples, run.best, run.files.published) == (0, None, [])
    torch.save({**content, "wav2lip_npu": {"watch": {"highest": 1}}}, path)
    with pytest.raises(UserError, match="state of the training cannot be taken up"):
        trainer(syncnet_config(clips, out))
    generator = out / "g" / path.name
    for value in ("x", {"a": 1}, [1]):
        extra = {"sync_weight": value}
        network = Generator()
        optimizer = torch.optim.Adam(network.parameters())
        checkpoint.save(generator, network, optimizer, step=3, epoch=0, extra=extra)
        with pytest.raises(UserError, match="state of the training cannot be taken up"):
            trainer(generator_config(clips, out / "g", expert_file))


def test_the_best_belongs_to_its_metric(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = syncnet_config(clips, out, max_steps=1)
    trainer(config).run()
    path = out / checkpoint.file_name(1)
    content = torch.load(path, weights_only=True)
    assert content["wav2lip_npu"]["best"]["metric"] == "loss"
    value = content["wav2lip_npu"]["best"]["value"]
    averaging = dataclasses.replace(config, ema=0.9, max_steps=2)
    assert (trainer(config).best, trainer(averaging).best) == (value, None)
    # Version 0.1 saved the number alone.
    for ema, expected in ((None, (0.5, None)), (0.9, (None, 0.5))):
        content["wav2lip_npu"] |= {"best": 0.5, "config": {"ema": ema}}
        torch.save(content, path)
        assert (trainer(config).best, trainer(averaging).best) == expected
    # The file of the other metric keeps its content under another name.
    content["wav2lip_npu"]["config"] = {"ema": None}
    torch.save(content, path)
    before = (out / "best.pth").read_bytes()
    trainer(averaging).run()
    assert (out / "best_1.pth").read_bytes() == before
    assert checkpoint.read(out / "best.pth").global_step == 2


def test_names_are_checked_before_anything_is_read(
    clips: Path, expert_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("data were read")

    monkeypatch.setattr("wav2lip_npu.training.trainer.open_data", opened)
    out, absent = tmp_path / "out", tmp_path / "typo.pth"
    wrong = tmp_path / "wrong.pth"
    torch.save({"state_dict": fill(Generator()).state_dict()}, wrong)
    for changes, reason in (
        ({"data_root": absent}, "typo.pth: no such folder"),
        ({"filelists": absent}, "train.txt: no such file"),
        ({"checkpoint_path": absent}, "typo.pth: no such file"),
        ({"checkpoint_path": clips}, "is a folder"),
        ({"checkpoint_path": expert_file}, "holds the lip-sync expert, the generator is wanted"),
        ({"syncnet_checkpoint_path": absent}, "typo.pth: no such file"),
        ({"syncnet_checkpoint_path": wrong}, "holds the generator, the lip-sync expert is wanted"),
        ({"disc_checkpoint_path": absent, "disc": True}, "typo.pth: no such file"),
        (
            {"disc_checkpoint_path": wrong, "disc": True},
            "the visual quality discriminator is wanted",
        ),
        ({"checkpoint_dir": expert_file}, "expert.pth: cannot be written"),
    ):
        config = generator_config(clips, out, expert_file, **changes)
        with pytest.raises(UserError, match=reason):
            train_generator(config)
    (clips.parent / "lists" / "val.txt").unlink()
    with pytest.raises(UserError, match=r"val\.txt: no such file"):
        train_generator(generator_config(clips, out, expert_file))


def test_two_trainings_in_one_folder(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with folder_lock(out, "a training"), pytest.raises(UserError, match="another run works there"):
        train_syncnet(syncnet_config(clips, out, max_steps=1))
    train_syncnet(syncnet_config(clips, out, max_steps=1))


def test_a_discriminator_is_started_from_its_own_file(
    clips: Path, expert_file: Path, tmp_path: Path
) -> None:
    network = fill(VisualQualityDiscriminator())
    path = tmp_path / "disc.pth"
    optimizer = torch.optim.Adam(network.parameters())
    checkpoint.save(path, network, optimizer, step=5, epoch=0, extra={})
    config = generator_config(
        clips, tmp_path / "out", expert_file, disc=True, disc_checkpoint_path=path
    )
    run = trainer(config)
    assert run.step == 0
    state = run.task.discriminator.state_dict()
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
