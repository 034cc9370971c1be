"""A face restorer that the user has, as an ONNX file, applied to generated mouths.

The files for users of facefusion all work alike (GFPGAN, GPEN, RestoreFormer, CodeFormer): a square
picture of a face that is aligned by five points, RGB in [-1, 1], in and out.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from face_detection import Box
from face_detection.landmarks import EYES, NOSE_TIP, OUTER_MOUTH_CORNERS
from wav2lip_npu.blending.colours import match_colours
from wav2lip_npu.blending.masks import mix, mouth_mask
from wav2lip_npu.errors import UserError
from wav2lip_npu.onnx_session import open_session
from wav2lip_npu.runtime.device import Device
from wav2lip_npu.runtime.failures import reason

# Eyes, tip of the nose and corners of the mouth in shares of the picture, as in FFHQ.
TEMPLATE = np.array(
    [(0.3769, 0.4686), (0.6229, 0.4691), (0.5012, 0.6133), (0.3931, 0.7254), (0.6115, 0.7249)]
)
USUAL_SIDE = 512  # pixels, where the file leaves it open
FIDELITY = 0.5  # of CodeFormer, its authors' default: 0 is the clearest face, 1 the likest one
KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class Enhancer:
    """Restores faces; what is outside of the lower face stays as it is."""

    def __init__(self, path: Path, device: Device) -> None:
        """Open the file.

        Raises:
            UserError: ONNX Runtime is not installed, or it is no face restorer of a known kind.
        """
        self._path = path
        self._session = open_session(path, device, option="--enhance", what="face restorer")
        inputs = {item.name: item for item in self._session.get_inputs()}
        pictures = [item for item in inputs.values() if len(item.shape) == 4]
        others = [item for item in inputs.values() if item not in pictures]
        shape = pictures[0].shape if len(pictures) == 1 else []
        sides = [side if isinstance(side, int) else USUAL_SIDE for side in shape[2:]]
        known = shape[1:2] == [3] and len({*sides}) == 1
        if not known or any(item.type not in KINDS for item in inputs.values()) or len(others) > 1:
            found = ", ".join(f"{item.name} {item.shape}" for item in inputs.values())
            raise UserError(
                f"--enhance {path}: its inputs are {found}; a face restorer has one picture, "
                "(1, 3, N, N), and perhaps a weight"
            )
        self._picture = pictures[0]
        self._side = sides[0]
        self._weights = {}
        for item in others:
            given = [side if isinstance(side, int) else 1 for side in item.shape]
            self._weights[item.name] = np.full(given, FIDELITY, KINDS[item.type])

    def enhance(self, image: np.ndarray, box: Box, points: np.ndarray) -> np.ndarray:
        """A copy of a frame with the lower face restored, within jaw, cheeks and nose.

        Args:
            image: (h, w, 3) BGR uint8.
            box: around the face, within the frame.
            points: (468, 2 or 3) of the face in the frame, see ``FaceLandmarks``.

        Raises:
            UserError: the file gives something else than a picture of the same size.
        """
        matrix = _similarity(_five_points(points), TEMPLATE * self._side)
        aligned = cv2.warpAffine(
            image, matrix, (self._side, self._side), borderMode=cv2.BORDER_REPLICATE
        )
        restored = self._restore(aligned)
        shrinks = float(np.hypot(*matrix[:, 0]))  # what is far larger than the face, before it
        if shrinks > 1:
            side = max(1, round(self._side / shrinks))
            restored = cv2.resize(restored, (side, side), interpolation=cv2.INTER_AREA)
            matrix *= side / self._side
            matrix[:, 2] += (side / self._side - 1) / 2  # pixels are counted by their middles
        x1, y1, x2, y2 = box
        size = (x2 - x1, y2 - y1)
        matrix[:, 2] += matrix[:, :2] @ (x1, y1)  # from pixels of the box
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        face = cv2.warpAffine(restored, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        mask = mouth_mask(points[:, :2] - (x1, y1), size)
        image = image.copy()
        own = image[y1:y2, x1:x2]
        own[:] = mix(own, match_colours(face, own, mask), mask)
        return image

    def _restore(self, aligned: np.ndarray) -> np.ndarray:
        """The network's picture of a face, both (side, side, 3) BGR uint8."""
        planes = aligned[:, :, ::-1].transpose(2, 0, 1)[None] / 127.5 - 1
        given = {self._picture.name: planes.astype(KINDS[self._picture.type]), **self._weights}
        try:
            result = np.asarray(self._session.run(None, given)[0], np.float32)
        except Exception as error:  # ONNX Runtime raises a dozen kinds of its own
            raise UserError(f"--enhance {self._path}: fails ({reason(error)})") from error
        if result.shape != planes.shape:
            raise UserError(
                f"--enhance {self._path}: gives {result.shape} for {planes.shape}; that is no face "
                "restorer"
            )
        restored = (result[0].transpose(1, 2, 0)[:, :, ::-1] + 1) * 127.5
        return np.ascontiguousarray(np.rint(restored).clip(0, 255).astype(np.uint8))


def _five_points(points: np.ndarray) -> np.ndarray:
    eyes = [points[list(corners), :2].mean(axis=0) for corners in EYES]
    return np.stack([*eyes, points[NOSE_TIP, :2], *points[list(OUTER_MOUTH_CORNERS), :2]])


def _similarity(sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Scale, rotation and shift (2, 3) from points (n, 2) to points (n, 2), by least squares."""
    one, other = (points @ (1, 1j) for points in (sources, targets))  # as complex numbers
    from_middle = one - one.mean()
    turn = (from_middle.conj() @ other) / (from_middle.conj() @ from_middle)
    shift = other.mean() - turn * one.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
