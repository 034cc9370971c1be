"""Everything on a device named npu: the same bits as on the CPU, and an error where one is due.

The device is ``npu_device``. Two habits of an NPU change how sums are rounded: networks stay in
torch's own memory format, and inference fills its batches up. So the CPU that it is compared with
has them as well; see ``like_an_npu``.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import npu_device
import numpy as np
import pytest
import torch
from formula import fill, golden_arrays
from helpers import first_batch, tone, trainer, write_video
from torch import nn
from torch.nn import functional as F

from face_detection import open_detector
from wav2lip_npu import checkpoint, cli
from wav2lip_npu.config import GeneratorConfig, SyncNetConfig, TrainConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import write_wav
from wav2lip_npu.models import Generator, SyncNet
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.training.metrics import RESOURCE_METRICS
from wav2lip_npu.training.tasks import GeneratorTask
from wav2lip_npu.training.trainer import Trainer


@pytest.fixture(scope="module", autouse=True)
def npu() -> Iterator[None]:
    """The device, for this file only."""
    if (reason := npu_device.why_not()) is not None:
        pytest.skip(reason)
    assert torch.get_num_threads() == 1  # or sums would be split differently, see conftest.py
    # Autograd has a thread for each card that was there at the process's first backward pass, which
    # an earlier test may have made. (The process of its own below uses such a thread.)
    with npu_device.installed(), torch.autograd.set_multithreading_enabled(False):
        yield


@pytest.fixture
def like_an_npu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU with an NPU's memory format, batch shapes and optimiser."""
    place = Device.prepare

    def placed(self: Device, network: nn.Module) -> nn.Module:
        return network if self.torch_device.type == "cpu" else place(self, network)

    monkeypatch.setattr(Device, "prepare", placed)
    monkeypatch.setattr(Device, "wants_fixed_shapes", True)
    monkeypatch.setattr(Device, "has_fused_adam", False)


def assert_equal(found: object, expected: object) -> None:
    """The same structure with the same bits, wherever the tensors are."""
    (values, structure), (wanted, wanted_structure) = map(
        torch.utils._pytree.tree_flatten, (found, expected)
    )
    assert structure == wanted_structure
    for value, want in zip(values, wanted, strict=True):
        if isinstance(want, torch.Tensor):
            assert value.dtype == want.dtype
            assert torch.equal(value.cpu(), want.cpu())
        else:
            assert value == want


# -------------------------------------------------------------------------------- the commands


def save_weights(path: Path, network: nn.Module) -> Path:
    optimizer = torch.optim.Adam(network.parameters())
    checkpoint.save(path, network, optimizer, step=0, epoch=0, extra={})
    return path


def options(clips: Path, **changes: object) -> dict[str, object]:
    """A training of one step and one evaluation on the CPU."""
    common = {
        "device": "cpu", "precision": "fp32", "batch_size": 1, "num_workers": 0, "max_steps": 1,
        "eval_windows": 1, "log_interval": 1, "data_root": clips,
        "filelists": clips.parent / "lists", "checkpoint_dir": clips.parent / "cpu",
    }  # fmt: skip
    return {**common, **changes}


def on_npu(config: TrainConfig, out: Path, *, card: int = 0) -> list[str]:
    """The command that does what ``config`` describes, on the NPU and into another folder."""
    words = ["train-syncnet" if isinstance(config, SyncNetConfig) else "train"]
    changes = {"device": f"npu:{card}", "checkpoint_dir": out}
    for name, value in (dataclasses.asdict(config) | changes).items():
        if value is not None:
            words += [f"--{name}", str(value)]
    return words


def main_in_its_own_process(words: list[str]) -> int:
    words = [sys.executable, "-m", "wav2lip_npu", *words]
    return subprocess.run(words, env=npu_device.environment()).returncode


