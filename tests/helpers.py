"""What several test files share: small media and data sets, thin networks, trainers."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from wav2lip_npu.alignment.mouth import Talk
from wav2lip_npu.config import GeneratorConfig, SyncNetConfig, TrainConfig
from wav2lip_npu.constants import SAMPLE_RATE
from wav2lip_npu.data.batches import Batch
from wav2lip_npu.media.audio import open_sound, write_wav
from wav2lip_npu.media.video_writer import VideoWriter
from wav2lip_npu.models import blocks, discriminator, generator
from wav2lip_npu.runtime import device, distributed
from wav2lip_npu.runtime.files import file_state
from wav2lip_npu.training import tasks
from wav2lip_npu.training import trainer as training

THIN_CLI = Path(__file__).with_name("run_thin_cli.py")


def tone(seconds: float, rate: int = SAMPLE_RATE, hertz: float = 440.0) -> np.ndarray:
    """A tone that swells twice a second, float32 mono."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * hertz * t) * np.sin(2 * np.pi * t) ** 2).astype(np.float32)


def rows_heard(mel_rows: int, fps: float) -> list[int]:
    """First mel row for each output frame of an utterance that is there as a whole."""
    last = mel_rows - 16
    rows = [int(n * (80 / fps)) for n in range(mel_rows) if int(n * (80 / fps)) <= last]
    return [*rows, last]


def write_video(
    path: Path, frames: list[np.ndarray], fps: float = 25, audio: Path | None = None
) -> Path:
    with ExitStack() as files:
        sound = audio and files.enter_context(open_sound(audio))
        writer = VideoWriter(path, fps=fps, sound=sound, crf=10, preset="ultrafast")
        files.enter_context(writer)
        for frame in frames:
            writer.write(frame)
    return path


