"""Labels in any script: matplotlib's standard font has no Chinese, Japanese or Korean."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.font_manager import FontEntry

REGULAR_WEIGHT = 400  # of a font that is neither light nor bold

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
    fonts_log = logging.getLogger("matplotlib.font_manager")
    level = fonts_log.level
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        fonts_log.setLevel(logging.ERROR)  # it warns of each family without a regular weight
        try:
            yield
        finally:
            fonts_log.setLevel(level)


def _families(text: str) -> tuple[list[str], set[str]]:
    """Font families that have what the standard font lacks of a text, and what none has."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    lacking = {one for one in text if not one.isspace()}
    lacking -= _known(findfont(FontProperties()), lacking)
    faces: dict[str, str] = {}  # of each family the file that matplotlib takes
    for font in sorted(fontManager.ttflist, key=_distance_from_regular):
        faces.setdefault(font.name, font.fname)
    families = []
    for family, path in sorted(faces.items()):
        # "Last Resort" of matplotlib and of macOS has a box for any character.
        if lacking and "lastresort" not in family.lower().replace(" ", ""):
            known = _known(path, lacking)
            families += [family] if known else []
            lacking -= known
    return families, lacking


def _distance_from_regular(font: FontEntry) -> tuple[bool, float]:
    return font.style != "normal", abs(int(font.weight) - REGULAR_WEIGHT)


def _known(path: str, characters: set[str]) -> set[str]:
    """Those characters that a font has; none if its file is gone or damaged."""
    from matplotlib.ft2font import FT2Font

    try:
        known = FT2Font(path).get_charmap()
    except (OSError, RuntimeError):
        return set()
    return {one for one in characters if ord(one) in known}
