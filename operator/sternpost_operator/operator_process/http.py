"""The pages of the operator: /metrics, /healthz, /readyz."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


def build_app(registry: CollectorRegistry, healthy: Callable[[], bool], ready: Callable[[], bool]) -> web.Application:
    """The pages. `healthy`: whether the process gets on; `ready`: whether it leads, or could."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        return _state(good=healthy())

    async def readyz(_: web.Request) -> web.Response:
        return _state(good=ready())

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return app


async def serve(app: web.Application, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Listen; the port, and the runner to clean up. Raises `OSError`."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    return runner, int(runner.addresses[0][1])


def _state(*, good: bool) -> web.Response:
    return web.Response(text="ok\n") if good else web.Response(text="not now\n", status=503)
