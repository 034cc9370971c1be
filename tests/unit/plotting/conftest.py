"""A machine as bare as can be."""

import pytest
from matplotlib.font_manager import fontManager


@pytest.fixture
def own_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with no fonts but those that come with matplotlib."""
    fonts = [font for font in fontManager.ttflist if font.name.startswith(("DejaVu", "STIX"))]
    monkeypatch.setattr(fontManager, "ttflist", fonts)
