"""The tab that shows data sets: what preprocess and sync report."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from wav2lip_npu.errors import UserError
from wav2lip_npu.ui.page import markup
from wav2lip_npu.ui.page.visit import key_of
from wav2lip_npu.ui.service import Service

# Names that their modules define; importing these here would load torch.
PREPROCESS_REPORT, SYNC_REPORT = "preprocess_report.jsonl", "sync_report.jsonl"
MAX_ROWS = 500  # of a table; a data set can have many more


def add_data_tab(service: Service) -> None:
    """Add the tab."""

    def list_folders() -> Any:
        found = service.data.with_file(PREPROCESS_REPORT, SYNC_REPORT)
        return gr.Dropdown(choices=found, value=found[0][1] if found else None)

    def show(chosen: str | None, request: gr.Request) -> tuple[str, str]:
        try:
            folder = service.data.inside(chosen or "")
            report = service.inspect("data", path=str(folder))
        except UserError as error:
            return markup.note(str(error), bad=True), ""
        visitor = service.visitors.of(key_of(request))
        images = [_copy(service.data.inside(one), visitor.folder) for one in report["images"]]
        return _summary(report), "".join(
            markup.image(one, "sound and lips" if "sync" in one.name else "contact sheet")
            for one in images
        )

    with gr.Row():
        folder = gr.Dropdown(
            label="Data set",
            choices=[],
            allow_custom_value=True,
            info="folders with a report of preprocess or sync, below those that --data names",
        )
        again = gr.Button("Look again", scale=0)
    shown = gr.Button("Show", variant="primary")
    summary = gr.HTML(elem_id="data")
    images = gr.HTML()
    page = gr.context.Context.root_block
    assert page is not None
    page.load(list_folders, None, folder)
    again.click(list_folders, None, folder)
    shown.click(show, folder, [summary, images])


def _copy(image: Path, folder: Path) -> Path:
    """A copy that is served; an earlier one is replaced."""
    return Path(shutil.copyfile(image, folder / image.name))


def _summary(report: Mapping[str, Any]) -> str:
    faces = 100 * report["faces"] / max(report["frames"], 1)
    rows = [
        ("usable clips", f"{report['usable']} of {report['clips']}"),
        ("frames", report["frames"]),
        ("with a face", f"{report['faces']} ({faces:.2f} %)"),
        ("sound", f"{report['audio_seconds'] / 60:.1f} minutes"),
        (
            "people in a clip",
            ", ".join(f"{n}: {count} clips" for n, count in report["people"].items()),
        ),
        (
            "sound and lips (sync)",
            ", ".join(f"{n} {state}" for state, n in report["sync"].items()) or "no report",
        ),
    ]
    rejected = [(one["source"], one["rejected"]) for one in report["rejected"]]
    warned = [(one["clip"], "; ".join(one["warnings"])) for one in report["warned"]]
    return (
        markup.table((), rows)
        + _named("rejected", ("video", "reason"), rejected)
        + _named("kept, with a warning", ("clip", "warning"), warned)
    )


def _named(title: str, head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    if not rows:
        return markup.note(f"{title}: none")
    more = f", the first {MAX_ROWS} are shown" if len(rows) > MAX_ROWS else ""
    return f"<h3>{title}: {len(rows)}{more}</h3>{markup.table(head, rows[:MAX_ROWS])}"
