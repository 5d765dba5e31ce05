"""Pages that hang, flood, or are packed."""

from __future__ import annotations

import asyncio
import gzip

import httpx
import pytest

from sternpost_eagle_eye.collect.fetch import fetch_page


async def body(content):
    yield content


async def hang():
    await asyncio.sleep(60)
    yield b""


async def flood():
    while True:
        yield b"x" * 65536


def handler(request: httpx.Request) -> httpx.Response:
    match request.url.path:
        case "/ok":
            return httpx.Response(200, content=body(b"sternpost_step 1\n\xff"))
        case "/hang":
            return httpx.Response(200, content=hang())
        case "/flood":
            return httpx.Response(200, content=flood())
        case "/bomb":
            return httpx.Response(200, content=body(gzip.compress(b"0" * 10**6)), headers={"content-encoding": "gzip"})
        case "/refused":
            raise httpx.ConnectError("refused")
        case "/torn":
            raise httpx.RemoteProtocolError("torn")
    return httpx.Response(503)


@pytest.mark.parametrize(
    ("path", "state"),
    [
        ("ok", "ok"),
        ("hang", "timeout"),
        ("flood", "too-large"),
        ("bomb", "error"),
        ("refused", "none"),
        ("torn", "error"),
        ("down", "error"),
    ],
)
def test_every_outcome_has_a_name(path, state):
    async def fetch():
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
            return await fetch_page(client, f"http://trainer/{path}", timeout_seconds=0.2)

    found, text = asyncio.run(fetch())
    assert found == state
    assert text == ("sternpost_step 1\n\ufffd" if state == "ok" else "")
