"""Writing videos: containers, names, colours, sound of any kind, full disks, killed runs."""

import errno
import io
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from helpers import number_of, numbered, tone, write_video

from wav2lip_npu.constants import SAMPLE_RATE
from wav2lip_npu.errors import UserError
from wav2lip_npu.media import video_writer
from wav2lip_npu.media.audio import write_wav
from wav2lip_npu.media.outfile import CONTAINERS, check_outfile
from wav2lip_npu.media.video_reader import Frame, probe, read_frames
from wav2lip_npu.media.video_writer import VideoWriter
from wav2lip_npu.runtime.files import partial_path
from wav2lip_npu.runtime.locks import mark_in_use


def decoded(path: Path) -> list[tuple[float, np.ndarray]]:
    """Times and frames (BGR), as PyAV gives them."""
    with av.open(f"file:{path}") as file:
        return [(frame.time, frame.to_ndarray(format="bgr24")) for frame in file.decode(video=0)]


def heard(path: Path) -> tuple[float, np.ndarray, int]:
    """Time of the first sample, the first channel, and the rate."""
    with av.open(f"file:{path}") as file:
        frames = list(file.decode(audio=0))
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return float(frames[0].time), samples, frames[0].sample_rate


@pytest.mark.parametrize("suffix", [*CONTAINERS, ".MP4"])
def test_each_container_holds_frames_in_order_and_the_sound_in_time(
    suffix: str, tmp_path: Path
) -> None:
    samples = np.zeros(SAMPLE_RATE, np.float32)
    samples[8000:] = 0.5 * np.sign(tone(0.5, hertz=300))
    write_wav(tmp_path / "a.wav", samples)
    out = write_video(tmp_path / f"a{suffix}", numbered(25), audio=tmp_path / "a.wav")
    frames = decoded(out)
    assert [number_of(image) for _, image in frames] == [*range(25)]
    start, sound, rate = heard(out)
    begins = start + np.flatnonzero(np.abs(sound) > 0.2)[0] / rate - frames[0][0]
    tolerance = 0.08 if suffix == ".avi" else 0.01  # AVI cannot tell when frames are shown
    assert begins == pytest.approx(0.5, abs=tolerance)


