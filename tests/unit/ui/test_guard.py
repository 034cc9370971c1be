"""Requests of other sites are refused."""

import asyncio
from typing import Any

import pytest

from wav2lip_npu.config.ui import LOOPBACK_HOSTS
from wav2lip_npu.ui.guard import Guard


def status(path: str = "/", *, hosts: tuple[str, ...] = LOOPBACK_HOSTS, **headers: str) -> int:
    """The status of the answer to a request; 200 is the application's."""
    sent: list[dict[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> None: ...

    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "headers": encoded}
    asyncio.run(Guard(application, hosts)(scope, receive, send))
    answer: int = sent[0]["status"]
    names = {name for name, _ in sent[0]["headers"]}
    assert (b"content-security-policy" in names) == (answer == 200)
    return answer


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "localhost:8000", "[::1]:7860"])
def test_this_machine(host: str) -> None:
    assert status(host=host) == 200
    assert status(host=host, origin=f"http://{host}") == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:7860"},  # a name that was made to mean 127.0.0.1
        {"host": "127.0.0.1.evil.example"},
        {"host": "localhost@evil.example"},
        {"host": "[bad"},
        {"host": ""},
        {},
        {"host": "127.0.0.1:7860", "origin": "https://evil.example"},
        {"host": "127.0.0.1:7860", "origin": "null"},
        {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:8080"},  # another server
        {"host": "127.0.0.1:7860", "origin": "http://[bad"},
    ],
)
def test_others(headers: dict[str, str]) -> None:
    assert status(**headers) == 403


def test_where_other_machines_are_allowed() -> None:
    """They call it by names that it does not know; the login protects."""
    assert status(host="server.example:7860", hosts=()) == 200
    assert status(host="server.example", origin="https://evil.example", hosts=()) == 403


@pytest.mark.parametrize(
    "path", ["/gradio_api/file=http://169.254.169.254/", "/gradio_api/proxy=https://a.example/"]
)
def test_nothing_is_fetched_for_a_visitor(path: str) -> None:
    assert status(path, host="localhost") == 403


def test_no_websocket() -> None:
    sent: list[Any] = []

    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"localhost")]}
    asyncio.run(Guard(fail, LOOPBACK_HOSTS)(scope, None, send))  # type: ignore[arg-type]
    assert sent
