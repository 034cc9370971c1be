"""Run a command where the emulated cards are: ``python -m ascend wav2lip-npu doctor``."""

from __future__ import annotations

import os
import sys

from ascend import Unavailable, environment

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m ascend COMMAND [WORD ...]")
    kept = {name: value for name, value in os.environ.items() if name.startswith("EMULATED_CANN_")}
    try:
        found = environment(**kept)
    except Unavailable as error:
        sys.exit(f"no emulated cards: {error}")
    os.execvpe(sys.argv[1], sys.argv[1:], found)
