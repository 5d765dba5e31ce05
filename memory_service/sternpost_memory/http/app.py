"""The FastAPI application."""

from __future__ import annotations

from fastapi import FastAPI

from sternpost_memory.http import problems
from sternpost_memory.http.auth import Authorizer
from sternpost_memory.http.guard import AuthMiddleware, BodyLimitMiddleware, MeasureMiddleware
from sternpost_memory.http.routes import facts, health, jobs, observations, search, topics
from sternpost_memory.http.service import Service


def create_app(service: Service, authorizer: Authorizer) -> FastAPI:
    """The application; `service.worker` is started and stopped by whoever made it."""
    app = FastAPI(
        title="Sternpost memory",
        version="v1",
        summary="Observations in, topic documents out. Whatever is read back is quoted data with its origin.",
        # The usual pages load scripts from elsewhere, which a closed network has not.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    problems.install(app, service.metrics)
    for module in (observations, jobs, topics, facts, search, health):
        app.include_router(module.router)
    # The last added is the outermost.
    app.add_middleware(BodyLimitMiddleware)
    app.add_middleware(AuthMiddleware, authorizer=authorizer)
    app.add_middleware(MeasureMiddleware, metrics=service.metrics)
    return app