@pytest.mark.parametrize(
    "name",
    ["x.gif", "x.mpg", "x.ogv", "x.mxf", "x.mp3", "x.wav", "x.png", "%s.png", "%d%d.png",
     "100%_%d.png", "%05d.jpg", "x", ".mp4", "x."],
)  # fmt: skip
def test_other_suffixes_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"choose one of \.mp4 \.m4v \.mov") as caught:
        check_outfile(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    for path, fault in (
        (tmp_path / "folder.mp4", "is a folder"),
        (tmp_path / "file" / "x.mp4", "cannot be written"),
        (tmp_path / f"{'x' * 300}.mp4", "File name too long"),
        (tmp_path / "nul\0.mp4", "cannot be written"),
    ):
        with pytest.raises(UserError, match=fault):
            check_outfile(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        check_outfile(tmp_path / "x.mp4")


@pytest.mark.parametrize(
    "name",
    ["10:30.mp4", "%d.mp4", "-x.mp4", "a\nb.mp4", "it's \"$(x)\".mp4", "视频.mp4", "\udcff.mp4",
     "http:x.mp4", "x" * 250 + ".mp4"],
)  # fmt: skip
def test_any_name_is_only_a_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(Path(name), numbered(3))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert os.fsencode(Path(name)).startswith(b"\xff") or len(decoded(tmp_path / name)) == 3


def coloured(
    path: Path, codec: str, format: str, size: tuple[int, int] = (64, 48), **tags: int
) -> Path:
    """A video whose left and right halves have two colours."""
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2], image[:, width // 2 :] = (40, 90, 200), (180, 120, 60)
    with av.open(str(path), "w") as file:
        options = {"crf": "1", "qmin": "1"} if "x264" in codec else {}
        stream = file.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, format
        context = stream.codec_context
        for name, value in tags.items():
            setattr(context, name, value)
        converted = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(
            format=format,
            dst_colorspace=tags.get("colorspace"),
            dst_color_range=tags.get("color_range"),
        )
        for number in range(3):
            converted.pts = number
            file.mux(stream.encode(converted))
        file.mux(stream.encode(None))
    return path


SOURCES = {
    "rgb": ("a.mp4", "libx264rgb", "rgb24", {}),
    "large rgb": ("a.mp4", "libx264rgb", "rgb24", {"size": (1280, 720)}),
    "ffv1 gbr": ("a.mkv", "ffv1", "bgr0", {}),
    "png": ("a.mov", "png", "rgb24", {}),
    "gif": ("a.gif", "gif", "bgr8", {}),
    "raw rgb": ("a.avi", "rawvideo", "bgr24", {}),
    "jpeg": ("a.mov", "mjpeg", "yuvj420p", {"color_range": 2}),
    "jpeg 444": ("a.mov", "mjpeg", "yuvj444p", {"color_range": 2}),
    "full range": ("a.mp4", "libx264", "yuv420p", {"color_range": 2, "colorspace": 1}),
    "full 422": ("a.mp4", "libx264", "yuv422p", {"color_range": 2, "colorspace": 5}),
    "bt709 444": ("a.mp4", "libx264", "yuv444p", {"colorspace": 1, "color_range": 1}),
    "10 bits": ("a.mkv", "ffv1", "yuv420p10le", {"colorspace": 9, "color_range": 1}),
    "grey": ("a.mkv", "ffv1", "gray", {}),
    "not said": ("a.mp4", "libx264", "yuv420p", {}),
    "reserved": ("a.mp4", "libx264", "yuv420p", {"colorspace": 3}),
    "alpha": ("a.mov", "png", "rgba", {}),
}


def pyav_knows_colours() -> bool:
    """Whether it converts a BT.709 picture of full range as the standard says."""
    frame = av.VideoFrame(16, 16, "yuvj444p")
    for plane, value in zip(frame.planes, (100, 90, 170), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    frame.colorspace, frame.color_range = 1, 2
    blue, red = 100 + 1.8556 * (90 - 128), 100 + 1.5748 * (170 - 128)
    return np.allclose(frame.to_ndarray(format="bgr24")[8, 8, [0, 2]], (blue, red), atol=2)


@pytest.mark.skipif(not pyav_knows_colours(), reason="this PyAV decodes all as BT.601")
@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("case", SOURCES)
def test_colours_of_any_source(case: str, rotated: bool, tmp_path: Path) -> None:
    """PyAV shows the same colours in both, and the YUV matrix is one that 4:2:0 may have."""
    name, codec, format, tags = SOURCES[case]
    source = coloured(tmp_path / name, codec, format, **tags)
    info, out = probe(source), tmp_path / "out.mp4"
    with VideoWriter(out, fps=25, like=info, crf=1) as writer:
        for frame in read_frames(source):
            # A turned frame comes without what its decoder gave: all of it goes through BGR.
            given = Frame(time=frame.time, image=frame.image) if rotated else frame
            writer.write(frame.image, source=given, changed=[(0, 0, 8, 8)])
    pairs = list(zip(decoded(source), decoded(out), strict=True))
    assert len(pairs) == 3
    for (_, before), (_, after) in pairs:
        error = before.astype(int) - after
        middle = before.shape[1] // 2
        for half in (error[:, : middle - 4], error[:, middle + 4 :]):  # chroma is halved between
            # 8 bits are rounded twice, and once more where all of it goes through BGR.
            assert np.abs(half.mean(axis=(0, 1))).max() < (4 if rotated else 2.5)
    with av.open(str(out)) as file:
        frame = next(file.decode(video=0))
        assert (frame.format.name, int(frame.colorspace)) != (frame.format.name, 0)
        assert frame.format.name in ("yuv420p", "yuvj420p")
        if "rgb" in case or case == "png":
            said = not (rotated and case == "raw rgb")  # only its frames tell that they are RGB
            assert int(frame.colorspace) == (1 if case == "large rgb" else 6 if said else 2)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 300), (17, 16), (16384, 2)])
def test_sizes(shape: tuple[int, int], tmp_path: Path) -> None:
    image = np.full((*shape, 3), 100, np.uint8)
    out = write_video(tmp_path / "a.mp4", [image] * 2)
    shown = decoded(out)[0][1]
    assert shown.shape == (shape[0] + shape[0] % 2, shape[1] + shape[1] % 2, 3)
    assert np.abs(shown.astype(int) - 100).max() < 3


