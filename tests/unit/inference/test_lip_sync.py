"""Lip-sync as a function, and ONNX."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from formula import fill
from helpers import tone

from face_detection.landmarks import FaceLandmarks
from wav2lip_npu import LipSync, cli
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.fusion import fold, fuse
from wav2lip_npu.inference.landmarks import find_points
from wav2lip_npu.inference.locate import LocatedFace, LocatedFrame
from wav2lip_npu.media.video_reader import Frame
from wav2lip_npu.models import Generator, blocks
from wav2lip_npu.runtime.device import Device

pytestmark = pytest.mark.usefixtures("thin")

PLAIN = {"device": "cpu", "precision": "fp32", "detector": "centerface"}


def test_pictures_and_sound_in_pictures_out(generator_file: Path, face: np.ndarray) -> None:
    lip_sync = LipSync(generator_file, **PLAIN)
    pictures = [np.roll(face, n, axis=1) for n in range(20)]
    before = [picture.copy() for picture in pictures]
    whole = list(lip_sync(pictures, tone(1.0), fps=25))
    assert len(whole) == 20  # fewer than there is sound for
    for one, other in zip(pictures, before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(np.abs(a.astype(int) - b).max() > 20 for a, b in zip(whole, pictures, strict=True))
    # Sound that comes in blocks, and pictures one at a time.
    blocks = np.split(tone(1.0), 50)
    one_by_one = LipSync(generator_file, **PLAIN, wav2lip_batch_size=1, face_det_batch_size=1)
    for a, b in zip(one_by_one(iter(pictures), iter(blocks)), whole, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1
    assert len(list(lip_sync(pictures, tone(0.4), fps=25))) == 10  # the sound ends first


def test_by_landmarks_the_mouth_alone_changes(generator_file: Path, face: np.ndarray) -> None:
    pictures = [np.roll(face, n, axis=1) for n in range(4)]
    lip_sync = LipSync(generator_file, **PLAIN, blend="mouth")
    for number, image in enumerate(lip_sync(pictures, tone(1.0))):
        changed = np.abs(image.astype(int) - pictures[number]).max(axis=2) > 0
        rows, columns = np.nonzero(np.roll(changed, -number, axis=1))
        # The tip of the nose is at row 123, the chin at 176, the ears at columns 88 and 172.
        assert rows.min() > 118 and rows.max() <= 180
        assert columns.min() > 80 and columns.max() < 180
        assert changed[145, 127 + number]  # between the lips
    # Where the place is given, nothing says that a face is there.
    box = (60, 190, 80, 180)
    fixed = [LipSync(generator_file, **PLAIN, box=box, blend=how) for how in ("mouth", "feather")]
    ours, feathered = (list(one(pictures, tone(1.0))) for one in fixed)
    np.testing.assert_array_equal(ours, feathered)


def test_a_frame_hears_what_it_heard_in_training(generator_file: Path, face: np.ndarray) -> None:
    sound = np.concatenate([tone(0.4), np.zeros(3200, np.float32), tone(0.4)])
    ways = ("training", "original")
    plain = {**PLAIN, "blend": "paste", "box": (60, 190, 80, 180)}
    heard, early = (
        list(LipSync(generator_file, **plain, audio_window=way)([face] * 25, sound)) for way in ways
    )
    whole = len(early) - 6  # those after hear the last 0.2 s
    for number in range(1, whole):  # in the original the same is seen 40 ms before
        shown = heard[number]
        assert (shown != early[number - 1]).mean() < 0.1 * (shown != early[number]).mean()
    default = list(LipSync(generator_file, **plain)([face] * 25, sound))
    np.testing.assert_array_equal(default, heard)


def test_a_still_image_is_looked_at_once(face: np.ndarray) -> None:
    class Counting(FaceLandmarks):
        looks = 0

        def detect_tilted(self, *args) -> np.ndarray:
            self.looks += 1
            return super().detect_tilted(*args)

    box = (80, 60, 180, 190)
    there = LocatedFace(box=box, detected=np.array(box))
    still = LocatedFrame(frame=Frame(time=0.0, image=face), faces=(there,))
    other = replace(still, frame=Frame(time=0.1, image=face.copy()))
    moved = replace(other, faces=(replace(there, box=(82, 60, 182, 190)),))
    held = LocatedFace(box=(82, 60, 182, 190), found=False)
    missing = replace(moved, faces=(held,))
    network = Counting()
    frames = [still, still, still, other, other, moved, missing, still]
    found = [one.faces[0].points for one in find_points((one for one in frames), network)]
    assert network.looks == 4
    assert found[6] is None
    np.testing.assert_array_equal(found[0], found[2])
    assert np.abs(found[5] - found[0]).mean() < 2
    # A box beside the face has no points: the network's are not where the box is.
    wide = replace(still, faces=(replace(there, detected=np.array([0.0, 0, 256, 60])),))
    assert next(find_points((one for one in [wide]), network)).faces[0].points is None
    # Margins, as of --pads, change nothing.
    padded = replace(still, faces=(replace(there, box=(40, 20, 220, 250)),))
    again = next(find_points((one for one in [padded]), network))
    np.testing.assert_array_equal(again.faces[0].points, found[0])


def test_the_example_of_the_docs(
    generator_file: Path, speech: Path, face: np.ndarray, tmp_path: Path, monkeypatch
) -> None:
    text = (Path(__file__).parents[3] / "docs" / "inference.md").read_text(encoding="utf-8")
    (code,) = re.findall("```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("checkpoints").mkdir()
    generator_file.rename("checkpoints/wav2lip.pth")
    cv2.imwrite("face.png", face)
    exec(code, {})
    assert len(list(tmp_path.glob("0*.png"))) == 25  # a second of sound


def test_it_can_be_left_and_used_again(generator_file: Path, face: np.ndarray) -> None:
    lip_sync = LipSync(generator_file, **PLAIN, box=(40, 200, 60, 180))
    asked = []

    def camera():
        while True:
            asked.append(1)
            yield face

    spoken = lip_sync(camera(), tone(60.0))
    first = next(spoken)
    spoken.close()
    assert len(asked) < 400
    np.testing.assert_array_equal(next(lip_sync([face] * 5, tone(0.5))), first)


def test_digital_silence(generator_file: Path, face: np.ndarray) -> None:
    lip_sync = LipSync(generator_file, **PLAIN)
    silent = list(lip_sync([face] * 10, np.zeros(6400, np.float32)))
    assert len(silent) == 10
    assert 10 < np.mean(silent) < 245


def test_errors(generator_file: Path, face: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sound: 0\.10 s of sound, at least 0\.2 s"):
        list(LipSync(generator_file, **PLAIN)([face] * 5, tone(0.1)))
    with pytest.raises(UserError, match="--face_select track:0: choose from largest"):
        LipSync(generator_file, face_select="track:0")
    with pytest.raises(UserError, match="no such file"):
        LipSync(tmp_path / "none.pth", device="cpu")
    with pytest.raises(UserError, match=r"--backend onnx runs an \.onnx file"):
        LipSync(generator_file, device="cpu", backend="onnx")


def test_folding_changes_nothing() -> None:
    generator = fill(Generator()).eval()
    mel, faces = torch.rand(2, 1, 80, 16), torch.rand(2, 6, 96, 96)
    with torch.inference_mode():
        expected = generator(mel, faces)
        folded = fold(generator)
        torch.testing.assert_close(folded(mel, faces), expected, rtol=0, atol=2e-6)
    assert not any("BatchNorm" in type(module).__name__ for module in folded.modules())


@pytest.mark.parametrize(("dtype", "precise"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_fusing_changes_nothing(dtype: torch.dtype, precise: float) -> None:
    if dtype is torch.bfloat16 and Device.open("cpu", "auto").dtype is None:
        pytest.skip("oneDNN has no bf16 on this processor")
    folded = fold(fill(Generator()).eval()).to(dtype=dtype, memory_format=torch.channels_last)
    fused = fuse(copy.deepcopy(folded))
    for batch in (3, 1, 5):  # weights are packed for the first of them
        numbers = torch.Generator().manual_seed(batch)
        mel = torch.rand(batch, 1, 80, 16, generator=numbers).to(dtype)
        faces = torch.rand(batch, 6, 96, 96, generator=numbers).to(dtype)
        with torch.inference_mode():
            expected = folded(mel, faces)
            torch.testing.assert_close(fused(mel, faces), expected, rtol=0, atol=precise)
    assert not any(isinstance(module, blocks.ConvBlock) for module in fused.modules())


def test_blocks_stay_plain_where_fused_ones_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("could not create a primitive")

    generator = fold(Generator().eval())
    forward = "wav2lip_npu.inference.fusion._FusedBlock.forward"
    monkeypatch.setattr(forward, fails)
    assert "_FusedBlock" not in repr(fuse(generator))
    monkeypatch.setattr(
        "wav2lip_npu.inference.fusion._FusedBlock.forward", lambda _, x: x
    )  # differs
    assert "_FusedBlock" not in repr(fuse(generator))


def export(source: Path, target: Path, *more: str) -> int:
    words = ["--checkpoint_path", str(source), "--outfile", str(target)]
    return cli.main(["export", *words, "--onnx", *more])


@pytest.mark.parametrize("batch", [None, 4])
def test_onnx(batch: int | None, generator_file: Path, face: np.ndarray, tmp_path: Path) -> None:
    """For batches of any size, and of one: the seven pictures are four and three then."""
    onnxruntime = pytest.importorskip("onnxruntime")
    more = () if batch is None else ("--onnx_batch", str(batch))
    assert export(generator_file, tmp_path / "g.pth", *more) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "g.onnx"))
    size = "batch" if batch is None else batch
    assert {(one.name, *one.shape) for one in (*session.get_inputs(), *session.get_outputs())} == {
        *(("mel", size, 1, 80, 16), ("faces", size, 6, 96, 96), ("generated", size, 3, 96, 96)),
    }
    pictures, spoken = [face] * 7, {}
    for suffix, backend in ((".pth", "torch"), (".safetensors", "torch"), (".onnx", "onnx")):
        lip_sync = LipSync(tmp_path / f"g{suffix}", backend=backend, **PLAIN)
        spoken[suffix] = np.stack(list(lip_sync(pictures, tone(0.5)))).astype(int)
    np.testing.assert_array_equal(spoken[".pth"], spoken[".safetensors"])
    # 1e-4 of a pixel in [0, 1] may be on the other side of a whole number.
    assert np.abs(spoken[".pth"] - spoken[".onnx"]).max() <= 1
    assert (spoken[".pth"] != spoken[".onnx"]).mean() < 0.01


def test_onnx_that_differs_is_not_written(
    generator_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("wav2lip_npu.export.fold", lambda generator: Generator().eval())
    assert export(generator_file, tmp_path / "g.pth") == 2
    assert "from torch's; not written" in capsys.readouterr().err
    assert not (tmp_path / "g.onnx").exists()
