"""A public-domain portrait that talks: the lower face is warped to a track of mouth shapes.

The warp is a displacement field above and below the lips. The lower lip and the chin move down with
the jaw, the upper lip rises a little, and the corners move inwards and outwards. Between open lips
the inside of the mouth appears. Coordinates are pixels of the 256 x 256 frame, x right, y down.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wav2lip_npu.media.images import read_image

FRAME_SIZE = 256  # px, width and height
_SIZE = (FRAME_SIZE, FRAME_SIZE)

Points = tuple[tuple[float, float], ...]

_EYES_AT = (128.0, 104.0)  # place in the frame of the middle between the eyes
_EYE_HALF_WIDTH = 16.0  # px


@dataclass(frozen=True, kw_only=True)
class PortraitFile:
    """An image file of a face that looks at the camera, and its landmarks in the frame."""

    path: Path
    eyes_in_file: tuple[float, float]  # the middle between the eyes, px of the file
    tilt_degrees: float  # of the face in the file, clockwise
    scale: float  # px of the frame per px of the file
    face_box: tuple[int, int, int, int]
    eyes: Points
    nose_y: float
    chin_y: float
    upper_lip: Points
    lower_lip: Points  # none where the lips touch; then no teeth are seen


# NASA 1993. CenterFace found the eyes, face box and mouth corners. They and the lip lines were then
# refined by hand on enlarged crops with level eyes.
EILEEN_COLLINS = PortraitFile(
    path=Path(__file__).with_name("portrait_collins.jpg"),
    eyes_in_file=(225.2, 104.2),
    tilt_degrees=2.0,
    scale=1.39,
    face_box=(66, 47, 193, 205),
    eyes=((97.0, 99.5), (157.5, 101.0)),
    nose_y=142.0,
    chin_y=208.0,
    upper_lip=(
        *((98, 153), (103, 154.5), (110, 156), (115, 157.2), (122, 158), (127, 158.5)),
        *((133, 158), (139, 157), (145, 155.5), (150, 154), (155, 153.5)),
    ),
    lower_lip=(
        *((98, 153), (102, 158.5), (106, 162.5), (110, 164.7), (115, 167), (121, 168.6)),
        *((127, 169), (133, 168.5), (138, 167), (142, 164.7), (148, 161), (155, 153.5)),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """A face that looks at the camera; its images are BGR uint8 (256, 256, 3).

    The landmarks belong to ``image``: a rendered frame is zoomed by about 6 % and shifted by a few
    pixels. A lip is the y of its inner edge for every x of the frame, shape (256,).
    """

    image: np.ndarray
    eyes_closed: np.ndarray  # the image with lowered lids
    mouth_interior: np.ndarray  # what is visible between the lips: teeth, tongue, darkness
    tongue_raised: np.ndarray  # the same with the tongue at the upper teeth
    face_box: tuple[int, int, int, int]  # left, top, right, bottom
    left_corner: tuple[float, float]  # x, y of the mouth corner on the left of the image
    right_corner: tuple[float, float]
    upper_lip: np.ndarray
    lower_lip: np.ndarray
    nose_y: float  # nothing above it moves with the mouth
    chin_y: float


def load_portrait(source: PortraitFile = EILEEN_COLLINS) -> Portrait:
    """Read a portrait, and prepare what it looks like when it speaks."""
    image = _level_image(source)
    upper, lower = _line(source.upper_lip), _line(source.lower_lip or source.upper_lip)
    interior, raised = (
        _mouth_interior(image, source, upper, lower, tongue_raised=raised)
        for raised in (False, True)
    )
    return Portrait(
        image=image,
        eyes_closed=_close_eyes(image, source.eyes),
        mouth_interior=interior,
        tongue_raised=raised,
        face_box=source.face_box,
        left_corner=source.upper_lip[0],
        right_corner=source.upper_lip[-1],
        upper_lip=upper,
        lower_lip=lower,
        nose_y=source.nose_y,
        chin_y=source.chin_y,
    )


def _level_image(source: PortraitFile) -> np.ndarray:
    """The frame, cut from the file, with level eyes."""
    matrix = cv2.getRotationMatrix2D(source.eyes_in_file, source.tilt_degrees, source.scale)
    matrix[:, 2] += np.subtract(_EYES_AT, source.eyes_in_file)
    method = cv2.INTER_AREA if source.scale < 1 else cv2.INTER_CUBIC
    image = read_image(source.path)
    return cv2.warpAffine(image, matrix, _SIZE, flags=method, borderMode=cv2.BORDER_REFLECT_101)


def _line(points: Points) -> np.ndarray:
    """The y for every x of the frame, (256,): through the points, and constant beyond them."""
    xs, ys = np.transpose(points)
    line = np.interp(np.arange(FRAME_SIZE), xs, ys)
    return cv2.GaussianBlur(line[None], (0, 0), 2.5)[0]


def _close_eyes(image: np.ndarray, eyes: Points) -> np.ndarray:
    """Stretch the skin of each upper lid over the eye, and draw lashes at its edge."""
    y, x = np.mgrid[:FRAME_SIZE, :FRAME_SIZE].astype(np.float32)
    skin = cv2.GaussianBlur(image, (0, 0), sigmaX=4, sigmaY=0.7)
    closed = image.astype(np.float32)
    for eye_x, eye_y in eyes:
        bow = 1 - ((x - eye_x) / _EYE_HALF_WIDTH) ** 2
        crease, brink, edge = eye_y - 4 - 5 * bow, eye_y - 1 - 5 * bow, eye_y + 5 * bow
        source_y = crease + (y - crease) * (brink - crease) / np.maximum(edge - crease, 1)
        lid = cv2.remap(skin, x, source_y, cv2.INTER_LINEAR)
        lashes = (0.6 * bow.clip(0) * np.exp(-((y - edge + 1) ** 2)))[..., None]
        cover = ((bow > 0) & (y > crease) & (y < edge)).astype(np.float32)
        cover = cv2.GaussianBlur(cover, (0, 0), 0.8)[..., None]
        closed += cover * (lid * (1 - lashes) - closed)
    return closed.astype(np.uint8)


def _mouth_interior(
    image: np.ndarray,
    source: PortraitFile,
    upper: np.ndarray,
    lower: np.ndarray,
    *,
    tongue_raised: bool,
) -> np.ndarray:
    """The inside of the mouth: dark, with the portrait's teeth, and a tongue at rest or raised."""
    (left, corner_y), (right, _) = source.upper_lip[0], source.upper_lip[-1]
    y, x = np.mgrid[:FRAME_SIZE, :FRAME_SIZE].astype(np.float64)
    u = (x - (left + right) / 2) / ((right - left) / 2)
    interior = np.full(image.shape, (26.0, 20.0, 48.0))
    tongue_y = corner_y + (16 if tongue_raised else 23)
    tongue = np.exp(-((u / 0.6) ** 2) - ((y - tongue_y) / 8) ** 2)
    interior += tongue[..., None] * ((62.0, 56.0, 128.0) - interior)
    teeth = (y > upper) & (y < lower - 1.5)
    cover = cv2.GaussianBlur(teeth.astype(np.float64), (0, 0), 0.8)[..., None]
    return (interior + cover * (image.astype(np.float64) - interior)).clip(0, 255).astype(np.uint8)