def numbered(count: int, size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    """Grey pictures that tell their number (modulo 30) by their brightness: 8·n."""
    width, height = size
    return [np.full((height, width, 3), 8 * (n % 30), np.uint8) for n in range(count)]


def number_of(image: np.ndarray) -> int:
    return round(float(image.mean()) / 8)


def make_clip(folder: Path, frames: int = 25, seed: int = 0, missing: tuple[int, ...] = ()) -> Path:
    """A preprocessed clip: crops of varying size, and as much audio."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(frames):
        if number not in missing:
            crop = random.integers(0, 256, (6, 5, 3), dtype=np.uint8)
            crop = cv2.resize(crop, (70 + number % 3, 90), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / f"{number}.jpg"), crop)
    write_wav(folder / "audio.wav", tone(frames / 25, hertz=200 + 50 * seed))
    return folder


TALK_FRAMES = 75  # of a clip of the three functions below: three seconds


def articulation(seed: int) -> np.ndarray:
    """How open a mouth is in each frame, 0 to 1."""
    steps = np.random.default_rng(seed).normal(size=TALK_FRAMES + 40)
    smooth = np.convolve(steps, np.hanning(7)[1:-1] / 3, "same")[20:-20]
    return np.asarray((smooth - smooth.min()) / np.ptp(smooth))


def voiced(opening: np.ndarray) -> np.ndarray:
    """Noise as loud as the mouth is open."""
    level = np.repeat(opening, SAMPLE_RATE // 25)
    noise = np.random.default_rng(0).normal(size=len(level))
    return (0.2 * level**2 * noise).astype(np.float32)


def make_talking_clip(folder: Path, opening: np.ndarray, sound: np.ndarray) -> None:
    """A preprocessed clip whose mouth is known: its shapes are kept beside the crops."""
    folder.mkdir(parents=True)
    for frame in range(len(opening)):
        _, content = cv2.imencode(".jpg", np.full((8, 8, 3), frame, np.uint8))
        (folder / f"{frame}.jpg").write_bytes(content.tobytes())
    mouth = np.stack([opening, 0.3 + 0 * opening, opening + 0.1], axis=1).astype(np.float32)
    state = np.array([file_state(folder / f"{frame}.jpg") for frame in range(len(opening))])
    np.savez(folder / "mouth.npz", mouth=mouth, state=state)
    write_wav(folder / "audio.wav", sound)


def make_talk(seed: int, *, late: int = 0, voice_of: int | None = None) -> Talk:
    """A clip of three seconds: an open mouth is loud in the low bands, a wide one in the high."""

    def parts(number: int) -> np.ndarray:
        steps = np.random.default_rng(number).normal(size=(TALK_FRAMES + 40, 2))
        kernel = np.hanning(9)[1:-1] / 4
        return np.stack([np.convolve(part, kernel, "same") for part in steps.T], axis=1)[20:-20]

    random = np.random.default_rng(seed + 1000)
    opening, width = parts(seed).T
    shape = np.stack([opening, width, opening + 0.3 * width], axis=1) * 0.03 + 0.1
    spoken = np.roll(parts(seed if voice_of is None else voice_of), late, axis=0)
    low = np.linspace(1, 0, 16)[None]  # how much of the opening is heard in each number
    level = spoken[:, :1] * low + spoken[:, 1:] * low[:, ::-1]
    noise = random.normal(size=level.shape) * 0.5
    return Talk(mouth=shape + random.normal(size=shape.shape) * 0.005, voice=level + noise)


def thin_networks(patch: pytest.MonkeyPatch) -> None:
    """Build the three networks with an eighth of their channels, where their size is no matter."""

    def thinned(layer: type[nn.Module]) -> Callable[..., nn.Module]:
        def build(*channels: int, **options: int) -> nn.Module:
            counts = 1 if layer is nn.BatchNorm2d else 2
            few = [n // 8 if n % 16 == 0 else n for n in channels[:counts]]
            return layer(*few, *channels[counts:], **options)

        return build

    thin = ModuleType("thin")
    thin.__dict__.update(nn.__dict__)
    for layer in (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d):
        setattr(thin, layer.__name__, thinned(layer))
    for module in (blocks, discriminator, generator):
        patch.setattr(module, "nn", thin)


SMALL = {"device": "cpu", "precision": "fp32", "num_workers": 0, "eval_windows": 2, "batch_size": 2}


def syncnet_config(clips: Path, out: Path, **changes: object) -> SyncNetConfig:
    lists = clips.parent / "lists"
    return SyncNetConfig(
        **{"data_root": clips, "checkpoint_dir": out, "filelists": lists, **SMALL, **changes}
    )


def generator_config(
    clips: Path, out: Path, expert_file: Path, **changes: object
) -> GeneratorConfig:
    names = {field.name for field in dataclasses.fields(GeneratorConfig)}
    values = dataclasses.asdict(syncnet_config(clips, out))
    common = {name: value for name, value in values.items() if name in names}
    return GeneratorConfig(**{**common, "syncnet_checkpoint_path": expert_file, **changes})


def trainer(config: TrainConfig) -> training.Trainer:
    place = device.Device.open(config.device, config.precision, strict_fp32=config.strict_fp32)
    device.seed(config.seed)
    if isinstance(config, SyncNetConfig):
        return training.Trainer(config, tasks.SyncNetTask(config, place))
    kind = tasks.AdversarialTask if config.disc else tasks.GeneratorTask
    return training.Trainer(config, kind(config, place))


def first_batch(run: training.Trainer) -> Batch:
    return run.device.to_device(next(run._train_batches(threading.Event())))


def one_step(config: GeneratorConfig, out: Path) -> None:
    """Train on the first batch; write what it was, the gradients and the new parameters."""
    place = device.Device.open(config.device, config.precision, strict_fp32=config.strict_fp32)
    with distributed.join(place) as world:
        device.seed(
            config.seed + world.rank
        )  # the processes must agree though they begin differently
        task = tasks.AdversarialTask(config, place, world)
        run = training.Trainer(config, task)
        task.sync_weight = 0.03
        task.set_training(True)
        for trained in task.trained.values():
            for module in trained.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()  # else each process has the statistics of its own share
        batch = first_batch(run)
        means = world.mean({name: float(value) for name, value in task.step(batch).items()})
        networks = {prefix: trained.network for prefix, trained in task.trained.items()}
        record = {
            "batch": batch,
            "means": means,
            "gradients": {p: [w.grad for w in n.parameters()] for p, n in networks.items()},
            "parameters": {p: list(n.parameters()) for p, n in networks.items()},
        }
        torch.save(record, out / f"{world.rank}_of_{world.size}.pt")


def assert_joined(first: dict, second: dict, joined: dict) -> None:
    """Records of ``one_step`` by two processes are equal, and have one process's gradients."""
    for prefix in ("", "disc_"):
        for key in ("gradients", "parameters"):
            for one, other in zip(first[key][prefix], second[key][prefix], strict=True):
                assert torch.equal(one, other)
        for ours, whole in zip(
            first["gradients"][prefix], joined["gradients"][prefix], strict=True
        ):
            torch.testing.assert_close(ours, whole, rtol=1e-3, atol=2e-6)


class Bomb:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return print, ("executed",)


def same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether both have the same names and the same numbers."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
