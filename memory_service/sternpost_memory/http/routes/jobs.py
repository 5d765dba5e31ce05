"""Consolidation on request, and how far it is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Response

from sternpost_memory.http.routes.parameters import Space
from sternpost_memory.http.service import GrantParameter, ServiceParameter
from sternpost_memory.model import Job, JobState, Model

router = APIRouter(tags=["consolidation"])


class Requested(Model):
    """A consolidation that was asked for."""

    job: str


@router.post("/v1/spaces/{space}/consolidations", status_code=202)
def consolidate(space: Space, service: ServiceParameter, response: Response) -> Requested:
    """Bring all that was written so far into topic documents now rather than soon."""
    job = service.store.request_consolidation(space, now=service.clock())
    if job.state is JobState.PENDING:
        service.worker.request(space)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return Requested(job=job.id)


@router.get("/v1/jobs/{job_id}")
def read_job(job_id: Annotated[str, Path(max_length=128)], service: ServiceParameter, grant: GrantParameter) -> Job:
    """How far a job is."""
    job = service.store.job(job_id)
    # Another tenant's job is answered like one that does not exist.
    if job is None or not grant.allows(job.space):
        raise HTTPException(404, "no such job")
    return job
