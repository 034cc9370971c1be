"""What mouths do in results, by landmarks: on tilted heads, in pauses, and by ``--strength``.

Run from the project's root: ``python -m benchmarks.mouths tilt|silence|strength --help``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from benchmarks import measure
from benchmarks.blending import find_faces, read_videos, sheet_row
from benchmarks.situations import Frames, Points, face_height, tilted
from face_detection.landmarks import (
    EYES,
    LOWER_FACE,
    OUTER_MOUTH_CORNERS,
    FaceLandmarks,
    mouth_shape,
    tilt_of,
)
from wav2lip_npu import LipSync, load_audio
from wav2lip_npu.constants import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

TILTS = (0, 10, 20, 30, 40, 45)  # degrees
PAUSE_SECONDS, SPEECH_SECONDS = 2.0, 1.5
SILENCES = ("network", "source", "still")
STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0)
FADE_FRAMES = 8  # of a pause's beginning and end, in which mouths still move: 0.3 s
JAW = LOWER_FACE[:19]


def lip_sync_of(options: argparse.Namespace, **more: object) -> LipSync:
    """With the options of all three."""
    return LipSync(
        options.checkpoint_path, device=options.device, blend=options.blend, detect_every=5,
        pads=tuple(options.pads), **more,
    )  # fmt: skip


def points_of(results: Frames, sources: Points) -> np.ndarray:
    """The points of the face in each result, (n, 468, 3), found where it is in the source."""
    network, found = FaceLandmarks(), []
    for image, shape in zip(results, sources, strict=False):
        ends = [*shape[:, :2].min(axis=0), *shape[:, :2].max(axis=0)]
        found.append(network.detect_tilted(image, ends, tilt_of(shape)))
    return np.stack(found)


def distance(one: np.ndarray, other: np.ndarray, points: tuple[int, ...], height: float) -> float:
    """Mean distance of some points, in per cent of the face's height."""
    apart = np.linalg.norm(one[:, points, :2] - other[:, points, :2], axis=2)
    return 100 * float(apart.mean()) / height