# --- Rendering ---

_APERTURE = 0.62  # gap between the lips at openness 1, in half widths of the mouth
_UPPER_LIP_SHARE = 0.2  # of the gap: the upper lip rises, the lower lip falls by the rest
# Of the fall of the lower lip: the chin falls by this. With more, face detectors give taller boxes
# when the mouth opens, and all of the face seems to move.
_CHIN_SHARE = 0.25
_JAW_HALF_WIDTH = 62.0  # px from the middle of the mouth to the cheek, which does not move
_NECK = 36.0  # px below the chin, where the neck does not move
_ZOOM = 1.06  # hides most of the border of the portrait when the head moves
_BLINK_SECONDS = 0.24  # duration of a blink


def render(portrait: Portrait, mouth: np.ndarray, *, seed: int, fps: float) -> Iterator[np.ndarray]:
    """Render the portrait as it speaks.

    Args:
        portrait: who speaks.
        mouth: (frames, 3): openness, width and tongue, see ``visemes.mouth_track``.
        seed: varies head movement and blinks.
        fps: frames per second.

    Yields:
        One BGR uint8 frame (256, 256, 3) per row of ``mouth``.
    """
    rng = np.random.default_rng(seed)
    seconds = np.arange(len(mouth)) / fps
    movement, lids = _head_movement(rng, seconds), _lid_track(rng, seconds)
    for (openness, width, tongue), (degrees, right, down, zoom), lid in zip(
        mouth, movement, lids, strict=True
    ):
        frame = cv2.addWeighted(portrait.image, 1 - lid, portrait.eyes_closed, lid, 0)
        _warp_mouth(frame, portrait, float(openness), float(width), float(tongue))
        matrix = cv2.getRotationMatrix2D((FRAME_SIZE / 2, FRAME_SIZE * 0.7), degrees, zoom)
        matrix[:, 2] += right, down
        yield cv2.warpAffine(frame, matrix, _SIZE, borderMode=cv2.BORDER_REFLECT_101)


