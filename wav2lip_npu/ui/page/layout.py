"""The page: its tabs and its looks."""

from __future__ import annotations

import gradio as gr

from wav2lip_npu.ui.page.data import add_data_tab
from wav2lip_npu.ui.page.lip_sync import add_lip_sync_tab
from wav2lip_npu.ui.page.training import add_training_tab
from wav2lip_npu.ui.page.visit import key_of
from wav2lip_npu.ui.service import Service

HANDLERS_AT_ONCE = 16  # of all visitors; those of jobs only wait

CSS = """
.gradio-container { max-width: 1200px !important; margin: auto; }
.note-bad { color: var(--error-text-color); font-weight: 600; }
.bar { height: 0.6em; border-radius: 0.3em; background: var(--border-color-primary); }
.bar > div { height: 100%; border-radius: 0.3em; background: var(--color-accent); }
.side-by-side { display: grid; grid-template-columns: 1fr 1fr; gap: 1em; }
.side-by-side video, .side-by-side img { width: 100%; max-height: 60vh; object-fit: contain;
  background: var(--background-fill-secondary); }
.side-by-side figure, .wide { margin: 0 0 1em 0; }
figcaption { font-weight: 600; margin-bottom: 0.3em; }
.wide img { max-width: 100%; height: auto; }
.download { display: inline-block; margin-top: 0.6em; text-decoration: underline; }
.table { border-collapse: collapse; width: 100%; }
.table td, .table th { border: 1px solid var(--border-color-primary); padding: 0.25em 0.6em;
  text-align: left; overflow-wrap: anywhere; }
.table th { background: var(--background-fill-secondary); }
"""


def theme() -> gr.themes.Base:
    """Gradio's theme with the fonts of the reader's machine: none is fetched."""
    looks = gr.themes.Default(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )
    return looks.set(block_info_text_color="*neutral_500")


def build_page(service: Service) -> gr.Blocks:
    """Build the page for a service."""
    with gr.Blocks(title="wav2lip-npu", analytics_enabled=False) as page:
        gr.Markdown("# wav2lip-npu")
        with gr.Tab("Lip-sync"):
            add_lip_sync_tab(service)
        with gr.Tab("Data"):
            add_data_tab(service)
        with gr.Tab("Training"):
            add_training_tab(service)

        def leave(request: gr.Request) -> None:
            service.leave(key_of(request))

        page.unload(leave)
    page.queue(default_concurrency_limit=HANDLERS_AT_ONCE, api_open=False)
    return page
