"""Health, readiness, metrics: for machines, without data of any tenant."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from sternpost_memory.http.service import ServiceParameter

router = APIRouter(tags=["health"])


# Those two wait for nothing, so they need no thread: they answer also while all threads wait for the store.
@router.get("/healthz")
async def healthz(service: ServiceParameter) -> dict[str, str]:
    """Whether the process should live on; 503 if it has to be started again."""
    if service.worker.failed:
        raise HTTPException(503, "the consolidation thread has ended; see the log, then restart the service")
    return {"status": "ok"}


@router.get("/readyz")
def readyz(service: ServiceParameter) -> dict[str, str]:
    """Whether requests can be answered; a problem if the store cannot be read."""
    service.store.check()
    return {"status": "ok"}


@router.get("/metrics")
async def metrics(service: ServiceParameter) -> Response:
    """Prometheus metrics."""
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
