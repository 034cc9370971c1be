"""Transparency from a file into another one, against what PyAV alone wrote and reads."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from helpers import write_video

from wav2lip_npu.errors import UserError
from wav2lip_npu.media import container
from wav2lip_npu.media.audio import open_sound
from wav2lip_npu.media.image_sequence import ImageSequenceWriter
from wav2lip_npu.media.images import read_with_alpha
from wav2lip_npu.media.outfile import is_sequence, keeps_alpha
from wav2lip_npu.media.video_reader import Frame, probe, read_frames
from wav2lip_npu.media.video_writer import VideoWriter

FRAMES = 6
BOX = (20, 10, 44, 30)
# Name, encoder, format, options and how many of 255 levels the alpha of the source may be off.
SOURCES = {
    "prores": ("a.mov", "prores_ks", "yuva444p10le", {"profile": "4444"}, 1),
    "qtrle": ("a.mov", "qtrle", "argb", {}, 0),
    "png": ("a.mov", "png", "rgba", {}, 0),
    "vp9": ("a.webm", "libvpx-vp9", "yuva420p", {"lossless": "1", "auto-alt-ref": "0"}, 1),
    "vp8": ("a.webm", "libvpx", "yuva420p", {"crf": "4", "b": "4M", "auto-alt-ref": "0"}, 24),
}
LOSS = {".mov": 1, ".webm": 12, ".png": 0}  # levels of alpha, of each outfile


def pictures(size: tuple[int, int] = (64, 48), count: int = FRAMES) -> list[np.ndarray]:
    """RGBA: a soft disc of opacity that moves over a slope of colours."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    shown = []
    for number in range(count):
        distance = np.hypot(x - width / 2 - 2 * number, y - height / 2)
        alpha = (300 - 12 * distance).clip(0, 255)
        colours = (60 + x % 128, 200 - y % 128, np.full_like(x, 90))
        shown.append(np.stack([*colours, alpha], axis=2).astype(np.uint8))
    return shown


