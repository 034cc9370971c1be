"""Draw the layers of the code, and who imports whom: ``python docs/draw_layers.py``.

The layers are those of the import contract in ``pyproject.toml``; the arrows are the real imports.
Not drawn, as nothing could be seen then: imports of the lowest layer, and those that a chain of
other imports implies.
"""

from __future__ import annotations

import re
from pathlib import Path

import grimp
import tomllib

ROOT = Path(__file__).parent.parent
PACKAGE = "wav2lip_npu"
IMAGE = ROOT / "docs" / "layers.svg"
WIDTH, BAND_HEIGHT, BOX_HEIGHT, BOX_WIDTH, GAP = 940, 96, 46, 180, 16  # pixels
MARGIN = 56  # pixels, left of the boxes: the number of the layer

Imports = dict[str, dict[str, int]]  # room → room that it imports → by how many of its modules


def layers() -> list[list[str]]:
    """The rooms of each layer, from the top."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = content["tool"]["importlinter"]["contracts"][0]
    return [re.split(r" [|:] ", layer) for layer in contract["layers"]]


def imports() -> tuple[dict[str, int], Imports]:
    """How many modules each room has, and how many of them import each other room."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    modules: dict[str, int] = {}
    between: Imports = {}
    for module in sorted(graph.modules - {PACKAGE}):
        room = module.split(".")[1]
        if not graph.find_children(module):
            modules[room] = modules.get(room, 0) + 1
        imported = graph.find_modules_directly_imported_by(module) - {PACKAGE}
        for other in {name.split(".")[1] for name in imported} - {room}:
            of_room = between.setdefault(room, {})
            of_room[other] = of_room.get(other, 0) + 1
    return modules, between


def without_implied(between: Imports) -> Imports:
    """The imports that no chain of other imports implies."""

    def reached(room: str) -> set[str]:
        others = set(between.get(room, {}))
        return others.union(*map(reached, others))

    return {
        room: {
            other: count
            for other, count in others.items()
            if not any(other in reached(between_them) for between_them in others)
        }
        for room, others in between.items()
    }


def draw() -> str:
    """The picture, as SVG."""
    modules, between = imports()
    bands, boxes, places = [], [], {}
    lowest = layers()[-1]  # imported by nearly all rooms: no arrows
    for row, rooms in enumerate(layers()):
        top = row * BAND_HEIGHT
        fill = "#f6f7f9" if row % 2 else "#e9edf2"
        bands.append(f'<rect y="{top}" width="{WIDTH}" height="{BAND_HEIGHT}" fill="{fill}"/>')
        label = str(row + 1) if row < 6 else "below"
        bands.append(f'<text x="30" y="{top + BAND_HEIGHT / 2 + 5:.0f}" fill="#777">{label}</text>')
        left = (MARGIN + WIDTH - len(rooms) * BOX_WIDTH - GAP * (len(rooms) - 1)) / 2
        for number, room in enumerate(rooms):
            x, y = left + number * (BOX_WIDTH + GAP), top + (BAND_HEIGHT - BOX_HEIGHT) // 2
            places[room] = (x + BOX_WIDTH / 2, y)
            count = modules[room]
            name, detail = (f"{room}/", f"{count} modules") if count > 1 else (f"{room}.py", "")
            boxes.append(
                f'<rect x="{x:.0f}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" '
                f'fill="white" stroke="#5b7fa6" stroke-width="1.5"/>'
                f'<text x="{x + BOX_WIDTH / 2:.0f}" y="{y + (20 if detail else 28)}">{name}</text>'
            )
            if detail:
                boxes.append(
                    f'<text x="{x + BOX_WIDTH / 2:.0f}" y="{y + 37}" font-size="11" '
                    f'fill="#777">{detail}</text>'
                )
    arrows = []
    for room, others in sorted(without_implied(between).items()):
        for other in sorted(others):
            (x1, top), (x2, y2) = places[room], places[other]
            if y2 <= top or other in lowest:
                continue
            y1 = top + BOX_HEIGHT
            bend = BAND_HEIGHT / 2
            # Around the box that is between two boxes of one column.
            aside = 0.8 * BOX_WIDTH if x1 == x2 and y2 - top > BAND_HEIGHT else 0
            arrows.append(
                f'<path d="M{x1:.0f} {y1} C{x1 + aside:.0f} {y1 + bend:.0f} '
                f'{x2 + aside:.0f} {y2 - bend:.0f} {x2:.0f} {y2 - 5}" marker-end="url(#tip)"/>'
            )
    height = len(layers()) * BAND_HEIGHT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'font-family="sans-serif" font-size="14" text-anchor="middle">',
            f"<title>The layers of {PACKAGE}: each imports only from those below it</title>",
            '<marker id="tip" markerWidth="8" markerHeight="8" refX="3" refY="3" orient="auto">'
            '<path d="M0 0 L6 3 L0 6 z" fill="#5b7fa6"/></marker>',
            *bands,
            '<g fill="none" stroke="#5b7fa6" stroke-width="1.3">',
            *arrows,
            "</g>",
            *boxes,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    IMAGE.write_text(draw(), encoding="utf-8")
