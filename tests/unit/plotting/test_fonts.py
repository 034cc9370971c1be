"""Characters that matplotlib's standard font lacks."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from wav2lip_npu.media.charts import write_chart
from wav2lip_npu.plotting.fonts import any_script


@pytest.mark.usefixtures("own_fonts")
def test_a_font_is_found_that_has_what_the_standard_font_lacks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """STIX comes with matplotlib, as the standard font does, and alone has U+1D81."""
    letter = "\u1d81"
    with any_script(f"abc {letter}"):
        figure = Figure(figsize=(1, 1))
        text = figure.text(0.1, 0.5, letter, size=30)
        assert "STIXGeneral" in text.get_fontfamily()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            write_chart(tmp_path / "with.png", figure)
    assert "no font" not in caplog.text
    assert "STIXGeneral" not in Figure().text(0, 0, letter).get_fontfamily()
