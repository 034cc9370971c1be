"""The page served by Uvicorn, in a thread, behind the guard."""

from __future__ import annotations

import socket
import threading

import fastapi
import gradio as gr
import uvicorn

from wav2lip_npu.config.ui import LOOPBACK_HOSTS
from wav2lip_npu.ui.guard import Guard
from wav2lip_npu.ui.logins import Logins
from wav2lip_npu.ui.page.layout import CSS, build_page, theme
from wav2lip_npu.ui.service import Service


class Server:
    """Answers browsers."""

    def __init__(self, service: Service, logins: Logins | None) -> None:
        """Build the page.

        Args:
            service: what it shows and does.
            logins: who may log in; None: everybody who reaches it, without a login.
        """
        page = build_page(service)
        app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        gr.mount_gradio_app(
            app,
            page,
            path="",
            server_name=service.config.host,
            auth=None if logins is None else logins.accepts,
            show_error=True,
            max_file_size=service.config.max_upload_mb * 10**6,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            enable_monitoring=False,
            theme=theme(),
            css=CSS,
        )
        page.has_launched = True  # else Gradio takes any file of this machine for an upload
        hosts = LOOPBACK_HOSTS if service.config.is_loopback else ()
        settings = uvicorn.Config(Guard(app, hosts), log_level="warning", lifespan="on")
        self._server = uvicorn.Server(settings)

    def start(self, listener: socket.socket) -> None:
        """Answer what comes to a socket, in a thread that ends with the process."""
        sockets = {"sockets": [listener]}
        threading.Thread(
            target=self._server.run, kwargs=sockets, name="server", daemon=True
        ).start()
