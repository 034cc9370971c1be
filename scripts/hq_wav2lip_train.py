"""Train Wav2Lip with the visual quality discriminator, with the options of the original's script of this name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wav2lip_npu.cli import main  # noqa: E402

if __name__ == "__main__":
    raise SystemExit(main([*["train", "--disc"], *sys.argv[1:]], prog=Path(__file__).name))