def assert_cpu_agrees(config: TrainConfig, out: Path) -> checkpoint.Checkpoint:
    """Train on the CPU, and find the same in what the NPU wrote; the newest file of that."""
    expected = trainer(config)
    with pytest.MonkeyPatch.context() as patch:
        # Compared as it is in memory.
        patch.setattr(Trainer, "save", lambda self, best=False: None)
        patch.setattr(Trainer, "_name_best", lambda self: True)
        expected.run()
    for prefix, trained in expected.task.trained.items():
        found = checkpoint.read(out / (prefix + checkpoint.file_name(expected.step)))
        assert_equal(found.state_dict, dict(trained.network.state_dict()))
        assert_equal(found.optimizer["state"], trained.optimizer.state_dict()["state"])
        assert "random" not in found.extra  # nothing draws from torch's numbers in training
        known = {"items": expected.samples}
        assert found.extra["best"] == {"metric": expected.metric, "value": expected.best}
        known |= {**expected.task.state(), **trained.state()}
        assert_equal({name: found.extra[name] for name in known}, known)
    assert curves(out) == curves(config.checkpoint_dir)
    for sheet in config.checkpoint_dir.glob("samples*.png"):
        assert (out / sheet.name).read_bytes() == sheet.read_bytes()
    return found


def curves(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for name in RESOURCE_METRICS:
            line.pop(name, None)
    return lines


@pytest.mark.usefixtures("like_an_npu")
def test_train_syncnet(clips: Path, tmp_path: Path) -> None:
    """One step, read by a worker; and another in a process of its own, on another card."""
    out = tmp_path / "npu"
    config = SyncNetConfig(**options(clips, batch_size=2, num_workers=1))
    assert cli.main(on_npu(config, out)) == 0
    first = assert_cpu_agrees(config, out)

    config = dataclasses.replace(config, max_steps=2, num_workers=0)
    shutil.copy(first.path, config.checkpoint_dir)  # the CPU goes on from the same
    assert main_in_its_own_process(on_npu(config, out, card=1)) == 0
    assert_cpu_agrees(config, out)


@pytest.mark.usefixtures("like_an_npu", "thin")
def test_train_and_train_with_the_discriminator(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of the generator, and one more against a discriminator, with the gate open."""
    monkeypatch.setattr(
        GeneratorTask, "gate_threshold", float("inf")
    )  # opens at the first evaluation
    out = tmp_path / "npu"
    expert = save_weights(tmp_path / "expert.pth", fill(SyncNet()))
    config = GeneratorConfig(**options(clips), syncnet_checkpoint_path=expert)
    assert cli.main(on_npu(config, out)) == 0
    first = assert_cpu_agrees(config, out)
    assert first.extra["sync_weight"] > 0  # so the expert takes part in the next step

    config = dataclasses.replace(config, max_steps=2, disc=True)
    shutil.copy(first.path, config.checkpoint_dir)  # the CPU goes on from the same
    assert cli.main(on_npu(config, out)) == 0
    assert_cpu_agrees(config, out)


@pytest.mark.usefixtures("like_an_npu")
def test_infer(tmp_path: Path, face: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file; the last of its batches is filled up."""
    weights = save_weights(tmp_path / "wav2lip.pth", fill(Generator()))
    talker = write_video(tmp_path / "talker.mp4", [np.roll(face, n, axis=1) for n in range(6)])
    write_wav(tmp_path / "speech.wav", tone(6 / 25))
    files = []
    for device in ("npu", "cpu"):
        files.append(tmp_path / f"{device}.mp4")
        words = [
            *("infer", "--device", device, "--precision", "fp32", "--wav2lip_batch_size", "4"),
            *("--checkpoint_path", str(weights), "--face", str(talker)),
            *("--audio", str(tmp_path / "speech.wav"), "--outfile", str(files[-1])),
            *("--box", "40", "200", "60", "180"),
        ]
        assert cli.main(words) == 0
    assert files[0].read_bytes() == files[1].read_bytes()


def test_face_detector(s3fd_weights: Path) -> None:
    images = list(golden_arrays("s3fd")["images"])
    found, expected = (
        open_detector("s3fd", device=torch.device(device), s3fd_weights=s3fd_weights).detect(images)
        for device in ("npu", "cpu")
    )
    assert sum(map(len, expected)) > 0
    for boxes, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(boxes, wanted)


# ------------------------------------------------------------------------- choice and precision


def test_the_npu_is_found_and_set_up() -> None:
    import torch_npu

    place = Device.open("auto", "auto")
    assert place.torch_device == torch.device("npu:0")
    assert place.dtype is torch.bfloat16
    assert not torch_npu.npu.config.jit_compile
    assert not torch_npu.npu.config.allow_internal_format
    assert Device.open("npu:1").torch_device.index == torch.npu.current_device() == 1
    assert torch.ones(1, device="npu").device.index == 1
    assert Device.open("npu").torch_device.index == torch.npu.current_device() == 0
    with pytest.raises(UserError, match="--device npu:2: the cards here are npu:0 to npu:1"):
        Device.open("npu:2")


def test_batches_come_in_pinned_memory(clips: Path) -> None:
    run = trainer(SyncNetConfig(**options(clips, device="npu", batch_size=2)))
    batch = next(run._train_batches(threading.Event()))
    assert all(part.is_pinned() for part in batch.values())
    assert all(part.device.type == "npu" for part in run.device.to_device(batch).values())


@pytest.mark.usefixtures("like_an_npu")
def test_bf16(clips: Path) -> None:
    """A step of the expert in mixed precision."""
    results = []
    for device in ("npu", "cpu"):
        run = trainer(
            SyncNetConfig(**options(clips, device=device, precision="bf16", batch_size=2))
        )
        run.task.set_training(True)
        metrics = run.task.step(first_batch(run))
        results.append((metrics, run.task.syncnet.state_dict()))
    assert_equal(*results)


def test_losses_do_not_belong_under_autocast() -> None:
    probability = torch.rand(3, device="npu")
    with Device.open("npu", "bf16").autocast(), pytest.raises(RuntimeError, match="unsafe"):
        F.binary_cross_entropy(probability, probability)


def test_gradient_scaler() -> None:
    place = Device.open("npu", "fp16")
    scaler = place.scaler()
    layer = place.prepare(nn.Linear(2, 1, bias=False))
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    before = layer.weight.detach().clone()
    for factor, scale in ((1.0, 2.0**16), (float("inf"), 2.0**15)):
        optimizer.zero_grad()
        scaler.scale(layer(torch.ones(1, 2, device="npu")).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        assert_equal(layer.weight.detach(), before - 1)  # the infinite gradient is left out
        assert scaler.get_scale() == scale
    resumed = place.scaler()
    resumed.load_state_dict(scaler.state_dict())
    assert resumed.get_scale() == scale


# ------------------------------------------------------------------------------- random numbers


def test_random_numbers_are_the_cpus_and_do_not_touch_them() -> None:
    torch.manual_seed(5)
    expected = [torch.randn(3), F.dropout(torch.ones(20)), torch.randperm(9)]
    torch.manual_seed(5)
    untouched = torch.get_rng_state()
    ones = torch.ones(20, device="npu")
    found = [torch.randn(3, device="npu"), F.dropout(ones), torch.randperm(9, device="npu")]
    assert_equal(found, expected)
    assert torch.equal(torch.get_rng_state(), untouched)
    own = torch.Generator("npu").manual_seed(5)
    assert_equal(torch.randn(3, device="npu", generator=own), expected[0])
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, device="npu", generator=torch.Generator())


def test_random_state_is_kept_and_given_back() -> None:
    state = torch.npu.get_rng_state()
    with torch.random.fork_rng(devices=[0], device_type="npu"):
        first = torch.rand(3, device="npu")
    assert torch.equal(torch.npu.get_rng_state(), state)
    again = torch.rand(3, device="npu")
    assert_equal(again, first)
    torch.npu.set_rng_state(state)
    assert_equal(torch.rand(3, device="npu"), first)
    assert not torch.equal(torch.npu.get_rng_state(), state)


def test_memory_is_counted() -> None:
    place = Device.open("npu")
    before = place.peak_memory()
    kept = torch.zeros(before + 2**20, dtype=torch.uint8, device="npu")
    assert place.peak_memory() >= before + 2**20
    assert Device.open("cpu").peak_memory() is None
    del kept


# ----------------------------------------------------------------------------------- strictness

Mix = Callable[[torch.Tensor, torch.Tensor], object]
MIXES: dict[str, Mix] = {
    "sum": lambda npu, cpu: npu + cpu,
    "sum, the CPU's first": lambda npu, cpu: cpu + npu,
    "in place": lambda npu, cpu: npu.add_(cpu),
    "in place on the CPU": lambda npu, cpu: cpu.mul_(npu),
    "a number of the CPU's in place": lambda npu, cpu: torch.zeros(()).add_(npu.sum()),
    "comparison": lambda npu, cpu: npu > cpu,
    "where": lambda npu, cpu: torch.where(npu > 0, npu, cpu),
    "product": lambda npu, cpu: npu @ cpu,
    "linear": lambda npu, cpu: F.linear(npu, cpu),
    "convolution": lambda npu, cpu: F.conv1d(npu[None], cpu[:, :, None]),
    "batch norm": lambda npu, cpu: F.batch_norm(npu, cpu[0], cpu[1], training=True),
    "loss": lambda npu, cpu: F.binary_cross_entropy(npu, cpu),
    "L1": lambda npu, cpu: F.l1_loss(npu, cpu),
    "similarity": lambda npu, cpu: F.cosine_similarity(npu, cpu),
    "concatenation": lambda npu, cpu: torch.cat([npu, cpu]),
    "stack": lambda npu, cpu: torch.stack([cpu, npu]),
    "output": lambda npu, cpu: torch.add(npu, npu, out=cpu),
    "list": lambda npu, cpu: torch._foreach_add([npu], [cpu]),
    "indexed": lambda npu, cpu: cpu[npu.long()],
    "indexed assignment": lambda npu, cpu: npu.index_put((torch.tensor([0]),), cpu[:1]),
    "another card": lambda npu, cpu: npu + cpu.to("npu:1"),
}


@pytest.mark.parametrize("name", MIXES)
def test_tensors_of_two_devices_are_refused(name: str) -> None:
    cpu = torch.full((3, 3), 0.5)
    with pytest.raises(RuntimeError, match=r"device| is on "):
        MIXES[name](cpu.to("npu"), cpu.clone())


def test_single_numbers_and_indices_of_the_cpu_are_welcome() -> None:
    cpu = torch.arange(6.0).reshape(2, 3)
    npu, two, index = cpu.to("npu"), torch.tensor(2.0), torch.tensor([1, 0])
    for found, expected in (
        (npu * two, cpu * two),
        (two * npu, two * cpu),
        (torch.where(npu > 1, two, npu), torch.where(cpu > 1, two, cpu)),
        (npu[index], cpu[index]),
        (npu.index_put((index,), two), cpu.index_put((index,), two)),
    ):
        assert found.device.type == "npu"
        assert_equal(found, expected)


def test_views_share_memory_or_fail() -> None:
    base = torch.zeros(4, 6, device="npu")
    base.view(2, 2, 6).transpose(0, 1)[1].add_(1)
    base.unfold(1, 3, 3)[0, 1].fill_(5)
    expected = torch.zeros(4, 6)
    expected.view(2, 2, 6).transpose(0, 1)[1].add_(1)
    expected.unfold(1, 3, 3)[0, 1].fill_(5)
    assert_equal(base, expected)
    with pytest.raises(RuntimeError, match="view operator"):
        torch.view_as_real(torch.zeros(2, dtype=torch.complex64, device="npu"))


def test_float64_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no float64"):
        torch.ones(2, device="npu").double()


class Toucher(torch.utils.data.Dataset):
    """A data set that does what a worker must not."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, item: int) -> torch.Tensor:
        return torch.ones(1, device="npu").cpu()


def test_a_forked_worker_is_refused() -> None:
    torch.ones(1, device="npu")
    with pytest.raises(RuntimeError, match="forked"):
        next(iter(torch.utils.data.DataLoader(Toucher(), num_workers=1)))


def test_tensors_are_saved_and_loaded(tmp_path: Path) -> None:
    numbers = torch.arange(5.0, device="npu:1")
    torch.save(numbers, tmp_path / "a.pt")
    for place in ("npu:1", "npu:0", "cpu"):
        loaded = torch.load(tmp_path / "a.pt", map_location=place, weights_only=True)
        assert str(loaded.device) == place
        assert_equal(loaded, numbers)
