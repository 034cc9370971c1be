"""Files that are odd, damaged or hostile: what is read of them, and what is said."""

import itertools
import logging
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from helpers import number_of, numbered, tone, write_video

from wav2lip_npu.errors import UserError
from wav2lip_npu.media.audio import WavWriter, load_audio, open_sound, write_wav
from wav2lip_npu.media.images import is_image, read_image
from wav2lip_npu.media.timestamps import Clocks, FrameClock, Timing
from wav2lip_npu.media.video_reader import (
    at_rate,
    open_video,
    probe,
    read_frames,
)

RATE = 16_000


def encode(
    path: Path,
    images: list[np.ndarray],
    *,
    codec: str = "libx264",
    pts: Callable[[int], int | None] | None = None,
    sound: np.ndarray | None = None,
    format: str | None = None,
    pix_fmt: str = "yuv420p",
    **options: str,
) -> Path:
    """Write a video; ``pts`` gives the time stamp of the n-th packet, in 1/25 s."""
    with av.open(str(path), "w", format=format) as output:
        stream = output.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = pix_fmt, 5_000_000
        audio = output.add_stream("pcm_s16le", rate=RATE) if sound is not None else None
        if audio is not None:
            audio.layout = "mono"
            frame = av.AudioFrame.from_ndarray(
                (sound[None] * 32767).astype(np.int16), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = RATE, 0
            output.mux(audio.encode(frame))
            output.mux(audio.encode(None))
        packets = []
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            packets += stream.encode(frame)
        for number, packet in enumerate(packets + stream.encode(None)):
            if pts is not None:
                packet.pts = packet.dts = pts(number)
                packet.time_base = Fraction(1, 25)
            output.mux(packet)
    return path


def order(path: Path) -> list[int]:
    return [number_of(frame.image) for frame in read_frames(path)]


def opencv_order(path: Path) -> list[int]:
    video = cv2.VideoCapture(str(path))
    numbers = []
    while True:
        read, image = video.read()
        if not read:
            return numbers
        numbers.append(number_of(image))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("b.avi", {"bf": "3", "b_strategy": "0"}),
        ("pyramid.avi", {"bf": "8", "x264-params": "b-pyramid=normal:b-adapt=0"}),
        ("mpeg4.avi", {"codec": "mpeg4", "bf": "2"}),
        ("no_b.avi", {"bf": "0"}),
        ("mjpeg.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("raw.h264", {"bf": "2"}),
        ("raw.m4v", {"codec": "mpeg4", "bf": "2"}),
        ("b.mp4", {"bf": "3"}),
        ("b.mkv", {"bf": "3"}),
        ("b.ts", {"bf": "3"}),
        ("b.flv", {"bf": "3"}),
    ],
)
def test_frames_come_in_the_order_in_which_they_are_shown(
    tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    path = encode(tmp_path / name, numbered(28), **options)
    assert order(path) == [*range(28)] == opencv_order(path)
    assert [number_of(f.image) for f in at_rate(read_frames(path), 25)] == [*range(28)]
    info = probe(path)
    assert info.fps == 25
    # The backwards walk of a loop: a part from the middle is found, with or without an index.
    part = at_rate(read_frames(path, since=info.start + 0.3), 25, origin=info.start, first=20)
    assert [number_of(frame.image) for frame in part] == [*range(20, 28)]


def test_sound_and_frames_of_an_avi_share_their_zero(tmp_path: Path) -> None:
    sound = np.zeros(RATE, np.float32)
    sound[8000:8010] = 0.9  # with frame 12.5
    path = encode(tmp_path / "a.avi", numbered(25), sound=sound, bf="3", b_strategy="0")
    with open_video(path, with_sound=True) as video:
        wav = WavWriter(tmp_path / "a.wav")
        assert len([*video.frames(wav)]) == 25
        wav.close()
        assert not video.info.is_seekable
        assert video.info.start == 0
    for samples in (load_audio(tmp_path / "a.wav"), mono(path)):
        assert 8000 <= int(np.argmax(np.abs(samples))) < 8010


def mono(path: Path) -> np.ndarray:
    with open_sound(path) as sound:
        return np.concatenate([*sound.mono_blocks()])


@pytest.mark.parametrize(
    ("stamps", "shown"),
    [
        (lambda n: n, [*range(20)]),
        # A second without frames stays one: the last frame before it is shown for it.
        (lambda n: n + 25 * (n >= 10), [*range(10), *[9] * 13, *[10] * 12, *range(10, 20)]),
        (lambda n: n - 500 * (n >= 10), [*range(20)]),  # two files joined: a clock set anew
        (lambda n: n + 10**9 * (n >= 10), [*range(20)]),
        (lambda n: n - 5, [*range(20)]),
    ],
)
def test_times_as_they_are_and_clocks_that_are_set_anew(
    tmp_path: Path, stamps: Callable[[int], int], shown: list[int]
) -> None:
    path = write_video(tmp_path / "plain.mkv", numbered(20))
    frames = [*read_frames(path)]
    # Containers refuse most of these stamps, so the decoder's frames are given them.
    with av.open(str(path)) as container:
        decoded = [*container.decode(video=0)]
        for number, frame in enumerate(decoded):
            frame.pts, frame.dts, frame.time_base = stamps(number), None, Fraction(1, 25)
        timing = Timing.of(container.streams.video[0], decoded[:8])
    clock = FrameClock(timing, Clocks(path, None))
    times = [clock.time(frame) for frame in decoded]
    assert all(b > a for a, b in itertools.pairwise(times))
    timed = [
        type(frame)(time=time, image=frame.image) for frame, time in zip(frames, times, strict=True)
    ]
    assert [number_of(frame.image) for frame in at_rate(timed, 25)] == shown


@pytest.mark.parametrize("fault", ["missing", "same", "falling", "one missing", "one falling"])
def test_time_stamps_that_cannot_be_used(tmp_path: Path, fault: str) -> None:
    stamps: dict[str, Callable[[int], int | None]] = {
        "missing": lambda n: None,
        "same": lambda n: 7,
        "falling": lambda n: 100 - n,
        "one missing": lambda n: None if n == 12 else n,
        "one falling": lambda n: 10 if n == 12 else n,
    }
    path = write_video(tmp_path / "plain.mkv", numbered(20))
    with av.open(str(path)) as container:
        decoded = [*container.decode(video=0)]
        for number, frame in enumerate(decoded):
            frame.pts, frame.dts, frame.time_base = stamps[fault](number), None, Fraction(1, 25)
        timing = Timing.of(container.streams.video[0], decoded[:8])
    assert timing.is_counted == ("one" not in fault)
    clock = FrameClock(timing, Clocks(path, None))
    times = np.array([clock.time(frame) for frame in decoded])
    assert (np.diff(times) > 0).all()
    expected = times[0] + np.arange(20) / 25
    off = np.abs(times - expected)
    assert off[np.arange(20) != 12].max() < 1e-9
    assert off[12] < 0.04


def test_the_default_streams_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as output:
        videos = [output.add_stream("libx264", rate=25) for _ in range(2)]
        sounds = [output.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        for streams in (videos, sounds):
            streams[0].disposition = 0
            streams[1].disposition = av.stream.Disposition.default.value
        for stream in videos:
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number, stream in enumerate(videos):
            image = np.full((48, 64, 3), 80 + 80 * number, np.uint8)
            for n in range(5):
                frame = av.VideoFrame.from_ndarray(image, format="bgr24")
                frame.pts = n
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        for number, stream in enumerate(sounds):
            block = np.full((1, RATE // 5), 1000 + 1000 * number, np.int16)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate = RATE
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    assert order(path) == [20] * 5
    for samples in (load_audio(path), mono(path)):
        np.testing.assert_allclose(samples[:3000], 2000 / 32768, atol=1e-5)


def test_frames_of_other_sizes_are_scaled_to_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """MPEG-TS parts of different sizes, joined as broadcasts are."""
    parts = [numbered(10, (64, 48)), numbered(10, (128, 96)), numbered(10, (64, 48))]
    content = b"".join(
        encode(tmp_path / f"{n}.ts", part, codec="mpeg2video", bf="0").read_bytes()
        for n, part in enumerate(parts)
    )
    path = tmp_path / "joined.ts"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        frames = [*read_frames(path)]
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    # The decoder loses the last frame where the size changes; OpenCV, the same.
    assert [number_of(frame.image) for frame in frames] == [*range(9), *range(9), *range(10)]
    assert caplog.text.count("frames of other sizes are scaled") == 1
    times = [frame.time for frame in frames]
    assert all(b > a for a, b in itertools.pairwise(times))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp", "a.gif", "a.tiff", "a.mp4"])
def test_stills_of_any_kind_are_stills(tmp_path: Path, name: str) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :48] = (200, 100, 50)
    path = tmp_path / name
    if name == "a.mp4":
        encode(path, [image])
    elif name == "a.gif":
        encode(path, [image], codec="gif", pix_fmt="rgb8")
    else:
        cv2.imwrite(str(path), image)
    assert is_image(path)
    found = read_image(path)
    assert found.shape == image.shape
    assert np.abs(found[:, :44].astype(int) - image[:, :44]).mean() < 30
    assert np.abs(found[:, 52:].astype(int)).mean() < 20


def test_what_moves_or_sounds_is_a_video(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(0.5))
    assert not is_image(encode(tmp_path / "a.gif", numbered(3), codec="gif", pix_fmt="rgb8"))
    assert not is_image(write_video(tmp_path / "two.mp4", numbered(2)))
    assert not is_image(write_video(tmp_path / "s.mp4", numbered(1), audio=tmp_path / "a.wav"))


def test_transparency_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("qtrle", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "argb"
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 4), 128, np.uint8), format="argb")
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert probe(path).warnings == ("its transparency is left out",)
    assert probe(write_video(tmp_path / "b.mp4", numbered(3))).warnings == ()


@pytest.mark.parametrize(
    "name",
    [
        "10:30.mp4", "http:a.mp4", "concat:a|b.mp4", "-face.mp4", "a b.mp4", "口型 影片.mp4",
        "$(touch x).mp4", "a'b\".mp4", "a\nb.mp4", "100%.mp4", "img%03d.mp4", "~.mp4", "a?b#c.mp4",
    ],
)  # fmt: skip
def test_any_name_is_a_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "plain.mp4", numbered(3)).rename(tmp_path / name)
    for path in (tmp_path / name, Path(name)):
        assert order(path) == [0, 1, 2]


