"""Shared by the scripts here: run a subcommand of wav2lip-npu under the original's name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wav2lip_npu.cli import main


def run(*words: str) -> None:
    """Run ``words`` followed by the script's own command line."""
    sys.exit(main([*words, *sys.argv[1:]], prog=Path(sys.argv[0]).name))