def measure_tilt(options: argparse.Namespace) -> None:
    """How far eyes and jaw of results are from the source's, and how the mouth is turned."""
    sound, rows, sheets = load_audio(options.audio), [], []
    ways = {align: lip_sync_of(options, align=align) for align in ("off", "tilt")}
    found: dict[tuple[int, str], list[list[float]]] = {}
    for _, upright in read_videos(options.videos, options.frames):
        shapes = find_faces(ways["off"], upright)
        if len(shapes) != len(upright):
            continue
        for degrees in TILTS:
            frames = tilted(degrees)(upright, shapes)
            sources = np.stack(find_faces(ways["off"], frames) or shapes)
            if len(sources) != len(frames):
                continue
            shown, middle = [frames[len(frames) // 2]], sources[len(frames) // 2]
            for align, lip_sync in ways.items():
                results = list(lip_sync(frames, sound))
                points = points_of(results, [*sources])
                height = face_height(middle)
                turned = tilt_of_mouths(points) - tilt_of_mouths(sources[: len(points)])
                eyes = tuple(corner for eye in EYES for corner in eye)
                figures = [
                    distance(points, sources[: len(points)], eyes, height),
                    distance(points, sources[: len(points)], JAW, height),
                    float(np.abs((turned + 180) % 360 - 180).mean()),
                ]
                found.setdefault((degrees, align), []).append(figures)
                shown.append(results[len(results) // 2])
            sheets.append(sheet_row(shown, middle))
    for (degrees, align), of_videos in found.items():
        means = np.mean(of_videos, axis=0)
        rows.append([f"{degrees}", align, f"{len(of_videos)}", *(f"{x:.2f}" for x in means)])
    heads = ("tilt", "align", "videos", "eyes %", "jaw %", "mouth turned by")
    measure.print_table(heads, rows)
    write_sheet(options.outdir / "tilt.png", sheets)


def tilt_of_mouths(points: np.ndarray) -> np.ndarray:
    """By how many degrees each mouth (n, 468, 3) is turned clockwise."""
    left, right = (points[:, corner, :2] for corner in OUTER_MOUTH_CORNERS)
    across = right - left
    return np.degrees(np.arctan2(across[:, 1], across[:, 0]))


def measure_silence(options: argparse.Namespace) -> None:
    """How much mouths move in pauses of 2 s, and whether speech is clipped."""
    voice = without_silence(load_audio(options.audio))[: round(SPEECH_SECONDS * SAMPLE_RATE)]
    pause = np.zeros(round(PAUSE_SECONDS * SAMPLE_RATE), np.float32)
    sound = np.concatenate([pause, voice, pause, voice, pause])
    seconds = np.arange(round(len(sound) / SAMPLE_RATE * FPS)) / FPS
    period = PAUSE_SECONDS + SPEECH_SECONDS
    in_pause = seconds % period < PAUSE_SECONDS
    edge = FADE_FRAMES / FPS
    quiet = in_pause & (seconds % period > edge) & (seconds % period < PAUSE_SECONDS - edge)
    ways = {silence: lip_sync_of(options, silence=silence) for silence in SILENCES}
    rows, sheets = [], []
    for name, some in read_videos(options.videos, len(seconds)):
        frames = [*some, *some[-2:0:-1]] * (1 + len(seconds) // len(some))
        frames = frames[: len(seconds)]
        sources = find_faces(ways["network"], frames)
        if len(sources) != len(frames):
            continue
        shown, network = [frames[20]], None
        for silence, lip_sync in ways.items():
            results = list(lip_sync(frames, sound))
            opening = mouth_shape(points_of(results, sources))[:, 0]
            count = len(opening)
            network = results if network is None else network
            same = [np.array_equal(*pair) for pair in zip(results, network, strict=True)]
            late = clipped(np.array(same), in_pause[:count])
            change = 1000 * np.abs(np.diff(opening))
            paused = 1000 * float(opening[quiet[:count]].mean())
            changes = float(change[quiet[1:count]].mean())
            spoken = 1000 * float(opening[~in_pause[:count]].mean())
            texts = (f"{paused:.1f}", f"{changes:.2f}", f"{spoken:.1f}", f"{late}")
            rows.append([name, silence, *texts])
            shown.append(results[20])
        sheets.append(sheet_row(shown, np.asarray(sources[20])))
    heads = ("", "silence", "opening", "its change", "in speech", "frames of speech clipped")
    measure.print_table(heads, rows)
    write_sheet(options.outdir / "silence.png", sheets)


def without_silence(samples: np.ndarray) -> np.ndarray:
    """A sound from its first frame on that has a tenth of the loudness of its loudest one."""
    frames = samples[: len(samples) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]
    power = np.sqrt(np.mean(frames.reshape(-1, SAMPLES_PER_FRAME) ** 2, axis=1))
    return samples[int(np.argmax(power > 0.1 * power.max())) * SAMPLES_PER_FRAME :]


def clipped(same: np.ndarray, in_pause: np.ndarray) -> int:
    """Frames of speech that are not whole at the beginnings of speech, the most of any."""
    starts = np.flatnonzero(~in_pause[1:] & in_pause[:-1]) + 1
    return max(int(np.argmax(same[start:])) for start in starts.tolist())


def measure_strength(options: argparse.Namespace) -> None:
    """How wide mouths open by ``--strength``."""
    sound, rows, sheets = load_audio(options.audio), [], []
    for name, frames in read_videos(options.videos, options.frames):
        shown, texts, shape = [frames[len(frames) // 2]], [], None
        for strength in STRENGTHS:
            lip_sync = lip_sync_of(options, strength=strength)
            sources = find_faces(lip_sync, frames)
            if len(sources) != len(frames):
                break
            shape = sources[len(frames) // 2]
            results = list(lip_sync(frames, sound))
            opening = mouth_shape(points_of(results, sources))[:, 0]
            texts.append(f"{1000 * opening.mean():.1f}")
            shown.append(results[len(results) // 2])
        if shape is not None and len(texts) == len(STRENGTHS):
            rows.append([name, *texts])
            sheets.append(sheet_row(shown, shape))
    heads = ("mean opening, in thousandths of the face's height", *(f"{x}" for x in STRENGTHS))
    measure.print_table(heads, rows)
    write_sheet(options.outdir / "strength.png", sheets)


def write_sheet(path: Path, rows: Frames) -> None:
    """Rows of pictures, one below the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.vstack(rows))


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    measures = {"tilt": measure_tilt, "silence": measure_silence, "strength": measure_strength}
    measure.add_video_options(parser, "mouths")
    add = parser.add_argument
    add("what", choices=measures)
    add("--blend", default="mouth")
    add("--pads", type=int, nargs=4, default=[0, 0, 0, 0])
    add("--frames", type=int, default=25, help="of each video")
    options = parser.parse_args()
    measure.limit_threads(options.threads)
    measures[options.what](options)


if __name__ == "__main__":
    main()