def encode(
    path: Path, codec: str, pix_fmt: str, options: dict[str, str], frames: list[np.ndarray]
) -> Path:
    """Write RGBA frames with PyAV alone."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgba").reformat(format=pix_fmt)
            if pix_fmt.startswith("yuva"):  # FFmpeg's conversion fails now and then at odd widths
                kind, levels = ("<u2", 1023) if "10" in pix_fmt else (np.uint8, 255)
                plane = np.frombuffer(frame.planes[3], kind).reshape(stream.height, -1)
                plane[:, : stream.width] = np.rint(image[..., 3] * (levels / 255))
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def source(case: str, folder: Path, size: tuple[int, int] = (64, 48)) -> Path:
    name, codec, pix_fmt, options, _ = SOURCES[case]
    return encode(folder / name, codec, pix_fmt, options, pictures(size))


def alpha_of(path: Path) -> np.ndarray:
    """The alpha planes of a file, as PyAV and OpenCV read them, from 0 to 255."""
    if is_sequence(path):
        files = sorted(path.parent.glob("*.png"))
        return np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[..., 3] for file in files])
    planes = []
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert path.suffix != ".webm" or stream.metadata["alpha_mode"] == "1"
        vpx = av.CodecContext.create("libvpx-vp9", "r") if path.suffix == ".webm" else None
        for packet in file.demux(stream):
            for frame in vpx.decode(packet) if vpx else packet.decode():
                bits = frame.format.components[3].bits
                plane = frame.planes[3]
                values = np.frombuffer(plane, np.uint8 if bits == 8 else "<u2")
                rows = values.reshape(plane.height, -1)[:, : plane.width]
                planes.append(rows * (255 / (2**bits - 1)))
    return np.stack(planes)


def rewritten(face: Path, out: Path, **options: object) -> Path:
    """The frames of a video, with a grey box in each, in another file."""
    info = probe(face)
    if is_sequence(out):
        writer = ImageSequenceWriter(out, fps=25, sound=None)
    else:
        writer = VideoWriter(out, fps=25, like=info, **options)
    x1, y1, x2, y2 = BOX
    with writer:
        for frame in read_frames(face, with_alpha=keeps_alpha(out)):
            image = frame.image.copy()
            image[y1:y2, x1:x2] = 128
            writer.write(image, source=frame, changed=[BOX])
    return out


@pytest.mark.parametrize("case", SOURCES)
def test_transparency_is_read(case: str, tmp_path: Path) -> None:
    face = source(case, tmp_path)
    assert probe(face).has_alpha
    assert probe(face).warnings == ("its transparency is left out",)
    expected = np.stack(pictures())[..., 3].astype(int)
    found = np.stack([frame.alpha for frame in read_frames(face, with_alpha=True)])
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= SOURCES[case][-1]
    assert all(frame.alpha is None for frame in read_frames(face))
    part = [*read_frames(face, since=0.1, with_alpha=True)]
    np.testing.assert_array_equal(part[-1].alpha, found[-1])


@pytest.mark.parametrize("size", [(64, 48), (65, 49), (641, 361)])
@pytest.mark.parametrize("name", ["o.mov", "o.webm", "%05d.png"])
@pytest.mark.parametrize("case", ["prores", "png", "vp9"])
def test_transparency_is_written(
    case: str, name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    """It is that of the source, also where the face was changed; the colours change there alone."""
    face = source(case, tmp_path, size)
    out = rewritten(face, tmp_path / "out" / name)
    width, height = size
    expected = np.stack(pictures(size))[..., 3].astype(int)
    found = alpha_of(out)
    grown = (height + height % 2, width + width % 2) if name == "o.webm" else (height, width)
    assert found.shape == (FRAMES, *grown)
    error = np.abs(found[:, :height, :width] - expected)
    assert error.max() <= LOSS[Path(name).suffix] + SOURCES[case][-1]
    assert error.mean() < 0.5
    x1, y1, x2, y2 = BOX
    if is_sequence(out):
        images = [cv2.imread(str(file)) for file in sorted(out.parent.glob("*.png"))]
    else:
        images = [frame.image for frame in read_frames(out)]
    before = np.stack([frame.image for frame in read_frames(face)]).astype(int)
    change = np.abs(np.stack(images)[:, :height, :width] - before)
    inside = np.s_[:, y1 + 4 : y2 - 4, x1 + 4 : x2 - 4]
    assert np.abs(np.stack(images)[inside].astype(int) - 128).max() < 12
    change[:, y1 - 8 : y2 + 8, x1 - 8 : x2 + 8] = 0
    assert change.mean() < 3


def test_alpha_of_ten_bits_stays_exact(tmp_path: Path) -> None:
    """ProRes compresses its alpha without loss, so it can be compared to the number."""
    random = np.random.default_rng(0)
    steps = random.integers(0, 1024, (3, 49, 65)).astype("<u2")
    with av.open(str(tmp_path / "a.mov"), "w") as output:
        stream = output.add_stream("prores_ks", rate=25, options={"profile": "4444"})
        stream.height, stream.width, stream.pix_fmt = 49, 65, "yuva444p10le"
        for alpha in steps:
            frame = av.VideoFrame(65, 49, "yuva444p10le")
            for plane in frame.planes:
                np.frombuffer(plane, "<u2")[:] = 512
            np.frombuffer(frame.planes[3], "<u2").reshape(49, -1)[:, :65] = alpha
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    found = alpha_of(rewritten(tmp_path / "a.mov", tmp_path / "out.mov")) * (1023 / 255)
    np.testing.assert_array_equal(np.rint(found), steps)


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "h264"), (".mov", "prores")])
def test_frame_types_are_chosen_anew(suffix: str, codec: str, tmp_path: Path) -> None:
    """All frames of ProRes are key frames; those of the result need not be."""
    out = rewritten(source("prores", tmp_path), tmp_path / f"out{suffix}")
    with av.open(str(out)) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.name == codec
        keys = [packet.is_keyframe for packet in file.demux(stream) if packet.size]
    assert sum(keys) == (1 if codec == "h264" else FRAMES)


@pytest.mark.parametrize(("name", "pix_fmt"), [("o.mov", "yuv420p"), ("o.webm", "yuv420p")])
def test_opaque_sources_stay_opaque(name: str, pix_fmt: str, tmp_path: Path) -> None:
    opaque = [image[..., :3] for image in pictures()]
    out = write_video(tmp_path / name, opaque)
    with av.open(str(out)) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.name == ("h264" if name == "o.mov" else "vp9")
        assert next(file.decode(stream)).format.name == pix_fmt
        assert "alpha_mode" not in stream.metadata
    assert not probe(out).has_alpha


def test_what_becomes_transparent_later_is_kept(tmp_path: Path) -> None:
    frames = pictures()
    frames[0][..., 3] = 255
    late = encode(tmp_path / "a.mov", "qtrle", "argb", {}, frames)
    assert probe(late).has_alpha and probe(late).warnings == ()
    gif = encode(tmp_path / "a.gif", "gif", "bgr8", {}, frames)  # always decoded with an alpha
    assert not probe(gif).has_alpha


def pyav_converts_ranges() -> bool:
    frame = av.VideoFrame(16, 16, "yuv444p")
    for plane in frame.planes:
        np.frombuffer(plane, np.uint8)[:] = 10
    colours = {"src_colorspace": 6, "dst_colorspace": 6, "src_color_range": 2, "dst_color_range": 1}
    converted = frame.reformat(format="yuv444p10le", **colours)
    return bool(np.frombuffer(converted.planes[0], "<u2")[0] > 80)


@pytest.mark.skipif(not pyav_converts_ranges(), reason="this PyAV keeps the range")
def test_full_range_becomes_the_limited_range_of_prores(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuva444p"
        stream.codec_context.color_range, stream.codec_context.colorspace = 2, 6
        for _ in range(2):
            frame = av.VideoFrame(64, 48, "yuva444p")
            for plane, value in zip(frame.planes, (10, 128, 128, 200), strict=True):
                np.frombuffer(plane, np.uint8)[:] = value
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    out = rewritten(tmp_path / "a.mkv", tmp_path / "o.mov")
    with av.open(str(out)) as file:
        frame = next(file.decode(video=0))
    bits = frame.format.components[0].bits
    brightness = np.frombuffer(frame.planes[0], "<u2").reshape(48, -1)[40, 5] / 2 ** (bits - 8)
    assert brightness == pytest.approx(16 + 10 * 219 / 255, abs=1)
    assert np.abs(alpha_of(out) - 200).max() < 1


def test_without_libvpx_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    face = source("vp9", tmp_path)
    monkeypatch.setattr(container, "_ALPHA_DECODERS", {"vp9": "libnone"})
    with pytest.raises(UserError, match=r"a\.webm: this PyAV has no libnone"):
        next(iter(read_frames(face, with_alpha=True)))
    assert next(iter(read_frames(face))).alpha is None


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_alpha_of_stills(suffix: str, kind: type, tmp_path: Path) -> None:
    if suffix == ".webp" and kind is np.uint16:
        pytest.skip("WebP has 8 bits")
    image = cv2.cvtColor(pictures()[0], cv2.COLOR_RGBA2BGRA)
    stored = image if kind is np.uint8 else image.astype(kind) * 257
    (tmp_path / f"a{suffix}").write_bytes(cv2.imencode(suffix, stored)[1].tobytes())
    found, alpha = read_with_alpha(tmp_path / f"a{suffix}")
    assert found.shape == (48, 64, 3)
    np.testing.assert_array_equal(alpha, image[..., 3])
    image[..., 3] = 255
    (tmp_path / f"b{suffix}").write_bytes(cv2.imencode(suffix, image)[1].tobytes())
    assert read_with_alpha(tmp_path / f"b{suffix}")[1] is None


@pytest.mark.parametrize("suffix", [".mov", ".webm"])
def test_a_still_keeps_its_alpha_and_the_sound(suffix: str, tmp_path: Path, speech: Path) -> None:
    image = cv2.cvtColor(pictures()[0], cv2.COLOR_RGBA2BGRA)
    frame = Frame(time=0.0, image=image[..., :3], alpha=image[..., 3])
    out = tmp_path / f"o{suffix}"
    with open_sound(speech) as sound, VideoWriter(out, fps=25, sound=sound) as writer:
        for _ in range(10):
            writer.write(frame.image, source=frame)
    error = np.abs(alpha_of(out) - image[..., 3])
    assert len(error) == 10
    assert error.max() <= LOSS[suffix]
    with av.open(str(out)) as file:
        sound = file.streams.audio[0]
        assert sound.codec_context.name == ("aac" if suffix == ".mov" else "opus")
        samples = sum(part.samples for part in file.decode(sound))
        assert samples / sound.rate == pytest.approx(0.4, abs=0.05)