def test_an_image_with_a_pattern_as_name(tmp_path: Path) -> None:
    for number, name in enumerate(("img%d.png", "img1.png")):
        _, content = cv2.imencode(".png", np.full((48, 64, 3), 100 * number, np.uint8))
        (tmp_path / name).write_bytes(content.tobytes())
    assert is_image(tmp_path / "img%d.png")
    assert read_image(tmp_path / "img%d.png").mean() == 0


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXTINF:1,\nsecret.mp4\n", "ffconcat version 1.0\nfile secret.mp4\n",
        "v=0\nc=IN IP4 127.0.0.1\n", '<?xml version="1.0"?>\n<MPD>', "\n#EXTM3U\nsecret.mp4",
    ],
)  # fmt: skip
def test_playlists_open_no_other_files(tmp_path: Path, content: str) -> None:
    write_video(tmp_path / "secret.mp4", numbered(3))
    (tmp_path / "a.mp4").write_text(content)
    with pytest.raises(UserError, match=r"a\.mp4: (is a playlist|cannot be read)"):
        order(tmp_path / "a.mp4")


def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    expected = {
        "fifo.mp4": "is no regular file", "loop.mp4": "no such file|symbolic links",
        "empty.mp4": "is empty", "folder.mp4": "is a folder", "a" * 300: "too long|no such file",
        "nothing.mp4": "no such file",
    }  # fmt: skip
    for name, message in expected.items():
        with pytest.raises(UserError, match=message) as caught:
            probe(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="is no regular file"):
        load_audio("/dev/zero")


