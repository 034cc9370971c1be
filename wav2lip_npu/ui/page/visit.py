"""Who a request comes from."""

from __future__ import annotations

import gradio as gr


def key_of(request: gr.Request) -> str:
    """A key of an open page: the random number of Gradio's session, and who is logged in."""
    return f"{request.username or ''}/{request.session_hash}"
