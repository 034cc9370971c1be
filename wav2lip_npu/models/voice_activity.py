"""Whether somebody speaks: the network of Silero VAD 6.2 for sound of 16 kHz, on the CPU.

Its weights come with this package, under the MIT licence (``NOTICE``). The package silero-vad is
not used, as importing it sets the number of torch's threads for the whole process.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from wav2lip_npu.weight_files import read_content

WEIGHTS = Path(__file__).with_name("silero_vad_16k.safetensors")
KEPT_WINDOWS = 1000  # 32 s
WINDOW_SAMPLES = 512  # 32 ms, of which it tells the probability of speech
CONTEXT_SAMPLES = 64  # before the window, which it is shown too
PADDING = 64  # samples, mirrored after the window
FOURIER_SAMPLES, FOURIER_STEP = 256, 128
FREQUENCIES = FOURIER_SAMPLES // 2 + 1
WIDTH = 128  # of its memory

State = tuple[torch.Tensor, torch.Tensor]  # (B, 128) each


class VoiceActivityNetwork(nn.Module):
    """A short Fourier transform, four convolutions, and a memory from window to window."""

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        parts = 2 * FREQUENCIES  # real, then imaginary
        self.stft_conv = nn.Conv1d(1, parts, FOURIER_SAMPLES, FOURIER_STEP, bias=False)
        self.conv1 = nn.Conv1d(FREQUENCIES, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, WIDTH, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(WIDTH, WIDTH)
        self.final_conv = nn.Conv1d(WIDTH, 1, 1)

    def forward(
        self, samples: torch.Tensor, state: State | None = None
    ) -> tuple[torch.Tensor, State]:
        """The probability that somebody speaks in a window.

        Args:
            samples: (B, 64 + 512) in [-1, 1]: the context, and the window.
            state: after the window before; None at the beginning.

        Returns:
            (B,), and the state after this window.
        """
        padded = F.pad(samples.unsqueeze(1), (0, PADDING), mode="reflect")
        real, imaginary = self.stft_conv(padded).split(FREQUENCIES, dim=1)
        x = torch.sqrt(real**2 + imaginary**2)
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = F.relu(convolution(x))
        hidden, cell = self.lstm_cell(x.squeeze(-1), state)
        logit = self.final_conv(F.relu(hidden).unsqueeze(-1))
        return torch.sigmoid(logit).flatten(), (hidden, cell)


class VoiceActivity:
    """The probability of speech in sound that comes in blocks."""

    def __init__(self) -> None:
        """Load the network."""
        self._network = VoiceActivityNetwork().eval()
        self._network.load_state_dict(read_content(WEIGHTS)["state_dict"])
        self._state: State | None = None
        self._waiting = np.zeros(CONTEXT_SAMPLES, np.float32)  # the context, and what came since
        self._heard = 0  # windows
        self.probabilities: deque[float] = deque(maxlen=KEPT_WINDOWS)  # of the latest ones

    @torch.inference_mode()
    def add(self, block: np.ndarray) -> None:
        """Listen to the next (n,) mono samples at 16 kHz in [-1, 1]."""
        numbers = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)
        waiting = np.concatenate([self._waiting, numbers.astype(np.float32)])
        while len(waiting) >= CONTEXT_SAMPLES + WINDOW_SAMPLES:
            window = torch.from_numpy(waiting[None, : CONTEXT_SAMPLES + WINDOW_SAMPLES])
            found, self._state = self._network(window, self._state)
            self.probabilities.append(float(found))
            self._heard += 1
            waiting = waiting[WINDOW_SAMPLES:]
        self._waiting = waiting.copy()  # not a view of all of it

    def has(self, probability: float, first: int, stop: int) -> bool:
        """Whether a window from number ``first`` to before ``stop`` has at least this probability.

        Windows that were not heard yet, and those of more than 30 s ago, have none.
        """
        before = self._heard - len(self.probabilities)  # that are forgotten
        found = islice(self.probabilities, max(0, first - before), max(0, stop - before))
        return any(one >= probability for one in found)
