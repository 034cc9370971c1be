"""What is answered at all: requests of the page itself, and none of other sites."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# Gradio would fetch what these name from other machines.
FETCHING_PATHS = ("/gradio_api/file=http", "/gradio_api/proxy=")
HEADERS = {
    # Nothing is loaded from elsewhere. Gradio's own page has scripts and styles inside.
    "content-security-policy": (
        "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; form-action 'self'"
    ),
    "referrer-policy": "no-referrer",
}


class Guard:
    """ASGI middleware.

    A page of another site that an open browser shows can send requests to this server: by a form
    or a script, or under a name of its own that it makes to mean 127.0.0.1 (DNS rebinding). The
    headers ``Origin`` and ``Host``, which no script can change, tell.
    """

    def __init__(self, app: Application, hosts: Collection[str]) -> None:
        """Guard an application.

        Args:
            app: the application.
            hosts: names by which this server may be called; none: any.
        """
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with 403."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["type"] != "http" or not self._allows(scope, headers):
            await _refuse(send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _allows(self, scope: Scope, headers: dict[bytes, str]) -> bool:
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if self._hosts and _name(f"//{host}") not in self._hosts:
            return False
        if origin is not None and _authority(origin) != host:
            return False
        return not scope["path"].startswith(FETCHING_PATHS)


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _authority(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


async def _refuse(send: Send) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": b"refused: not a request of this page\n"})