def test_sizes_that_cannot_be_encoded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2 × 16386 pixels; H\.264 has up to 16384"):
        write_video(tmp_path / "a.mp4", [np.zeros((16385, 2, 3), np.uint8)])
    with pytest.raises(UserError, match="32 × 48 pixels cannot follow those of 64 × 48"):
        write_video(tmp_path / "a.mp4", numbered(2) + numbered(1, size=(32, 48)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [1, Fraction(1, 30), 240, Fraction(1234567, 49383), 59.94, 999])
def test_rates(fps: float, tmp_path: Path) -> None:
    out = write_video(tmp_path / "a.mp4", numbered(5), fps=fps)
    times = [time for time, _ in decoded(out)]
    np.testing.assert_allclose(times, np.arange(5) / float(fps), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("fps", [0, -25, Fraction(1, 10**6), 1e9])
def test_rates_that_cannot_be_written(fps: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="frames per second cannot be written"):
        VideoWriter(tmp_path / "a.mp4", fps=fps)


class FullDisk(io.FileIO):
    """A file on a disk with little space left."""

    space = 0

    def write(self, content: bytes) -> int:
        if self.tell() + len(content) > self.space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(content)


@pytest.mark.parametrize("space", [0, 1000, 10_000, 40_000, 100_000])
def test_a_full_disk_is_told_with_the_outfile(
    space: int, tmp_path: Path, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it happens; the former file stays, and nothing else is left."""
    out = tmp_path / "out" / "out.mp4"
    out.parent.mkdir()
    out.write_bytes(b"former")

    def open_on_full_disk(path: Path, mode: str = "r", *rest: object) -> object:
        if "partial" not in path.name or mode != "wb":
            return io.open(path, mode, *rest)  # noqa: UP020
        file = FullDisk(path, "w")
        file.space = space
        return file

    monkeypatch.setattr(Path, "open", open_on_full_disk)
    random = np.random.default_rng(0)
    noise = [random.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(25)]
    with pytest.raises(UserError, match="No space left on device") as caught:
        write_video(out, noise, audio=speech)
    assert str(caught.value).startswith(f"{out}: cannot be written (")
    assert [path.name for path in out.parent.iterdir()] == ["out.mp4"]
    assert out.read_bytes() == b"former"


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_what_killed_runs_left_is_removed(tmp_path: Path) -> None:
    out, dead = tmp_path / "o.v1.mp4", dead_process()
    gone = [f".o.v1.{dead}-77.partial.mp4", f".o.v1.{os.getpid()}-1.partial.mp4"]
    parent = os.getppid()
    kept = [
        f".o.v1.{parent}-77.partial.mp4",  # that process is there
        f".other.{dead}-77.partial.mp4",
        f".o.v1.{dead}-77.partial.mkv",
        f".o.v1.{dead}.partial.mp4",
        f"o.v1.{dead}-77.partial.mp4",
        f".o.v1.x{dead}-77.partial.mp4",
        f".o.v1.{dead}-78.partial.mp4",  # open, by a process of another machine
    ]
    for name in gone + kept:
        (tmp_path / name).touch()
    with mark_in_use(tmp_path / kept[-1]):
        write_video(out, numbered(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, out.name])
    old = time.time() - 2 * 3600
    os.utime(tmp_path / kept[0], (old, old))
    write_video(out, numbered(2))
    assert not (tmp_path / kept[0]).exists()


def test_a_file_that_is_being_written_is_not_a_leftover(tmp_path: Path) -> None:
    out = tmp_path / "o.mp4"
    with VideoWriter(out, fps=25) as writer:
        writer.write(numbered(1)[0])
        own = partial_path(out)
        later = own.with_name(own.name.replace(f"{os.getpid()}-", f"{dead_process()}-"))
        own.rename(later)
        with pytest.raises(RuntimeError), VideoWriter(out, fps=25):
            assert later.exists()
            raise RuntimeError
        later.rename(own)
    assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", fps=25) as writer:
        writer.write(numbered(1)[0])
        raise KeyboardInterrupt

    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(video_writer, "mark_in_use", interrupt)  # while it is opened
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", fps=25):
        pass
    assert list(tmp_path.iterdir()) == []
