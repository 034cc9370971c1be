"""Inference of transparent videos and stills: the alpha plane of the result is the source's."""

import logging
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from helpers import tone

from wav2lip_npu.config import InferConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.command import infer
from wav2lip_npu.media.audio import write_wav
from wav2lip_npu.media.video_reader import probe, read_frames

pytestmark = pytest.mark.usefixtures("thin")

FRAMES = 8


def cut_outs(face: np.ndarray) -> list[np.ndarray]:
    """BGRA: a face whose surroundings are transparent, and black."""
    y, x = np.mgrid[: face.shape[0], : face.shape[1]]
    shown = []
    for number in range(FRAMES):
        image = np.roll(face, 3 * number, axis=1)
        distance = np.hypot(x - 128 - 3 * number, y - 110)
        alpha = (1000 - 8 * distance).clip(0, 255).astype(np.uint8)
        shown.append(np.dstack([np.where(alpha[..., None] > 0, image, 0), alpha]))
    return shown


@pytest.fixture
def talker(tmp_path: Path, face: np.ndarray) -> Path:
    path = tmp_path / "talker.mov"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("qtrle", rate=25)
        stream.height, stream.width, stream.pix_fmt = 256, 256, "argb"
        for number, image in enumerate(cut_outs(face)):
            frame = av.VideoFrame.from_ndarray(image, format="bgra").reformat(format="argb")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def run(generator: Path, face: Path, audio: Path, outfile: Path, **options: object) -> Path:
    common = {"device": "cpu", "precision": "fp32", "detector": "centerface", "blend": "paste"}
    files = {"checkpoint_path": generator, "face": face, "audio": audio, "outfile": outfile}
    infer(InferConfig(**{**common, **files, **options}))
    return outfile


@pytest.mark.parametrize(
    ("name", "codec", "sound", "loss"),
    [("o.mov", "prores", "aac", 1), ("o.webm", "vp9", "opus", 16), ("%05d.png", None, None, 0)],
)
def test_the_alpha_plane_stays(
    name: str,
    codec: str | None,
    sound: str | None,
    loss: int,
    tmp_path: Path,
    generator_file: Path,
    talker: Path,
    face: np.ndarray,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Over a loop back and forth, with a face that is found by its detector and changed."""
    write_wav(tmp_path / "a.wav", tone(0.6))
    out = tmp_path / "out" / name
    with caplog.at_level(logging.INFO):
        run(generator_file, talker, tmp_path / "a.wav", out, loop="pingpong")
    order = [*range(FRAMES), *range(FRAMES - 2, -1, -1)]
    expected = np.stack([cut_outs(face)[n] for n in order]).astype(int)
    if codec is None:
        files = sorted(out.parent.glob("*.png"))
        found = np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files])
        assert (out.parent / "audio.wav").exists()
        assert caplog.text.count("PNG files hold no sound") == 1
    else:
        frames = read_frames(out, with_alpha=True)
        found = np.stack([np.dstack([frame.image, frame.alpha]) for frame in frames])
        with av.open(str(out)) as file:
            assert [s.codec_context.name for s in file.streams] == [codec, sound]
    assert found.shape == expected.shape
    assert np.abs(found[..., 3] - expected[..., 3]).max() <= loss
    assert "left out" not in caplog.text
    change = np.abs(found[..., :3] - expected[..., :3]).mean(axis=(0, 3))
    assert change[100:150, 110:150].mean() > 20  # the mouth, wherever the face is
    assert change[:40, :40].mean() < 4


def test_elsewhere_one_warning_says_what_would_keep_it(
    tmp_path: Path, generator_file: Path, talker: Path, speech: Path, face: np.ndarray,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    still = tmp_path / "still.png"
    still.write_bytes(cv2.imencode(".png", cut_outs(face)[0])[1].tobytes())
    for source in (talker, still):
        caplog.clear()
        out = run(generator_file, source, speech, tmp_path / "o.mp4")
        assert caplog.text.count("its transparency is left out; .mov, .webm and PNG") == 1
        assert not probe(out).has_alpha
    caplog.clear()
    out = run(generator_file, still, speech, tmp_path / "o.mov", rotate=True)
    frames = [*read_frames(out, with_alpha=True)]
    assert len(frames) == 25
    expected = np.rot90(cut_outs(face)[0][..., 3], -1).astype(int)
    assert max(np.abs(frame.alpha - expected).max() for frame in frames) <= 1
    assert "transparency" not in caplog.text


def test_options_without_effect_are_refused(
    tmp_path: Path, generator_file: Path, talker: Path, speech: Path
) -> None:
    for name, options in (
        ("o.mov", {"crf": 20}),
        ("o.mov", {"preset": "slow"}),
        ("o.webm", {"preset": "slow"}),
        ("%05d.png", {"preset": "slow"}),
        ("%05d.png", {"crf": 20}),
    ):
        with pytest.raises(UserError, match=r"--(crf 20|preset slow): has no effect with"):
            run(generator_file, talker, speech, tmp_path / name, **options)
    assert not (tmp_path / "o.mov").exists()
