"""Command lines whose files are good and whose options are odd; each is a scenario of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fuzz.inputs import BOX, DEVICE, INFER, NOTES, PREPROCESS, SMALL_TRAINING, WORKER
from fuzz.scenarios import CACHE, CUT, DETECT, Rule, Scenario

KIND = "arguments"
N = str(10**30)
OUTFILES = (
    *(
        f"out/x.{suffix}"
        for suffix in ("webm", "gif", "mpg", "ogv", "mxf", "mp3", "wav", "png", "avi")
    ),
    *("out/x.mkv", "out/x.mov", "out/x.ts", "out/x.txt", "out/x", "out/.mp4", "out/a b.mp4"),
    *("out/10:30.mp4", "out/%d.mp4", "out/x.m3u8", "out/x.mpd", "out/x.null", "out/x.h264"),
    *(
        "out/two\nlines.mp4",
        "out/$(touch EXECUTED).mp4",
        f"out/{'n' * 300}.mp4",
        "out",
        "out/",
        ".",
    ),
    *("talker.mp4", "speech.wav", "wav2lip.pth", NOTES, "face.png", "data", "/proc/x.mp4", ""),
    *("/dev/null", "/dev/full", "out/new/deep/x.mp4", "talker.mp4/x.mp4", "out/中文.MP4", "-"),
)
INFER_OPTIONS = (
    *(f"--fps={n} --face=face.png" for n in ("nan", "inf", "-inf", "1e308", "1", "1000", "1e-300")),
    *(f"--resize_factor={n}" for n in ("2", "1000", N, "-1", "1.5")),
    *(
        f"--box {numbers}"
        for numbers in (
            *(
                "0 0 0 0",
                "90 30 40 90",
                "30 90 90 40",
                "30 9999 40 90",
                "-5 20 0 20",
                "30 31 40 41",
            ),
            *(
                "-1 5 5 5",
                "5 -1 5 -1",
                "0 128 0 128",
                "127 128 127 128",
                f"0 {N} 0 {N}",
                "200 300 200 300",
            ),
        )
    ),
    *(f"--pads {numbers} --box -1 -1 -1 -1" for numbers in ("9999 9999 9999 9999", f"{N} 0 0 0")),
    *(
        f"--crop {numbers}"
        for numbers in (
            *("0 0 0 0", "50 40 0 -1", "0 9999 0 9999", "-5 -5 -5 -5", "0 1 0 1", f"{N} {N} 0 0"),
        )
    ),
    *(
        f"--{name} {N}"
        for name in ("wav2lip_batch_size", "face_det_batch_size", "detect_every", "crf")
    ),
    *("--crf -1", "--crf 0", "--crf 51", "--face_select track:99", f"--face_select track:{N}"),
    *("--device cuda", "--device npu", "--device cuda:99", "--device cpu:3", "--device x"),
    *("--precision fp16", "--precision bf16", "--face_cache speech.wav", "--face_cache /proc"),
    *(
        "--face out",
        "--face=",
        "--audio=",
        "--checkpoint_path=",
        "--checkpoint_path out",
        "--jobs=out",
    ),
    *("--static", "--loop hold", "--loop pingpong", "--loop cut", "--rotate", "--blend poisson"),
    *("--blend feather", "--blend poisson --box 0 128 0 128", "--no_face error", "--static maybe"),
    *(
        "--blend mouth",
        "--blend mouth --keep_in_front",
        "--blend mouth --align tilt --silence still",
        "--silence source",
        *("--strength 0", "--strength 2", "--strength nan", "--strength -1", f"--strength {N}"),
        *("--strength 0.5 --box -1 -1 -1 -1", "--voices=speech.wav", "--voices=out", "--voices="),
        *("--face_select speaking", "--outfile out/%d.png", "--outfile out/x.webm"),
        "--enhance=speech.wav",
        "--enhance=out",
        "--from 0.2 --to 0.6",
        "--start 99",
        "--end 0",
        "--final_audio=speech.wav",
        "--final_audio=out",
        "--align tilt --box 0 128 0 128",
    ),
    *("--detector s3fd --s3fd nowhere --box -1 -1 -1 -1", "--backend onnx", "--jobs=speech.wav"),
    "--audio talker.mp4 --face talker.mp4",
)
TRAIN_OPTIONS = (
    *(f"--learning_rate={n}" for n in ("nan", "inf", "1e30", "0", "-1", "1e-300")),
    *(
        f"--{name}={n}"
        for name in ("max_hours", "clip_grad_norm", "ema", "cache_gb", "augment_colour")
        for n in ("nan", "inf", "1e-300", "-1")
    ),
    *(
        "--stop_at_loss nan",
        "--stop_at_loss inf",
        f"--warmup_steps {N}",
        f"--seed {N}",
        "--seed -1",
    ),
    *(
        "--cache_dir speech.wav",
        "--cache_dir /proc",
        "--checkpoint_dir speech.wav",
        "--filelists data",
    ),
    *(
        "--checkpoint_dir /proc/x",
        "--filelists speech.wav",
        "--data_root nowhere",
        "--data_root lists",
    ),
    *(
        "--checkpoint_path data",
        "--checkpoint_path nowhere.pth",
        "--checkpoint_path=",
        "--data_root=",
    ),
    *(
        "--checkpoint_dir data",
        "--checkpoint_dir lists",
        "--cache_dir new",
        f"--batch_size {10**9}",
    ),
    *(
        "--keep_last -1",
        f"--keep_last {N}",
        f"--log_interval {N}",
        f"--eval_interval {N}",
        "--compile 2",
    ),
    *("--schedule cosine", "--warmup_steps 5", "--augment_flip --augment_colour 0.5", "--ema 0.9"),
    *("--objective contrastive", "--objective contrastive --batch_size 4", "--data_on_device"),
)
PREPROCESS_OPTIONS = (
    *(f"--data_root {name}" for name in ("nowhere", "speech.wav", "out", "cut", ".", "lists")),
    *(f"--preprocessed_root {name}" for name in ("speech.wav", "raw", "raw/cut", "/proc/x", ".")),
    *(f"--{name} {N}" for name in ("batch_size", "detect_every", "ngpu")),
    *("--devices 0,0", "--devices 99", "--devices x", "--scene_cuts split", "--scene_cuts reject"),
    *("--num_workers 0", "--smooth_boxes", "--smooth_boxes 7", "--detector s3fd --s3fd nowhere"),
    *("--align tilt", "--align 30"),
)
EXPORT_OPTIONS = (
    *(
        f"--outfile={name}"
        for name in (
            *(
                "wav2lip.pth",
                "wav2lip",
                "wav2lip-1.0",
                "out",
                "out/",
                ".",
                "..",
                "",
                NOTES,
                "/proc/x",
            ),
            *(
                "new/g.onnx",
                "new/g.safetensors",
                "new/two\nlines",
                f"new/{'n' * 300}",
                "new/中文.v2",
            ),
        )
    ),
    *("--outfile new/g --weights ema", "--outfile new/g --checkpoint_path out"),
)
FILELISTS_OPTIONS = (
    *(f"--val={n}" for n in ("nan", "inf", "0", "0.5", "-1", "1e-300")),
    *(f"--test={n}" for n in ("nan", "0", "0.5")),
    *(f"--seed {N}", "--filelists speech.wav", "--filelists /proc/x", "--data_root speech.wav"),
    *("--data_root .", "--data_root out", "--filelists lists", "--filelists lists --overwrite"),
)

SYNC_OPTIONS = (
    *(f"--min_confidence={n}" for n in ("nan", "inf", "-1", "1e308", "x")),
    *(f"--min_offset={n}" for n in ("0", "-1", N, "1.5")),
    *(f"--num_workers={n}" for n in ("0", "-1", "x")),
    *("--by expert", "--by both --syncnet_checkpoint_path wav2lip.pth", "--by x", "--fractional"),
    *("--syncnet_checkpoint_path speech.wav", "--syncnet_checkpoint_path out", "--videos nowhere"),
    *("--filter new", "--filter lists --filelists lists", "--filter new --filelists nowhere"),
    *("--filter speech.wav --filelists lists", "--filter /proc/x --filelists lists"),
    *("--outdir speech.wav", "--outdir /proc/x", "--outdir new/deep", "--devices 0,0", "--fix"),
    *(f"--data_root {name}" for name in ("nowhere", "speech.wav", "out", "lists", "")),
)
EVALUATE_OPTIONS = (
    *(f"--videos {name}" for name in ("nowhere", "out", "lists", "speech.wav", "face.png")),
    *(f"--sources {name}" for name in ("nowhere", "out", "speech.wav", "raw/good.mp4")),
    *(f"--outdir {name}" for name in ("speech.wav", "/proc/x", "new/deep", "out")),
    *(f"--{name} {N}" for name in ("batch_size", "wav2lip_batch_size", "detect_every")),
    *(f"--num_workers={n}" for n in ("0", "-1")),
    *("--checkpoint_path wav2lip.pth", "--filelist lists/train.txt", "--reconstruction"),
    *("--syncnet_v2 wav2lip.pth", "--syncnet_v2 nowhere", "--inception wav2lip.pth"),
    *("--syncnet_checkpoint_path wav2lip.pth", "--protocol frame", "--protocol x"),
)
PLOT_OPTIONS = (
    *(f"--runs {name}" for name in ("nowhere", "out", "speech.wav", "data", ". lists", "")),
    *(f"--smooth={n}" for n in ("nan", "inf", "-1", "1", "0.99", "1e-300")),
    *("--metrics loss", "--metrics none", "--labels a", "--labels a b c", "--labels 中文"),
    *("--outdir speech.wav", "--outdir /proc/x", "--outdir new/deep"),
)

FILES = (*("talker.mp4", "speech.wav", "face.png", "wav2lip.pth", "data", "lists", "raw", "cut"),)
COMMANDS: tuple[tuple[str, Sequence[str], Sequence[str]], ...] = (
    (
        "infer",
        (
            *INFER,
            *BOX,
            "--face=talker.mp4",
            "--audio=speech.wav",
            "--checkpoint_path=wav2lip.pth",
            "--outfile=out/x.mp4",
            "--detector",
            "centerface",
        ),
        (*(f"--outfile={name}" for name in OUTFILES), *INFER_OPTIONS),
    ),
    (
        "train-syncnet",
        (
            "train-syncnet",
            "--data_root",
            "data",
            "--filelists",
            "lists",
            "--checkpoint_dir",
            "new",
            *SMALL_TRAINING,
        ),
        TRAIN_OPTIONS,
    ),
    (
        "preprocess",
        (*PREPROCESS, "--data_root", "raw", "--preprocessed_root", "new"),
        PREPROCESS_OPTIONS,
    ),
    ("export", ("export", "--checkpoint_path", "wav2lip.pth"), EXPORT_OPTIONS),
    ("filelists", ("filelists", "--data_root", "data", "--filelists", "new"), FILELISTS_OPTIONS),
    ("sync", ("sync", "--data_root", "data", *DEVICE, *WORKER), SYNC_OPTIONS),
    (
        "evaluate",
        ("evaluate", "--videos", "raw/good.mp4", "--outdir", "new", *DEVICE, *WORKER, *DETECT),
        EVALUATE_OPTIONS,
    ),
    ("plot", ("plot", "--runs", "cut", "--outdir", "new"), PLOT_OPTIONS),
)
# What the commands may write; ``out`` is there and has a file of the user.
OUTPUTS = (
    *("out/*", "new", "new/*", "raw/cut", "raw/cut/*", "wav2lip-1.0.*", "wav2lip.safetensors"),
    *(
        "lists/t*.txt",
        "lists/val.txt",
        "lists/checkpoint*",
        "lists/.packed",
        "data/checkpoint*",
        "data/best.pth",
        "data/*.png",
        "data/metrics.jsonl",
        "data/tensorboard*",
        "data/sync_*",
        "data/*/mouth.npz",
        *CACHE,
        *CUT,
        "n.*",
    ),
)


def _words(text: str) -> list[str]:
    """An outfile is one word, whatever is in it."""
    return [text] if text.startswith("--outfile=") and " --" not in text else text.split(" ")


def _scenarios() -> Iterator[Scenario]:
    for command, words, many in COMMANDS:
        for text in many:
            line = [*words, *_words(text)]
            yield Scenario(
                kind=KIND,
                command=f"{command} {text!r:.40}",
                target=NOTES,
                base=FILES,
                words=lambda name, line=line: line,
                outputs=OUTPUTS,
                check=_nothing,
                rule=Rule.STATE,
                renamed=False,
            )


def _nothing(case: Path, base: Path, right: bool) -> list[str]:
    return []


ALL = tuple(_scenarios())