def _warp_mouth(
    frame: np.ndarray, portrait: Portrait, openness: float, width: float, tongue: float
) -> None:
    """Move the lips and the jaw of the frame, in place."""
    (left, _), (right, _) = portrait.left_corner, portrait.right_corner
    middle, half = (left + right) / 2, (right - left) / 2
    columns = slice(int(middle - _JAW_HALF_WIDTH), int(middle + _JAW_HALF_WIDTH) + 1)
    rows = slice(int(portrait.nose_y), int(portrait.chin_y + _NECK) + 1)
    x = np.arange(columns.start, columns.stop, dtype=np.float32)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]

    # Along the lips: the source of each column, and the new position of both inner edges.
    spread = half * width * (0.12 if width > 0 else 0.28)
    u = (x - middle) / (half + spread)
    sideways = spread * u * np.exp((1 - u**4) / 4)  # full at the corners, zero at the cheeks
    upper = np.interp(x - sideways, np.arange(FRAME_SIZE), portrait.upper_lip)
    lower = np.interp(x - sideways, np.arange(FRAME_SIZE), portrait.lower_lip)
    gap_at_rest = lower - upper
    gap = _APERTURE * half * openness * np.clip(1 - abs(u) ** 2.5, 0, 1) ** 0.7
    gap = np.maximum(gap, np.minimum(gap_at_rest, 0.7))  # closed lips of a smile leave a thin line
    rise = _UPPER_LIP_SHARE * (gap - gap_at_rest)
    upper_edge, lower_edge = upper - rise, upper - rise + gap
    fall = lower_edge - lower

    # Away from the lips: the movement of the upper lip fades out towards the nose. That of the
    # lower lip changes into that of the chin, which fades out towards the cheeks and the neck.
    above = _smoothstep((upper_edge - y) / (upper_edge - portrait.nose_y))
    chin_fall = _CHIN_SHARE * float(fall[len(fall) // 2])
    chin = portrait.chin_y + chin_fall
    below = _smoothstep((y - lower_edge) / (chin - lower_edge))
    cheek = np.cos(np.pi / 2 * (x - middle) / _JAW_HALF_WIDTH).clip(0) ** 2
    neck = 1 - _smoothstep((y - chin) / _NECK)
    is_above = y < (upper_edge + lower_edge) / 2
    jaw = ((1 - below) * fall + below * chin_fall * cheek) * neck
    down = np.where(is_above, -rise * (1 - above), jaw)
    across = sideways * np.where(is_above, 1 - above, (1 - below) ** 2)
    skin = _sample(frame, x - across, y - down)
    interior = cv2.addWeighted(
        portrait.mouth_interior, 1 - tongue, portrait.tongue_raised, tongue, 0
    )
    inside = _sample(interior, x - sideways, y + rise)

    # The part of each pixel that lies between the lips: anti-aliasing of a thin gap.
    gap_cover = np.minimum(y + 0.5, lower_edge) - np.maximum(y - 0.5, upper_edge)
    gap_cover = gap_cover.clip(0, 1)[..., None]
    shade = (0.6 + 0.4 * ((y - upper_edge) / 5)).clip(0, 1)[..., None] ** (1.4, 1.2, 0.8)
    frame[rows, columns] = skin + gap_cover * (inside * shade - skin)


def _sample(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The image at coordinates x and y, which are broadcast to one shape, as float32."""
    x, y = (np.ascontiguousarray(c, np.float32) for c in np.broadcast_arrays(x, y))
    return cv2.remap(image, x, y, cv2.INTER_LINEAR).astype(np.float32)


def _smoothstep(t: np.ndarray) -> np.ndarray:
    t = t.clip(0, 1)
    return t * t * (3 - 2 * t)


def _head_movement(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    """Slow, small movements: (frames, 4) of degrees, px right, px down, and zoom."""
    periods = rng.uniform(2.5, 6.0, (2, 4, 1))  # seconds
    phases = rng.uniform(0, 2 * np.pi, (2, 4, 1))
    waves = np.sin(2 * np.pi * seconds / periods + phases).mean(axis=0).T
    return waves * (0.3, 0.6, 0.45, 0.003) + (0, 0, 0, _ZOOM)


def _lid_track(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    """How far the lids are closed in every frame: (frames,), 0 to 1."""
    gaps = rng.uniform(1.8, 5.0, int(seconds[-1] / 1.8) + 1 if len(seconds) else 0)
    distance = abs(seconds[:, None] - np.cumsum(gaps)).min(axis=1, initial=np.inf)
    return (1.5 - 3 * distance / _BLINK_SECONDS).clip(0, 1)
