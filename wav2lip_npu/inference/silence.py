"""How far each frame's mouth follows the sound: not at all where nobody speaks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from wav2lip_npu.constants import SAMPLE_RATE
from wav2lip_npu.models.voice_activity import WINDOW_SAMPLES, VoiceActivity

SPEECH = 0.5  # probability from which a window of sound counts as speech
# Speech within these times of a frame counts for it: a mouth opens before it is heard, and pauses
# between words, up to the sum of both, do not shut it. Later sound is not known yet.
SECONDS_AFTER, SECONDS_BEFORE = 0.12, 0.2
FADE_SECONDS = 0.12  # between a mouth that follows the sound and one that does not
BLOCK_SAMPLES = 16_000  # that are listened to at a time


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
