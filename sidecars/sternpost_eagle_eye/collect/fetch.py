"""Fetch a metrics page with a bound on time and size."""

from __future__ import annotations

import asyncio

import httpx

from sternpost_eagle_eye.vector import PageState

TIMEOUT_SECONDS = 0.8
MAX_PAGE_BYTES = 512 * 1024
_HEADERS = {"Accept": "text/plain;version=0.0.4", "Accept-Encoding": "identity"}


async def fetch_page(
    client: httpx.AsyncClient, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS, max_bytes: int = MAX_PAGE_BYTES
) -> tuple[PageState, str]:
    """The page's text, or why there is none. Raises nothing but cancellation."""
    try:
        async with asyncio.timeout(timeout_seconds), client.stream("GET", url, headers=_HEADERS) as response:
            # A compressed body could expand without bound; nobody was allowed to send one.
            if response.status_code != 200 or response.headers.get("content-encoding", "identity") != "identity":
                return PageState.ERROR, ""
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > max_bytes:
                    return PageState.TOO_LARGE, ""
    except (TimeoutError, httpx.TimeoutException):
        return PageState.TIMEOUT, ""
    except httpx.ConnectError:
        return PageState.NONE, ""
    except (httpx.HTTPError, OSError):
        return PageState.ERROR, ""
    return PageState.OK, body.decode("utf-8", errors="replace")
