"""Small files that commands read: made once, and brought where a command names one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import torch
from formula import fill
from fuzz.media_files import Recipe, encode, face, speech, wav
from helpers import articulation, make_talking_clip, voiced

from wav2lip_npu import checkpoint
from wav2lip_npu.config import EvaluateConfig, FilelistsConfig, PreprocessConfig, SyncNetConfig
from wav2lip_npu.models import SyncNet, generator
from wav2lip_npu.models.syncnet_v2 import SyncNetV2

TALKERS = 18  # clips; sync compares with sixteen others
TALKER_FRAMES = 50
VIDEO_FRAMES = 25
CONFIGS = {"infer": "checkpoint_path: wav2lip.pth\nface: video.mp4\naudio: speech.wav\n"}
PICTURES = {".png", ".jpg", ".jpeg"}


class Store:
    """A folder of prepared files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cache  # noqa: B019 - there is one store
    def get(self, kind: str) -> Path:
        """The file or folder of a kind; one of ``MAKERS``."""
        path = self.folder / kind
        MAKERS[kind](path)
        return path

    def bring(self, kind: str, target: Path) -> None:
        """Put one where a command wants it; what is there stays."""
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.get(kind), target)

    def bring_folder(self, kind: str, target: Path) -> None:
        """Put the files of a folder beside what is there."""
        source = self.get(kind)
        for path in sorted(source.rglob("*")):
            place = target / path.relative_to(source)
            if path.is_file() and not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                link = os.link if path.suffix == ".jpg" else shutil.copy2
                link(path, place)


def _make_videos(folder: Path) -> None:
    for name in ("00001", "00002"):
        _make_video(folder / f"{name}.mp4")


def _make_video(path: Path) -> None:
    recipe = Recipe(sound_codec="aac", frames=VIDEO_FRAMES, options={"crf": "10"})
    encode(path.with_suffix(".mp4"), recipe)
    path.with_suffix(".mp4").rename(path)


def _make_speech(path: Path) -> None:
    wav(path, (speech(1.0) * 32767).astype("<i2"))


def _make_clips(folder: Path) -> None:
    for number in range(TALKERS):
        opening = articulation(number)[:TALKER_FRAMES]
        make_talking_clip(folder / f"talker{number:02}", opening, voiced(opening))


def _make_network(network: torch.nn.Module) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        optimizer = torch.optim.Adam(network.parameters())
        checkpoint.save(path, network, optimizer, step=0, epoch=0, extra={})

    return make


MAKERS: dict[str, Callable[[Path], Any]] = {
    "video": _make_video,
    "picture": lambda path: path.write_bytes(cv2.imencode(".png", face(0))[1].tobytes()),
    "speech": _make_speech,
    "videos": _make_videos,
    "clips": _make_clips,
    "generator": lambda path: _make_network(fill(generator.Generator()))(path),
    "expert": lambda path: _make_network(SyncNet())(path),
    "syncnet_v2": lambda path: torch.save(SyncNetV2().state_dict(), path),
}


def prepare(config: Any, place: Path, store: Store) -> None:
    """Bring the files that a command reads, as far as they are not there.

    Args:
        config: its options.
        place: the folder that it runs in.
        store: where they are taken from.
    """
    reads_videos = isinstance(config, (PreprocessConfig, EvaluateConfig))
    trains_expert = isinstance(config, SyncNetConfig)
    kinds = {
        "checkpoint_path": "expert" if trains_expert else "generator",
        **{"generator_path": "generator", "syncnet_checkpoint_path": "expert"},
        **{"audio": "speech", "final_audio": "speech", "syncnet_v2": "syncnet_v2"},
    }
    for name, kind in kinds.items():
        if path := getattr(config, name, None):
            store.bring(kind, place / path)
    if path := getattr(config, "face", None):
        store.bring("picture" if path.suffix in PICTURES else "video", place / path)
    for path in getattr(config, "more_experts", ()):
        store.bring("expert", place / path)
    for name in ("videos", "sources"):
        if (path := getattr(config, name, None)) and not (place / path).exists():
            store.bring_folder("videos", place / path)
    root = getattr(config, "data_root", None)
    if root is not None and not (reads_videos and (place / root).exists()):
        store.bring_folder("videos" if reads_videos else "clips", place / root)
    if path := getattr(config, "filelist", None):  # whatever is there: it names these videos
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text("00001\n")
    if (path := getattr(config, "filelists", None)) and not isinstance(config, FilelistsConfig):
        _write_lists(place / path)
    for run in getattr(config, "runs", ()):
        _write_run(place / run)


def write_config(command: str, path: Path) -> None:
    """An option file for ``--config``, unless it is there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CONFIGS[command])


def _write_lists(folder: Path) -> None:
    """Of the brought clips, unless there are lists."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = [f"talker{number:02}\n" for number in range(TALKERS)]
    for name, lines in (("train.txt", clips[:-4]), ("val.txt", clips[-4:-2]), ("test.txt", clips)):
        if not (folder / name).exists():
            (folder / name).write_text("".join(lines))


def _write_run(folder: Path) -> None:
    """What ``plot`` reads of a training and of sync's report, unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("*.jsonl")):
        return
    lines = [
        f'{{"kind": "{kind}", "step": {step}, "l1": 0.{9 - step}, "sync": 0.{8 - step}}}\n'
        for step in (1, 2)
        for kind in ("train", "eval")
    ]
    (folder / "metrics.jsonl").write_text("".join(lines))
