"""A memory service that only takes observations, or does not answer."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web


class FakeMemory:
    """Listens on the loopback of the running event loop between `start` and `stop`."""

    def __init__(self) -> None:
        self.up = True
        self.taken: dict[str, dict[str, Any]] = {}
        self.asked: list[web.Request] = []
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.add_routes([web.post("/v1/spaces/{space}/observations", self._take)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        if not self.up:
            await asyncio.sleep(0)
            return web.json_response({"title": "away"}, status=503)
        self.taken.setdefault(request.headers["Idempotency-Key"], await request.json())
        return web.json_response({"job": "j", "seqs": [1]}, status=202)
