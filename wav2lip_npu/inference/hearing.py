"""What each frame hears, and how far its mouth follows that: not at all where nobody speaks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from wav2lip_npu.constants import SAMPLE_RATE
from wav2lip_npu.errors import UserError
from wav2lip_npu.mel import MEL_BANDS, MEL_LIMIT, WINDOW_ROWS, iter_mel_chunks
from wav2lip_npu.models.voice_activity import WINDOW_SAMPLES, VoiceActivity

# Probability from which a window of sound counts as speech. The network's authors have 0.5, but
# speech that is cut hard from digital silence may stay below that for 0.3 s; noise is below 0.1.
SPEECH = 0.3
# Speech within these times of a frame counts for it: a mouth opens before it is heard, and pauses
# between words, up to the sum of both, do not shut it. Later sound is not known yet.
SECONDS_AFTER, SECONDS_BEFORE = 0.12, 0.2
FADE_SECONDS = 0.12  # between a mouth that follows the sound and one that does not
BLOCK_SAMPLES = 16_000  # that are listened to at a time

SILENT_CHUNK = np.full((MEL_BANDS, WINDOW_ROWS), -MEL_LIMIT, np.float32)

Heard = tuple[np.ndarray, float]  # a mel chunk, and the weight of the mouth generated for it


def hear(
    sounds: Sequence[tuple[object, Iterable[np.ndarray]]],
    fps: float,
    silence: str,
    *,
    as_trained: bool,
) -> Iterator[tuple[Heard, ...]]:
    """What each frame hears of each sound, and how far that mouth follows it, until all have ended.

    Args:
        sounds: of each its name, for errors, and blocks of mono samples at 16 kHz.
        fps: frames per second.
        silence: one of ``config.SILENCES``.
        as_trained: see ``mel.inference_mel_start``.

    Raises:
        UserError: there is less than 0.2 s of a sound.
    """
    hearings = [_Hearing(name, blocks, fps, silence, as_trained) for name, blocks in sounds]
    while True:
        heard = tuple(hearing.next() for hearing in hearings)
        if all(hearing.ended for hearing in hearings):
            return
        yield heard


class _Hearing:
    """One sound, frame by frame, and silence after its end."""

    def __init__(
        self,
        name: object,
        blocks: Iterable[np.ndarray],
        fps: float,
        silence: str,
        as_trained: bool,
    ) -> None:
        self._name = name
        self._weights = None if silence == "network" else SpeechWeights(fps)
        listened = blocks if self._weights is None else self._weights.listen(blocks)
        self._chunks = iter_mel_chunks(listened, fps, as_trained=as_trained)
        self.ended = False

    def next(self) -> Heard:
        """What the next frame hears."""
        try:
            chunk = next(self._chunks, None)
        except ValueError as error:  # too little sound
            raise UserError(f"{self._name}: {error}") from error
        self.ended = chunk is None
        weight = 1.0 if self._weights is None else self._weights.next()
        return (SILENT_CHUNK if chunk is None else chunk), weight


class SpeechWeights:
    """Weights of the generated mouth, from 0 in silence to 1 in speech, frame by frame."""

    def __init__(self, fps: float) -> None:
        """Load the network that hears voices.

        Args:
            fps: frames per second.
        """
        self._activity = VoiceActivity()
        self._fps = fps
        self._frames = 0
        self._weight = 0.0

    def listen(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same blocks of mono samples at 16 kHz, which are listened to as they go by."""
        for block in blocks:
            for start in range(0, len(block), BLOCK_SAMPLES):
                part = block[start : start + BLOCK_SAMPLES]
                self._activity.add(part)
                yield part

    def next(self) -> float:
        """The weight of the next frame, when the 0.2 s of sound from its time on have gone by."""
        time = self._frames / self._fps
        self._frames += 1
        if self._speaks(time, time + min(1 / self._fps, SECONDS_BEFORE)):
            self._weight = 1.0  # a fade that has not ended does not clip it
        else:
            step = 1 / (FADE_SECONDS * self._fps + 1)
            near = self._speaks(time - SECONDS_AFTER, time + SECONDS_BEFORE)
            self._weight = min(1.0, max(0.0, self._weight + (step if near else -step)))
        return self._weight

    def _speaks(self, start: float, stop: float) -> bool:
        """Whether there is speech between two times, in windows that end before the second one."""
        first, end = (int(max(0.0, time) * SAMPLE_RATE / WINDOW_SAMPLES) for time in (start, stop))
        return self._activity.has(SPEECH, first, end)
