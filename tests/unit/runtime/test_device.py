"""Device specifics stay in one module."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
NAME = re.compile(r"(?<![\w-])(cuda|npu)(?![\w-])")  # but not wav2lip_npu, wav2lip-npu or input
NAMED_IN = ("wav2lip_npu/runtime/device.py", "wav2lip_npu/config_base.py")


def test_devices_are_named_in_one_place() -> None:
    assert all(map(NAME.search, ('torch.device("cuda:0")', "torch.npu.x()", "'npu'")))
    modules = [
        path
        for package in ("wav2lip_npu", "face_detection")
        for path in (ROOT / package).rglob("*.py")
        if path.relative_to(ROOT).as_posix() not in NAMED_IN
    ]
    assert len(modules) > 20
    named = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in modules
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if NAME.search(line)
    ]
    assert not named
