"""Training and inference are given the same: boxes, crops and mel chunks of one video."""

import wave
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from helpers import tone

from wav2lip_npu.boxes import cut
from wav2lip_npu.config import InferConfig, PreprocessConfig
from wav2lip_npu.data.clips import load_mel
from wav2lip_npu.errors import UserError
from wav2lip_npu.inference.command import infer
from wav2lip_npu.inference.lip_sync import LipSync
from wav2lip_npu.inference.locate import LocatedFace, locate, targets_of
from wav2lip_npu.inference.source import FaceSource
from wav2lip_npu.media import audio
from wav2lip_npu.media.audio import open_sound
from wav2lip_npu.media.video_reader import Frame
from wav2lip_npu.mel import WINDOW_ROWS, generator_mel_starts, iter_mel_chunks
from wav2lip_npu.preprocessing.clip import process_video
from wav2lip_npu.preprocessing.report import ClipReport
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.tracking import detection

FRAMES = 40


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, face: np.ndarray) -> Path:
    """A face that moves to and fro, and is hidden for four frames.

    The sound is PCM at 16 kHz and begins before the first frame of the video.
    """
    path = tmp_path_factory.mktemp("video") / "talker.mkv"
    hidden = face.copy()
    hidden[40:200, 70:190] = face[40:200, 70:190].mean(axis=(0, 1))
    samples = (tone(2.0) * 32768).astype(np.int16)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 320, 288, "yuv420p"
        sound = file.add_stream("pcm_s16le", rate=16_000, layout="mono")
        block = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        block.sample_rate = 16_000
        block.pts, block.time_base = 0, Fraction(1, 16_000)
        file.mux(sound.encode(block))
        for number in range(FRAMES):
            image = np.full((288, 320, 3), 90, np.uint8)
            left = 4 + 4 * min(number % 30, 30 - number % 30)
            image[10:266, left : left + 256] = hidden if 10 <= number < 14 else face
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number + 5, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        file.mux(sound.encode(None))
    return path


def preprocessed(video: Path, work: Path, **options: object) -> Path:
    config = PreprocessConfig(
        data_root=video.parent, preprocessed_root=work, detector="centerface", device="cpu",
        **options,
    )  # fmt: skip
    detector = detection.open_detector(config, Device.open("cpu"))
    report = ClipReport(clip="clip", source=video.name)
    (report,) = process_video(video, work, report, detector, config)
    assert report.rejected is None
    return work / "clip"


def located(video: Path, **options: object) -> list[tuple[Frame, LocatedFace]]:
    config = InferConfig(
        checkpoint_path=video, face=video, audio=video, detector="centerface", pads=(0, 0, 0, 0),
        **options,
    )  # fmt: skip
    detector = detection.open_detector(config, Device.open("cpu"))
    source = FaceSource(config)
    targets = targets_of([config.face_select], config.no_face, source.fps)
    found = locate(source.frames(), config, detector, targets)
    return [(one.frame, one.faces[0]) for one in found]


@pytest.mark.parametrize(
    ("every", "smoothed", "align"),
    [(1, False, "off"), (5, False, "off"), (1, True, "off"), (5, True, "tilt")],
)
def test_crops(video: Path, tmp_path: Path, every: int, smoothed: bool, align: str) -> None:
    words = {"detect_every": every, "align": align}
    clip = preprocessed(video, tmp_path / "work", smooth_boxes=smoothed, **words)
    frames = located(video, smooth="centred" if smoothed else "none", **words)
    assert len(frames) == FRAMES
    crops = {}
    for number, (frame, one) in enumerate(frames):
        if one.box is not None:
            crop = cut(frame.image, one.box, one.tilt)
            crops[f"{number}.jpg"] = cv2.imencode(".jpg", crop)[1]
    assert 30 < len(crops) < FRAMES  # the face is hidden for a moment
    written = {path.name: path.read_bytes() for path in clip.glob("*.jpg")}
    assert written == {name: crop.tobytes() for name, crop in crops.items()}
    assert len({one.box for _, one in frames}) > 12  # it does move
    assert any(one.tilt for _, one in frames) == (align == "tilt")


def test_mel_chunks(video: Path, tmp_path: Path) -> None:
    clip = preprocessed(video, tmp_path / "work")
    with wave.open(str(clip / "audio.wav")) as wav:
        assert wav.getnframes() == 32_000 - 5 * 640  # from the first frame of the video on
    mel = load_mel(clip)
    with open_sound(video) as sound:
        chunks = list(iter_mel_chunks(sound.mono_blocks(), 25.0, as_trained=True))
    frames = np.arange(1, len(chunks))
    starts = generator_mel_starts(frames)[:, 0]
    whole = starts + WINDOW_ROWS <= mel.shape[1]
    assert whole.sum() > 35
    for number, start in zip(frames[whole], starts[whole], strict=True):
        np.testing.assert_array_equal(chunks[number], mel[:, start : start + WINDOW_ROWS])


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file is opened as media."""
    counts: Counter[str] = Counter()
    open_file = av.open

    def counted(file: object, *arguments: object, **options: object) -> object:
        if isinstance(file, str):  # else the writer's open file
            counts[Path(file).name] += 1
        return open_file(file, *arguments, **options)

    monkeypatch.setattr(av, "open", counted)
    return counts


@pytest.mark.parametrize(("kept", "times"), [(10**9, 1), (0, 2)])
def test_preprocess_opens_a_video_twice_at_most(
    video: Path, tmp_path: Path, opened: Counter[str], monkeypatch: pytest.MonkeyPatch,
    kept: int, times: int,
) -> None:  # fmt: skip
    monkeypatch.setattr("wav2lip_npu.preprocessing.clip.MAX_KEPT_BYTES", kept)
    preprocessed(video, tmp_path / "work")
    assert opened[video.name] == times


@pytest.mark.usefixtures("thin")
def test_infer_opens_and_decodes_the_sound_once(
    video: Path, tmp_path: Path, generator_file: Path, speech: Path, opened: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    decoded = Counter()
    convert = audio.AlignedSound.convert

    def counted(self: audio.AlignedSound, frame: av.AudioFrame) -> object:
        decoded[frame.pts] += 1
        return convert(self, frame)

    monkeypatch.setattr(audio.AlignedSound, "convert", counted)
    infer(
        InferConfig(
            checkpoint_path=generator_file,
            face=video,
            audio=speech,
            device="cpu",
            outfile=tmp_path / "out.mp4",
            box=(40, 200, 60, 180),
        )
    )
    assert opened[speech.name] == 1
    assert set(decoded.values()) == {2}  # what is decoded once goes to the networks and the track


@pytest.mark.usefixtures("thin")
def test_the_python_api_summarizes_missing_faces_too(generator_file: Path) -> None:
    lip_sync = LipSync(generator_file, device="cpu", detector="centerface")
    grey = np.full((96, 96, 3), 90, np.uint8)
    with pytest.raises(UserError, match="no face in any of 20 frames"):
        list(lip_sync([grey] * 20, tone(1.0), fps=25))


def test_both_commands_name_a_broken_detector_alike(video: Path, tmp_path: Path) -> None:
    weights = tmp_path / "s3fd.pth"
    weights.write_text("no weights")
    for config in (
        PreprocessConfig(
            data_root=tmp_path, preprocessed_root=tmp_path, detector="s3fd", s3fd=weights
        ),
        InferConfig(
            checkpoint_path=weights, face=video, audio=video, detector="s3fd", s3fd=weights
        ),
    ):
        with pytest.raises(UserError, match="not S3FD's weights"):
            detection.open_detector(config, Device.open("cpu"))
