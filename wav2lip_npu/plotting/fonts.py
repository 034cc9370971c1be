"""Labels in any script: matplotlib's standard font has no Chinese, Japanese or Korean."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)


@contextmanager
def any_script(text: str) -> Iterator[None]:
    """Draw labels as they are, with further fonts of this machine where the standard font lacks.

    Args:
        text: whose characters are to be drawn. Those that no font has are drawn as boxes; the log
            says so once.
    """
    import matplotlib

    families, lacking = _families(text)
    if lacking:
        log.warning(
            "no font of this machine has %s: drawn as boxes; install a font (such as Noto Sans "
            "CJK), or name the folders by --labels",
            " ".join(sorted(lacking)),
        )
    # No label is a formula, whatever dollar signs it has.
    families = [*matplotlib.rcParams["font.family"], *families]
    settings: dict[Any, Any] = {"font.family": families, "text.parse_math": False}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        yield


def _families(text: str) -> tuple[list[str], set[str]]:
    """Font families that have what the standard font lacks of a text, and what none has."""
    from matplotlib import font_manager

    lacking = {one for one in text if not one.isspace()}
    standard = font_manager.findfont(font_manager.FontProperties())
    lacking -= _characters(standard, lacking)
    families = []
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: font.name):
        # "Last Resort" of matplotlib and of macOS has a box for any character.
        if lacking and "lastresort" not in font.name.lower().replace(" ", ""):
            has = _characters(font.fname, lacking)
            families += [font.name] if has else []
            lacking -= has
    return families, lacking


def _characters(path: str, wanted: set[str]) -> set[str]:
    """Which of the wanted characters a font has; none of a file that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        known = FT2Font(path).get_charmap()
    except (OSError, RuntimeError):  # it was uninstalled meanwhile, or is damaged
        return set()
    return {one for one in wanted if ord(one) in known}
