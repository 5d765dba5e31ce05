"""What the routes work with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from sternpost_memory.consolidation.worker import Worker
from sternpost_memory.http.auth import Grant
from sternpost_memory.metrics import Metrics
from sternpost_memory.store.base import Store


@dataclass(frozen=True, slots=True)
class Service:
    """One running memory service."""

    store: Store
    worker: Worker
    metrics: Metrics
    clock: Callable[[], float] = time.time
    """Unix seconds."""


def _service(request: Request) -> Service:
    service = request.app.state.service
    if not isinstance(service, Service):
        raise TypeError("app.state.service is not set: make the app with create_app()")
    return service


def _grant(request: Request) -> Grant:
    grant = request.state.grant
    if not isinstance(grant, Grant):
        raise TypeError("no grant: this route is not behind the AuthMiddleware")
    return grant


ServiceParameter = Annotated[Service, Depends(_service)]
GrantParameter = Annotated[Grant, Depends(_grant)]
