"""``python -m wav2lip_npu`` is the ``wav2lip-npu`` command."""

from wav2lip_npu.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
