"""Still images: what of them is used, and what is said when that is not all."""

import logging
import struct
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from wav2lip_npu.errors import UserError
from wav2lip_npu.media.images import is_image, put_text, read_image
from wav2lip_npu.media.video_reader import probe


@pytest.fixture
def picture() -> np.ndarray:
    """(48, 64, 3) BGR: the left half is blue."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = (200, 0, 0)
    return image


def write(path: Path, image: np.ndarray) -> Path:
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def with_alpha(image: np.ndarray, alpha: int) -> np.ndarray:
    return np.dstack([image, np.full(image.shape[:2], alpha, image.dtype)])


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_transparency_is_told(
    tmp_path: Path, picture: np.ndarray, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    for alpha, said in ((255, 0), (128, 1)):
        caplog.clear()
        path = write(tmp_path / f"{alpha}{suffix}", with_alpha(picture, alpha))
        with caplog.at_level(logging.WARNING):
            found = read_image(path)
        assert caplog.text.count("its transparency is left out") == said
        assert found.shape == picture.shape
        if alpha == 255:
            assert np.abs(found.astype(int) - picture).max() < 10


@pytest.mark.parametrize("alpha", [False, True])
def test_a_gif_that_is_opaque_has_no_transparency(tmp_path: Path, alpha: bool) -> None:
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "rgba"
        for _ in range(2):
            image = np.full((48, 64, 4), 128 if alpha else 255, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgba")))
        output.mux(stream.encode(None))
    assert bool(probe(path).warnings) == alpha


def test_depths_and_greys(tmp_path: Path, picture: np.ndarray) -> None:
    deep = write(tmp_path / "deep.png", picture.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(deep), picture)
    grey = write(tmp_path / "grey.png", picture[..., 0])
    np.testing.assert_array_equal(read_image(grey), np.repeat(picture[..., :1], 3, axis=2))


def test_photos_of_phones_are_upright(tmp_path: Path, picture: np.ndarray) -> None:
    jpeg = write(tmp_path / "a.jpg", picture).read_bytes()
    tag = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)  # orientation 6: turn it clockwise
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + tag + bytes(4)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "turned.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    found = read_image(tmp_path / "turned.jpg")
    assert found.shape == (64, 48, 3)
    assert found[:28, :, 0].min() > 150
    assert found[36:, :, 0].max() < 50


def test_a_jpeg_that_is_cut_off_is_told(
    tmp_path: Path, picture: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = write(tmp_path / "a.jpg", noise)
    with caplog.at_level(logging.WARNING):
        read_image(path)
        assert not caplog.text
        path.write_bytes(path.read_bytes()[:3000])
        assert read_image(path).shape == noise.shape
    assert "a.jpg: is cut off" in caplog.text


def png(width: int, height: int) -> bytes:
    """A PNG whose header tells of a size, and which holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    "content",
    [
        png(60_000, 60_000), png(20_000, 20_000), png(2**31 - 1, 2**31 - 1),
        png(64, 48)[:30], b"\x89PNG\r\n\x1a\n",
    ],
)  # fmt: skip
def test_what_is_no_image_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png: ") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 100


def test_an_image_without_a_decoder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>')
    assert is_image(path)
    with pytest.raises(UserError, match=r"a\.svg: (no decoder|not an image)"):
        read_image(path)


@pytest.mark.parametrize(
    ("pix_fmt", "tags", "expected"),
    [
        ("rgb24", (0, 2, 1, 1), (0, 1, 1)),
        ("yuv420p", (0, 1, 1, 1), (2, 1, 1)),  # RGB's number, but no RGB
        ("yuv420p", (9, 1, 9, 16), (9, 9, 16)),
        ("yuv420p", (2, 0, 2, 2), (2, 2, 2)),
    ],
)
def test_colour_tags_say_what_is_in_the_file(
    tmp_path: Path, pix_fmt: str, tags: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264rgb" if pix_fmt == "rgb24" else "ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pix_fmt
        codec = stream.codec_context
        codec.colorspace, codec.color_range, codec.color_primaries, codec.color_trc = tags
        for _ in range(2):
            output.mux(stream.encode(av.VideoFrame(64, 48, pix_fmt)))
        output.mux(stream.encode(None))
    info = probe(path)
    assert (info.colorspace, info.color_primaries, info.color_transfer) == expected


@pytest.mark.parametrize("name", ["plain", "中文", "\udcd6\udcd0", "a\0b\nc", ""])
def test_any_name_can_be_written_on_an_image(name: str) -> None:
    """Names in GBK crashed OpenCV 5."""
    image = np.full((18, 200, 3), 255, np.uint8)
    put_text(image, name, (4, 13), scale=0.42, level=0)
    assert (image < 128).any() == bool(name)
