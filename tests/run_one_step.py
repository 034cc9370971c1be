"""What ``test_distributed`` has each of two processes do: one step, and a record of it.

Also the step of one process on the joined batch, where it is started alone.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
import torch
from helpers import one_step, thin_networks

if __name__ == "__main__":
    torch.set_num_threads(1)
    thin_networks(pytest.MonkeyPatch())
    one_step(pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]))
