"""The tab that shows trainings, also while they run."""

from __future__ import annotations

from typing import Any

import gradio as gr

from wav2lip_npu.config import PlotConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.ui.command_line import from_here, shell_line
from wav2lip_npu.ui.page import markup
from wav2lip_npu.ui.page.plots import METRICS, SHEETS, Plotter
from wav2lip_npu.ui.service import Service

REFRESH_SECONDS = 10


def add_training_tab(service: Service) -> None:
    """Add the tab."""
    plotter = Plotter(service)

    def list_runs() -> Any:
        return gr.Dropdown(choices=service.runs.with_file(METRICS, SHEETS))

    def show(chosen: list[str] | None) -> tuple[str, str, str]:
        try:
            runs = tuple(service.runs.inside(one) for one in chosen or ())
            if not runs:
                raise UserError("first choose one training, or several")
            plots = plotter.plots(runs)
        except UserError as error:
            return markup.note(str(error), bad=True), "", ""
        images = "".join(markup.image(path, caption) for caption, path in plots.images)
        return images, plots.table, shell_line("plot", PlotConfig(runs=tuple(map(from_here, runs))))

    def show_again(chosen: list[str] | None) -> Any:
        return show(chosen) if chosen else (gr.skip(), gr.skip(), gr.skip())

    def set_timer(refresh: bool) -> Any:
        return gr.Timer(active=refresh)

    with gr.Row():
        runs = gr.Dropdown(
            label="Trainings",
            choices=[],
            multiselect=True,
            allow_custom_value=True,
            info="folders below those that --runs names; several are drawn together",
        )
        again = gr.Button("Look again", scale=0)
    with gr.Row():
        shown = gr.Button("Show", variant="primary")
        refresh = gr.Checkbox(
            value=True, label=f"look every {REFRESH_SECONDS} seconds whether they have gone on"
        )
    timer = gr.Timer(REFRESH_SECONDS)
    table = gr.Markdown()
    images = gr.HTML(elem_id="training")
    line = gr.Code(
        label="The same on the command line",
        language="shell",
        interactive=False,
        wrap_lines=True,
        lines=1,
    )
    page = gr.context.Context.root_block
    assert page is not None
    page.load(list_runs, None, runs)
    again.click(list_runs, None, runs)
    shown.click(show, runs, [images, table, line])
    refresh.change(set_timer, refresh, timer)
    timer.tick(show_again, runs, [images, table, line], show_progress="hidden")
