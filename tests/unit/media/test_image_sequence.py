"""Numbered PNG files: their names, what is there before them, what is left when it fails."""

import os
import time
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import number_of, numbered

from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import open_sound
from wav2lip_npu.media.image_sequence import ImageSequenceWriter
from wav2lip_npu.media.outfile import IN_USE, check_outfile, is_sequence, is_written
from wav2lip_npu.runtime import files
from wav2lip_npu.runtime.files import partial_path
from wav2lip_npu.runtime.locks import mark_in_use


def write(path: Path, frames: list[np.ndarray], sound: Path | None = None) -> Path:
    if sound is None:
        with ImageSequenceWriter(path, fps=25, sound=None) as writer:
            for frame in frames:
                writer.write(frame)
        return path
    with open_sound(sound) as opened, ImageSequenceWriter(path, fps=25, sound=opened) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.mark.parametrize(
    ("name", "first", "last", "sound"),
    [
        ("%05d.png", "00000.png", "00011.png", "audio.wav"),
        ("take 2_%d.PNG", "take 2_0.PNG", "take 2_11.PNG", "take 2_audio.wav"),
        ("%01dx.png", "0x.png", "11x.png", "audiox.wav"),
    ],
)
def test_names_and_sound(
    name: str, first: str, last: str, sound: str, tmp_path: Path, speech: Path
) -> None:
    folder = tmp_path / "new" / "100%d"  # which is only a name
    out = write(folder / name, numbered(12), sound=speech)
    assert is_written(out)
    assert len([*folder.iterdir()]) == 13
    assert [number_of(cv2.imread(str(folder / file))) for file in (first, last)] == [0, 11]
    assert cv2.imread(str(folder / last), cv2.IMREAD_UNCHANGED).shape == (48, 64, 3)
    with wave.open(str(folder / sound)) as ours, wave.open(str(speech)) as given:
        assert ours.getframerate() == given.getframerate()
        count = round(0.48 * given.getframerate())
        assert ours.getnframes() == count
        one, other = (np.frombuffer(f.readframes(count), "<i2") for f in (ours, given))
    assert np.abs(one.astype(int) - other).max() <= 1


@pytest.mark.parametrize("name", ["x.png", "%d%d.png", "100%_%d.png", "%5d.png", "%05d.mp4", "%d"])
def test_other_names_are_no_sequence(name: str) -> None:
    assert not is_sequence(Path(name))


@pytest.mark.parametrize("there", ["a_3.png", "a_00700.png", "a_audio.wav"])
def test_nothing_that_is_there_is_replaced(there: str, tmp_path: Path) -> None:
    others = ["b_00003.png", "a_3.jpg", "a_x.png", "xa_3.png"]
    for name in (there, *others):
        (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(UserError, match=rf"{there}: is there already; remove it, or choose"):
        check_outfile(tmp_path / "a_%05d.png")
    (tmp_path / there).unlink()
    with (
        pytest.raises(UserError, match="is there already"),
        ImageSequenceWriter(tmp_path / "a_%05d.png", fps=25, sound=None) as writer,
    ):
        writer.write(numbered(1)[0])
        (tmp_path / there).write_bytes(b"mine")  # meanwhile
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([there, *others])
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"mine"}


def test_an_interrupt_leaves_nothing(
    tmp_path: Path, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While frames are written, and while they are moved to their places."""
    out = tmp_path / "out" / "%05d.png"
    with pytest.raises(KeyboardInterrupt), ImageSequenceWriter(out, fps=25, sound=None) as writer:
        writer.write(numbered(1)[0])
        raise KeyboardInterrupt
    assert [*out.parent.iterdir()] == []
    with pytest.raises(UserError, match="there was no frame"):
        write(out, [])
    replace, moved = Path.replace, []

    def interrupted(path: Path, target: Path) -> None:
        replace(path, target)
        moved.append(target)
        if len(moved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(files.Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(out, numbered(5), sound=speech)
    assert [file.name for file in moved] == ["audio.wav", "00004.png", "00003.png"]
    assert [*out.parent.iterdir()] == []
    assert not is_written(out)


def test_what_killed_runs_left_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "%05d.png"
    own = partial_path(out)
    stray = [own.with_name(own.name.replace(f"{os.getpid()}-", f"{2**30}-{n}")) for n in range(2)]
    for folder in stray:
        folder.mkdir()
        (folder / IN_USE).touch()
        (folder / "00000.png").touch()
        old = time.time() - 2 * 3600
        os.utime(folder, (old, old))
    with mark_in_use(stray[1] / IN_USE):  # by a process of another machine
        write(out, numbered(1))
    assert sorted(tmp_path.iterdir()) == sorted([stray[1], tmp_path / "00000.png"])
