"""The command ``ui``: serve the page until Ctrl-C."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path

from wav2lip_npu.config import UiConfig
from wav2lip_npu.errors import UserError
from wav2lip_npu.runtime.failures import reason
from wav2lip_npu.ui.logins import read_logins
from wav2lip_npu.ui.service import Service, files_folder

CLOSE_SECONDS = 0.5  # for a job to end by itself; the command line ends the process after 1.5
BACKLOG = 128  # connections that wait to be accepted

log = logging.getLogger(__name__)


def run_ui(config: UiConfig) -> None:
    """Serve the page until Ctrl-C or SIGTERM; then end the job, and remove all temporary files.

    Raises:
        UserError: Gradio is missing, a folder or file is, or the port is taken.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("ui: needs Gradio: pip install 'wav2lip-npu[ui]'")
    _require_folders(config)
    logins = None if config.logins is None else read_logins(config.logins)
    private = Path(tempfile.mkdtemp(prefix="wav2lip-npu-ui-"))  # 0700
    service = None
    try:
        with _listen(config) as listener:
            log.info("loading the page …")
            _prepare_gradio(private)
            service = Service.open(config, private)
            from wav2lip_npu.ui.server import Server

            server = Server(service, logins)
            server.start(listener)
            log.info("open %s in a browser; Ctrl-C ends it", _address(config, listener))
            threading.Event().wait()
    finally:
        if service is not None:
            service.close(CLOSE_SECONDS)
        shutil.rmtree(private, ignore_errors=True)


def _require_folders(config: UiConfig) -> None:
    """Raise a UserError if a folder that was named is none."""
    for name in ("checkpoints", "data", "runs"):
        for folder in getattr(config, name):
            given = getattr(config, name) != getattr(UiConfig, name)
            if given and not folder.is_dir():
                raise UserError(f"--{name} {folder}: no such folder")


def _prepare_gradio(private: Path) -> None:
    """Set what Gradio reads when it is imported: nothing is sent, files go to a private folder."""
    files = files_folder(private)
    files.mkdir()
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        HF_HUB_OFFLINE="1",
        GRADIO_TEMP_DIR=str(files),
        GRADIO_EXAMPLES_CACHE=str(files),
    )
    for name in ("httpx", "httpcore", "matplotlib", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _listen(config: UiConfig) -> socket.socket:
    """Take the port.

    Raises:
        UserError: it cannot be had.
    """
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((config.host, config.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise UserError(
            f"--port {config.port}: cannot be listened to at {config.host} ({reason(error)}); "
            "choose another one, or 0 for any that is free"
        ) from error


def _address(config: UiConfig, listener: socket.socket) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"http://{host}:{listener.getsockname()[1]}"
