"""Several people who speak: the list of ``--voices``, and who moves when."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import tone, write_video

from wav2lip_npu import LipSync
from wav2lip_npu.config import InferConfig
from wav2lip_npu.constants import SAMPLE_RATE
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.backends import GeneratorRunner
from wav2lip_npu.inference.command import infer
from wav2lip_npu.inference.hearing import hear
from wav2lip_npu.inference.voices import Voice, read_voices
from wav2lip_npu.media.audio import load_audio, write_wav
from wav2lip_npu.media.video_reader import read_frames


def read(folder: Path, text: str) -> list[Voice]:
    (folder / "list.csv").write_text(text, encoding="utf-8")
    return read_voices(folder / "list.csv")


def test_a_list(tmp_path: Path) -> None:
    voices = read(tmp_path, "audio, person ,gain\n声音.wav,track:2, -6 dB\n\nb.wav,largest,\n")
    assert voices == [
        Voice(person="track:2", audio=Path("声音.wav"), gain=-6.0),
        Voice(person="largest", audio=Path("b.wav"), gain=0.0),
    ]
    home, other = read(tmp_path, "person,audio\nfirst,~/a.wav\nlargest,~b.wav\n")
    assert (home.audio, other.audio) == (Path.home() / "a.wav", Path("~b.wav"))
    assert read(tmp_path, "person,audio\nfirst,a.wav") == [
        Voice(person="first", audio=Path("a.wav"))
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "its first line must be person,audio,gain"),
        ("person,sound\nfirst,a.wav\n", "its first line must be person,audio,gain"),
        ("person,audio\n", "has no voices"),
        ("person,audio\nleft,a.wav\n", "line 2: person left: choose from largest, first, center"),
        ("person,audio\ntrack:0,a.wav\n", "line 2: person track:0: choose from"),
        ("person,audio\n\nfirst\n", "line 3: person,audio are wanted, 1 fields are there"),
        ("person,audio\nfirst,\n", "line 2: audio is missing"),
        ("person,audio\nfirst,a.wav\ntrack:1,b.wav\n", "line 3: track:1 has a voice already"),
        ("person,audio,gain\nfirst,a.wav,loud\n", "line 2: gain loud: must be a number of dB"),
        ("person,audio,gain\nfirst,a.wav,nan\n", "line 2: gain nan: must be from -40 to 40 dB"),
        ("person,audio,gain\nfirst,a.wav,60\n", "line 2: gain 60: must be from -40 to 40 dB"),
        ("person,audio\nfirst," + "a" * 200_000, "line 2: field larger than field limit"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, text: str, reason: str) -> None:
    if 'first,"a' in text:
        text = text.replace('"a.wav', "a" * 200_000)
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert f"list.csv: {reason}" in str(caught.value)


def test_the_longest_sound_sets_the_length() -> None:
    sounds = [("a", [tone(0.5)]), ("b", [tone(1.0)])]
    heard = list(hear(sounds, 25.0, "network", as_trained=False))
    assert len(heard) == 25
    first, second = zip(*heard, strict=True)
    levels = np.array([chunk.mean() for chunk, _ in first])
    assert (levels[:12] > -3.9).all() and (levels[13:] == -4).all()
    assert all(weight == 1 for _, weight in (*first, *second))
    with pytest.raises(UserError, match=r"^b: 0\.10 s of sound"):
        list(hear([("a", [tone(1.0)]), ("b", [tone(0.1)])], 25.0, "network", as_trained=False))
    # A voice that has ended fades like one that pauses.
    weights = [one[0][1] for one in hear(sounds, 25.0, "source", as_trained=False)]
    assert len(weights) == 25 and weights[-1] == 0


@pytest.fixture
def white_where_it_sounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(_: GeneratorRunner, crops: list, chunks: list) -> np.ndarray:
        heard = np.array([255 * (chunk.max() > 0) for chunk in chunks], np.uint8)
        return np.broadcast_to(heard[:, None, None, None], (len(crops), 96, 96, 3))

    monkeypatch.setattr(GeneratorRunner, "generate", generate)


OPTIONS = {"device": "cpu", "precision": "fp32", "detector": "centerface", "silence": "network"}
OPTIONS["blend"] = "paste"  # so that the whole face is white
FIRST_HALF, SECOND_HALF = (
    np.concatenate(parts) for parts in ((tone(1.0), 0 * tone(1.0)), (0 * tone(1.0), tone(1.0)))
)


def pair_of(face: np.ndarray) -> list[np.ndarray]:
    """Two people side by side; the one on the left is the same in other colours."""
    return [np.hstack([np.roll(face[:, :, ::-1], n % 3, axis=1), face]) for n in range(50)]


def lit(frames: list[np.ndarray]) -> np.ndarray:
    """Whether the face on the left, and that on the right, is white: bool (n, 2)."""
    mouths = (np.s_[110:160, 100:150], np.s_[110:160, 356:406])
    return np.array([[frame[mouth].mean() > 200 for mouth in mouths] for frame in frames])


def check(shown: np.ndarray) -> None:
    """Left speaks in the first second, right in the second one."""
    seconds = np.arange(len(shown)) / 25
    assert len(shown) == 50
    left, right = shown.T
    assert left[seconds < 0.9].all() and not left[seconds > 1.1].any()
    assert right[seconds > 1.0].all() and not right[seconds < 0.7].any()


@pytest.mark.usefixtures("thin", "white_where_it_sounds")
@pytest.mark.parametrize("rules", [("track:1", "track:2"), ("first", "largest")])
def test_each_mouth_follows_its_own_sound(
    generator_file: Path, face: np.ndarray, rules: tuple[str, str]
) -> None:
    """``largest`` is whoever is left, as nobody is chosen twice."""
    lip_sync = LipSync(generator_file, **OPTIONS)
    sounds = dict(zip(rules, (FIRST_HALF, iter(np.array_split(SECOND_HALF, 7))), strict=True))
    check(lit(list(lip_sync(pair_of(face), sounds, fps=25))))
    with pytest.raises(UserError, match="sound left: choose from"):
        next(lip_sync(pair_of(face), {"left": FIRST_HALF}))


@pytest.mark.usefixtures("thin")
def test_sounds_that_fit_no_face(generator_file: Path, face: np.ndarray) -> None:
    boxed = LipSync(generator_file, device="cpu", box=(40, 200, 60, 180))
    with pytest.raises(UserError, match="sound: has 2 voices; a box is for one"):
        next(boxed([face], {"track:1": FIRST_HALF, "track:2": SECOND_HALF}))
    with pytest.raises(UserError, match="sound: has 0 voices; give a rule and a sound"):
        next(boxed([face], {}))


@pytest.mark.usefixtures("thin", "white_where_it_sounds")
def test_the_command_mixes_the_sounds(
    generator_file: Path, face: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    low, high = tmp_path / "low.wav", tmp_path / "high.wav"
    write_wav(low, FIRST_HALF)
    write_wav(high, SECOND_HALF * np.sign(np.sin(np.arange(len(SECOND_HALF)) * 0.6)))
    write_video(tmp_path / "pair.mp4", pair_of(face))
    (tmp_path / "list.csv").write_text(
        f"person,audio,gain\ntrack:1,{low},-20\ntrack:2,{high},0\ntrack:7,{low},-40\n"
    )
    config = InferConfig(
        **OPTIONS, checkpoint_path=generator_file, face=tmp_path / "pair.mp4",
        voices=tmp_path / "list.csv", outfile=tmp_path / "out.mp4",
    )  # fmt: skip
    infer(config)
    check(lit([frame.image for frame in read_frames(config.outfile)]))
    assert "track:7: 50 of 50 frames without a face, unchanged" in caplog.text
    heard = load_audio(config.outfile)
    expected = 0.1 * load_audio(low) + load_audio(high) + 0.01 * load_audio(low)
    for part in (slice(0, SAMPLE_RATE), slice(SAMPLE_RATE, 2 * SAMPLE_RATE)):
        loud, wanted = (float(np.sqrt(np.mean(x[part] ** 2))) for x in (heard, expected))
        assert loud == pytest.approx(wanted, rel=0.1)
    (tmp_path / "low.mp4").hardlink_to(low)
    with pytest.raises(UserError, match="is also an input"):
        infer(replace(config, outfile=tmp_path / "low.mp4"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "--audio: is required, or --voices"),
        ({"voices": "l.csv", "audio": "a.wav"}, "--audio a.wav: has no effect with --voices"),
        ({"voices": "l.csv", "face_select": "first"}, "--face_select first: has no effect with"),
        ({"voices": "l.csv", "box": (1, 2, 3, 4)}, r"--box \(1, 2, 3, 4\): has no effect with"),
        ({"voices": "l.csv", "jobs": "j.csv"}, "--voices l.csv: has no effect with --jobs"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, object], reason: str) -> None:
    paths = {
        name: Path(value) if isinstance(value, str) and "." in value else value
        for name, value in options.items()
    }
    with pytest.raises(UserError, match=reason):
        InferConfig(checkpoint_path=Path("g.pth"), face=Path("f.mp4"), **paths)
