"""The doctor on emulated cards: it computes, looks for kernels, and tries the links."""

from __future__ import annotations

import json
import os
import subprocess
import sys


def examined(**variables: str) -> dict[str, dict[str, str]]:
    words = [sys.executable, "-m", "wav2lip_npu", "doctor", "--device", "npu", "--json"]
    done = subprocess.run(words, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["ready"]
    return {finding["name"]: finding for finding in answer["findings"]}


def test_the_doctor() -> None:
    found = examined()
    assert "natively; fp32, with HF32 in convolutions" in found["NPU"]["detail"]
    assert found["NPU links"]["detail"] == "two of 2 cards add up a tensor"
    assert found["kernels"]["detail"].startswith("all 84 that are used, in ")


def test_the_doctor_on_one_old_card() -> None:
    found = examined(EMULATED_CANN_CARDS="1", EMULATED_CANN_SOC="Ascend310P3")
    assert "fp32, with fp16 in convolutions" in found["NPU"]["detail"]
    assert "NPU links" not in found
