"""What makes lip-sync hard, made of plain videos: heads that tilt, beards, hands, bad light."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from face_detection.landmarks import CHIN, EYES, FOREHEAD, LOWER_FACE, OUTER_LIPS

Frames = list[np.ndarray]  # (h, w, 3) BGR uint8, all of one size
Points = Sequence[np.ndarray]  # (468, 3) of the face in each frame

SKIN = (120, 150, 200)  # BGR, of a hand


def tilted(degrees: float) -> Callable[[Frames, Points], Frames]:
    """The whole picture turned clockwise about the face in the first frame."""

    def turn(frames: Frames, points: Points) -> Frames:
        x, y = points[0][:, :2].mean(axis=0).tolist()
        matrix = cv2.getRotationMatrix2D((x, y), -degrees, 1)
        size = (frames[0].shape[1], frames[0].shape[0])
        return [cv2.warpAffine(i, matrix, size, borderMode=cv2.BORDER_REFLECT) for i in frames]

    return turn


def beard(frames: Frames, points: Points) -> Frames:
    """Dark, noisy hair over jaw and cheeks, which moves with them."""
    hair = np.random.default_rng(0).uniform(0.15, 0.5, (256, 256)).astype(np.float32)
    results = []
    for image, shape in zip(frames, points, strict=True):
        mask = _filled(image, shape[LOWER_FACE, :2]) * (1 - _filled(image, shape[OUTER_LIPS, :2]))
        mask = cv2.GaussianBlur(mask, (0, 0), face_height(shape) * 0.02)
        x1, y1 = (int(v) for v in shape[:, :2].min(axis=0))
        grid = np.roll(hair, (y1, x1), (0, 1))  # the hair stays at its place of the face
        texture = np.tile(grid, [n // 256 + 1 for n in mask.shape])[
            : mask.shape[0], : mask.shape[1]
        ]
        results.append(_scaled(image, 1 - mask * (1 - texture)))
    return results


def glasses(frames: Frames, points: Points) -> Frames:
    """A dark frame around each eye, and a bridge."""
    results = []
    for image, shape in zip(frames, points, strict=True):
        image, width = image.copy(), max(1, round(face_height(shape) * 0.025))
        middles = []
        for corners in EYES:
            one, other = shape[list(corners), :2]
            middles.append(tuple(np.rint((one + other) / 2).astype(int).tolist()))
            radius = round(float(np.linalg.norm(one - other)) * 0.85)
            cv2.circle(image, middles[-1], radius, (20, 20, 20), width, cv2.LINE_AA)
        cv2.line(image, middles[0], middles[1], (20, 20, 20), width, cv2.LINE_AA)
        results.append(image)
    return results


def dark(frames: Frames, points: Points) -> Frames:
    """A quarter of the light, and the noise of a camera that amplifies it."""
    random = np.random.default_rng(0)
    results = []
    for image in frames:
        noise = random.normal(0, 4, image.shape)
        results.append((image * 0.25 + noise).clip(0, 255).astype(np.uint8))
    return results


def lamp(frames: Frames, points: Points) -> Frames:
    """The light comes from the right for a while: half of it on the left, a fifth more there."""
    results = []
    for number, image in enumerate(frames):
        on = np.interp(number / len(frames), (0.3, 0.5, 0.7), (0, 1, 0))
        gains = np.linspace(1 - 0.5 * on, 1 + 0.2 * on, image.shape[1])
        results.append(_scaled(image, gains[None]))
    return results


def hand(frames: Frames, points: Points) -> Frames:
    """Four fingers that come up before the mouth and go."""
    results = []
    for number, (image, shape) in enumerate(zip(frames, points, strict=True)):
        image, unit = image.copy(), face_height(shape)
        raised = np.sin(np.pi * number / max(1, len(frames) - 1))
        chin, up = shape[CHIN, :2], (shape[FOREHEAD, :2] - shape[CHIN, :2]) / unit
        across = np.array([-up[1], up[0]])
        for finger in range(4):
            tip = chin + up * unit * (0.55 * raised - 0.25) + across * unit * 0.11 * (finger - 2.2)
            root = tip - up * unit
            ends = [tuple(np.rint(end).astype(int).tolist()) for end in (tip, root)]
            shade = tuple(v - 12 * finger for v in SKIN)
            cv2.line(image, ends[0], ends[1], shade, round(unit * 0.11), cv2.LINE_AA)
        results.append(image)
    return results


def fast(frames: Frames, points: Points) -> Frames:
    """The picture swings to and fro by a third of a face, blurred by its motion."""
    results = []
    size = (frames[0].shape[1], frames[0].shape[0])
    for number, (image, shape) in enumerate(zip(frames, points, strict=True)):
        phase = 2 * np.pi * number / 12
        shift, speed = (
            np.sin(phase) * face_height(shape) / 3,
            np.cos(phase) * face_height(shape) / 6,
        )
        length = max(1, abs(round(speed / 2)))
        image = cv2.blur(image, (length, 1))
        matrix = np.array([[1, 0, shift], [0, 1, 0]], np.float32)
        results.append(cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT))
    return results


def close_up(frames: Frames, points: Points) -> Frames:
    """The face fills the picture."""
    lows = np.min([shape[:, :2].min(axis=0) for shape in points], axis=0)
    highs = np.max([shape[:, :2].max(axis=0) for shape in points], axis=0)
    height, width = frames[0].shape[:2]
    (x1, y1), (x2, y2) = (highs - lows) * -0.12 + lows, (highs - lows) * 0.12 + highs
    window = np.s_[max(0, int(y1)) : min(height, int(y2)), max(0, int(x1)) : min(width, int(x2))]
    return [cv2.resize(image[window], (448, 560)) for image in frames]


def tiny(frames: Frames, points: Points) -> Frames:
    """A face of forty pixels."""
    scale = 40 / face_height(points[0])
    return [
        cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        for image in frames
    ]


SITUATIONS: dict[str, Callable[[Frames, Points], Frames]] = {
    "tilt 20": tilted(20),
    "tilt -20": tilted(-20),
    "tilt 40": tilted(40),
    "tilt -40": tilted(-40),
    "beard": beard,
    "glasses": glasses,
    "dark": dark,
    "lamp": lamp,
    "hand": hand,
    "fast": fast,
    "close-up": close_up,
    "tiny": tiny,
}


def _filled(image: np.ndarray, outline: np.ndarray) -> np.ndarray:
    mask = np.zeros(image.shape[:2], np.float32)
    cv2.fillPoly(mask, [np.rint(outline).astype(np.int32)], 1.0)
    return mask


def _scaled(image: np.ndarray, factor: np.ndarray) -> np.ndarray:
    return (image * factor[..., None]).clip(0, 255).astype(np.uint8)


def face_height(shape: np.ndarray) -> float:
    """Of the face, in pixels."""
    return float(np.linalg.norm(shape[FOREHEAD, :2] - shape[CHIN, :2]))
