"""Draw the layers of the code, and who imports whom: ``python docs/draw_layers.py``.

The layers are those of the import contract in ``pyproject.toml``; the lines are the real imports.
"""

from __future__ import annotations

import re
from pathlib import Path

import grimp
import tomllib

ROOT = Path(__file__).parent.parent
PACKAGE = "wav2lip_npu"
IMAGE = ROOT / "docs" / "layers.svg"
WIDTH, BAND_HEIGHT, BOX_HEIGHT, GAP = 940, 86, 40, 14  # pixels
COLOURS = ("#5b7fa6", "#8a6fa8", "#3f8f7f", "#b0713d", "#a65b6f", "#6f7f3f", "#777777")


def layers() -> list[list[str]]:
    """The rooms of each layer, from the top."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = content["tool"]["importlinter"]["contracts"][0]
    return [re.split(r" [|:] ", layer) for layer in contract["layers"]]


def imports() -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """How many modules each room has, and how many of them import each other room."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    modules: dict[str, int] = {}
    between: dict[tuple[str, str], int] = {}
    for module in sorted(graph.modules - {PACKAGE}):
        room = module.split(".")[1]
        if not graph.find_children(module):
            modules[room] = modules.get(room, 0) + 1
        others = {
            name.split(".")[1]
            for name in graph.find_modules_directly_imported_by(module)
            if name != PACKAGE
        }
        for other in others - {room}:
            between[room, other] = between.get((room, other), 0) + 1
    return modules, between


def draw() -> str:
    """The picture, as SVG."""
    modules, between = imports()
    places: dict[str, tuple[float, float, float]] = {}  # left, top and width of each box
    boxes, lines = [], []
    bands = layers()
    for row, rooms in enumerate(bands):
        top = row * BAND_HEIGHT + 10
        width = min(190, (WIDTH - 110 - GAP * (len(rooms) - 1)) / len(rooms))
        left = (WIDTH - len(rooms) * width - GAP * (len(rooms) - 1)) / 2
        fill = "#f6f7f9" if row % 2 else "#eceff3"
        boxes.append(
            f'<rect x="0" y="{top - 10}" width="{WIDTH}" height="{BAND_HEIGHT}" fill="{fill}"/>'
        )
        for number, room in enumerate(rooms):
            places[room] = (left + number * (width + GAP), top + 13, width)
    for row, rooms in enumerate(bands):
        for room in rooms:
            left, top, width = places[room]
            count = modules.get(room, 0)
            label = f"{room}/ ({count})" if count > 1 else f"{room}.py"
            boxes.append(
                f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{BOX_HEIGHT}" rx="6" '
                f'fill="white" stroke="{COLOURS[row]}" stroke-width="2"/>'
                f'<text x="{left + width / 2:.0f}" y="{top + 25}">{label}</text>'
            )
    for (room, other), count in sorted(between.items()):
        (left, top, width), (to_left, to_top, to_width) = places[room], places[other]
        if to_top <= top:  # within the top or the bottom layer
            continue
        row = next(n for n, rooms in enumerate(bands) if room in rooms)
        x1, y1, x2, y2 = left + width / 2, top + BOX_HEIGHT, to_left + to_width / 2, to_top
        middle = (y1 + y2) / 2
        lines.append(
            f'<path d="M{x1:.0f} {y1} C{x1:.0f} {middle:.0f} {x2:.0f} {middle:.0f} {x2:.0f} {y2}" '
            f'stroke="{COLOURS[row]}" stroke-width="{0.6 + 0.25 * count:.2f}"/>'
        )
    height = len(bands) * BAND_HEIGHT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'font-family="sans-serif" font-size="14" text-anchor="middle">',
            "<title>The layers of wav2lip_npu: each imports only what is below it</title>",
            *[box for box in boxes if box.startswith('<rect x="0"')],
            '<g fill="none" opacity="0.55">',
            *lines,
            "</g>",
            *[box for box in boxes if not box.startswith('<rect x="0"')],
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    IMAGE.write_text(draw(), encoding="utf-8")
