"""The good files: one of each kind that a command reads, made once and copied for each case."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from formula import fill, golden_json, weight
from helpers import make_clip
from safetensors.torch import save_file

from fuzz import zygote
from fuzz.media_files import Recipe, encode, face, speech, wav
from fuzz.zygote import Limits
from wav2lip_npu import checkpoint, cli
from wav2lip_npu.models import SyncNet, generator

SMALL_TRAINING = (
    *("--device", "cpu", "--precision", "fp32", "--num_workers", "0", "--eval_windows", "1"),
    *("--batch_size", "2", "--max_steps", "1"),
)
BOX = ("--box", "30", "90", "40", "90")  # top bottom left right, within the frames of 128 pixels
INFER = ("infer", "--device", "cpu", "--precision", "fp32", "--preset", "ultrafast", "--crf", "10")
PREPROCESS = ("preprocess", "--detector", "centerface", "--device", "cpu", "--num_workers", "1")
NOTES = "my notes.txt"  # a user's file, in every folder
PARQUET = "train-00000-of-00010.parquet"


DEVICE = ("--device", "cpu", "--precision", "fp32")
WORKER = ("--num_workers", "1")
BY_EXPERT = ("--by", "expert", "--syncnet_checkpoint_path", "expert.pth")
EVALUATE = (
    *("evaluate", "--videos", "raw", "--sources", "raw", "--outdir", "evaluated"),
    *(*DEVICE, *WORKER, "--detector", "centerface"),
)

# What a command makes of the other base files: the name → the command.
MADE: dict[str, tuple[str, ...]] = {
    "cut": (*PREPROCESS, "--data_root", "raw", "--preprocessed_root", "cut"),
    "expert_run": (
        *("train-syncnet", "--data_root", "data", "--filelists", "lists"),
        *("--checkpoint_dir", "expert_run", *SMALL_TRAINING),
    ),
    "run": (
        *("train", "--data_root", "data", "--filelists", "lists", "--checkpoint_dir", "run"),
        *("--syncnet_checkpoint_path", "expert.pth", *SMALL_TRAINING),
    ),
    "faces": (
        *(*INFER, "--detector", "centerface", "--checkpoint_path", "wav2lip.pth", "--face"),
        *("face.png", "--audio", "speech.wav", "--outfile", "out.mp4", "--face_cache", "faces"),
    ),
    "exported": (
        *("export", "--checkpoint_path", "wav2lip.pth", "--outfile", "exported/g.pth", "--onnx"),
    ),
    "synced": ("sync", "--videos", "raw", "--data_root", "synced", *DEVICE, *WORKER),
    "synced_by_expert": (
        *("sync", "--videos", "raw", "--data_root", "synced_by_expert", *DEVICE, *WORKER),
        *BY_EXPERT,
    ),
    "evaluated": EVALUATE,
}


def make_in(folder: Path, names: Iterable[str]) -> Path:
    """Make the base files in a process of their own, unless they are there; returns their folder.

    Args:
        folder: where there is room for them.
        names: those of ``MADE`` that are wanted.

    Raises:
        RuntimeError: a command failed.
    """
    base = folder / "base" / "files"
    wanted = [name for name in MADE if name in names and not (base / name).exists()]
    if base.is_dir() and not wanted:
        return base
    base.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    ending = zygote.run(
        lambda: _make(base, wanted), base.parent, Limits(seconds=600), confine=False
    )
    if ending.code != 0:
        raise RuntimeError(f"no good files: {(folder / 'stderr').read_text()}")
    print(f"good files made in {time.monotonic() - started:.0f} s", flush=True)
    return base


def _make(folder: Path, names: Sequence[str]) -> int:
    if not folder.is_dir():
        folder.mkdir()
        _media(folder)
        _weights(folder)
        _clips(folder)
    for name in names:
        command(folder, *MADE[name])
    return 0


def command(folder: Path, *words: str) -> None:
    """Run a command that must succeed."""

    def main() -> int:
        zygote.leave_out_what_is_slow()
        return cli.main(words)

    ending = zygote.run(main, folder, Limits(seconds=300), name="setup")
    if ending.code != 0:
        text = (folder.parent / "setuperr").read_text(errors="replace")
        raise RuntimeError(f"{' '.join(words)}: {ending.code}\n{text}")


def _media(folder: Path) -> None:
    encode(folder / "talker.mp4", Recipe(sound_codec="aac", options={"crf": "10"}))
    for name in ("good", "odd"):
        (folder / "raw").mkdir(exist_ok=True)
        shutil.copy(folder / "talker.mp4", folder / "raw" / f"{name}.mp4")
    cv2.imwrite(str(folder / "face.png"), face(0))
    wav(folder / "speech.wav", (speech(1.0) * 32767).astype("<i2"))
    (folder / "jobs.csv").write_text(
        "face,audio,outfile\ntalker.mp4,speech.wav,out/1.mp4\ntalker.mp4,speech.wav,out/2.mp4\n"
    )
    (folder / "voices.csv").write_text("person,audio,gain\nlargest,speech.wav,0\n")
    (folder / "pairs.txt").write_text("good.mp4 odd.mp4\nodd.mp4 good.mp4\n")
    shutil.copy(folder / "speech.wav", folder / "odd.wav")
    for name, odd in (("odd", "raw/odd.mp4,speech.wav"), ("sound", "talker.mp4,odd.wav")):
        lines = ("face,audio,outfile", f"{odd},out/1.mp4", "talker.mp4,speech.wav,out/2.mp4", "")
        (folder / f"jobs_{name}.csv").write_text("\n".join(lines))


def _weights(folder: Path) -> None:
    torch.manual_seed(0)
    for name, network in (("expert", SyncNet()), ("wav2lip", fill(generator.Generator()))):
        optimizer = torch.optim.Adam(network.parameters())
        path = folder / f"{name}.pth"
        checkpoint.save(path, network, optimizer, step=0, epoch=0, extra={})
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        torch.save(state, folder / f"{name}_bare.pth")
        save_file(state, folder / f"{name}.safetensors")
        content = torch.load(path, weights_only=True)
        legacy = folder / f"{name}_legacy.pth"
        torch.save(content, legacy, _use_new_zipfile_serialization=False)
    shapes = golden_json("state_dict_names")["s3fd"]
    torch.save(
        {name: weight(name, tuple(shape)) for name, shape in shapes.items()}, folder / "s3fd.pth"
    )


def torchscript(network: torch.nn.Module, path: Path, inputs: Sequence[torch.Tensor]) -> None:
    """Save a network as the published checkpoints are."""
    torch.jit.trace(network.eval(), tuple(inputs), check_trace=False).save(str(path))


def _clips(folder: Path) -> None:
    for seed, name in enumerate(("a", "b", "c", "d")):
        make_clip(folder / "data" / name, seed=seed)
    lists = folder / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("a\nb\nd\n")
    (lists / "val.txt").write_text("c\n")
    np.save(folder / "numbers.npy", np.arange(10.0))


def bring(base: Path, case: Path, names: Sequence[str]) -> None:
    """Copy base files into a case's folder, and put files of a user beside them."""
    for name in names:
        source, target = base / name, case / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        else:
            shutil.copy2(source, target)
    for folder in {case, *(path for path in case.rglob("*") if path.is_dir())}:
        (folder / NOTES).write_text("mine\n")
        (folder / PARQUET).write_bytes(b"PAR1 mine")
