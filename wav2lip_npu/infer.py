"""Lip-sync a video: decode, find faces, draw mouths, paste, encode, frame by frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from wav2lip_npu import audio, checkpoint, video
from wav2lip_npu.config import InferConfig
from wav2lip_npu.device import Device
from wav2lip_npu.errors import UserError
from wav2lip_npu.faces import FaceSource, Located, Misses, locate
from wav2lip_npu.models import Generator
from wav2lip_npu.windows import FACE_SIZE, LOWER_HALF, WINDOW_ROWS, inference_rows

log = logging.getLogger(__name__)


def infer(config: InferConfig) -> Path:
    """Write ``config.outfile``: the face of a video or image, its mouth speaking the audio.

    The picture lasts as long as the audio; a shorter video starts over. Nothing but the face box
    of a frame is changed.

    Returns:
        The file written.

    Raises:
        UserError: an input is missing or cannot be used, or no frame has a face.
    """
    source = FaceSource(config)
    speech = audio.load_audio(config.audio)
    mel = audio.melspectrogram(speech)
    if mel.shape[1] < WINDOW_ROWS:
        seconds = len(speech) / audio.SAMPLE_RATE
        raise UserError(f"{config.audio}: {seconds:.2f} s of sound, at least 0.2 s are needed")
    rows = inference_rows(mel.shape[1], float(source.fps))
    # The original ends with the last chunk, some 0.15 s before the sound does: it is held on.
    frames = max(len(rows), round(len(speech) / audio.SAMPLE_RATE * source.fps))
    rows += [rows[-1]] * (frames - len(rows))

    device = Device.open(config.device, config.precision)
    log.info("device: %s (%s)", device.torch_device, device.reason)
    lip_sync = LipSync(config.checkpoint_path, device)
    misses = Misses(policy=config.no_face, fps=source.fps)
    located = islice(locate(source, frames, config, device, misses), frames)
    chunks = (mel[:, row : row + WINDOW_ROWS] for row in rows)
    writer = video.VideoWriter(
        config.outfile, fps=source.fps, audio=config.audio, colors_of=source.info
    )
    with writer, tqdm(total=frames, unit="frame", disable=None) as bar:
        size = config.wav2lip_batch_size
        while batch := list(islice(located, size)):
            heard = list(islice(chunks, len(batch)))
            spoken = lip_sync.speak(batch, heard, pad_to=size)
            for image, (frame, box) in zip(spoken, batch, strict=True):
                writer.write(image, source=frame, changed=box)
                bar.update()
        misses.conclude()
    log.info("wrote %s: %d frames, %s a second", config.outfile, frames, float(source.fps))
    return config.outfile


class LipSync:
    """A trained generator that draws mouths into pictures."""

    def __init__(self, checkpoint_path: Path, device: Device) -> None:
        """Load the generator.

        Raises:
            UserError: no such checkpoint, or not a generator's.
        """
        generator = Generator()
        checkpoint.load_network(generator, checkpoint.read(checkpoint_path))
        self.device = device
        self.generator = device.place(generator).eval().requires_grad_(False)

    def speak(
        self, located: list[Located], chunks: list[np.ndarray], *, pad_to: int
    ) -> Iterator[np.ndarray]:
        """The pictures with their faces speaking.

        Args:
            located: frames with their face boxes; without one, a picture is returned as it is.
            chunks: (80, 16) mel rows for each.
            pad_to: batch size where the device wants always the same.

        Yields:
            (h, w, 3) BGR uint8.
        """
        faces, heard = [], []
        for (frame, box), chunk in zip(located, chunks, strict=True):
            if box is not None:
                x1, y1, x2, y2 = box
                faces.append(cv2.resize(frame.image[y1:y2, x1:x2], (FACE_SIZE, FACE_SIZE)))
                heard.append(chunk)
        drawn = iter(self.draw(faces, heard, pad_to=pad_to))
        for frame, box in located:
            image = frame.image
            if box is not None:
                x1, y1, x2, y2 = box
                image = image.copy()
                image[y1:y2, x1:x2] = cv2.resize(next(drawn), (x2 - x1, y2 - y1))
            yield image

    @torch.inference_mode()
    def draw(
        self, faces: list[np.ndarray], chunks: list[np.ndarray], *, pad_to: int = 0
    ) -> np.ndarray:
        """Draw faces, each in its own pose, speaking its mel rows.

        Args:
            faces: (96, 96, 3) BGR uint8 each.
            chunks: (80, 16) mel rows for each.
            pad_to: batch size where the device wants always the same.

        Returns:
            uint8 (n, 96, 96, 3) BGR.
        """
        count = len(faces)
        if not count:
            return np.zeros((0, FACE_SIZE, FACE_SIZE, 3), np.uint8)
        if self.device.wants_fixed_shapes:
            faces = faces + faces[-1:] * (pad_to - count)
            chunks = chunks + chunks[-1:] * (pad_to - count)
        batch = self.device.put(
            {
                "faces": torch.from_numpy(np.stack(faces)),
                "mel": torch.from_numpy(np.stack(chunks)).unsqueeze(1),
            }
        )
        reference = batch["faces"].permute(0, 3, 1, 2).float() / 255
        masked = reference.clone()
        masked[:, :, LOWER_HALF:] = 0
        with self.device.autocast():
            drawn = self.generator(batch["mel"], torch.cat([masked, reference], dim=1))
        pixels = (drawn.float() * 255).to(torch.uint8)[:count]  # truncated, as the original does
        return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
