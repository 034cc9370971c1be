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
FADE_FRAMES = 3  # between a mouth that follows the sound and one that does not


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
            self._activity.add(block)
            yield block

    def next(self) -> float:
        """The weight of the next frame, when the 0.2 s of sound from its time on have gone by."""
        step = 1 / (FADE_FRAMES + 1)
        change = step if self._speaks() else -step
        self._weight = min(1.0, max(0.0, self._weight + change))
        self._frames += 1
        return self._weight

    def _speaks(self) -> bool:
        time, windows = self._frames / self._fps, SAMPLE_RATE / WINDOW_SAMPLES
        first = max(0, int((time - SECONDS_AFTER) * windows))
        stop = int((time + SECONDS_BEFORE) * windows)  # whole windows only
        return any(p >= SPEECH for p in self._activity.probabilities[first:stop])