def test_tags_that_are_not_utf_8(tmp_path: Path) -> None:
    """A title in GBK, as programs for Windows write them."""
    path = tmp_path / "a.mp4"
    write_wav(tmp_path / "a.wav", tone(0.2))
    with av.open(str(path), "w") as output:
        output.metadata["title"] = "x" * 12
        stream = output.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for image in numbered(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        output.mux(stream.encode(None))
    content = path.read_bytes()
    assert content.count(b"x" * 12) == 1
    path.write_bytes(content.replace(b"x" * 12, "口型影片标题".encode("gbk")))
    assert order(path) == [0, 1, 2]
    assert not is_image(path)


def test_a_damaged_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.ts", numbered(28), bf="0", g="5")
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 3, len(content) // 3 + 400):
        content[place] ^= 0x5A
    path.write_bytes(content)
    found = order(path)
    assert found[0] == 0
    assert found[-1] == 27
    assert len(found) >= 15
    path.write_bytes(content[: len(content) // 2])
    assert order(path)[0] == 0


def test_frames_that_are_too_large_are_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", numbered(3), codec="rawvideo", pix_fmt="yuv420p")
    content = bytearray(path.read_bytes())
    place = content.index(b"strf") + 8 + 4  # BITMAPINFOHEADER: width and height follow its size
    content[place : place + 8] = (60_000).to_bytes(4, "little") * 2
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.avi: (pictures of 60000 × 60000|no frame|cannot)"):
        order(path)


def test_an_error_of_the_caller_stays_its_own(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(3))
    with pytest.raises(ZeroDivisionError), open_video(path):
        _ = 1 / 0
